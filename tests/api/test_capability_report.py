"""What is said to be possible, for hosts other than this one."""

from __future__ import annotations

import msgspec
import pytest
from tests.hosts import (
    APPLE,
    ARC,
    CPU_BUILD,
    CUDA_BUILD,
    H100,
    MI300X,
    NO_GPU,
    ROCM_BUILD,
    T4,
    V100,
    bare,
    with_packages,
    with_torch,
)

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.translation import to_message
from quantd_server.host.description import Host
from quantd_server.host.torch_build import TorchBuild
from quantd_server.planning.capability_report import (
    FACTS,
    Limits,
    ServerInfo,
    capability_report,
    method_capability,
    unmet_on_device,
)


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


@pytest.mark.parametrize("host", [NO_GPU, APPLE, MI300X, ARC])
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
    assert method_capability("gptq", H100).devices == ("CUDA", "CPU")
    assert method_capability("aqlm", H100).devices == ("CUDA", "CPU")


def changed(build: TorchBuild, **fields) -> TorchBuild:
    return msgspec.structs.replace(build, **fields)


TORCH_CASES = [
    (H100, None, []),
    (H100, CPU_BUILD, ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
    (H100, ROCM_BUILD, ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
    (H100, changed(CUDA_BUILD, devices=("CPU",)), ["TORCH_CANNOT_USE_DEVICE"]),
    (H100, changed(CUDA_BUILD, architectures=("sm_80", "sm_100")), ["TORCH_LACKS_KERNELS"]),
    (H100, changed(CUDA_BUILD, architectures=("sm_80", "compute_80")), []),
    (H100, changed(CUDA_BUILD, architectures=("sm_90a",)), []),
    (H100, changed(CUDA_BUILD, architectures=("compute_120",)), ["TORCH_LACKS_KERNELS"]),
    (H100, changed(CUDA_BUILD, architectures=("sm_?", "")), ["TORCH_LACKS_KERNELS"]),
    (H100, changed(CUDA_BUILD, architectures=()), []),
    (V100, changed(CUDA_BUILD, architectures=("sm_75", "sm_90")), ["TORCH_LACKS_KERNELS"]),
    (H100, TorchBuild(failure="ImportError: libcudart.so.13"), ["TORCH_DOES_NOT_WORK"]),
    (H100, CUDA_BUILD, []),
    (MI300X, ROCM_BUILD, []),
    (MI300X, changed(ROCM_BUILD, architectures=("gfx942:sramecc+:xnack-",)), []),
    (MI300X, changed(ROCM_BUILD, architectures=("gfx90a",)), ["TORCH_LACKS_KERNELS"]),
    (MI300X, CUDA_BUILD, ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
    (ARC, CPU_BUILD, ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
    (ARC, ARC.torch, []),
    (APPLE, APPLE.torch, []),
    (NO_GPU, TorchBuild(failure="x"), []),
]


@pytest.mark.parametrize(("host", "torch", "expected"), TORCH_CASES)
def test_what_the_installed_torch_lacks_for_a_device(host, torch, expected):
    device = report(with_torch(host, torch)).devices[-1]
    assert [unmet.reason for unmet in device.unmet] == expected
    assert all(unmet.message and unmet.remedy for unmet in device.unmet)


def test_engines_that_need_a_card_need_a_torch_that_can_use_it():
    for torch, expected in (
        (CUDA_BUILD, []),
        (None, []),
        (CPU_BUILD, ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
        (TorchBuild(failure="x"), ["TORCH_DOES_NOT_WORK"]),
    ):
        assert reasons("awq", "VLLM", with_torch(H100, torch)) == expected
    # On the processor, transformers needs no more than a torch that can be imported.
    assert reasons("gguf", "TRANSFORMERS", with_torch(H100, CPU_BUILD)) == []
    broken = with_torch(NO_GPU, TorchBuild(failure="x"))
    assert reasons("gguf", "TRANSFORMERS", broken) == ["TORCH_DOES_NOT_WORK"]
    assert reasons("gguf", "LLAMA_CPP", broken) == []
    one_of_two = msgspec.structs.replace(H100, devices=V100.devices + H100.devices_of("CUDA"))
    new = changed(CUDA_BUILD, architectures=("sm_90",))
    assert reasons("gguf", "VLLM", with_torch(one_of_two, new)) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (H100, []),
        (with_torch(H100, None), ["TORCH_NOT_ASKED_YET"]),
        (with_torch(H100, CPU_BUILD), ["TORCH_BUILT_FOR_OTHER_DEVICE"]),
        (with_torch(H100, changed(CUDA_BUILD, bitsandbytes_devices=())),
         ["BITSANDBYTES_LACKS_DEVICE"]),
        (with_packages(H100, bitsandbytes=""), ["PACKAGE_MISSING"]),
        (with_packages(H100, torch=""), ["PACKAGE_MISSING"]),
        (NO_GPU, ["DEVICE_MISSING"]),
    ],
)  # fmt: skip
def test_quantizing_on_a_card_needs_a_yes_of_torch(host, expected):
    unmet = tuple(unmet_on_device("bitsandbytes_4bit", "CUDA", host))
    assert [found.reason for found in unmet] == expected
    devices = method_capability("bitsandbytes_4bit", host).devices
    assert devices == (("CPU",) if expected else ("CUDA", "CPU"))


def test_devices_that_a_method_does_not_serve():
    (unmet,) = unmet_on_device("gguf", "CUDA", H100)
    assert unmet.reason == "DEVICE_NOT_SERVED"


@pytest.mark.parametrize(
    ("host", "state"),
    [
        (H100, "KNOWN"),
        (with_torch(H100, None), "PENDING"),
        (with_torch(H100, TorchBuild(failure="x")), "FAILED"),
        (with_packages(with_torch(H100, None), torch=""), "ABSENT"),
    ],
)
def test_how_far_torch_is_known(host, state):
    message = to_message(report(host), v1.GetCapabilitiesResponse)
    assert v1.TorchState.Name(message.torch.state) == f"TORCH_STATE_{state}"
    assert message.torch.failure == ("x" if state == "FAILED" else "")
    assert list(message.torch.architectures) == list(
        CUDA_BUILD.architectures if state == "KNOWN" else ()
    )


def test_devices_as_messages():
    message = to_message(report(with_torch(MI300X, CUDA_BUILD)), v1.GetCapabilitiesResponse)
    device = message.devices[1]
    assert (device.kind, device.architecture) == (v1.DeviceKind.DEVICE_KIND_ROCM, "gfx942")
    assert device.unmet[0].reason == "TORCH_BUILT_FOR_OTHER_DEVICE"


def report(host: Host):
    server = ServerInfo(version="1", api_versions=(), instance_id="", start_time=0.0)
    limits = Limits(
        max_request_bytes=1,
        max_running_jobs=1,
        max_queued_jobs=1,
        max_finished_jobs=1,
        max_events_per_job=1,
        heartbeat_interval=1.0,
        max_violations=1,
    )
    return capability_report(server, limits, host)


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
