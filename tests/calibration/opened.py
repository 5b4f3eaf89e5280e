"""A checkpoint on disk as a blockwise model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.parameters import CheckpointParameters
from quantd_server.checkpoint.huggingface import open_huggingface
from quantd_server.checkpoint.reading import TensorReader


@contextmanager
def opened(folder: Path) -> Iterator[BlockwiseModel]:
    checkpoint = open_huggingface(folder)
    with TensorReader(folder) as reader:
        yield BlockwiseModel(checkpoint.config, CheckpointParameters(checkpoint, reader))
