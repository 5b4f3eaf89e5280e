"""Domain values to messages and back."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd import v1
from quantd_server.api.error_codec import status_of
from quantd_server.api.translation import enum_name, from_message, to_message
from quantd_server.engine import events
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding, Severity
from quantd_server.jobs import job
from quantd_server.methods import configs
from quantd_server.planning import capability_report as capability
from quantd_server.planning import report

counts = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**31 - 1)
names = st.text(st.characters(codec="utf-8"), max_size=12)
fractions = st.floats(0, 1e6)
seconds = st.integers(0, 2**50).map(lambda microseconds: microseconds / 1e6)


def enum(descriptor, *, optional=True):
    values = [enum_name(descriptor, value.number) for value in descriptor.values if value.number]
    choices = st.sampled_from(values)
    return st.none() | choices if optional else choices


def tuples(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


ggml_type = enum(v1.GgmlType.DESCRIPTOR)
eight_bit = st.builds(
    configs.Bitsandbytes8BitConfig,
    llm_int8_threshold=st.none() | fractions,
    llm_int8_skip_modules=tuples(names),
    llm_int8_enable_fp32_cpu_offload=st.none() | st.booleans(),
    llm_int8_has_fp16_weight=st.none() | st.booleans(),
)
four_bit = st.builds(
    configs.Bitsandbytes4BitConfig,
    bnb_4bit_quant_type=enum(v1.FourBitType.DESCRIPTOR),
    bnb_4bit_compute_dtype=enum(v1.ComputeDtype.DESCRIPTOR),
    bnb_4bit_use_double_quant=st.none() | st.booleans(),
    bnb_4bit_quant_storage=enum(v1.QuantStorage.DESCRIPTOR),
    blocksize=st.none() | small,
    llm_int8_skip_modules=tuples(names),
)
gguf = st.builds(
    configs.GgufConfig,
    file_type=enum(v1.GgufFileType.DESCRIPTOR),
    output_tensor_type=ggml_type,
    token_embedding_type=ggml_type,
    tensor_types=tuples(
        st.builds(
            configs.GgufTensorRule,
            pattern=names,
            type=enum(v1.GgmlType.DESCRIPTOR, optional=False),
        )
    ),
    pure=st.none() | st.booleans(),
    imatrix_uri=st.none() | names,
)
methods = st.one_of(
    st.builds(configs.MethodConfig, bitsandbytes_8bit=eight_bit),
    st.builds(configs.MethodConfig, bitsandbytes_4bit=four_bit),
    st.builds(configs.MethodConfig, gguf=gguf),
)
findings = st.builds(
    Finding,
    severity=st.sampled_from(Severity),
    field=names,
    reason=names,
    message=names,
    remedy=names,
    kind=st.sampled_from(["invalid", "precondition", "not_found", "unimplemented"]),
    subjects=tuples(names),
    subject_count=counts,
)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        QuantizationSpec,
        source_uri=names,
        output_uri=names,
        method=methods,
        max_shard_size=st.none() | counts,
        device=enum(v1.DeviceKind.DESCRIPTOR),
        allow_non_finite=st.booleans(),
    )
)
def test_specs_come_back_unchanged(spec):
    message = to_message(spec, v1.QuantizationSpec)
    again = v1.QuantizationSpec.FromString(message.SerializeToString())
    assert from_message(again, QuantizationSpec) == spec


@given(findings)
def test_findings_come_back_unchanged(finding):
    assert from_message(to_message(finding, v1.Finding), Finding) == finding


@settings(deadline=None)
@given(
    st.builds(
        events.Progress,
        stage=enum(v1.JobStage.DESCRIPTOR),
        tensors_done=counts,
        tensors_total=counts,
        bytes_done=counts,
        bytes_total=counts,
        bytes_per_second=fractions,
        remaining=st.none() | seconds,
    )
)
def test_progress_comes_back_unchanged(progress):
    assert from_message(to_message(progress, v1.Progress), events.Progress) == progress


@pytest.mark.parametrize("error", [None, 0.0, 0.25])
def test_an_error_of_zero_is_not_an_unset_one(error):
    event = events.TensorEvent(
        name="a",
        shape=(2, 3),
        source_type="F32",
        target_type="nf4",
        size_bytes=3,
        relative_error=error,
        progress=events.Progress(),
    )
    message = to_message(event, v1.TensorEvent)
    assert message.HasField("relative_error") == (error is not None)
    assert message.relative_error == (error or 0.0)
    assert list(message.shape) == [2, 3]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_number_of_seconds_gives_a_valid_time(value):
    # ToJsonString raises for what the two types cannot say.
    to_message(events.Progress(remaining=value), v1.Progress).remaining.ToJsonString()
    listing = to_message(job.JobFilter(created_from=value), v1.ListJobsRequest)
    listing.created_from.ToJsonString()


@given(st.floats(0, 4e9))
def test_times_are_exact_to_the_nanosecond(value):
    message = to_message(job.JobFilter(created_from=value), v1.ListJobsRequest)
    back = from_message(message, job.JobFilter).created_from
    assert back == pytest.approx(value, abs=1e-9)
    assert isinstance(message.created_from, Timestamp)
    assert 0 <= message.created_from.nanos < 10**9


def test_a_failed_job_has_the_status_that_a_call_would_have():
    error = Finding(field="", reason="DISK_FULL", message="full", remedy="", kind="precondition")
    plan = report.Plan(
        method=configs.MethodConfig(gguf=configs.GgufConfig()),
        device="CPU",
        types=(),
        parameter_count=1,
        quantized_parameter_count=1,
        source_bytes=1,
        output_bytes=1,
        bits_per_weight=1,
        peak_memory_bytes=1,
        scratch_bytes=1,
        estimated_duration=1.5,
    )
    value = job.Job(
        name="jobs/1",
        spec=QuantizationSpec(source_uri="/a", method=plan.method),
        plan=plan,
        labels={"team": "a"},
        create_time=3.25,
        error=error,
    )
    message = to_message(value, v1.Job)
    assert message.error == status_of([error])
    assert message.labels == {"team": "a"}
    assert message.create_time == Timestamp(seconds=3, nanos=250_000_000)
    assert not message.HasField("start_time")
    assert message.plan.estimated_duration == Duration(seconds=1, nanos=500_000_000)
    assert message.plan.method.WhichOneof("config") == "gguf"
    assert v1.JobState.Name(message.state) == "JOB_STATE_QUEUED"


def test_names_with_lone_surrogates_can_be_told():
    event = events.TensorEvent(
        name="a\udc80",
        shape=(),
        source_type="F32",
        target_type="F32",
        size_bytes=0,
        relative_error=None,
        progress=events.Progress(),
    )
    assert to_message(event, v1.TensorEvent).name == "a?"


@pytest.mark.parametrize(
    ("struct", "message_class"),
    [
        (report.Plan, v1.Plan),
        (report.TensorPlan, v1.TensorPlan),
        (report.TensorInfo, v1.TensorInfo),
        (report.CheckpointDescription, v1.Checkpoint),
        (job.Job, v1.Job),
        (job.JobEvent, v1.JobEvent),
        (events.QuantizationResult, v1.QuantizationResult),
        (events.Progress, v1.Progress),
        (Finding, v1.Finding),
        (capability.CapabilityReport, v1.GetCapabilitiesResponse),
        (capability.MethodCapability, v1.MethodCapability),
        (capability.HostInfo, v1.HostInfo),
        (capability.Limits, v1.Limits),
        (capability.Device, v1.Device),
        (capability.GgufFileTypeInfo, v1.GgufFileTypeInfo),
    ],
)
def test_every_field_of_a_struct_has_a_place_in_its_message(struct, message_class):
    known = {field.name for field in message_class.DESCRIPTOR.fields}
    assert set(struct.__struct_fields__) <= known
