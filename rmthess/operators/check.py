"""Three products that show whether an operator may be trusted with a long run."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rmthess.operators.errors import NonDeterministicError, NonFiniteError, NotSymmetricError
from rmthess.operators.operator import Operator


@dataclass(frozen=True)
class OperatorCheck:
    """``magnitude``: largest entry of a product with unit vectors; ``asymmetry``: see below."""

    magnitude: float
    asymmetry: float


def check_operator(operator: Operator) -> OperatorCheck:
    """asymmetry = sqrt(dim) |u'Av - v'Au| / max(|Au|, |Av|) for two random unit vectors.

    It is of order |A - Aᵀ|/|A|, because u'Bv is about |B|/dim and |Bu| about |B|/sqrt(dim).
    Products: A[u, v], then A u again. Scale-free, so eigenvalues of 1e±150 are no trouble.

    Raises ValueError for a wrong shape, dtype or a modified input, NonFiniteError,
    NotSymmetricError above 30 sqrt(eps) of the operator's dtype (a warning above sqrt(eps): bf16,
    TF32), NonDeterministicError where the repetition differs by more than sqrt(eps).

    >>> from rmthess.operators.as_operator import as_operator
    >>> check_operator(as_operator(np.diag([1.0, 2.0]))).asymmetry < 1e-15
    True
    """
    dim, dtype, device = operator.shape[0], operator.dtype, operator.device
    rng = np.random.default_rng(20220707)  # fixed: the check must not depend on the run's seed
    drawn = rng.standard_normal((dim, 2))
    vectors = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0)).to(device, dtype)
    handed = vectors.clone()
    product = operator.matmat(handed)
    check_product(operator, product, vectors)
    if not torch.equal(handed, vectors):
        raise ValueError(f"{operator!r} modifies its input; multiply into a new tensor")
    product = product.to(torch.float64, copy=True)
    if not bool(torch.isfinite(product).all()):
        raise NonFiniteError(f"{operator!r} gives NaN or Inf on a random vector in the self-check")
    again = operator.matmat(vectors[:, :1].clone())[:, 0].to(torch.float64)

    magnitude = float(product.abs().max())
    if magnitude == 0 and float(again.abs().max()) == 0:
        return OperatorCheck(0.0, 0.0)
    scaled, again = product / (magnitude or 1.0), again / (magnitude or 1.0)
    size = float(scaled.norm(dim=0).max())
    tolerance = torch.finfo(dtype).eps ** 0.5

    change = float((again - scaled[:, 0]).norm()) / (size or 1.0)
    if not change <= tolerance:
        raise NonDeterministicError(
            f"{operator!r} is random: the same product repeated differs by {change:.1e} "
            "(relative); fix its seed, or call model.eval() if the network has dropout"
        )
    exact = vectors.to(torch.float64)
    asymmetry = math.sqrt(dim) * abs(float(exact[:, 0] @ scaled[:, 1] - exact[:, 1] @ scaled[:, 0]))
    asymmetry /= size
    if asymmetry > 30 * tolerance:
        raise NotSymmetricError(
            f"{operator!r} is not symmetric: |u'Av - v'Au| is {asymmetry:.1e} relative to |A|; "
            "Lanczos would return plausible but wrong numbers"
        )
    if asymmetry > tolerance:
        warnings.warn(
            f"{operator!r} is symmetric only to {asymmetry:.1e} (low precision or TF32?); "
            "eigenvalues below that fraction of the largest mean nothing",
            stacklevel=3,
        )
    return OperatorCheck(magnitude, asymmetry)


def check_product(operator: Operator, product: Tensor, vectors: Tensor) -> None:
    """Raise ValueError unless ``product`` has the shape and dtype of ``vectors``."""
    shape = getattr(product, "shape", None)
    if shape != vectors.shape or product.dtype != vectors.dtype:
        raise ValueError(
            f"{operator!r} maps shape {tuple(vectors.shape)} and {vectors.dtype} to "
            f"{shape and tuple(shape)} and {getattr(product, 'dtype', type(product))}; it must "
            "keep both"
        )
