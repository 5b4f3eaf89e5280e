"""The client against a real server and real jobs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.client.conftest import QUICK
from tests.client.cutting_proxy import CuttingProxy
from tests.client.tiny_checkpoint import write_tiny_llama

import quantd
from quantd import v1
from quantd_server.cli.private_server import private_server

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_tiny_llama(folder / "tiny")
    write_tiny_llama(folder / "deep", blocks=40)
    return folder


@pytest.fixture(scope="module")
def address(models):
    with pytest.MonkeyPatch.context() as patch:
        sources = (str(REPOSITORY / "server"), str(REPOSITORY / "clients/python/src"))
        patch.setenv("PYTHONPATH", os.pathsep.join(sources))
        some_file = str(models / "any")
        with private_server(reads=[some_file], writes=[some_file]) as server:
            yield server.address


def test_a_job_from_plan_to_deletion(models, address):
    source, output = models / "tiny", models / "tiny-nf4"
    method = quantd.bitsandbytes_4bit("nf4")
    with quantd.Client(address) as client:
        assert client.inspect(source).checkpoint.model_type == "llama"
        plan = client.plan(source, method, output=output)
        assert plan.executable
        planned = {tensor.target_name: tensor.target_type for tensor in plan.tensors}
        stream = client.quantize(source, output, method, labels={"team": "a"})
        done = {
            event.tensor.name: event.tensor.target_type
            for event in stream
            if event.HasField("tensor")
        }
        assert done == planned
        result = stream.result()
        assert result.output_bytes == (output / "model.safetensors").stat().st_size
        assert result.output_bytes == plan.plan.output_bytes
        assert [job.name for job in client.jobs(labels={"team": "a"})] == [stream.name]
        client.delete(stream.name, delete_output=True)
        assert not output.exists()
        with pytest.raises(quantd.NotFoundError) as caught:
            client.job(stream.name)
        assert caught.value.reason == "JOB_NOT_FOUND"
        assert caught.value.request_id


def test_everything_wrong_is_said_at_once(models, address):
    with quantd.Client(address) as client, pytest.raises(quantd.InvalidArgumentError) as caught:
        client.quantize("", "", quantd.gptq(bits=5, group_size=100))
    fields = {violation.field for violation in caught.value.violations}
    assert {"spec.source_uri", "spec.method.gptq.bits", "spec.method.gptq.group_size"} <= fields


def test_the_stream_survives_connections_that_are_cut(models, address, tmp_path_factory):
    source, output = models / "deep", models / "deep-int8"
    over = threading.Event()
    with CuttingProxy(tmp_path_factory.mktemp("p"), address) as proxy:

        def cut_often():
            pause = 0.02
            while not over.wait(pause):
                proxy.cut()
                pause *= 1.2  # a busy machine may need longer to connect than there was before

        cutter = threading.Thread(target=cut_often)
        with quantd.Client(proxy.address, reconnect=QUICK) as client:
            stream = client.quantize(source, output, quantd.bitsandbytes_8bit())
            cutter.start()
            try:
                events = list(stream)
            finally:
                over.set()
                cutter.join()
            assert stream.result().files
        assert proxy.connections > 1
    stored = [event.sequence for event in events if not event.HasField("heartbeat")]
    assert stored == list(range(1, len(stored) + 1))
    assert events[-1].snapshot.state == v1.JobState.JOB_STATE_SUCCEEDED
    assert sum(event.HasField("tensor") for event in events) == 2 + 9 * 40
