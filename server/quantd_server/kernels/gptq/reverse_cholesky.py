"""The triangular factor that GPTQ needs, on torch tensors. Used by workers only.

GPTQ is written with the upper Cholesky factor U of the inverse second moment: two factorizations
and an inverse. The same U is the inverse of the upper triangular R with H = R Rᵀ: Uᵀ U = R⁻ᵀ R⁻¹ =
H⁻¹. R takes one factorization, of the rows from the last to the first, and the solver needs
inverses of small blocks of its diagonal only.
"""

from __future__ import annotations

import torch

BLOCK = 256


def factorize_in_place(matrix: torch.Tensor) -> bool:
    """Overwrite the upper triangle of a symmetric matrix H with R, where H = R Rᵀ.

    Args:
        matrix: float [size, size]. What is left below the diagonal has no meaning.

    Returns:
        False if the matrix is not positive definite; it is destroyed then.
    """
    for stop in range(matrix.shape[0], 0, -BLOCK):
        start = max(0, stop - BLOCK)
        panel = matrix[:stop, start:stop]
        if stop < matrix.shape[0]:
            panel.addmm_(matrix[:stop, stop:], matrix[start:stop, stop:].T, alpha=-1.0)
        # Rows and columns reversed, the upper factor is a lower one.
        lower, info = torch.linalg.cholesky_ex(panel[start:].flip(0, 1))
        if int(info) != 0 or not bool(torch.isfinite(lower.diagonal()).all()):
            return False
        upper = lower.flip(0, 1)
        panel[start:] = upper
        if start:
            panel[:start] = torch.linalg.solve_triangular(
                upper.T, panel[:start], upper=False, left=False
            )
    return True
