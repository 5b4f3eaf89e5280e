from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GgufFileType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GGUF_FILE_TYPE_UNSPECIFIED: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_F32: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_F16: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_BF16: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q8_0: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q4_0: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q4_1: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q5_0: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q5_1: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q2_K: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q2_K_S: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q3_K_S: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q3_K_M: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q3_K_L: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q4_K_S: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q4_K_M: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q5_K_S: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q5_K_M: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_Q6_K: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_IQ4_NL: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_IQ4_XS: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_IQ3_S: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_IQ3_M: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_TQ1_0: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_TQ2_0: _ClassVar[GgufFileType]
    GGUF_FILE_TYPE_MXFP4_MOE: _ClassVar[GgufFileType]

class GgmlType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GGML_TYPE_UNSPECIFIED: _ClassVar[GgmlType]
    GGML_TYPE_F32: _ClassVar[GgmlType]
    GGML_TYPE_F16: _ClassVar[GgmlType]
    GGML_TYPE_BF16: _ClassVar[GgmlType]
    GGML_TYPE_Q8_0: _ClassVar[GgmlType]
    GGML_TYPE_Q4_0: _ClassVar[GgmlType]
    GGML_TYPE_Q4_1: _ClassVar[GgmlType]
    GGML_TYPE_Q5_0: _ClassVar[GgmlType]
    GGML_TYPE_Q5_1: _ClassVar[GgmlType]
    GGML_TYPE_Q2_K: _ClassVar[GgmlType]
    GGML_TYPE_Q3_K: _ClassVar[GgmlType]
    GGML_TYPE_Q4_K: _ClassVar[GgmlType]
    GGML_TYPE_Q5_K: _ClassVar[GgmlType]
    GGML_TYPE_Q6_K: _ClassVar[GgmlType]
    GGML_TYPE_IQ4_NL: _ClassVar[GgmlType]
    GGML_TYPE_IQ4_XS: _ClassVar[GgmlType]
    GGML_TYPE_IQ3_S: _ClassVar[GgmlType]
    GGML_TYPE_TQ1_0: _ClassVar[GgmlType]
    GGML_TYPE_TQ2_0: _ClassVar[GgmlType]
    GGML_TYPE_MXFP4: _ClassVar[GgmlType]
GGUF_FILE_TYPE_UNSPECIFIED: GgufFileType
GGUF_FILE_TYPE_F32: GgufFileType
GGUF_FILE_TYPE_F16: GgufFileType
GGUF_FILE_TYPE_BF16: GgufFileType
GGUF_FILE_TYPE_Q8_0: GgufFileType
GGUF_FILE_TYPE_Q4_0: GgufFileType
GGUF_FILE_TYPE_Q4_1: GgufFileType
GGUF_FILE_TYPE_Q5_0: GgufFileType
GGUF_FILE_TYPE_Q5_1: GgufFileType
GGUF_FILE_TYPE_Q2_K: GgufFileType
GGUF_FILE_TYPE_Q2_K_S: GgufFileType
GGUF_FILE_TYPE_Q3_K_S: GgufFileType
GGUF_FILE_TYPE_Q3_K_M: GgufFileType
GGUF_FILE_TYPE_Q3_K_L: GgufFileType
GGUF_FILE_TYPE_Q4_K_S: GgufFileType
GGUF_FILE_TYPE_Q4_K_M: GgufFileType
GGUF_FILE_TYPE_Q5_K_S: GgufFileType
GGUF_FILE_TYPE_Q5_K_M: GgufFileType
GGUF_FILE_TYPE_Q6_K: GgufFileType
GGUF_FILE_TYPE_IQ4_NL: GgufFileType
GGUF_FILE_TYPE_IQ4_XS: GgufFileType
GGUF_FILE_TYPE_IQ3_S: GgufFileType
GGUF_FILE_TYPE_IQ3_M: GgufFileType
GGUF_FILE_TYPE_TQ1_0: GgufFileType
GGUF_FILE_TYPE_TQ2_0: GgufFileType
GGUF_FILE_TYPE_MXFP4_MOE: GgufFileType
GGML_TYPE_UNSPECIFIED: GgmlType
GGML_TYPE_F32: GgmlType
GGML_TYPE_F16: GgmlType
GGML_TYPE_BF16: GgmlType
GGML_TYPE_Q8_0: GgmlType
GGML_TYPE_Q4_0: GgmlType
GGML_TYPE_Q4_1: GgmlType
GGML_TYPE_Q5_0: GgmlType
GGML_TYPE_Q5_1: GgmlType
GGML_TYPE_Q2_K: GgmlType
GGML_TYPE_Q3_K: GgmlType
GGML_TYPE_Q4_K: GgmlType
GGML_TYPE_Q5_K: GgmlType
GGML_TYPE_Q6_K: GgmlType
GGML_TYPE_IQ4_NL: GgmlType
GGML_TYPE_IQ4_XS: GgmlType
GGML_TYPE_IQ3_S: GgmlType
GGML_TYPE_TQ1_0: GgmlType
GGML_TYPE_TQ2_0: GgmlType
GGML_TYPE_MXFP4: GgmlType

class GgufTensorRule(_message.Message):
    __slots__ = ("pattern", "type")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    type: GgmlType
    def __init__(self, pattern: _Optional[str] = ..., type: _Optional[_Union[GgmlType, str]] = ...) -> None: ...

class GgufConfig(_message.Message):
    __slots__ = ("file_type", "output_tensor_type", "token_embedding_type", "tensor_types", "pure", "imatrix_uri")
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TENSOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EMBEDDING_TYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_TYPES_FIELD_NUMBER: _ClassVar[int]
    PURE_FIELD_NUMBER: _ClassVar[int]
    IMATRIX_URI_FIELD_NUMBER: _ClassVar[int]
    file_type: GgufFileType
    output_tensor_type: GgmlType
    token_embedding_type: GgmlType
    tensor_types: _containers.RepeatedCompositeFieldContainer[GgufTensorRule]
    pure: bool
    imatrix_uri: str
    def __init__(self, file_type: _Optional[_Union[GgufFileType, str]] = ..., output_tensor_type: _Optional[_Union[GgmlType, str]] = ..., token_embedding_type: _Optional[_Union[GgmlType, str]] = ..., tensor_types: _Optional[_Iterable[_Union[GgufTensorRule, _Mapping]]] = ..., pure: bool = ..., imatrix_uri: _Optional[str] = ...) -> None: ...
