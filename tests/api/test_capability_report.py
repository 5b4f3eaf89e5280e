"""What is said to be possible, for hosts other than this one."""

from __future__ import annotations

import pytest

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.translation import to_message
from quantd_server.host.devices import Device
from quantd_server.planning import load_requirements
from quantd_server.planning.capability_report import FACTS, method_capability
from quantd_server.planning.load_requirements import PACKAGES

EVERYTHING = dict.fromkeys(PACKAGES, "99.0")
CPU = Device(kind="CPU", index=0, name="cpu", memory_total_bytes=1, memory_free_bytes=1)


def card(capability: str) -> Device:
    return Device(
        kind="CUDA",
        index=0,
        name="card",
        compute_capability=capability,
        memory_total_bytes=1,
        memory_free_bytes=1,
    )


def reasons(method: str, engine: str, versions: dict[str, str], *devices: Device) -> list[str]:
    """Why an engine cannot load the results of a method; empty when it can."""
    load = method_capability(method, versions, devices).load
    availability = next(entry.availability for entry in load if entry.engine == engine)
    assert availability.available == (not availability.unmet)
    return [unmet.reason for unmet in availability.unmet]


def test_a_host_with_everything_loads_everything_that_can_be_loaded():
    for method in FACTS:
        assert reasons(method, "TRANSFORMERS", EVERYTHING, CPU, card("9.0")) == []
    assert reasons("gptq", "VLLM", EVERYTHING, CPU, card("9.0")) == []
    assert reasons("gguf", "LLAMA_CPP", EVERYTHING, CPU) == []


@pytest.mark.parametrize(
    ("version", "expected"), [("", "PACKAGE_MISSING"), ("0.46.0", "PACKAGE_TOO_OLD")]
)
def test_packages_that_are_missing_or_old(version, expected):
    versions = EVERYTHING | {"bitsandbytes": version}
    assert reasons("bitsandbytes_4bit", "TRANSFORMERS", versions, CPU) == [expected]
    assert reasons("awq", "TRANSFORMERS", versions, CPU) == []


def test_engines_that_need_a_card():
    assert reasons("awq", "VLLM", EVERYTHING, CPU) == ["CUDA_DEVICE_MISSING"]
    assert reasons("awq", "VLLM", EVERYTHING, card("7.0")) == ["COMPUTE_CAPABILITY_TOO_LOW"]
    assert reasons("awq", "VLLM", EVERYTHING, card("7.0"), card("10.0")) == []


def test_methods_that_an_engine_dropped():
    assert reasons("aqlm", "VLLM", EVERYTHING, card("9.0")) == ["ENGINE_DROPPED_METHOD"]


def test_llama_cpp_is_looked_for_on_the_path(monkeypatch):
    nothing = dict.fromkeys(PACKAGES, "")
    monkeypatch.setattr(load_requirements.shutil, "which", lambda _: None)
    assert reasons("gguf", "LLAMA_CPP", nothing, CPU) == ["LLAMA_CPP_NOT_FOUND"]
    monkeypatch.setattr(load_requirements.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert reasons("gguf", "LLAMA_CPP", nothing, CPU) == []


def test_devices_that_quantize():
    assert method_capability("bitsandbytes_4bit", EVERYTHING, (CPU, card("9.0"))).devices == (
        "CUDA",
        "CPU",
    )
    without = EVERYTHING | {"bitsandbytes": ""}
    assert method_capability("bitsandbytes_4bit", without, (CPU, card("9.0"))).devices == ("CPU",)
    assert method_capability("gguf", EVERYTHING, (CPU, card("9.0"))).devices == ("CPU",)
    assert method_capability("gptq", EVERYTHING, (CPU, card("9.0"))).devices == ()


def test_quantizing_needs_its_kernels():
    without = EVERYTHING | {"numba": ""}
    for method in ("bitsandbytes_8bit", "bitsandbytes_4bit", "gguf"):
        assert method_capability(method, EVERYTHING, (CPU,)).quantize.available
        quantize = method_capability(method, without, (CPU,)).quantize
        assert [unmet.reason for unmet in quantize.unmet] == ["PACKAGE_MISSING"]


@pytest.mark.parametrize("method", FACTS)
def test_the_ranges_are_those_of_the_spec(method):
    config = v1.MethodConfig.DESCRIPTOR.fields_by_name[method].message_type
    capability = method_capability(method, EVERYTHING, (CPU,))
    for name, kind, values in (
        ("bits", "uint32", capability.bits),
        ("group_size", "int32", capability.group_sizes),
        ("blocksize", "uint32", capability.group_sizes),
    ):
        if name in config.fields_by_name:
            options = config.fields_by_name[name].GetOptions()
            rules = getattr(options.Extensions[validate_pb2.field], kind)
            assert tuple(getattr(rules, "in")) == values
    assert to_message(capability, v1.MethodCapability).method == v1.Method.Value(
        f"METHOD_{method.upper()}"
    )


def test_all_methods_of_the_spec_are_described():
    assert set(FACTS) == set(v1.MethodConfig.DESCRIPTOR.fields_by_name)
