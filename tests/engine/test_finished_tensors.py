"""A worker that goes on where another one was ended."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from tests import tiny_models
from tests.quantizing import planned, run, specification, work_order

from quantd_server.engine import chunks, finished_tensors
from quantd_server.engine.events import TensorEvent
from quantd_server.engine.finished_tensors import RECORD_NAME
from quantd_server.engine.pipeline import JobCancelled, Pipeline
from quantd_server.engine.run import JobRun

METHODS = [
    ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True}),
    ("bitsandbytes_8bit", {}),
    ("gguf", {"file_type": "Q4_K_M"}),
]
each_method = pytest.mark.parametrize(("method", "config"), METHODS)
SIZES = {"hidden": 256, "intermediate": 512}


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 4096)
    monkeypatch.setattr(finished_tensors, "SYNC_SECONDS", 0.0)
    return tiny_models.write(tmp_path / "source", **SIZES)


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """Names of the tensors that pipelines were given."""
    names: list[str] = []
    original = Pipeline.run

    def spy(self, tasks):
        def noted():
            for task in tasks:
                names.append(task.target_name)
                yield task

        return original(self, noted())

    monkeypatch.setattr(Pipeline, "run", spy)
    return names


def order_of(source: Path, method: str, config: dict, name: str = "out", **options):
    output = source.parent / name / ("model.gguf" if method == "gguf" else "model")
    report = planned(specification(source, output, method, config, **options))
    return msgspec.structs.replace(work_order(report), recoverable=True)


def stop_after(order, tensors: int) -> Path:
    """Runs a job until it has reported some tensors; returns its hidden folder."""
    cancelled, seen = threading.Event(), []

    def stop(event) -> None:
        if isinstance(event, TensorEvent):
            seen.append(event.name)
            if len(seen) == tensors:
                cancelled.set()

    with pytest.raises(JobCancelled):
        run(order, cancelled=cancelled, on_event=stop)
    (hidden,) = Path(order.output_path).parent.iterdir()
    return hidden


def files(folder: Path) -> dict[str, bytes]:
    """All that was published below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".quantd-" not in str(path.relative_to(folder))
    }


def undisturbed(source: Path, method: str, config: dict, **options) -> dict[str, bytes]:
    run(order_of(source, method, config, "alone", **options))
    return files(source.parent / "alone")


@each_method
@pytest.mark.parametrize("tensors", [1, 9, 18])
def test_the_next_worker_does_what_is_left(source, done, method, config, tensors):
    expected = undisturbed(source, method, config)
    everything = sorted(done)
    done.clear()
    order = order_of(source, method, config)
    stop_after(order, tensors)
    assert not files(source.parent / "out")
    done.clear()
    events = run(order)
    assert len(everything) - len(done) >= tensors
    assert files(source.parent / "out") == expected
    # Every tensor is reported once more, so that progress and warnings are whole.
    assert sorted(e.name for e in events if isinstance(e, TensorEvent)) == everything


@each_method
def test_it_may_be_ended_again_and_again(source, done, method, config):
    expected = undisturbed(source, method, config)
    order = order_of(source, method, config)
    for tensors in (3, 8, 8, 15):
        stop_after(order, tensors)
    run(order)
    assert files(source.parent / "out") == expected


@each_method
@pytest.mark.parametrize("cut", [1, 40, 700])
def test_the_last_words_of_a_killed_worker_are_not_believed(source, done, method, config, cut):
    expected = undisturbed(source, method, config)
    order = order_of(source, method, config)
    record = stop_after(order, 12) / RECORD_NAME
    data = record.read_bytes()
    record.write_bytes(data[:-cut])
    whole = data[:-cut].count(b"\n") - 1
    everything = len(done)
    done.clear()
    run(order)
    assert len(done) >= 20 - whole
    assert everything
    assert files(source.parent / "out") == expected


@each_method
@pytest.mark.parametrize("damage", ["config", "source", "version", "record"])
def test_nothing_of_another_job_is_mixed_in(source, done, monkeypatch, method, config, damage):
    order = order_of(source, method, config)
    hidden = stop_after(order, 12)
    (hidden / "output" / "of another version").write_text("x")
    if damage == "config":
        order = order_of(source, method, config, allow_non_finite=True)
    elif damage == "source":
        tiny_models.write(source.parent / "other", **SIZES, seed=1)
        for path in (source.parent / "other").iterdir():
            path.replace(source / path.name)
        order = order_of(source, method, config)
    elif damage == "version":
        monkeypatch.setattr(finished_tensors, "__version__", "0.0.0")
    else:
        (hidden / RECORD_NAME).write_bytes(b"")
    done.clear()
    run(order)
    assert len(done) == 20
    options = {"allow_non_finite": True} if damage == "config" else {}
    assert files(source.parent / "out") == undisturbed(source, method, config, **options)


def test_a_line_is_written_after_what_it_speaks_of_is_synced(source, monkeypatch):
    order = order_of(source, *METHODS[0])
    steps: list[str] = []
    for name in ("sync", "record"):
        original = getattr(finished_tensors.Output, name)

        def noted(self, *arguments, name=name, original=original):
            steps.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(finished_tensors.Output, name, noted)
    JobRun(order, lambda event: None, threading.Event()).run()
    assert steps == ["record", *["sync", "record"] * 20]
