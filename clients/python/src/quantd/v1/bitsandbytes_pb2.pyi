from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FourBitType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOUR_BIT_TYPE_UNSPECIFIED: _ClassVar[FourBitType]
    FOUR_BIT_TYPE_FP4: _ClassVar[FourBitType]
    FOUR_BIT_TYPE_NF4: _ClassVar[FourBitType]

class ComputeDtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPUTE_DTYPE_UNSPECIFIED: _ClassVar[ComputeDtype]
    COMPUTE_DTYPE_FLOAT32: _ClassVar[ComputeDtype]
    COMPUTE_DTYPE_FLOAT16: _ClassVar[ComputeDtype]
    COMPUTE_DTYPE_BFLOAT16: _ClassVar[ComputeDtype]

class QuantStorage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUANT_STORAGE_UNSPECIFIED: _ClassVar[QuantStorage]
    QUANT_STORAGE_UINT8: _ClassVar[QuantStorage]
    QUANT_STORAGE_INT8: _ClassVar[QuantStorage]
    QUANT_STORAGE_FLOAT16: _ClassVar[QuantStorage]
    QUANT_STORAGE_BFLOAT16: _ClassVar[QuantStorage]
    QUANT_STORAGE_FLOAT32: _ClassVar[QuantStorage]
    QUANT_STORAGE_FLOAT64: _ClassVar[QuantStorage]
FOUR_BIT_TYPE_UNSPECIFIED: FourBitType
FOUR_BIT_TYPE_FP4: FourBitType
FOUR_BIT_TYPE_NF4: FourBitType
COMPUTE_DTYPE_UNSPECIFIED: ComputeDtype
COMPUTE_DTYPE_FLOAT32: ComputeDtype
COMPUTE_DTYPE_FLOAT16: ComputeDtype
COMPUTE_DTYPE_BFLOAT16: ComputeDtype
QUANT_STORAGE_UNSPECIFIED: QuantStorage
QUANT_STORAGE_UINT8: QuantStorage
QUANT_STORAGE_INT8: QuantStorage
QUANT_STORAGE_FLOAT16: QuantStorage
QUANT_STORAGE_BFLOAT16: QuantStorage
QUANT_STORAGE_FLOAT32: QuantStorage
QUANT_STORAGE_FLOAT64: QuantStorage

class Bitsandbytes8BitConfig(_message.Message):
    __slots__ = ("llm_int8_threshold", "llm_int8_skip_modules", "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight")
    LLM_INT8_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LLM_INT8_SKIP_MODULES_FIELD_NUMBER: _ClassVar[int]
    LLM_INT8_ENABLE_FP32_CPU_OFFLOAD_FIELD_NUMBER: _ClassVar[int]
    LLM_INT8_HAS_FP16_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    llm_int8_threshold: float
    llm_int8_skip_modules: _containers.RepeatedScalarFieldContainer[str]
    llm_int8_enable_fp32_cpu_offload: bool
    llm_int8_has_fp16_weight: bool
    def __init__(self, llm_int8_threshold: _Optional[float] = ..., llm_int8_skip_modules: _Optional[_Iterable[str]] = ..., llm_int8_enable_fp32_cpu_offload: bool = ..., llm_int8_has_fp16_weight: bool = ...) -> None: ...

class Bitsandbytes4BitConfig(_message.Message):
    __slots__ = ("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage", "blocksize", "llm_int8_skip_modules", "llm_int8_enable_fp32_cpu_offload")
    BNB_4BIT_QUANT_TYPE_FIELD_NUMBER: _ClassVar[int]
    BNB_4BIT_COMPUTE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    BNB_4BIT_USE_DOUBLE_QUANT_FIELD_NUMBER: _ClassVar[int]
    BNB_4BIT_QUANT_STORAGE_FIELD_NUMBER: _ClassVar[int]
    BLOCKSIZE_FIELD_NUMBER: _ClassVar[int]
    LLM_INT8_SKIP_MODULES_FIELD_NUMBER: _ClassVar[int]
    LLM_INT8_ENABLE_FP32_CPU_OFFLOAD_FIELD_NUMBER: _ClassVar[int]
    bnb_4bit_quant_type: FourBitType
    bnb_4bit_compute_dtype: ComputeDtype
    bnb_4bit_use_double_quant: bool
    bnb_4bit_quant_storage: QuantStorage
    blocksize: int
    llm_int8_skip_modules: _containers.RepeatedScalarFieldContainer[str]
    llm_int8_enable_fp32_cpu_offload: bool
    def __init__(self, bnb_4bit_quant_type: _Optional[_Union[FourBitType, str]] = ..., bnb_4bit_compute_dtype: _Optional[_Union[ComputeDtype, str]] = ..., bnb_4bit_use_double_quant: bool = ..., bnb_4bit_quant_storage: _Optional[_Union[QuantStorage, str]] = ..., blocksize: _Optional[int] = ..., llm_int8_skip_modules: _Optional[_Iterable[str]] = ..., llm_int8_enable_fp32_cpu_offload: bool = ...) -> None: ...
