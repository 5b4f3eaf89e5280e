"""Everything that the README tells to type, typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import typer.main
from tests import tiny_models
from tests.docs import readme
from tests.docs.reflection_client import Grpcurl, ReflectionClient

from quantd_server.cli.application import application
from quantd_server.methods.registry import ALL_METHODS

ADDRESS = "127.0.0.1:50051"
MODELS = "/models"
TIMEOUT = 240.0
BLOCKS = readme.blocks()


class Workspace:
    """What stands in for the reader's machine: a model, a `quantd` on PATH, a server."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        # Blocks of 256 fit its rows, so that Q4_K_M means Q4_K here.
        tiny_models.write(self.models / "smollm2", hidden=256, intermediate=256, heads=4)
        program = folder / "bin" / "quantd"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quantd_server "$@"\n')
        program.chmod(0o755)
        roots = (readme.REPOSITORY / "server", readme.REPOSITORY / "clients/python/src")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("QUANTD_")}
        self.environment = kept | {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "HF_HUB_OFFLINE": "1",
        }
        self.folder = folder
        self.address = ADDRESS

    def localized(self, text: str) -> str:
        """The text with this machine's paths and the server's port."""
        text = re.sub(rf"(?<![\w/]){MODELS}\b", str(self.models), text)
        return text.replace(ADDRESS, self.address)

    def run(self, *command: str, text: str) -> str:
        """Runs an interpreter on a localized text and returns what it printed."""
        done = subprocess.run(
            command,
            input=self.localized(text),
            cwd=self.folder,
            env=self.environment,
            timeout=TIMEOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def server(workspace):
    """The README's own server, on a free port."""
    (block,) = [block for block in BLOCKS if block.text.startswith("quantd serve ")]
    ready = workspace.folder / "ready"
    workspace.address = "127.0.0.1:0"
    (words,) = readme.commands(readme.Block(0, "sh", workspace.localized(block.text)))
    with (workspace.folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=workspace.folder,
            env=workspace.environment | {"QUANTD_READY_FILE": str(ready)},
            executable=workspace.folder / "bin" / "quantd",
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        workspace.address = ready.read_text().split()[0]
        yield workspace.address
    finally:
        workspace.address = ADDRESS
        process.terminate()
        process.wait(30)


def block_with(text: str) -> readme.Block:
    """The only block that contains a text."""
    (found,) = [block for block in BLOCKS if text in block.text]
    return found


TESTED = {
    "make demo": "too slow for here, so by hand; test_make_targets_exist",
    "quantd serve": "the fixture `server`",
    "quantd inspect": "test_commands_without_a_server",
    "export QUANTD_SERVER": "test_commands_with_a_server",
    "import quantd": "test_python_client",
    "from transformers": "test_result_loads",
    "grpcurl -plaintext": "test_grpcurl",
}
"""Start of every block, and what runs it."""


def test_every_block_is_run():
    runnable = [block for block in BLOCKS if block.language]
    for block in runnable:
        assert any(block.text.startswith(start) for start in TESTED), (
            f"README.md:{block.line}: no test runs this block"
        )
    assert len(runnable) == len(TESTED)


def test_make_targets_exist():
    makefile = (readme.REPOSITORY / "Makefile").read_text()
    for line in block_with("make demo").text.splitlines():
        program, target = line.split()[:2]
        assert program == "make"
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), line


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", readme.README.read_text()):
        assert (readme.REPOSITORY / target).exists(), target


@pytest.fixture(scope="module")
def printed_without_a_server(workspace) -> str:
    return workspace.run("bash", "-eu", text=block_with("quantd inspect").text)


def test_commands_without_a_server(workspace, printed_without_a_server):
    assert "executable" in printed_without_a_server
    assert "relative error" in printed_without_a_server
    assert (workspace.models / "smollm2-Q4_K_M.gguf").stat().st_size > 0
    assert (workspace.models / "small" / "quantd.json").is_file()


def test_commands_with_a_server(workspace, server):
    printed = workspace.run("bash", "-eu", text=block_with("export QUANTD_SERVER").text)
    assert (workspace.models / "q8.gguf").stat().st_size > 0
    assert "SUCCEEDED" in printed


def test_python_client(workspace, server):
    printed = workspace.run(
        sys.executable, "-W", "error", "-", text=block_with("import quantd").text
    )
    assert printed.startswith("True ")
    assert "token_embd.weight" in printed
    assert printed.endswith("SOURCE_NOT_FOUND\n")


@pytest.mark.slow
def test_result_loads(workspace, printed_without_a_server):
    check = "print(type(model.model.layers[0].mlp.up_proj).__name__)\n"
    text = block_with("from transformers").text + check
    assert workspace.run(sys.executable, "-", text=text).endswith("Linear4bit\n")


GRPCURL = [Grpcurl.of(words) for words in readme.commands(block_with("grpcurl -plaintext"))]


@pytest.mark.parametrize("command", GRPCURL, ids=lambda command: " ".join(command.arguments))
def test_grpcurl(workspace, server, command):
    assert command.address == ADDRESS
    request = json.loads(workspace.localized(command.data))
    with grpc.insecure_channel(server) as channel:
        client = ReflectionClient(channel)
        match command.arguments:
            case ["list"]:
                services = client.services()
                assert "quantd.v1.QuantizationService" in services
                assert "quantd.v1.JobService" in services
            case ["describe", name]:
                assert client.describe(name).full_name == name
            case [path]:
                answers = client.call(path, request)
                assert answers and all(answers)
                if path.endswith("/Quantize"):
                    assert answers[-1]["event"]["snapshot"]["state"] == "JOB_STATE_SUCCEEDED"
                if path.endswith("/ListJobs"):
                    assert answers[0]["jobs"][0]["labels"] == request["labels"]
            case _:
                pytest.fail(f"grpcurl {command.arguments} is not understood here")


def test_methods_are_those_of_the_server():
    rows = {row[0]: row[1] for row in readme.table("Methods")}
    assert rows == dict.fromkeys(ALL_METHODS, "works")


def test_settings_are_those_of_the_server():
    serve = typer.main.get_command(application).commands["serve"]
    parameters = [parameter for parameter in serve.params if parameter.envvar]
    actual = {}
    for parameter in parameters:
        default = parameter.default
        shown = default[0] if isinstance(default, list) else default
        actual[parameter.opts[0]] = (parameter.envvar, "" if shown is None else str(shown))
    written = {
        option: (variable, default) for option, variable, default, _ in readme.table("Settings")
    }
    assert written == actual
