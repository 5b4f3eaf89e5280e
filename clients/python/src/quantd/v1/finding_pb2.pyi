from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_INFO: _ClassVar[Severity]
    SEVERITY_WARNING: _ClassVar[Severity]
    SEVERITY_ERROR: _ClassVar[Severity]

class FindingKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINDING_KIND_UNSPECIFIED: _ClassVar[FindingKind]
    FINDING_KIND_INVALID: _ClassVar[FindingKind]
    FINDING_KIND_PRECONDITION: _ClassVar[FindingKind]
    FINDING_KIND_NOT_FOUND: _ClassVar[FindingKind]
    FINDING_KIND_UNIMPLEMENTED: _ClassVar[FindingKind]
SEVERITY_UNSPECIFIED: Severity
SEVERITY_INFO: Severity
SEVERITY_WARNING: Severity
SEVERITY_ERROR: Severity
FINDING_KIND_UNSPECIFIED: FindingKind
FINDING_KIND_INVALID: FindingKind
FINDING_KIND_PRECONDITION: FindingKind
FINDING_KIND_NOT_FOUND: FindingKind
FINDING_KIND_UNIMPLEMENTED: FindingKind

class Finding(_message.Message):
    __slots__ = ("severity", "kind", "reason", "field", "message", "remedy", "subjects", "subject_count")
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    severity: Severity
    kind: FindingKind
    reason: str
    field: str
    message: str
    remedy: str
    subjects: _containers.RepeatedScalarFieldContainer[str]
    subject_count: int
    def __init__(self, severity: _Optional[_Union[Severity, str]] = ..., kind: _Optional[_Union[FindingKind, str]] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ..., subjects: _Optional[_Iterable[str]] = ..., subject_count: _Optional[int] = ...) -> None: ...
