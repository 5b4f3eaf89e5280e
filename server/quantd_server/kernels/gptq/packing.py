"""The tensors of a GPTQ checkpoint, on numpy arrays. Used by workers only (numba).

``qweight`` packs codes along the input dimension, ``qzeros`` zero points along the output
dimension. Format ``gptq`` stores zero points minus one, so it has none for 0; ``gptq_v2`` stores
them as they are. As GPTQModel's ``PackableQuantLinear.pack_original``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.code_stream import pack_rows, unpack_rows

BITS = (2, 3, 4, 8)


class PackedWeight(NamedTuple):
    """A linear with K inputs, N outputs and G groups, as checkpoints store it."""

    qweight: npt.NDArray[np.int32]  # [K * bits / 32, N]
    qzeros: npt.NDArray[np.int32]  # [G, N * bits / 32]
    scales: npt.NDArray[np.float16]  # [G, N]
    g_idx: npt.NDArray[np.int32]  # [K]


class Codes(NamedTuple):
    """The same linear unpacked; ``weight = (codes - zeros[:, g_idx]) * scales[:, g_idx]``."""

    codes: npt.NDArray[np.uint8]  # [N, K]
    scales: npt.NDArray[np.float32]  # [N, G]
    zeros: npt.NDArray[np.uint8]  # [N, G]
    g_idx: npt.NDArray[np.int32]  # [K]


def pack(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.uint8],
    g_idx: npt.NDArray[np.int32],
    *,
    bits: int,
    v2: bool,
) -> PackedWeight:
    """Pack a quantized weight. Fastest if ``codes.T`` is contiguous.

    Args:
        codes: [N, K], below 2**bits.
        scales: [N, G], exactly float16 values.
        zeros: [N, G], below 2**bits.
        g_idx: [K].
        bits: 2, 3, 4 or 8.
        v2: whether zero points are stored as they are.

    Raises:
        ValueError: N or K is not a multiple of 32, shapes do not fit, or a zero point is 0 and
            the format cannot store it.
    """
    _check_bits(bits)
    rows, columns = codes.shape
    if rows % 32 or columns % 32:
        raise ValueError(
            f"a weight [{rows}, {columns}] cannot be packed: both have to be multiples of 32"
        )
    if scales.shape != zeros.shape or scales.shape[0] != rows or g_idx.shape != (columns,):
        raise ValueError(
            f"codes {codes.shape} do not fit scales {scales.shape}, zeros {zeros.shape} and "
            f"g_idx {g_idx.shape}"
        )
    if not v2:
        if not zeros.all():
            raise ValueError("format gptq cannot store a zero point of 0; use gptq_v2")
        zeros = zeros - np.uint8(1)
    return PackedWeight(
        qweight=pack_rows(codes.T, bits),
        qzeros=np.ascontiguousarray(pack_rows(zeros, bits).T),
        scales=np.ascontiguousarray(scales.T.astype(np.float16)),
        g_idx=np.ascontiguousarray(g_idx, np.int32),
    )


def unpack(packed: PackedWeight, *, bits: int, v2: bool) -> Codes:
    """The codes that were packed; ``codes.T`` is contiguous.

    A v1 field of all ones, which :func:`pack` never writes, reads as zero point 2**bits (0 with 8
    bits): readers disagree about it.

    Raises:
        ValueError: Shapes that no packed weight has.
    """
    _check_bits(bits)
    zeros = unpack_rows(packed.qzeros.T, bits)
    if not v2:
        zeros += np.uint8(1)
    return Codes(
        codes=unpack_rows(packed.qweight, bits).T,
        scales=packed.scales.T.astype(np.float32),
        zeros=zeros,
        g_idx=packed.g_idx,
    )


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise ValueError(f"bits is {bits}; the format has 2, 3, 4 and 8")
