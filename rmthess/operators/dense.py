"""The whole matrix of a small operator, and its eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from rmthess.operators.as_operator import as_operator, symmetry_residual
from rmthess.operators.errors import NonFiniteError, NotSymmetricError
from rmthess.operators.memory import free_memory, readable

Array = NDArray[np.float64]

# 64 columns a product amortise the call and stay below the size of any graph worth keeping.
_BLOCK = 64


def dense(operator: Any, *, limit: int = 10_000) -> Array:
    """A = [A e_1, ..., A e_dim], symmetrised: (A + Aᵀ)/2 as float64 (dim, dim).

    ``operator``: anything that ``as_operator`` reads; ``limit``: the largest dim that is built
    (8 dim² bytes, and as many again for the eigenvalues).

    Raises ValueError above ``limit``, NonFiniteError for NaN, NotSymmetricError where |A - Aᵀ|/|A|
    is more than rounding of the operator's products (1e4 eps: 2e-12 for float64, 1e-3 for float32).

    >>> dense(np.diag([1.0, 2.0]))
    array([[1., 0.],
           [0., 2.]])
    """
    source = as_operator(operator)
    dim = source.shape[0]
    _check_size(dim, limit)
    columns = torch.empty(dim, dim, dtype=torch.float64)
    for start in range(0, dim, _BLOCK):
        width = min(_BLOCK, dim - start)
        block = torch.zeros(dim, width, dtype=source.dtype, device=source.device)
        block[torch.arange(start, start + width), torch.arange(width)] = 1
        columns[start : start + width] = source.matmat(block).T
    if not bool(torch.isfinite(columns).all()):
        column, row = (int(i) for i in torch.nonzero(~torch.isfinite(columns))[0])
        raise NonFiniteError(f"{source!r} has a NaN or Inf entry, first at {(row, column)}")
    residual = symmetry_residual(columns)
    if residual > min(1e4 * source.eps, 0.1):
        raise NotSymmetricError(
            f"{source!r} is not symmetric: |A - Aᵀ|/|A| = {residual:.1e}, where its dtype rounds "
            f"to {source.eps:.0e}"
        )
    matrix: Array = ((columns + columns.T) / 2).numpy()
    return matrix


def eigenvalues(operator: Any, *, limit: int = 10_000) -> Array:
    """All eigenvalues (dim,) of a symmetric operator, ascending, float64. See ``dense``.

    >>> eigenvalues(np.array([[0.0, 2.0], [2.0, 0.0]]))
    array([-2.,  2.])
    """
    found: Array = eigvalsh(dense(operator, limit=limit), overwrite_a=True, check_finite=False)
    return found


def _check_size(dim: int, limit: int) -> None:
    needed = 3 * 8 * dim**2  # the columns, their symmetrised copy, a workspace
    free = free_memory(torch.device("cpu"))
    advice = "use lanczos(operator), which never builds the matrix"
    if dim > limit:
        raise ValueError(
            f"the dense matrix of dim {dim} is above limit={limit}: it would need about "
            f"{readable(needed)}; {advice}, or raise limit="
        )
    if free is not None and needed > free:
        raise MemoryError(
            f"the dense matrix of dim {dim} needs about {readable(needed)} and {readable(free)} "
            f"are free; {advice}"
        )
