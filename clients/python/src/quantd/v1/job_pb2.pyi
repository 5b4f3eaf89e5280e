import datetime

from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from quantd.v1 import calibration_pb2 as _calibration_pb2
from quantd.v1 import evaluation_pb2 as _evaluation_pb2
from quantd.v1 import finding_pb2 as _finding_pb2
from quantd.v1 import method_pb2 as _method_pb2
from quantd.v1 import plan_pb2 as _plan_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_CANCELLING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class JobStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STAGE_UNSPECIFIED: _ClassVar[JobStage]
    JOB_STAGE_PREPARING: _ClassVar[JobStage]
    JOB_STAGE_CALIBRATING: _ClassVar[JobStage]
    JOB_STAGE_QUANTIZING: _ClassVar[JobStage]
    JOB_STAGE_FINALIZING: _ClassVar[JobStage]
    JOB_STAGE_EVALUATING: _ClassVar[JobStage]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_CANCELLING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STAGE_UNSPECIFIED: JobStage
JOB_STAGE_PREPARING: JobStage
JOB_STAGE_CALIBRATING: JobStage
JOB_STAGE_QUANTIZING: JobStage
JOB_STAGE_FINALIZING: JobStage
JOB_STAGE_EVALUATING: JobStage

class Progress(_message.Message):
    __slots__ = ("stage", "tensors_done", "tensors_total", "bytes_done", "bytes_total", "bytes_per_second", "remaining", "blocks_done", "blocks_total", "fraction")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_DONE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_DONE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    stage: JobStage
    tensors_done: int
    tensors_total: int
    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    remaining: _duration_pb2.Duration
    blocks_done: int
    blocks_total: int
    fraction: float
    def __init__(self, stage: _Optional[_Union[JobStage, str]] = ..., tensors_done: _Optional[int] = ..., tensors_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., bytes_per_second: _Optional[float] = ..., remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., blocks_done: _Optional[int] = ..., blocks_total: _Optional[int] = ..., fraction: _Optional[float] = ...) -> None: ...

class OutputFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class QuantizationResult(_message.Message):
    __slots__ = ("output_uri", "files", "types", "source_bytes", "output_bytes", "bits_per_weight", "relative_error", "worst_tensor", "worst_relative_error", "elapsed", "peak_memory_bytes", "calibration", "evaluation")
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    WORST_TENSOR_FIELD_NUMBER: _ClassVar[int]
    WORST_RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    output_uri: str
    files: _containers.RepeatedCompositeFieldContainer[OutputFile]
    types: _containers.RepeatedCompositeFieldContainer[_plan_pb2.TypeSummary]
    source_bytes: int
    output_bytes: int
    bits_per_weight: float
    relative_error: float
    worst_tensor: str
    worst_relative_error: float
    elapsed: _duration_pb2.Duration
    peak_memory_bytes: int
    calibration: _calibration_pb2.CalibrationUsage
    evaluation: _evaluation_pb2.Evaluation
    def __init__(self, output_uri: _Optional[str] = ..., files: _Optional[_Iterable[_Union[OutputFile, _Mapping]]] = ..., types: _Optional[_Iterable[_Union[_plan_pb2.TypeSummary, _Mapping]]] = ..., source_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., bits_per_weight: _Optional[float] = ..., relative_error: _Optional[float] = ..., worst_tensor: _Optional[str] = ..., worst_relative_error: _Optional[float] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., peak_memory_bytes: _Optional[int] = ..., calibration: _Optional[_Union[_calibration_pb2.CalibrationUsage, _Mapping]] = ..., evaluation: _Optional[_Union[_evaluation_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("name", "request_id", "spec", "labels", "state", "progress", "plan", "findings", "queue_position", "create_time", "start_time", "end_time", "result", "error", "last_sequence", "owner")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    spec: _method_pb2.QuantizationSpec
    labels: _containers.ScalarMap[str, str]
    state: JobState
    progress: Progress
    plan: _plan_pb2.Plan
    findings: _containers.RepeatedCompositeFieldContainer[_finding_pb2.Finding]
    queue_position: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    result: QuantizationResult
    error: _status_pb2.Status
    last_sequence: int
    owner: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ..., spec: _Optional[_Union[_method_pb2.QuantizationSpec, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., state: _Optional[_Union[JobState, str]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[_finding_pb2.Finding, _Mapping]]] = ..., queue_position: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., result: _Optional[_Union[QuantizationResult, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., last_sequence: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class StageEvent(_message.Message):
    __slots__ = ("stage",)
    STAGE_FIELD_NUMBER: _ClassVar[int]
    stage: JobStage
    def __init__(self, stage: _Optional[_Union[JobStage, str]] = ...) -> None: ...

class TensorEvent(_message.Message):
    __slots__ = ("name", "shape", "source_type", "target_type", "size_bytes", "relative_error", "progress", "output_error", "rounding_output_error", "block_output_error", "untuned_block_output_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ERROR_FIELD_NUMBER: _ClassVar[int]
    ROUNDING_OUTPUT_ERROR_FIELD_NUMBER: _ClassVar[int]
    BLOCK_OUTPUT_ERROR_FIELD_NUMBER: _ClassVar[int]
    UNTUNED_BLOCK_OUTPUT_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    source_type: str
    target_type: str
    size_bytes: int
    relative_error: float
    progress: Progress
    output_error: float
    rounding_output_error: float
    block_output_error: float
    untuned_block_output_error: float
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., source_type: _Optional[str] = ..., target_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., relative_error: _Optional[float] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., output_error: _Optional[float] = ..., rounding_output_error: _Optional[float] = ..., block_output_error: _Optional[float] = ..., untuned_block_output_error: _Optional[float] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("sequence", "time", "snapshot", "stage", "tensor", "warning", "heartbeat")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    snapshot: Job
    stage: StageEvent
    tensor: TensorEvent
    warning: _finding_pb2.Finding
    heartbeat: Heartbeat
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshot: _Optional[_Union[Job, _Mapping]] = ..., stage: _Optional[_Union[StageEvent, _Mapping]] = ..., tensor: _Optional[_Union[TensorEvent, _Mapping]] = ..., warning: _Optional[_Union[_finding_pb2.Finding, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...
