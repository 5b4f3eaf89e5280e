"""The command as a process: what it imports, Ctrl-C, and its private server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests import tiny_models
from tests.client.fake_server import JOB, FakeServer, script
from tests.client.tiny_checkpoint import write_tiny_llama

from quantd import Client
from quantd_server.cli.exit_codes import ServerUnreachableError
from quantd_server.cli.private_server import private_server

REPOSITORY = Path(__file__).parents[2]
SOURCES = [str(REPOSITORY / "server"), str(REPOSITORY / "clients/python/src")]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    # Processes find the sources as this one does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(SOURCES))
    monkeypatch.delenv("QUANTD_SERVER", raising=False)


@pytest.fixture(autouse=True)
def _interrupts():
    # Whoever starts the tests in the background may have them ignore SIGINT, and so would these.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def quantd(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "quantd_server", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def run(*words):
    with quantd(*words) as process:
        stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def wait_until(condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def running_job(tmp_path_factory):
    """A fake server whose job stands still after its third event."""
    with FakeServer(tmp_path_factory.mktemp("s")) as fake:
        fake.last_sent = 3
        yield fake


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = """if True:
        import sys
        from quantd_server.cli.application import application
        heavy = {"torch", "numpy", "transformers", "numba", "grpc", "google", "quantd", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_ctrl_c_cancels_the_job(running_job):
    process = quantd("quantize", "/m", "-m", "gguf", "--server", running_job.address)
    wait_until(lambda: "Quantize" in dict(running_job.calls))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: running_job.requests("CancelJob"))
    running_job.log = script(state="CANCELLED")
    running_job.stop()
    running_job.last_sent = None
    running_job.start()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "cancelling the job; press Ctrl-C again to leave at once" in stderr
    assert "Traceback" not in stderr


def test_a_second_ctrl_c_leaves(running_job):
    process = quantd("quantize", "/m", "-m", "gguf", "--server", running_job.address)
    wait_until(lambda: "Quantize" in dict(running_job.calls))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: running_job.requests("CancelJob"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_ctrl_c_while_watching_only_leaves(running_job):
    process = quantd("jobs", "watch", JOB, "--server", running_job.address)
    wait_until(lambda: "WatchJob" in dict(running_job.calls))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert running_job.requests("CancelJob") == []


def test_the_reader_of_the_output_may_go_away():
    with quantd("capabilities", "--json") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_a_private_server_answers_and_is_gone_afterwards(tmp_path):
    with private_server(reads=[str(tmp_path)], writes=[]) as server:
        socket = Path(server.address.removeprefix("unix:"))
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        with Client(server.address) as client:
            assert client.capabilities().limits.max_running_jobs >= 1
    assert not socket.parent.exists()


def test_a_private_server_dies_with_its_parent():
    code = """if True:
        import os, signal
        from quantd_server.cli.private_server import private_server
        with private_server(reads=[], writes=[]) as server:
            print(server.address, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    socket = Path(result.stdout.strip().removeprefix("unix:"))
    assert socket.name == "socket"
    wait_until(lambda: not socket.parent.exists())


def test_a_private_server_that_cannot_start_shows_its_log(monkeypatch):
    monkeypatch.setattr("quantd_server.cli.private_server.source_roots", lambda _: ["/no/such"])
    with (
        pytest.raises(ServerUnreachableError, match=r"source root /no/such is not a folder"),
        private_server(reads=[], writes=[]),
    ):
        pass


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny_llama(tmp_path / "tiny")


def test_one_command_does_the_whole_job(checkpoint):
    code, stdout, stderr = run("quantize", str(checkpoint), "-m", "bitsandbytes-8bit")
    assert code == 0, stderr
    output = checkpoint.with_name("tiny-int8")
    assert (output / "config.json").is_file()
    assert f"{output}/model.safetensors" in stdout
    # Asked again, it refuses to overwrite what it made, and says so in words.
    code, _, stderr = run("quantize", str(checkpoint), "-m", "bitsandbytes-8bit")
    assert code == 3
    assert "spec.output_uri" in stderr
    assert "fix:" in stderr


def test_plan_through_a_private_server(checkpoint):
    code, stdout, stderr = run("plan", str(checkpoint), "-m", "bitsandbytes-4bit", "--tensors")
    assert code == 0, stdout + stderr
    assert "model.layers.1.mlp.down_proj.weight" in stdout
    assert "executable" in stdout


def test_a_quantization_config_of_hugging_face_says_what_to_do(checkpoint, tmp_path):
    file = tmp_path / "config.json"
    block = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    file.write_text(json.dumps({"model_type": "llama", "quantization_config": block}))
    code, stdout, stderr = run("plan", str(checkpoint), "--config", str(file), "--json")
    assert code == 0, stderr
    config = json.loads(stdout)["plan"]["method"]["bitsandbytes_4bit"]
    assert config["bnb_4bit_quant_type"] == "FOUR_BIT_TYPE_NF4"
    assert config["bnb_4bit_use_double_quant"] is True
    code, _, stderr = run("quantize", str(checkpoint), "--config", '{"load_in_8bit": true}')
    assert code == 0, stderr
    written = json.loads((checkpoint.with_name("tiny-int8") / "config.json").read_text())
    assert written["quantization_config"]["load_in_8bit"] is True


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"load_in_4bit": true, "bnb_4bit_quant_type": "nf5"}', "bnb_4bit_quant_type"),
        ('{"load_in_4bit": true, "x": 1}', "UNKNOWN_FIELDS"),
        ('{"quant_method": "fp8"}', "method 'fp8' is not one this server knows to make"),
        ('{"model_type": "llama"}', "there is no quantization_config in it"),
    ],
)
def test_a_quantization_config_that_will_not_do_ends_the_command(checkpoint, config, message):
    code, _, stderr = run("plan", str(checkpoint), "--config", config)
    assert code != 0
    assert message in " ".join(stderr.split())
    assert "Traceback" not in stderr


def test_a_source_that_is_not_there_ends_with_3(tmp_path):
    code, _, stderr = run("inspect", str(tmp_path / "none"))
    assert code == 3
    assert "SOURCE_NOT_FOUND" in stderr


@pytest.mark.parametrize("form", ["config", "set"])
def test_a_private_server_reads_the_files_that_a_configuration_names(tmp_path, form):
    source = tiny_models.write(tmp_path / "models")
    imatrix = tmp_path / "elsewhere" / "imatrix.gguf"
    imatrix.parent.mkdir()
    imatrix.write_bytes(b"GGUF")  # damaged, which only a reader can tell
    if form == "config":
        said = ["--config", json.dumps({"quant_method": "gguf", "imatrix_uri": str(imatrix)})]
    else:
        said = ["--method", "gguf", "--set", f"imatrix_uri={imatrix}"]
    _, stdout, stderr = run("plan", str(source), *said, "--json")
    assert "IMATRIX_INVALID" in stdout + stderr
    assert "PATH_OUTSIDE_ROOTS" not in stdout + stderr
