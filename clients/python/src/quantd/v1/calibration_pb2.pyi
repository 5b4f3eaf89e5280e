from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PackingPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PACKING_POLICY_UNSPECIFIED: _ClassVar[PackingPolicy]
    PACKING_POLICY_CONCATENATE: _ClassVar[PackingPolicy]
    PACKING_POLICY_TRUNCATE: _ClassVar[PackingPolicy]
PACKING_POLICY_UNSPECIFIED: PackingPolicy
PACKING_POLICY_CONCATENATE: PackingPolicy
PACKING_POLICY_TRUNCATE: PackingPolicy

class CalibrationTexts(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenSequence(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class CalibrationTokens(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenSequence]
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenSequence, _Mapping]]] = ...) -> None: ...

class CalibrationFile(_message.Message):
    __slots__ = ("uri", "json_field")
    URI_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_FIELD_NUMBER: _ClassVar[int]
    uri: str
    json_field: str
    def __init__(self, uri: _Optional[str] = ..., json_field: _Optional[str] = ...) -> None: ...

class CalibrationBuiltin(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CalibrationConfig(_message.Message):
    __slots__ = ("texts", "tokens", "file", "builtin", "num_samples", "sequence_length", "seed", "packing", "apply_chat_template")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BUILTIN_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PACKING_FIELD_NUMBER: _ClassVar[int]
    APPLY_CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    texts: CalibrationTexts
    tokens: CalibrationTokens
    file: CalibrationFile
    builtin: CalibrationBuiltin
    num_samples: int
    sequence_length: int
    seed: int
    packing: PackingPolicy
    apply_chat_template: bool
    def __init__(self, texts: _Optional[_Union[CalibrationTexts, _Mapping]] = ..., tokens: _Optional[_Union[CalibrationTokens, _Mapping]] = ..., file: _Optional[_Union[CalibrationFile, _Mapping]] = ..., builtin: _Optional[_Union[CalibrationBuiltin, _Mapping]] = ..., num_samples: _Optional[int] = ..., sequence_length: _Optional[int] = ..., seed: _Optional[int] = ..., packing: _Optional[_Union[PackingPolicy, str]] = ..., apply_chat_template: bool = ...) -> None: ...

class CalibrationUsage(_message.Message):
    __slots__ = ("samples_requested", "samples_usable", "tokens", "sha256")
    SAMPLES_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_USABLE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    samples_requested: int
    samples_usable: int
    tokens: int
    sha256: str
    def __init__(self, samples_requested: _Optional[int] = ..., samples_usable: _Optional[int] = ..., tokens: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...
