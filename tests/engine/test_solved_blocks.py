"""A worker that goes on after the decoder blocks that another one solved."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import msgspec
import pytest
import torch
from tests import calibrated_jobs as jobs
from tests.quantizing import planned, run, specification, work_order

from quantd_server.calibration.config import CalibrationConfig
from quantd_server.checkpoint.output import Output, OutputDirectory
from quantd_server.engine import finished_tensors, solved_blocks
from quantd_server.engine.blockwise import BlockwiseRun
from quantd_server.engine.events import (
    QuantizationResult,
    StageEvent,
    TensorEvent,
    WarningEvent,
    WorkerEvent,
)
from quantd_server.engine.pipeline import JobCancelled, TaskOutcome
from quantd_server.engine.solved_blocks import RECORD_NAME, Conditions, SolvedBlocks
from quantd_server.errors import QuantdError
from quantd_server.methods.base import TensorTask

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

BLOCKS = 3
CASES = [
    *jobs.CONFIGS.items(),
    ("gptq", {"group_size": 32, "lm_head": True}),
    ("gptq", {"group_size": 32, "awq_scaling": True, "true_sequential": False}),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        family: jobs.source(family, folder / family, num_hidden_layers=BLOCKS)
        for family in ("llama", "qwen2_moe")
    }


@pytest.fixture
def llama(sources) -> Path:
    return sources["llama"]


@pytest.fixture(autouse=True)
def solved(monkeypatch) -> list[int]:
    """Checkpoints after every block; gives the numbers of the tasks of what is solved."""
    monkeypatch.setattr(solved_blocks, "COST", math.inf)
    monkeypatch.setattr(finished_tensors, "SYNC_SECONDS", 0.0)
    counts: list[int] = []
    original = BlockwiseRun._do_block

    def spy(self, *step):
        outcomes = original(self, *step)
        counts.append(len(outcomes))
        return outcomes

    monkeypatch.setattr(BlockwiseRun, "_do_block", spy)
    return counts


def order_of(source: Path, output: Path, method: str, config: dict, **options):
    threads = options.pop("threads", 1)
    options = {"calibration": jobs.CALIBRATION, "evaluation": jobs.EVALUATION} | options
    report = planned(specification(source, output, method, config, **options))
    return msgspec.structs.replace(
        work_order(report, threads=threads),
        recoverable=True,
        calibration_sha256=report.plan.calibration.sha256,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def undisturbed(source: Path, tmp_path: Path, method: str, config: dict, **options):
    run(order_of(source, tmp_path / "alone", method, config, **options))
    return files(tmp_path / "alone")


def stop_after(order, blocks: int) -> Path:
    """Runs a job until it has reported a tensor that comes after so many blocks."""
    cancelled = threading.Event()

    def stop(event: WorkerEvent) -> None:
        if isinstance(event, TensorEvent) and event.progress.blocks_done >= blocks:
            cancelled.set()
        if isinstance(event, StageEvent) and event.stage == "EVALUATING":
            cancelled.set()

    with pytest.raises(JobCancelled):
        run(order, cancelled=cancelled, on_event=stop)
    (hidden,) = Path(order.output_path).parent.glob(f".{Path(order.output_path).name}.*")
    return hidden


def warnings(events: list[WorkerEvent]) -> list[str]:
    return [event.warning.reason for event in events if isinstance(event, WarningEvent)]


def tensors(events: list[WorkerEvent]) -> list[TensorEvent]:
    return [event for event in events if isinstance(event, TensorEvent)]


@pytest.mark.parametrize(
    ("method", "config", "blocks"),
    [(*case, 2) for case in CASES] + [(*CASES[1], 1), (*CASES[0], BLOCKS), (*CASES[3], BLOCKS)],
)
def test_the_next_worker_solves_what_is_left(tmp_path, llama, solved, method, config, blocks):
    expected = undisturbed(llama, tmp_path, method, config)
    everything, at_first = len(solved), solved.copy()
    solved.clear()
    order = order_of(llama, tmp_path / "output", method, config)
    hidden = stop_after(order, blocks)
    assert len(list(hidden.glob("states-*"))) <= 1
    done = (hidden / RECORD_NAME).read_bytes().count(b"\n") - 1
    assert done >= min(blocks, BLOCKS - 1)
    solved.clear()
    events = run(order)
    assert solved == at_first[done:]
    assert len(solved) == max(0, everything - done)
    assert files(tmp_path / "output") == expected
    # Every tensor is reported once more, as the first worker did.
    names = [event.name for event in tensors(events)]
    assert len(names) == len(set(names)) == tensors(events)[-1].progress.tensors_total
    last = tensors(events)[-1].progress
    assert (last.tensors_done, last.bytes_done) == (last.tensors_total, last.bytes_total)
    assert "BLOCKS_SOLVED_AGAIN" not in warnings(events)


def test_experts_and_what_is_said_of_them(tmp_path, sources):
    """Some see no token: the warnings are the same after a stop."""
    source = sources["qwen2_moe"]
    data = CalibrationConfig(tokens=jobs.token_data(2, length=16))
    config = {"group_size": 32}
    alone = run(order_of(source, tmp_path / "alone", "gptq", config, calibration=data))
    order = order_of(source, tmp_path / "output", "gptq", config, calibration=data)
    stop_after(order, 1)
    events = run(order)
    assert files(tmp_path / "output") == files(tmp_path / "alone")
    assert "TOO_FEW_TOKENS" in warnings(alone)
    assert warnings(events) == warnings(alone)


def test_it_may_be_ended_again_and_again(tmp_path, llama, solved):
    expected = undisturbed(llama, tmp_path, "gptq", {"group_size": 32})
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})
    solved.clear()
    for blocks in (1, 1, 2, BLOCKS, BLOCKS):
        stop_after(order, blocks)
    run(order)
    assert files(tmp_path / "output") == expected
    assert len(solved) < 2 * BLOCKS + 2


def test_what_is_measured_is_the_same(tmp_path, llama):
    order = order_of(llama, tmp_path / "alone", "awq", {"group_size": 32})
    alone = run(order)[-1]
    order = order_of(llama, tmp_path / "output", "awq", {"group_size": 32})
    stop_after(order, 2)
    result = run(order)[-1]
    assert isinstance(alone, QuantizationResult) and isinstance(result, QuantizationResult)
    assert result.evaluation == alone.evaluation
    assert result.evaluation is not None
    assert result.calibration == alone.calibration
    assert result.relative_error == alone.relative_error
    assert result.worst_tensor == alone.worst_tensor


@pytest.mark.parametrize("cut", [1, 40])
def test_the_last_words_of_a_killed_worker_are_not_believed(tmp_path, llama, solved, cut):
    expected = undisturbed(llama, tmp_path, "gptq", {"group_size": 32})
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})
    record = stop_after(order, 2) / RECORD_NAME
    data = record.read_bytes()
    record.write_bytes(data[:-cut])
    solved.clear()
    events = run(order)
    # The states of the checkpoint before are gone by then, since its line was durable.
    assert len(solved) == BLOCKS
    assert warnings(events).count("BLOCKS_SOLVED_AGAIN") == 1
    assert files(tmp_path / "output") == expected


def test_a_kill_while_states_are_written_leaves_those_before(tmp_path, llama, solved, monkeypatch):
    expected = undisturbed(llama, tmp_path, "gptq", {"group_size": 32})
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})

    class Killed(BaseException):
        pass

    original = Output.record_pieces

    def killed(self, name, pieces):
        if name == "states-2":
            original(self, name, [next(iter(pieces))[:100]])
            raise Killed
        return original(self, name, pieces)

    with monkeypatch.context() as patched:
        patched.setattr(Output, "record_pieces", killed)
        patched.setattr(Output, "abort", Output.detach)
        with pytest.raises(Killed):
            run(order)
    (hidden,) = tmp_path.glob(".output.*")
    assert sorted(path.name for path in hidden.glob("states-*")) == ["states-1", "states-2"]
    events = run(order)
    assert "BLOCKS_SOLVED_AGAIN" not in warnings(events)
    assert files(tmp_path / "output") == expected
    assert len(solved) == BLOCKS + 2 + (BLOCKS - 1)  # undisturbed; two before the kill; after it


@pytest.mark.parametrize("damage", ["states", "no states", "machine", "threads"])
def test_blocks_are_solved_again_where_bits_could_differ(
    tmp_path, llama, solved, monkeypatch, damage
):
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})
    hidden = stop_after(order, 2)
    (states,) = hidden.glob("states-*")
    threads = 2 if damage == "threads" else 1
    if damage == "states":
        data = bytearray(states.read_bytes())
        data[len(data) // 2] ^= 1
        states.write_bytes(data)
    elif damage == "no states":
        states.unlink()
    elif damage == "machine":
        monkeypatch.setattr(solved_blocks, "_COMPUTING", ("numpy",))
    order = msgspec.structs.replace(order, threads=threads)
    solved.clear()
    events = run(order)
    assert len(solved) == BLOCKS
    (warning,) = (
        event.warning
        for event in events
        if isinstance(event, WarningEvent) and event.warning.reason == "BLOCKS_SOLVED_AGAIN"
    )
    if damage == "threads":
        assert "on 1 threads, now there are 2" in warning.message
    expected = undisturbed(llama, tmp_path, "gptq", {"group_size": 32}, threads=threads)
    assert files(tmp_path / "output") == expected


def test_calibration_data_that_changed_is_not_mixed_in(tmp_path, llama, solved):
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})
    hidden = stop_after(order, 2)
    assert hidden.exists()
    other = msgspec.structs.replace(order, calibration_sha256="0" * 64)
    with pytest.raises(QuantdError) as caught:
        run(other)
    assert (caught.value.reason, caught.value.kind) == ("CALIBRATION_CHANGED", "precondition")
    assert not hidden.exists()


def test_a_job_that_nobody_would_go_on_with_records_nothing(tmp_path, llama):
    order = order_of(llama, tmp_path / "output", "gptq", {"group_size": 32})
    order = msgspec.structs.replace(order, recoverable=False)
    seen: list[str] = []

    def look(event: WorkerEvent) -> None:
        seen.extend(path.name for path in tmp_path.glob(".output.*/*"))

    run(order, on_event=look)
    assert set(seen) == {"output"}


# The record by itself


CONDITIONS = Conditions(output="o", calibration="c", threads=1, machine="m")


def outcome(name: str) -> TaskOutcome:
    task = TensorTask(
        source=None,
        target_name=name,
        target_type="F32",
        shape=(),
        action="GENERATE",
        reason="",
        parts=(),
    )
    return TaskOutcome(
        task=task, relative_error=None, squared_error=0.5, squared_sum=2.0, first_nonfinite=-1
    )


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_checkpoints_take_a_small_part_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(solved_blocks, "COST", 0.02)
    clock = Clock()
    spent = 0.0

    def states():
        nonlocal spent
        clock.now += 1.0
        spent += 1.0
        yield torch.zeros(1, 2, 3)

    with OutputDirectory(tmp_path / "output", "job") as output:
        record = SolvedBlocks(output, CONDITIONS, clock=clock)
        for number in range(1000):
            clock.now += 0.7
            record.add([outcome(str(number))], states())
        assert 12 <= spent <= 1 + 0.02 * clock.now
        again = SolvedBlocks(output, CONDITIONS, clock=clock)
        assert 0 < 1000 - again.blocks <= 72


def test_states_come_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(3)
    given = [
        torch.randn((2, 5, 7), generator=generator),
        torch.randn((7, 5), generator=generator).T[None],
        torch.tensor([[[math.nan, -0.0, math.inf]]]),
    ]
    with OutputDirectory(tmp_path / "output", "job") as output:
        SolvedBlocks(output, CONDITIONS).add([outcome("a")], given)
        record = SolvedBlocks(output, CONDITIONS)
        assert record.blocks == 1
        for value, back in zip(given, record.states(), strict=True):
            assert back.shape == value.shape
            assert back.numpy().tobytes() == value.contiguous().numpy().tobytes()


def test_what_is_taken_over_is_not_written_again(tmp_path, monkeypatch):
    """A kill could come between a record's truncation and its first byte."""
    with OutputDirectory(tmp_path / "output", "job") as output:
        SolvedBlocks(output, CONDITIONS).add([outcome("a")], [torch.zeros(1, 1, 1)])
        path = output.working / RECORD_NAME
        whole = path.read_bytes()
        path.write_bytes(whole + b"last wor")
        written: list[tuple[int, bytes]] = []
        original = Output.record

        def noted(self, name, offset, data):
            written.append((offset, data))
            original(self, name, offset, data)

        monkeypatch.setattr(Output, "record", noted)
        assert SolvedBlocks(output, CONDITIONS).blocks == 1
        assert written == [(len(whole), b"")]
        assert path.read_bytes() == whole


def test_what_has_another_record_is_not_gone_on_with(tmp_path):
    with OutputDirectory(tmp_path / "output", "job") as output:
        SolvedBlocks(output, CONDITIONS).add([outcome("a")], [torch.zeros(1, 1, 1)])
        for field, other in (("output", "x"), ("calibration", "x"), ("threads", 2)):
            changed = msgspec.structs.replace(CONDITIONS, **{field: other})
            record = SolvedBlocks(output, changed)
            assert record.warning is not None
            assert (record.blocks, list(record.states())) == (0, [])
            assert not list(output.working.glob("states-*"))
            SolvedBlocks(output, CONDITIONS).add([outcome("a")], [torch.zeros(1, 1, 1)])
