"""GPTQ and AWQ through a real server, a real worker and the client."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.tiny_models import VOCABULARY, write_tokenizer

import quantd
from quantd import v1
from quantd_server.cli.private_server import private_server

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

REPOSITORY = Path(__file__).parents[2]
TEXT = ["The quick brown fox jumps over the lazy dog, again and again. " * 40] * 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    jobs.source("llama", folder / "tiny", vocab_size=VOCABULARY)
    write_tokenizer(folder / "tiny")
    jobs.source(
        "llama", folder / "deep", vocab_size=VOCABULARY, num_hidden_layers=24, hidden_size=256,
        intermediate_size=1024,
    )  # fmt: skip
    write_tokenizer(folder / "deep")
    return folder


@pytest.fixture(scope="module")
def address(models):
    with pytest.MonkeyPatch.context() as patch:
        sources = (str(REPOSITORY / "server"), str(REPOSITORY / "clients/python/src"))
        patch.setenv("PYTHONPATH", os.pathsep.join(sources))
        some_file = str(models / "any")
        with private_server(reads=[some_file], writes=[some_file]) as server:
            yield server.address


def test_a_job_with_its_events(models, address) -> None:
    source, output = models / "tiny", models / "tiny-gptq"
    calibration = quantd.calibration(texts=TEXT, num_samples=12, sequence_length=32, seed=3)
    evaluation = quantd.evaluation(tokens=jobs.EVALUATED)
    method = quantd.gptq(bits=4, group_size=32, awq_scaling=True)
    with quantd.Client(address) as client:
        plan = client.plan(
            source, method, output=output, calibration=calibration, evaluation=evaluation
        )
        assert plan.executable
        assert plan.plan.calibration.samples_usable == 12
        stream = client.quantize(
            source, output, method, calibration=calibration, evaluation=evaluation
        )
        events = list(stream)
        result = stream.result()
    stages = [v1.JobStage.Name(event.stage.stage) for event in events if event.HasField("stage")]
    for stage in ("CALIBRATING", "QUANTIZING", "EVALUATING"):
        assert any(name.endswith(stage) for name in stages), stages
    tensors = [event.tensor for event in events if event.HasField("tensor")]
    solved = [tensor for tensor in tensors if tensor.HasField("output_error")]
    assert len(solved) == 14
    assert all(tensor.output_error > 0 for tensor in solved)
    assert np.mean([tensor.output_error for tensor in solved]) < np.mean(
        [tensor.rounding_output_error for tensor in solved]
    )
    # The walk may be one step ahead of what is told.
    assert {0, 1} <= {tensor.progress.blocks_done for tensor in solved} <= {0, 1, 2}
    assert {tensor.progress.blocks_total for tensor in solved} == {2}
    assert stream.job.progress.blocks_done == 2
    assert result.calibration.samples_requested == result.calibration.samples_usable == 12
    assert result.calibration.tokens == 12 * 32
    assert len(result.calibration.sha256) == 64
    plain = packed_models.write_dequantized(output, models / "plain")
    expected = packed_models.figures(
        packed_models.logits(source, jobs.EVALUATED),
        packed_models.logits(plain, jobs.EVALUATED),
        jobs.EVALUATED,
    )
    assert result.evaluation.perplexity == pytest.approx(expected["perplexity"], rel=1e-5)
    assert result.evaluation.source_perplexity == pytest.approx(
        expected["source_perplexity"], rel=1e-5
    )
    assert result.evaluation.tokens == expected["tokens"]


@pytest.mark.slow
def test_cancelled_while_it_solves(models, address) -> None:
    source, output = models / "deep", models / "deep-awq"
    calibration = quantd.calibration(texts=TEXT, num_samples=16, sequence_length=48)
    method = quantd.awq(group_size=32)
    with quantd.Client(address) as client:
        stream = client.quantize(source, output, method, calibration=calibration)
        for event in stream:
            if event.HasField("tensor") and event.tensor.HasField("output_error"):
                break
        started = time.monotonic()
        client.cancel(stream.name)
        with pytest.raises(quantd.JobCancelled):
            stream.result()
        assert time.monotonic() - started < 2
    left = {path.name for path in models.iterdir() if "awq" in path.name}
    assert not left
