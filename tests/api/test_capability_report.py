"""What is said to be possible, for hosts other than this one."""

from __future__ import annotations

import msgspec
import pytest
from tests.hosts import APPLE, H100, NO_GPU, T4, V100, bare, with_packages

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.translation import to_message
from quantd_server.host.description import Host
from quantd_server.planning.capability_report import FACTS, method_capability


def reasons(method: str, engine: str, host: Host) -> list[str]:
    """Why an engine cannot load the results of a method; empty when it can."""
    load = method_capability(method, host).load
    availability = next(entry.availability for entry in load if entry.engine == engine)
    assert availability.available == (not availability.unmet)
    return [unmet.reason for unmet in availability.unmet]


def test_a_host_with_everything_loads_everything_that_can_be_loaded():
    for method in FACTS:
        assert reasons(method, "TRANSFORMERS", H100) == []
    assert reasons("gptq", "VLLM", H100) == []
    assert reasons("gguf", "LLAMA_CPP", NO_GPU) == []


@pytest.mark.parametrize(
    ("version", "expected"), [("", "PACKAGE_MISSING"), ("0.46.0", "PACKAGE_TOO_OLD")]
)
def test_packages_that_are_missing_or_old(version, expected):
    host = with_packages(NO_GPU, bitsandbytes=version)
    assert reasons("bitsandbytes_4bit", "TRANSFORMERS", host) == [expected]
    assert reasons("awq", "TRANSFORMERS", host) == []


@pytest.mark.parametrize("host", [NO_GPU, APPLE])
def test_engines_that_need_a_card(host):
    assert reasons("awq", "VLLM", host) == ["CUDA_DEVICE_MISSING"]


def test_engines_that_need_a_newer_card():
    assert reasons("awq", "VLLM", V100) == ["COMPUTE_CAPABILITY_TOO_LOW"]
    assert reasons("awq", "VLLM", T4) == reasons("awq", "VLLM", H100) == []
    both = msgspec.structs.replace(V100, devices=V100.devices + H100.devices_of("CUDA"))
    assert reasons("awq", "VLLM", both) == []


def test_methods_that_an_engine_dropped():
    assert reasons("aqlm", "VLLM", H100) == ["ENGINE_DROPPED_METHOD"]


def test_llama_cpp_is_a_program_or_a_package():
    nothing = bare(NO_GPU)
    assert reasons("gguf", "LLAMA_CPP", nothing) == ["LLAMA_CPP_NOT_FOUND"]
    with_program = msgspec.structs.replace(nothing, programs=("llama-cli",))
    assert reasons("gguf", "LLAMA_CPP", with_program) == []
    assert reasons("gguf", "LLAMA_CPP", with_packages(nothing, llama_cpp_python="0.3")) == []


def test_devices_that_quantize():
    assert method_capability("bitsandbytes_4bit", H100).devices == (
        "CUDA",
        "CPU",
    )
    without = with_packages(H100, bitsandbytes="")
    assert method_capability("bitsandbytes_4bit", without).devices == ("CPU",)
    assert method_capability("bitsandbytes_4bit", APPLE).devices == ("CPU",)
    assert method_capability("gguf", H100).devices == ("CPU",)
    assert method_capability("gptq", H100).devices == ()


def test_quantizing_needs_its_kernels():
    without = with_packages(NO_GPU, numba="")
    for method in ("bitsandbytes_8bit", "bitsandbytes_4bit", "gguf"):
        assert method_capability(method, NO_GPU).quantize.available
        quantize = method_capability(method, without).quantize
        assert [unmet.reason for unmet in quantize.unmet] == ["PACKAGE_MISSING"]


@pytest.mark.parametrize("method", FACTS)
def test_the_ranges_are_those_of_the_spec(method):
    config = v1.MethodConfig.DESCRIPTOR.fields_by_name[method].message_type
    capability = method_capability(method, NO_GPU)
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
