from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AwqFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AWQ_FORMAT_UNSPECIFIED: _ClassVar[AwqFormat]
    AWQ_FORMAT_GEMM: _ClassVar[AwqFormat]
    AWQ_FORMAT_GEMV: _ClassVar[AwqFormat]
    AWQ_FORMAT_GEMV_FAST: _ClassVar[AwqFormat]
    AWQ_FORMAT_LLM_AWQ: _ClassVar[AwqFormat]
AWQ_FORMAT_UNSPECIFIED: AwqFormat
AWQ_FORMAT_GEMM: AwqFormat
AWQ_FORMAT_GEMV: AwqFormat
AWQ_FORMAT_GEMV_FAST: AwqFormat
AWQ_FORMAT_LLM_AWQ: AwqFormat

class AwqConfig(_message.Message):
    __slots__ = ("bits", "group_size", "zero_point", "format", "modules_to_not_convert", "n_grid", "duo_scaling", "apply_clip", "max_shrink", "gptq_solver")
    BITS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    ZERO_POINT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODULES_TO_NOT_CONVERT_FIELD_NUMBER: _ClassVar[int]
    N_GRID_FIELD_NUMBER: _ClassVar[int]
    DUO_SCALING_FIELD_NUMBER: _ClassVar[int]
    APPLY_CLIP_FIELD_NUMBER: _ClassVar[int]
    MAX_SHRINK_FIELD_NUMBER: _ClassVar[int]
    GPTQ_SOLVER_FIELD_NUMBER: _ClassVar[int]
    bits: int
    group_size: int
    zero_point: bool
    format: AwqFormat
    modules_to_not_convert: _containers.RepeatedScalarFieldContainer[str]
    n_grid: int
    duo_scaling: bool
    apply_clip: bool
    max_shrink: float
    gptq_solver: bool
    def __init__(self, bits: _Optional[int] = ..., group_size: _Optional[int] = ..., zero_point: bool = ..., format: _Optional[_Union[AwqFormat, str]] = ..., modules_to_not_convert: _Optional[_Iterable[str]] = ..., n_grid: _Optional[int] = ..., duo_scaling: bool = ..., apply_clip: bool = ..., max_shrink: _Optional[float] = ..., gptq_solver: bool = ...) -> None: ...
