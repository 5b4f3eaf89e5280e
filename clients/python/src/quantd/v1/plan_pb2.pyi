import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from quantd.v1 import calibration_pb2 as _calibration_pb2
from quantd.v1 import method_pb2 as _method_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENSOR_ACTION_UNSPECIFIED: _ClassVar[TensorAction]
    TENSOR_ACTION_QUANTIZE: _ClassVar[TensorAction]
    TENSOR_ACTION_FALLBACK: _ClassVar[TensorAction]
    TENSOR_ACTION_KEEP: _ClassVar[TensorAction]
    TENSOR_ACTION_CONVERT: _ClassVar[TensorAction]
    TENSOR_ACTION_GENERATE: _ClassVar[TensorAction]
    TENSOR_ACTION_DROP: _ClassVar[TensorAction]
    TENSOR_ACTION_RESCALE: _ClassVar[TensorAction]
TENSOR_ACTION_UNSPECIFIED: TensorAction
TENSOR_ACTION_QUANTIZE: TensorAction
TENSOR_ACTION_FALLBACK: TensorAction
TENSOR_ACTION_KEEP: TensorAction
TENSOR_ACTION_CONVERT: TensorAction
TENSOR_ACTION_GENERATE: TensorAction
TENSOR_ACTION_DROP: TensorAction
TENSOR_ACTION_RESCALE: TensorAction

class TensorPlan(_message.Message):
    __slots__ = ("source_name", "target_name", "shape", "source_type", "target_type", "source_bytes", "target_bytes", "action", "reason")
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    source_name: str
    target_name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    source_type: str
    target_type: str
    source_bytes: int
    target_bytes: int
    action: TensorAction
    reason: str
    def __init__(self, source_name: _Optional[str] = ..., target_name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., source_type: _Optional[str] = ..., target_type: _Optional[str] = ..., source_bytes: _Optional[int] = ..., target_bytes: _Optional[int] = ..., action: _Optional[_Union[TensorAction, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class TypeSummary(_message.Message):
    __slots__ = ("target_type", "tensor_count", "element_count", "size_bytes")
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    target_type: str
    tensor_count: int
    element_count: int
    size_bytes: int
    def __init__(self, target_type: _Optional[str] = ..., tensor_count: _Optional[int] = ..., element_count: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("method", "device", "types", "parameter_count", "quantized_parameter_count", "source_bytes", "output_bytes", "bits_per_weight", "peak_memory_bytes", "scratch_bytes", "estimated_duration", "estimate_basis", "calibration")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZED_PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCRATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_DURATION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_BASIS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    method: _method_pb2.MethodConfig
    device: _method_pb2.DeviceKind
    types: _containers.RepeatedCompositeFieldContainer[TypeSummary]
    parameter_count: int
    quantized_parameter_count: int
    source_bytes: int
    output_bytes: int
    bits_per_weight: float
    peak_memory_bytes: int
    scratch_bytes: int
    estimated_duration: _duration_pb2.Duration
    estimate_basis: str
    calibration: _calibration_pb2.CalibrationUsage
    def __init__(self, method: _Optional[_Union[_method_pb2.MethodConfig, _Mapping]] = ..., device: _Optional[_Union[_method_pb2.DeviceKind, str]] = ..., types: _Optional[_Iterable[_Union[TypeSummary, _Mapping]]] = ..., parameter_count: _Optional[int] = ..., quantized_parameter_count: _Optional[int] = ..., source_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., bits_per_weight: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., scratch_bytes: _Optional[int] = ..., estimated_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., estimate_basis: _Optional[str] = ..., calibration: _Optional[_Union[_calibration_pb2.CalibrationUsage, _Mapping]] = ...) -> None: ...
