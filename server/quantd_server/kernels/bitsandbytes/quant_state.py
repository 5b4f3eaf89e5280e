"""The packed quant_state of a 4-bit weight: JSON that bitsandbytes stores as a uint8 tensor.

Plain Python: importable anywhere. Source: bitsandbytes QuantState.as_dict(packed=True) and
utils.pack_dict_to_tensor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from quantd_server.kernels.bitsandbytes.tables import NESTED_BLOCK_SIZE, QuantType

STORAGE_BYTES = {
    "uint8": 1,
    "int8": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
}
"""Bytes of each dtype that may hold packed 4-bit codes (bnb_4bit_quant_storage)."""


def packed_shape(elements: int, storage: str) -> tuple[int, int]:
    """Shape of the saved tensor of a 4-bit weight of `elements` values; its bytes are the codes,
    whatever `storage` calls them.

    Raises ValueError where bitsandbytes cannot save the weight: the codes do not fill whole items
    of `storage`, or are a single byte that is not uint8.
    """
    if storage not in STORAGE_BYTES:
        raise ValueError(f"storage is {storage!r}; allowed: {', '.join(STORAGE_BYTES)}")
    size = (elements + 1) // 2
    if size % STORAGE_BYTES[storage] or (size == 1 and storage != "uint8"):
        raise ValueError(
            f"{elements} values pack into {size} bytes, which {storage} cannot hold; use uint8"
        )
    return size // STORAGE_BYTES[storage], 1


def quant_state_key(quant_type: QuantType) -> str:
    """Suffix of the tensor's name, after `<module>.weight.`."""
    return f"quant_state.bitsandbytes__{quant_type}"


def pack_quant_state(
    quant_type: QuantType,
    blocksize: int,
    dtype: str,
    shape: Sequence[int],
    nested_offset: float | None = None,
) -> bytes:
    """The bytes of the tensor `<module>.weight.quant_state.bitsandbytes__<quant_type>`.

    dtype: torch's name of the weight's dtype before quantization: float32, float16 or bfloat16.
    shape: the weight's shape before quantization, [out, in].
    nested_offset: the float32 mean of the block maxima, with double quantization only.
    """
    state: dict[str, object] = {
        "quant_type": quant_type,
        "blocksize": blocksize,
        "dtype": dtype,
        "shape": list(shape),
    }
    if nested_offset is not None:
        state["nested_blocksize"] = NESTED_BLOCK_SIZE
        state["nested_dtype"] = "float32"
        state["nested_offset"] = float(nested_offset)
    return json.dumps(state).encode()
