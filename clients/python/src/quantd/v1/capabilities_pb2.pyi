import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from quantd.v1 import gguf_pb2 as _gguf_pb2
from quantd.v1 import method_pb2 as _method_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TorchState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TORCH_STATE_UNSPECIFIED: _ClassVar[TorchState]
    TORCH_STATE_ABSENT: _ClassVar[TorchState]
    TORCH_STATE_PENDING: _ClassVar[TorchState]
    TORCH_STATE_KNOWN: _ClassVar[TorchState]
    TORCH_STATE_FAILED: _ClassVar[TorchState]
TORCH_STATE_UNSPECIFIED: TorchState
TORCH_STATE_ABSENT: TorchState
TORCH_STATE_PENDING: TorchState
TORCH_STATE_KNOWN: TorchState
TORCH_STATE_FAILED: TorchState

class Deprecation(_message.Message):
    __slots__ = ("id", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    message: str
    def __init__(self, id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "api_versions", "instance_id", "start_time", "deprecations")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    API_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DEPRECATIONS_FIELD_NUMBER: _ClassVar[int]
    version: str
    api_versions: _containers.RepeatedScalarFieldContainer[str]
    instance_id: str
    start_time: _timestamp_pb2.Timestamp
    deprecations: _containers.RepeatedCompositeFieldContainer[Deprecation]
    def __init__(self, version: _Optional[str] = ..., api_versions: _Optional[_Iterable[str]] = ..., instance_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deprecations: _Optional[_Iterable[_Union[Deprecation, _Mapping]]] = ...) -> None: ...

class HostInfo(_message.Message):
    __slots__ = ("operating_system", "machine", "cpu_model", "cpu_count", "cpu_features", "memory_total_bytes", "memory_available_bytes", "memory_limit_bytes")
    OPERATING_SYSTEM_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    CPU_MODEL_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    CPU_FEATURES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    operating_system: str
    machine: str
    cpu_model: str
    cpu_count: int
    cpu_features: _containers.RepeatedScalarFieldContainer[str]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limit_bytes: int
    def __init__(self, operating_system: _Optional[str] = ..., machine: _Optional[str] = ..., cpu_model: _Optional[str] = ..., cpu_count: _Optional[int] = ..., cpu_features: _Optional[_Iterable[str]] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("kind", "index", "name", "compute_capability", "memory_total_bytes", "memory_free_bytes", "driver_version", "architecture", "unmet")
    KIND_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    kind: _method_pb2.DeviceKind
    index: int
    name: str
    compute_capability: str
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str
    architecture: str
    unmet: _containers.RepeatedCompositeFieldContainer[UnmetRequirement]
    def __init__(self, kind: _Optional[_Union[_method_pb2.DeviceKind, str]] = ..., index: _Optional[int] = ..., name: _Optional[str] = ..., compute_capability: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., driver_version: _Optional[str] = ..., architecture: _Optional[str] = ..., unmet: _Optional[_Iterable[_Union[UnmetRequirement, _Mapping]]] = ...) -> None: ...

class TorchInfo(_message.Message):
    __slots__ = ("state", "version", "cuda_version", "hip_version", "architectures", "devices", "bitsandbytes_devices", "failure")
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUDA_VERSION_FIELD_NUMBER: _ClassVar[int]
    HIP_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    BITSANDBYTES_DEVICES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    state: TorchState
    version: str
    cuda_version: str
    hip_version: str
    architectures: _containers.RepeatedScalarFieldContainer[str]
    devices: _containers.RepeatedScalarFieldContainer[_method_pb2.DeviceKind]
    bitsandbytes_devices: _containers.RepeatedScalarFieldContainer[_method_pb2.DeviceKind]
    failure: str
    def __init__(self, state: _Optional[_Union[TorchState, str]] = ..., version: _Optional[str] = ..., cuda_version: _Optional[str] = ..., hip_version: _Optional[str] = ..., architectures: _Optional[_Iterable[str]] = ..., devices: _Optional[_Iterable[_Union[_method_pb2.DeviceKind, str]]] = ..., bitsandbytes_devices: _Optional[_Iterable[_Union[_method_pb2.DeviceKind, str]]] = ..., failure: _Optional[str] = ...) -> None: ...

class Package(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class UnmetRequirement(_message.Message):
    __slots__ = ("reason", "message", "remedy")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    remedy: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class Availability(_message.Message):
    __slots__ = ("available", "unmet")
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    available: bool
    unmet: _containers.RepeatedCompositeFieldContainer[UnmetRequirement]
    def __init__(self, available: bool = ..., unmet: _Optional[_Iterable[_Union[UnmetRequirement, _Mapping]]] = ...) -> None: ...

class EngineAvailability(_message.Message):
    __slots__ = ("engine", "availability")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    engine: _method_pb2.Engine
    availability: Availability
    def __init__(self, engine: _Optional[_Union[_method_pb2.Engine, str]] = ..., availability: _Optional[_Union[Availability, _Mapping]] = ...) -> None: ...

class GgufFileTypeInfo(_message.Message):
    __slots__ = ("file_type", "base_type", "bits_per_weight", "needs_imatrix")
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    BASE_TYPE_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NEEDS_IMATRIX_FIELD_NUMBER: _ClassVar[int]
    file_type: _gguf_pb2.GgufFileType
    base_type: _gguf_pb2.GgmlType
    bits_per_weight: float
    needs_imatrix: bool
    def __init__(self, file_type: _Optional[_Union[_gguf_pb2.GgufFileType, str]] = ..., base_type: _Optional[_Union[_gguf_pb2.GgmlType, str]] = ..., bits_per_weight: _Optional[float] = ..., needs_imatrix: bool = ...) -> None: ...

class MethodCapability(_message.Message):
    __slots__ = ("method", "quantize", "load", "devices", "needs_calibration", "bits", "group_sizes", "output_formats", "gguf_file_types", "model_types")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    QUANTIZE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NEEDS_CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    GGUF_FILE_TYPES_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPES_FIELD_NUMBER: _ClassVar[int]
    method: _method_pb2.Method
    quantize: Availability
    load: _containers.RepeatedCompositeFieldContainer[EngineAvailability]
    devices: _containers.RepeatedScalarFieldContainer[_method_pb2.DeviceKind]
    needs_calibration: bool
    bits: _containers.RepeatedScalarFieldContainer[int]
    group_sizes: _containers.RepeatedScalarFieldContainer[int]
    output_formats: _containers.RepeatedScalarFieldContainer[str]
    gguf_file_types: _containers.RepeatedCompositeFieldContainer[GgufFileTypeInfo]
    model_types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, method: _Optional[_Union[_method_pb2.Method, str]] = ..., quantize: _Optional[_Union[Availability, _Mapping]] = ..., load: _Optional[_Iterable[_Union[EngineAvailability, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[_method_pb2.DeviceKind, str]]] = ..., needs_calibration: bool = ..., bits: _Optional[_Iterable[int]] = ..., group_sizes: _Optional[_Iterable[int]] = ..., output_formats: _Optional[_Iterable[str]] = ..., gguf_file_types: _Optional[_Iterable[_Union[GgufFileTypeInfo, _Mapping]]] = ..., model_types: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_request_bytes", "max_running_jobs", "max_queued_jobs", "max_finished_jobs", "max_events_per_job", "heartbeat_interval", "max_violations")
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_FINISHED_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_PER_JOB_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    max_request_bytes: int
    max_running_jobs: int
    max_queued_jobs: int
    max_finished_jobs: int
    max_events_per_job: int
    heartbeat_interval: _duration_pb2.Duration
    max_violations: int
    def __init__(self, max_request_bytes: _Optional[int] = ..., max_running_jobs: _Optional[int] = ..., max_queued_jobs: _Optional[int] = ..., max_finished_jobs: _Optional[int] = ..., max_events_per_job: _Optional[int] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_violations: _Optional[int] = ...) -> None: ...
