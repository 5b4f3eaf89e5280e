"""How much of a linear's output rounding its weight loses, on torch tensors. Used by workers only.

For inputs X with the second moment G = X Xᵀ the squared error of the output is ‖D X‖² = tr(D G Dᵀ)
where D is the weight minus its rounded value. G's scale cancels in relative errors.
"""

from __future__ import annotations

import math

import torch

from quantd_server.kernels import bfloat16_products

# Rows of a weight taken at once: temporaries are so many rows of it.
_ROWS = 1024

# Columns of a block. G is symmetric, so blocks above the diagonal count twice.
_COLUMNS = 128


def squared_output_error(difference: torch.Tensor, gram: torch.Tensor) -> float:
    """tr(D G Dᵀ), summed in float64.

    Products are those of float32. Where the processor multiplies bfloat16 faster, D is rounded to
    it first, a relative error of about 2⁻⁹ / √(elements of D), while G stays as it is.

    Args:
        difference: float32 [rows, columns].
        gram: float32 [columns, columns], contiguous and symmetric.
    """
    if gram.device.type == "cpu" and bfloat16_products.available():
        return sum(
            bfloat16_products.squared_product(rows, gram, torch.get_num_threads())
            for rows in difference.split(_ROWS)
        )
    return sum(_quadratic_form(rows.T.contiguous(), gram) for rows in difference.split(_ROWS))


def relative_output_error(weight: torch.Tensor, rounded: torch.Tensor, gram: torch.Tensor) -> float:
    """‖(W - W')X‖ / ‖W X‖, 0 if nothing is lost, infinite if there was no output to lose.

    Args:
        weight, rounded: float32 [rows, columns].
        gram: float32 [columns, columns], of the inputs.
    """
    lost = energy = 0.0
    for rows, rounded_rows in zip(weight.split(_ROWS), rounded.split(_ROWS), strict=True):
        lost += squared_output_error(rows - rounded_rows, gram)
        energy += squared_output_error(rows, gram)
    return error_ratio(lost, energy)


def error_ratio(lost: float, energy: float) -> float:
    """The root of the ratio of two squared errors; 0 if nothing is lost, even of nothing."""
    # Rounding of the sums may leave less than nothing.
    if lost <= 0.0:
        return 0.0
    return math.sqrt(lost / energy) if energy > 0.0 else math.inf


def _quadratic_form(values: torch.Tensor, gram: torch.Tensor) -> float:
    """tr(Vᵀ G V) for [columns, rows]."""
    total = 0.0
    for start in range(0, values.shape[0], _COLUMNS):
        stop = start + _COLUMNS
        here = values[start:stop]
        products = gram[start:stop, start:stop] @ here
        products.addmm_(gram[start:stop, stop:], values[stop:], alpha=2.0)
        total += float(products.mul_(here).sum(dtype=torch.float64))
    return total
