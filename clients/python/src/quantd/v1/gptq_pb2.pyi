from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GptqFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPTQ_FORMAT_UNSPECIFIED: _ClassVar[GptqFormat]
    GPTQ_FORMAT_GPTQ: _ClassVar[GptqFormat]
    GPTQ_FORMAT_GPTQ_V2: _ClassVar[GptqFormat]
GPTQ_FORMAT_UNSPECIFIED: GptqFormat
GPTQ_FORMAT_GPTQ: GptqFormat
GPTQ_FORMAT_GPTQ_V2: GptqFormat

class GptqModuleRule(_message.Message):
    __slots__ = ("pattern", "exclude", "bits", "group_size", "sym", "desc_act")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    SYM_FIELD_NUMBER: _ClassVar[int]
    DESC_ACT_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    exclude: bool
    bits: int
    group_size: int
    sym: bool
    desc_act: bool
    def __init__(self, pattern: _Optional[str] = ..., exclude: bool = ..., bits: _Optional[int] = ..., group_size: _Optional[int] = ..., sym: bool = ..., desc_act: bool = ...) -> None: ...

class GptqConfig(_message.Message):
    __slots__ = ("bits", "group_size", "damp_percent", "damp_auto_increment", "desc_act", "act_group_aware", "sym", "true_sequential", "static_groups", "mse", "block_size", "lm_head", "format", "dynamic", "awq_scaling", "max_shrink")
    BITS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    DAMP_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DAMP_AUTO_INCREMENT_FIELD_NUMBER: _ClassVar[int]
    DESC_ACT_FIELD_NUMBER: _ClassVar[int]
    ACT_GROUP_AWARE_FIELD_NUMBER: _ClassVar[int]
    SYM_FIELD_NUMBER: _ClassVar[int]
    TRUE_SEQUENTIAL_FIELD_NUMBER: _ClassVar[int]
    STATIC_GROUPS_FIELD_NUMBER: _ClassVar[int]
    MSE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    LM_HEAD_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_FIELD_NUMBER: _ClassVar[int]
    AWQ_SCALING_FIELD_NUMBER: _ClassVar[int]
    MAX_SHRINK_FIELD_NUMBER: _ClassVar[int]
    bits: int
    group_size: int
    damp_percent: float
    damp_auto_increment: float
    desc_act: bool
    act_group_aware: bool
    sym: bool
    true_sequential: bool
    static_groups: bool
    mse: float
    block_size: int
    lm_head: bool
    format: GptqFormat
    dynamic: _containers.RepeatedCompositeFieldContainer[GptqModuleRule]
    awq_scaling: bool
    max_shrink: float
    def __init__(self, bits: _Optional[int] = ..., group_size: _Optional[int] = ..., damp_percent: _Optional[float] = ..., damp_auto_increment: _Optional[float] = ..., desc_act: bool = ..., act_group_aware: bool = ..., sym: bool = ..., true_sequential: bool = ..., static_groups: bool = ..., mse: _Optional[float] = ..., block_size: _Optional[int] = ..., lm_head: bool = ..., format: _Optional[_Union[GptqFormat, str]] = ..., dynamic: _Optional[_Iterable[_Union[GptqModuleRule, _Mapping]]] = ..., awq_scaling: bool = ..., max_shrink: _Optional[float] = ...) -> None: ...
