"""Rows of an embedding that occur, read without the rest (worker only: imports torch)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from quantd_server.calibration.parameters import ParameterSource
from quantd_server.errors import QuantdError, quoted

CHUNK_BYTES = 16 << 20
"""Of the embedding, at most this much is read at once; only rows of tokens that occur are kept."""

GAP = 16
"""So many rows that do not occur are read rather than to read twice."""


def embedding_rows(parameters: ParameterSource, name: str, distinct: torch.Tensor) -> torch.Tensor:
    """Rows ``distinct`` (sorted) of the parameter ``name``, float32 [rows, width].

    Raises QuantdError TOKEN_BEYOND_VOCABULARY.
    """
    rows, width = parameters.shape(name)
    if int(distinct[-1]) >= rows:
        raise QuantdError(
            reason="TOKEN_BEYOND_VOCABULARY",
            message=f"token {int(distinct[-1])} of the data is not below {rows}, the rows of "
            f"{quoted(name)}",
            remedy="use the tokenizer of this model",
            field="spec.calibration",
        )
    limit = max(1, CHUNK_BYTES // (4 * width))
    return torch.cat(
        [
            parameters.read_rows(name, first, last + 1)[wanted - first].float()
            for first, last, wanted in _runs(distinct, limit)
        ]
    )


def _runs(rows: torch.Tensor, limit: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Splits sorted ``rows`` into runs to read at once: first row, last row, those wanted.

    A run has gaps of at most ``GAP`` rows and covers at most ``limit``.
    """
    begin = 0
    values = rows.tolist()
    for end in range(1, len(values) + 1):
        if (
            end == len(values)
            or values[end] - values[end - 1] > GAP
            or values[end] - values[begin] >= limit
        ):
            yield values[begin], values[end - 1], rows[begin:end]
            begin = end
