from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from quantd.v1 import aqlm_pb2 as _aqlm_pb2
from quantd.v1 import awq_pb2 as _awq_pb2
from quantd.v1 import bitsandbytes_pb2 as _bitsandbytes_pb2
from quantd.v1 import calibration_pb2 as _calibration_pb2
from quantd.v1 import evaluation_pb2 as _evaluation_pb2
from quantd.v1 import gguf_pb2 as _gguf_pb2
from quantd.v1 import gptq_pb2 as _gptq_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_BITSANDBYTES_8BIT: _ClassVar[Method]
    METHOD_BITSANDBYTES_4BIT: _ClassVar[Method]
    METHOD_GPTQ: _ClassVar[Method]
    METHOD_AWQ: _ClassVar[Method]
    METHOD_GGUF: _ClassVar[Method]
    METHOD_AQLM: _ClassVar[Method]

class Engine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_UNSPECIFIED: _ClassVar[Engine]
    ENGINE_TRANSFORMERS: _ClassVar[Engine]
    ENGINE_VLLM: _ClassVar[Engine]
    ENGINE_SGLANG: _ClassVar[Engine]
    ENGINE_LLAMA_CPP: _ClassVar[Engine]

class DeviceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_KIND_UNSPECIFIED: _ClassVar[DeviceKind]
    DEVICE_KIND_CPU: _ClassVar[DeviceKind]
    DEVICE_KIND_CUDA: _ClassVar[DeviceKind]
    DEVICE_KIND_ROCM: _ClassVar[DeviceKind]
    DEVICE_KIND_XPU: _ClassVar[DeviceKind]
    DEVICE_KIND_MPS: _ClassVar[DeviceKind]
METHOD_UNSPECIFIED: Method
METHOD_BITSANDBYTES_8BIT: Method
METHOD_BITSANDBYTES_4BIT: Method
METHOD_GPTQ: Method
METHOD_AWQ: Method
METHOD_GGUF: Method
METHOD_AQLM: Method
ENGINE_UNSPECIFIED: Engine
ENGINE_TRANSFORMERS: Engine
ENGINE_VLLM: Engine
ENGINE_SGLANG: Engine
ENGINE_LLAMA_CPP: Engine
DEVICE_KIND_UNSPECIFIED: DeviceKind
DEVICE_KIND_CPU: DeviceKind
DEVICE_KIND_CUDA: DeviceKind
DEVICE_KIND_ROCM: DeviceKind
DEVICE_KIND_XPU: DeviceKind
DEVICE_KIND_MPS: DeviceKind

class MethodConfig(_message.Message):
    __slots__ = ("bitsandbytes_8bit", "bitsandbytes_4bit", "gptq", "awq", "gguf", "aqlm")
    BITSANDBYTES_8BIT_FIELD_NUMBER: _ClassVar[int]
    BITSANDBYTES_4BIT_FIELD_NUMBER: _ClassVar[int]
    GPTQ_FIELD_NUMBER: _ClassVar[int]
    AWQ_FIELD_NUMBER: _ClassVar[int]
    GGUF_FIELD_NUMBER: _ClassVar[int]
    AQLM_FIELD_NUMBER: _ClassVar[int]
    bitsandbytes_8bit: _bitsandbytes_pb2.Bitsandbytes8BitConfig
    bitsandbytes_4bit: _bitsandbytes_pb2.Bitsandbytes4BitConfig
    gptq: _gptq_pb2.GptqConfig
    awq: _awq_pb2.AwqConfig
    gguf: _gguf_pb2.GgufConfig
    aqlm: _aqlm_pb2.AqlmConfig
    def __init__(self, bitsandbytes_8bit: _Optional[_Union[_bitsandbytes_pb2.Bitsandbytes8BitConfig, _Mapping]] = ..., bitsandbytes_4bit: _Optional[_Union[_bitsandbytes_pb2.Bitsandbytes4BitConfig, _Mapping]] = ..., gptq: _Optional[_Union[_gptq_pb2.GptqConfig, _Mapping]] = ..., awq: _Optional[_Union[_awq_pb2.AwqConfig, _Mapping]] = ..., gguf: _Optional[_Union[_gguf_pb2.GgufConfig, _Mapping]] = ..., aqlm: _Optional[_Union[_aqlm_pb2.AqlmConfig, _Mapping]] = ...) -> None: ...

class ServeTarget(_message.Message):
    __slots__ = ("engine", "compute_capability")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    engine: Engine
    compute_capability: str
    def __init__(self, engine: _Optional[_Union[Engine, str]] = ..., compute_capability: _Optional[str] = ...) -> None: ...

class QuantizationSpec(_message.Message):
    __slots__ = ("source_uri", "output_uri", "method", "calibration", "max_shard_size", "device", "serve_targets", "allow_non_finite", "evaluation")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARD_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SERVE_TARGETS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_NON_FINITE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    output_uri: str
    method: MethodConfig
    calibration: _calibration_pb2.CalibrationConfig
    max_shard_size: int
    device: DeviceKind
    serve_targets: _containers.RepeatedCompositeFieldContainer[ServeTarget]
    allow_non_finite: bool
    evaluation: _evaluation_pb2.EvaluationConfig
    def __init__(self, source_uri: _Optional[str] = ..., output_uri: _Optional[str] = ..., method: _Optional[_Union[MethodConfig, _Mapping]] = ..., calibration: _Optional[_Union[_calibration_pb2.CalibrationConfig, _Mapping]] = ..., max_shard_size: _Optional[int] = ..., device: _Optional[_Union[DeviceKind, str]] = ..., serve_targets: _Optional[_Iterable[_Union[ServeTarget, _Mapping]]] = ..., allow_non_finite: bool = ..., evaluation: _Optional[_Union[_evaluation_pb2.EvaluationConfig, _Mapping]] = ...) -> None: ...
