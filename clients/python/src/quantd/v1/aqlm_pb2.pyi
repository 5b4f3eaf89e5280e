from quantd._third_party.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class AqlmConfig(_message.Message):
    __slots__ = ("num_codebooks", "nbits_per_codebook", "in_group_size", "out_group_size", "linear_weights_not_to_quantize", "relative_mse_tolerance", "max_epochs", "steps_per_epoch", "lr", "beam_size", "init_max_iter", "init_max_points_per_centroid", "finetune_max_epochs", "finetune_lr", "finetune_batch_size", "finetune_early_stop")
    NUM_CODEBOOKS_FIELD_NUMBER: _ClassVar[int]
    NBITS_PER_CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    IN_GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    OUT_GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    LINEAR_WEIGHTS_NOT_TO_QUANTIZE_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_MSE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    MAX_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    BEAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    INIT_MAX_ITER_FIELD_NUMBER: _ClassVar[int]
    INIT_MAX_POINTS_PER_CENTROID_FIELD_NUMBER: _ClassVar[int]
    FINETUNE_MAX_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    FINETUNE_LR_FIELD_NUMBER: _ClassVar[int]
    FINETUNE_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    FINETUNE_EARLY_STOP_FIELD_NUMBER: _ClassVar[int]
    num_codebooks: int
    nbits_per_codebook: int
    in_group_size: int
    out_group_size: int
    linear_weights_not_to_quantize: _containers.RepeatedScalarFieldContainer[str]
    relative_mse_tolerance: float
    max_epochs: int
    steps_per_epoch: int
    lr: float
    beam_size: int
    init_max_iter: int
    init_max_points_per_centroid: int
    finetune_max_epochs: int
    finetune_lr: float
    finetune_batch_size: int
    finetune_early_stop: int
    def __init__(self, num_codebooks: _Optional[int] = ..., nbits_per_codebook: _Optional[int] = ..., in_group_size: _Optional[int] = ..., out_group_size: _Optional[int] = ..., linear_weights_not_to_quantize: _Optional[_Iterable[str]] = ..., relative_mse_tolerance: _Optional[float] = ..., max_epochs: _Optional[int] = ..., steps_per_epoch: _Optional[int] = ..., lr: _Optional[float] = ..., beam_size: _Optional[int] = ..., init_max_iter: _Optional[int] = ..., init_max_points_per_centroid: _Optional[int] = ..., finetune_max_epochs: _Optional[int] = ..., finetune_lr: _Optional[float] = ..., finetune_batch_size: _Optional[int] = ..., finetune_early_stop: _Optional[int] = ...) -> None: ...
