"""A caller with folders of its own reaches no others, whatever field names them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest_asyncio
from tests import tiny_models
from tests.api import tokens_on_disk
from tests.api.servers import refused, running
from tests.api.tokens_on_disk import bearing, entry

from quantd import v1


@pytest_asyncio.fixture
async def server(tmp_path):
    """Two teams below the roots of one server, with its real planner."""
    for team in ("ours", "theirs"):
        (tmp_path / team / "out").mkdir(parents=True)
        tiny_models.write(tmp_path / team / "model")
        (tmp_path / team / "text.txt").write_text("Some words to calibrate with. " * 400)
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "theirs")
    tokens = tokens_on_disk.write(
        tmp_path / "tokens.toml",
        entry("admin", "admin"),
        entry("ours", "submit", sources=[tmp_path / "ours"], outputs=[tmp_path / "ours" / "out"]),
    )
    async with running(tmp_path, tokens=str(tokens)) as server:
        yield server


def spec(folder, *, source="ours/model", output="ours/out/x", text=None, measured=None) -> Any:
    """A spec of which one path can be another's."""
    made = v1.QuantizationSpec(
        source_uri=f"{folder}/{source}",
        output_uri=f"{folder}/{output}",
        method=v1.MethodConfig(bitsandbytes_8bit=v1.Bitsandbytes8BitConfig()),
    )
    if text or measured:
        made.method.gptq.group_size = 32  # which reads data
    if text:
        made.calibration.file.uri = f"{folder}/{text}"
    if measured:
        made.evaluation.file.uri = f"{folder}/{measured}"
    return made


OUTSIDE = [
    {"source": "theirs/model"},
    {"source": "ours/../theirs/model"},
    {"source": "ours/link/model"},
    {"output": "theirs/out/x"},
    {"output": "ours/link/out/x"},
    {"output": "ours/x"},  # of the sources, and not of the outputs
    {"output": "ours/out"},  # the root itself
    {"text": "theirs/text.txt"},
    {"text": "ours/link/text.txt"},
    {"measured": "theirs/text.txt"},
]


async def findings(server, made, name) -> list[str]:
    stub = v1.QuantizationServiceStub(server.channel)
    request = v1.PlanQuantizationRequest(spec=made)
    answer = await stub.PlanQuantization(request, metadata=bearing(name), timeout=60)
    return [finding.reason for finding in answer.findings]


async def test_no_field_leads_out(server, tmp_path):
    stub = v1.QuantizationServiceStub(server.channel)
    for paths in OUTSIDE:
        made = spec(tmp_path, **paths)
        assert "PATH_OUTSIDE_ROOTS" not in await findings(server, made, "admin"), paths
        request = v1.QuantizeRequest(spec=made)
        refusal = await refused(stub.Quantize(request, metadata=bearing("ours")))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, paths
        assert refusal.reason == "PATH_OUTSIDE_ROOTS"
        repeated = "'" in refusal.message  # an output root itself, which the caller named
        assert str(tmp_path) not in refusal.message or repeated
        if "source" not in paths:
            assert "PATH_OUTSIDE_ROOTS" in await findings(server, made, "ours"), paths


async def test_an_importance_matrix_leads_out_neither(server, tmp_path):
    made = spec(tmp_path)
    made.method.gguf.imatrix_uri = f"{tmp_path}/theirs/text.txt"
    assert "PATH_OUTSIDE_ROOTS" in await findings(server, made, "ours")
    stub = v1.QuantizationServiceStub(server.channel)
    request = v1.PlanQuantizationRequest(spec=made)
    refusal = await refused(stub.PlanQuantization(request, metadata=bearing("admin")))
    assert "is no importance matrix" in refusal.message  # the admin's was read


async def test_its_own_folders_are_open(server, tmp_path):
    made = spec(tmp_path, text="ours/text.txt")
    assert "PATH_OUTSIDE_ROOTS" not in await findings(server, made, "ours")


async def test_what_is_elsewhere_is_as_what_does_not_exist(server, tmp_path):
    stub = v1.QuantizationServiceStub(server.channel)

    async def answer(path: str) -> tuple[Any, ...]:
        request = v1.InspectCheckpointRequest(source_uri=f"{tmp_path}/{path}")
        refusal = await refused(stub.InspectCheckpoint(request, metadata=bearing("ours")))
        return (refusal.code, refusal.reason, refusal.message)

    assert await answer("theirs/model") == await answer("theirs/none")
    assert (await answer("theirs/model"))[1] == "PATH_OUTSIDE_ROOTS"
    request = v1.InspectCheckpointRequest(source_uri=f"{tmp_path}/ours/model")
    assert (await stub.InspectCheckpoint(request, metadata=bearing("ours"))).checkpoint
