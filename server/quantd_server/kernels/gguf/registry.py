"""Which kernel converts which type.

A type that is not listed goes to ggml's own library. Kernels take C-contiguous 2-D arrays of
checked shapes; each is compiled on its first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.gguf import (
    half,
    iq4,
    k_quants_decoding,
    k_quants_symmetric,
    k_quants_with_minimum,
    legacy_quants,
    mxfp4,
)

Values = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]


def _quantize_f32(values: Values, out: Blocks) -> None:
    out[:] = values.view(np.uint8)


def _dequantize_f32(blocks: Blocks, out: Values) -> None:
    out.view(np.uint8)[:] = blocks


QUANTIZE: Mapping[str, Callable[[Values, Blocks], None]] = {
    "F32": _quantize_f32,
    "F16": half.quantize_f16,
    "BF16": half.quantize_bf16,
    "Q8_0": legacy_quants.quantize_q8_0,
    "Q4_0": legacy_quants.quantize_q4_0,
    "Q4_1": legacy_quants.quantize_q4_1,
    "Q5_0": legacy_quants.quantize_q5_0,
    "Q5_1": legacy_quants.quantize_q5_1,
    "Q2_K": k_quants_with_minimum.quantize_q2_k,
    "Q3_K": k_quants_symmetric.quantize_q3_k,
    "Q4_K": k_quants_with_minimum.quantize_q4_k,
    "Q5_K": k_quants_with_minimum.quantize_q5_k,
    "Q6_K": k_quants_symmetric.quantize_q6_k,
    "IQ4_NL": iq4.quantize_iq4_nl,
    "IQ4_XS": iq4.quantize_iq4_xs,
    "MXFP4": mxfp4.quantize_mxfp4,
}

DEQUANTIZE: Mapping[str, Callable[[Blocks, Values], None]] = {
    "F32": _dequantize_f32,
    "F16": half.dequantize_f16,
    "BF16": half.dequantize_bf16,
    "Q8_0": legacy_quants.dequantize_q8_0,
    "Q4_0": legacy_quants.dequantize_q4_0,
    "Q4_1": legacy_quants.dequantize_q4_1,
    "Q5_0": legacy_quants.dequantize_q5_0,
    "Q5_1": legacy_quants.dequantize_q5_1,
    "Q2_K": k_quants_decoding.dequantize_q2_k,
    "Q3_K": k_quants_decoding.dequantize_q3_k,
    "Q4_K": k_quants_decoding.dequantize_q4_k,
    "Q5_K": k_quants_decoding.dequantize_q5_k,
    "Q6_K": k_quants_decoding.dequantize_q6_k,
    "IQ4_NL": iq4.dequantize_iq4_nl,
    "IQ4_XS": iq4.dequantize_iq4_xs,
    "MXFP4": mxfp4.dequantize_mxfp4,
}
