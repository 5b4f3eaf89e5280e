"""`ParseConfig` and what `InspectCheckpoint` says of a configuration, through a real server."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import protovalidate
import pytest
from tests import tiny_models
from tests.api.server_process import server_process
from tests.api.servers import refusal_of
from tests.planning.config_parsing.blocks import BLOCKS

from quantd import v1

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
Status = v1.ConfigStatus


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def stub(folder):
    with server_process(folder) as process:
        with grpc.insecure_channel(process.address) as channel:
            yield v1.QuantizationServiceStub(channel)
        assert not process.events("incident")


def parsed(stub, config) -> v1.ParseConfigResponse:
    text = config if isinstance(config, str) else json.dumps(config)
    return stub.ParseConfig(v1.ParseConfigRequest(config_json=text))


def errors(findings) -> list[tuple[str, str]]:
    wanted = v1.Severity.SEVERITY_ERROR
    return [(f.field, f.reason) for f in findings if f.severity == wanted]


def test_no_configuration(stub):
    answer = parsed(stub, {"model_type": "llama"})
    assert answer == v1.ParseConfigResponse(status=Status.CONFIG_STATUS_NOT_QUANTIZED)


def test_a_served_method(stub):
    answer = parsed(stub, {"model_type": "llama", "quantization_config": NF4})
    assert answer.status == Status.CONFIG_STATUS_SERVED
    assert answer.quant_method == "bitsandbytes"
    assert answer.method.bitsandbytes_4bit.bnb_4bit_quant_type == v1.FourBitType.FOUR_BIT_TYPE_NF4
    assert not answer.method.bitsandbytes_4bit.HasField("bnb_4bit_use_double_quant")
    assert json.loads(answer.canonical_json) == {**NF4, "quant_method": "bitsandbytes"}
    assert "bitsandbytes" in [package.name for package in answer.required_packages]
    assert not answer.findings


def test_a_served_method_that_makes_no_sense(stub):
    config = {"quant_method": "gptq", "bits": 5, "damp_precent": 0.1}
    answer = parsed(stub, {"quantization_config": config})
    assert answer.status == Status.CONFIG_STATUS_SERVED
    assert not answer.HasField("method")
    assert list(answer.unknown_fields) == ["quantization_config.damp_precent"]
    assert errors(answer.findings) == [
        ("quantization_config.bits", "CONFIG_VALUE_NOT_ALLOWED"),
        ("quantization_config.damp_precent", "UNKNOWN_FIELDS"),
    ]


def test_a_known_method(stub):
    answer = parsed(stub, {"quant_method": "compressed-tensors", "config_groups": {}})
    assert answer.status == Status.CONFIG_STATUS_KNOWN
    (finding,) = answer.findings
    assert finding.kind == v1.FindingKind.FINDING_KIND_UNIMPLEMENTED
    assert "compressed-tensors" in [package.name for package in answer.required_packages]


def test_an_unknown_method(stub):
    answer = parsed(stub, {"quant_method": "q4_best"})
    assert answer.status == Status.CONFIG_STATUS_UNKNOWN
    assert errors(answer.findings) == [("quant_method", "QUANT_METHOD_UNKNOWN")]


@pytest.mark.parametrize("text", ["no JSON", "[1]", "{"])
def test_what_is_no_json_object_is_an_error(stub, text):
    with pytest.raises(grpc.RpcError) as caught:
        parsed(stub, text)
    refusal = refusal_of(caught.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "CONFIG_NOT_JSON"
    assert refusal.fields[0].field == "config_json"


def test_every_block_gives_a_message_that_keeps_the_rules(stub):
    for block in BLOCKS:
        answer = parsed(stub, block.config)
        assert answer.HasField("method") == (block.method is not None)
        if block.method is not None:
            assert not protovalidate.collect_violations(answer.method)


def test_what_takes_the_parser_longest_does_not_hurt(stub):
    assert errors(parsed(stub, '{"a":' * 100_000).findings)
    many = "{" + ",".join(f'"k{n}":0' for n in range(80_000)) + "}"
    assert parsed(stub, many).status == Status.CONFIG_STATUS_UNKNOWN
    assert parsed(stub, NF4).HasField("method")


def inspected(stub, folder: Path, name: str, config: object) -> v1.InspectCheckpointResponse:
    source = tiny_models.write(folder / name)
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": config}))
    return stub.InspectCheckpoint(v1.InspectCheckpointRequest(source_uri=str(source)))


def test_inspection_types_the_configuration(stub, folder):
    answer = inspected(stub, folder, "nf4", NF4)
    quantization = answer.checkpoint.quantization
    assert quantization.quant_method == "bitsandbytes"
    assert quantization.method == parsed(stub, NF4).method
    assert json.loads(quantization.config_json) == NF4


def test_inspection_tells_what_is_wrong_with_the_configuration(stub, folder):
    answer = inspected(stub, folder, "bad", {"quant_method": "awq", "bits": 7})
    assert not answer.checkpoint.quantization.HasField("method")
    wrong = [f for f in answer.findings if f.severity == v1.Severity.SEVERITY_WARNING]
    assert [(f.field, f.reason) for f in wrong] == [
        ("quantization_config.bits", "CONFIG_VALUE_NOT_ALLOWED")
    ]


def test_inspection_knows_methods_that_are_not_served(stub, folder):
    answer = inspected(stub, folder, "fp8", {"quant_method": "fp8"})
    assert answer.checkpoint.quantization.quant_method == "fp8"
    assert "QUANT_METHOD_NOT_SERVED" in [finding.reason for finding in answer.findings]


def test_inspection_types_a_gguf_file(stub, folder):
    source = tiny_models.write(folder / "plain", hidden=256, intermediate=512)
    spec = v1.QuantizationSpec(
        source_uri=str(source),
        output_uri=str(folder / "out.gguf"),
        method=v1.MethodConfig(gguf=v1.GgufConfig(file_type=v1.GgufFileType.GGUF_FILE_TYPE_Q8_0)),
    )
    *_, last = stub.Quantize(v1.QuantizeRequest(spec=spec), timeout=120)
    assert last.event.snapshot.state == v1.JobState.JOB_STATE_SUCCEEDED
    answer = stub.InspectCheckpoint(v1.InspectCheckpointRequest(source_uri=spec.output_uri))
    assert answer.checkpoint.quantization.method == spec.method
