from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from quantd.v1 import calibration_pb2 as _calibration_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluationConfig(_message.Message):
    __slots__ = ("texts", "tokens", "file", "builtin", "num_samples", "sequence_length")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BUILTIN_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    texts: _calibration_pb2.CalibrationTexts
    tokens: _calibration_pb2.CalibrationTokens
    file: _calibration_pb2.CalibrationFile
    builtin: _calibration_pb2.CalibrationBuiltin
    num_samples: int
    sequence_length: int
    def __init__(self, texts: _Optional[_Union[_calibration_pb2.CalibrationTexts, _Mapping]] = ..., tokens: _Optional[_Union[_calibration_pb2.CalibrationTokens, _Mapping]] = ..., file: _Optional[_Union[_calibration_pb2.CalibrationFile, _Mapping]] = ..., builtin: _Optional[_Union[_calibration_pb2.CalibrationBuiltin, _Mapping]] = ..., num_samples: _Optional[int] = ..., sequence_length: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("source_perplexity", "perplexity", "kl_divergence", "top_token_agreement", "tokens")
    SOURCE_PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    KL_DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    TOP_TOKEN_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    source_perplexity: float
    perplexity: float
    kl_divergence: float
    top_token_agreement: float
    tokens: int
    def __init__(self, source_perplexity: _Optional[float] = ..., perplexity: _Optional[float] = ..., kl_divergence: _Optional[float] = ..., top_token_agreement: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...
