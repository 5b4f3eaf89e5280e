from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from quantd.v1 import capabilities_pb2 as _capabilities_pb2
from quantd.v1 import checkpoint_pb2 as _checkpoint_pb2
from quantd.v1 import finding_pb2 as _finding_pb2
from quantd.v1 import job_pb2 as _job_pb2
from quantd.v1 import method_pb2 as _method_pb2
from quantd.v1 import plan_pb2 as _plan_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConfigStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIG_STATUS_UNSPECIFIED: _ClassVar[ConfigStatus]
    CONFIG_STATUS_NOT_QUANTIZED: _ClassVar[ConfigStatus]
    CONFIG_STATUS_SERVED: _ClassVar[ConfigStatus]
    CONFIG_STATUS_KNOWN: _ClassVar[ConfigStatus]
    CONFIG_STATUS_UNKNOWN: _ClassVar[ConfigStatus]
CONFIG_STATUS_UNSPECIFIED: ConfigStatus
CONFIG_STATUS_NOT_QUANTIZED: ConfigStatus
CONFIG_STATUS_SERVED: ConfigStatus
CONFIG_STATUS_KNOWN: ConfigStatus
CONFIG_STATUS_UNKNOWN: ConfigStatus

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ("refresh",)
    REFRESH_FIELD_NUMBER: _ClassVar[int]
    refresh: bool
    def __init__(self, refresh: bool = ...) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("server", "host", "devices", "packages", "methods", "limits", "torch")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TORCH_FIELD_NUMBER: _ClassVar[int]
    server: _capabilities_pb2.ServerInfo
    host: _capabilities_pb2.HostInfo
    devices: _containers.RepeatedCompositeFieldContainer[_capabilities_pb2.Device]
    packages: _containers.RepeatedCompositeFieldContainer[_capabilities_pb2.Package]
    methods: _containers.RepeatedCompositeFieldContainer[_capabilities_pb2.MethodCapability]
    limits: _capabilities_pb2.Limits
    torch: _capabilities_pb2.TorchInfo
    def __init__(self, server: _Optional[_Union[_capabilities_pb2.ServerInfo, _Mapping]] = ..., host: _Optional[_Union[_capabilities_pb2.HostInfo, _Mapping]] = ..., devices: _Optional[_Iterable[_Union[_capabilities_pb2.Device, _Mapping]]] = ..., packages: _Optional[_Iterable[_Union[_capabilities_pb2.Package, _Mapping]]] = ..., methods: _Optional[_Iterable[_Union[_capabilities_pb2.MethodCapability, _Mapping]]] = ..., limits: _Optional[_Union[_capabilities_pb2.Limits, _Mapping]] = ..., torch: _Optional[_Union[_capabilities_pb2.TorchInfo, _Mapping]] = ...) -> None: ...

class InspectCheckpointRequest(_message.Message):
    __slots__ = ("source_uri", "page_size", "page_token", "context_length")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    page_size: int
    page_token: str
    context_length: int
    def __init__(self, source_uri: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., context_length: _Optional[int] = ...) -> None: ...

class InspectCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "findings", "loads", "tensors", "next_page_token")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoint: _checkpoint_pb2.Checkpoint
    findings: _containers.RepeatedCompositeFieldContainer[_finding_pb2.Finding]
    loads: _containers.RepeatedCompositeFieldContainer[_checkpoint_pb2.LoadAssessment]
    tensors: _containers.RepeatedCompositeFieldContainer[_checkpoint_pb2.TensorInfo]
    next_page_token: str
    def __init__(self, checkpoint: _Optional[_Union[_checkpoint_pb2.Checkpoint, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[_finding_pb2.Finding, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[_checkpoint_pb2.LoadAssessment, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[_checkpoint_pb2.TensorInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ParseConfigRequest(_message.Message):
    __slots__ = ("config_json",)
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    def __init__(self, config_json: _Optional[str] = ...) -> None: ...

class ParseConfigResponse(_message.Message):
    __slots__ = ("status", "quant_method", "method", "canonical_json", "unknown_fields", "required_packages", "findings")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    QUANT_METHOD_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CANONICAL_JSON_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELDS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_PACKAGES_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    status: ConfigStatus
    quant_method: str
    method: _method_pb2.MethodConfig
    canonical_json: str
    unknown_fields: _containers.RepeatedScalarFieldContainer[str]
    required_packages: _containers.RepeatedCompositeFieldContainer[_capabilities_pb2.Package]
    findings: _containers.RepeatedCompositeFieldContainer[_finding_pb2.Finding]
    def __init__(self, status: _Optional[_Union[ConfigStatus, str]] = ..., quant_method: _Optional[str] = ..., method: _Optional[_Union[_method_pb2.MethodConfig, _Mapping]] = ..., canonical_json: _Optional[str] = ..., unknown_fields: _Optional[_Iterable[str]] = ..., required_packages: _Optional[_Iterable[_Union[_capabilities_pb2.Package, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[_finding_pb2.Finding, _Mapping]]] = ...) -> None: ...

class PlanQuantizationRequest(_message.Message):
    __slots__ = ("spec", "page_size", "page_token")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    spec: _method_pb2.QuantizationSpec
    page_size: int
    page_token: str
    def __init__(self, spec: _Optional[_Union[_method_pb2.QuantizationSpec, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class PlanQuantizationResponse(_message.Message):
    __slots__ = ("executable", "findings", "plan", "tensors", "next_page_token")
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    executable: bool
    findings: _containers.RepeatedCompositeFieldContainer[_finding_pb2.Finding]
    plan: _plan_pb2.Plan
    tensors: _containers.RepeatedCompositeFieldContainer[_plan_pb2.TensorPlan]
    next_page_token: str
    def __init__(self, executable: bool = ..., findings: _Optional[_Iterable[_Union[_finding_pb2.Finding, _Mapping]]] = ..., plan: _Optional[_Union[_plan_pb2.Plan, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_plan_pb2.TensorPlan, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class QuantizeRequest(_message.Message):
    __slots__ = ("spec", "request_id", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    spec: _method_pb2.QuantizationSpec
    request_id: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, spec: _Optional[_Union[_method_pb2.QuantizationSpec, _Mapping]] = ..., request_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class QuantizeResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _job_pb2.JobEvent
    def __init__(self, event: _Optional[_Union[_job_pb2.JobEvent, _Mapping]] = ...) -> None: ...
