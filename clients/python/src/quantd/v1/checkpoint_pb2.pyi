from quantd.v1 import finding_pb2 as _finding_pb2
from quantd.v1 import method_pb2 as _method_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckpointFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_FORMAT_UNSPECIFIED: _ClassVar[CheckpointFormat]
    CHECKPOINT_FORMAT_SAFETENSORS: _ClassVar[CheckpointFormat]
    CHECKPOINT_FORMAT_GGUF: _ClassVar[CheckpointFormat]

class TokenizerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKENIZER_KIND_UNSPECIFIED: _ClassVar[TokenizerKind]
    TOKENIZER_KIND_BPE: _ClassVar[TokenizerKind]
    TOKENIZER_KIND_SENTENCEPIECE: _ClassVar[TokenizerKind]
    TOKENIZER_KIND_WORDPIECE: _ClassVar[TokenizerKind]
    TOKENIZER_KIND_OTHER: _ClassVar[TokenizerKind]
CHECKPOINT_FORMAT_UNSPECIFIED: CheckpointFormat
CHECKPOINT_FORMAT_SAFETENSORS: CheckpointFormat
CHECKPOINT_FORMAT_GGUF: CheckpointFormat
TOKENIZER_KIND_UNSPECIFIED: TokenizerKind
TOKENIZER_KIND_BPE: TokenizerKind
TOKENIZER_KIND_SENTENCEPIECE: TokenizerKind
TOKENIZER_KIND_WORDPIECE: TokenizerKind
TOKENIZER_KIND_OTHER: TokenizerKind

class DtypeSummary(_message.Message):
    __slots__ = ("dtype", "tensor_count", "element_count", "size_bytes")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    tensor_count: int
    element_count: int
    size_bytes: int
    def __init__(self, dtype: _Optional[str] = ..., tensor_count: _Optional[int] = ..., element_count: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class TensorInfo(_message.Message):
    __slots__ = ("name", "dtype", "shape", "size_bytes", "file")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    size_bytes: int
    file: str
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., size_bytes: _Optional[int] = ..., file: _Optional[str] = ...) -> None: ...

class ExistingQuantization(_message.Message):
    __slots__ = ("quant_method", "method", "config_json")
    QUANT_METHOD_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    quant_method: str
    method: _method_pb2.MethodConfig
    config_json: str
    def __init__(self, quant_method: _Optional[str] = ..., method: _Optional[_Union[_method_pb2.MethodConfig, _Mapping]] = ..., config_json: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("uri", "format", "model_type", "architecture", "parameter_count", "size_bytes", "file_count", "tensor_count", "dtypes", "tied_embeddings", "block_count", "hidden_size", "context_length", "vocab_size", "head_count", "kv_head_count", "head_dim", "tokenizer", "quantization")
    URI_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TENSOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    TIED_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    HEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_HEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    uri: str
    format: CheckpointFormat
    model_type: str
    architecture: str
    parameter_count: int
    size_bytes: int
    file_count: int
    tensor_count: int
    dtypes: _containers.RepeatedCompositeFieldContainer[DtypeSummary]
    tied_embeddings: bool
    block_count: int
    hidden_size: int
    context_length: int
    vocab_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    tokenizer: TokenizerKind
    quantization: ExistingQuantization
    def __init__(self, uri: _Optional[str] = ..., format: _Optional[_Union[CheckpointFormat, str]] = ..., model_type: _Optional[str] = ..., architecture: _Optional[str] = ..., parameter_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., file_count: _Optional[int] = ..., tensor_count: _Optional[int] = ..., dtypes: _Optional[_Iterable[_Union[DtypeSummary, _Mapping]]] = ..., tied_embeddings: bool = ..., block_count: _Optional[int] = ..., hidden_size: _Optional[int] = ..., context_length: _Optional[int] = ..., vocab_size: _Optional[int] = ..., head_count: _Optional[int] = ..., kv_head_count: _Optional[int] = ..., head_dim: _Optional[int] = ..., tokenizer: _Optional[_Union[TokenizerKind, str]] = ..., quantization: _Optional[_Union[ExistingQuantization, _Mapping]] = ...) -> None: ...

class LoadAssessment(_message.Message):
    __slots__ = ("engine", "device", "device_index", "loadable", "weight_bytes", "kv_cache_bytes", "free_bytes", "findings")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    LOADABLE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    engine: _method_pb2.Engine
    device: _method_pb2.DeviceKind
    device_index: int
    loadable: bool
    weight_bytes: int
    kv_cache_bytes: int
    free_bytes: int
    findings: _containers.RepeatedCompositeFieldContainer[_finding_pb2.Finding]
    def __init__(self, engine: _Optional[_Union[_method_pb2.Engine, str]] = ..., device: _Optional[_Union[_method_pb2.DeviceKind, str]] = ..., device_index: _Optional[int] = ..., loadable: bool = ..., weight_bytes: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., findings: _Optional[_Iterable[_Union[_finding_pb2.Finding, _Mapping]]] = ...) -> None: ...
