"""Three products that show whether an operator may be trusted with a long run."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rmthess.operators.errors import (
    NonDeterministicError,
    NonFiniteError,
    NotLinearError,
    NotSymmetricError,
)
from rmthess.operators.operator import Operator


@dataclass(frozen=True)
class OperatorCheck:
    """``magnitude``: largest entry of a product with unit vectors; ``asymmetry``: see below."""

    magnitude: float
    asymmetry: float


def check_operator(operator: Operator) -> OperatorCheck:
    """asymmetry = sqrt(dim) |u'Av - v'Au| / max(|Au|, |Av|) for two random unit vectors.

    It is of order |A - Aᵀ|/|A|, because u'Bv is about |B|/dim and |Bu| about |B|/sqrt(dim).
    Products: A[u, v], then A(u + 2v), which must be Au + 2Av; where it is not, A u once more tells
    a random operator from one that is not linear, such as a Hessian taken at the vector instead of
    the weights. Scale-free, so eigenvalues of 1e±150 are no trouble.

    That a linear, symmetric operator is the curvature of this loss at these weights cannot be seen
    from products: that of a quadratic loss does not depend on the weights, and differences of
    gradients count the kinks of ReLU, which second derivatives leave out.

    Raises ValueError for a wrong shape, dtype or a modified input, NonFiniteError, NotLinearError
    or NonDeterministicError where the sum or the repetition differs by more than sqrt(eps) of the
    operator's rounding, NotSymmetricError above 30 sqrt(eps) (a warning above sqrt(eps): bf16,
    TF32), or above 0.2.

    >>> from rmthess.operators.as_operator import as_operator
    >>> check_operator(as_operator(np.diag([1.0, 2.0]))).asymmetry < 1e-15
    True
    """
    vectors = _draw(operator)
    handed = vectors.clone()
    product = operator.matmat(handed)
    check_product(operator, product, vectors)
    if not torch.equal(handed, vectors):
        raise ValueError(f"{operator!r} modifies its input; multiply into a new tensor")
    product = product.to(torch.float64, copy=True)
    of_sum = operator.matmat(vectors @ vectors.new_tensor([[1.0], [2.0]]))[:, 0].to(torch.float64)
    if not bool(torch.isfinite(product).all() and torch.isfinite(of_sum).all()):
        raise NonFiniteError(f"{operator!r} gives NaN or Inf on a random vector in the self-check")

    magnitude = float(product.abs().max())
    if magnitude == 0 and float(of_sum.abs().max()) == 0:
        return OperatorCheck(0.0, 0.0)
    scale = magnitude or 1.0
    scaled = product / scale
    size = float(scaled.norm(dim=0).max()) or 1.0
    if size * scale <= operator.rounding:  # zero but for rounding, which is neither
        return OperatorCheck(magnitude, 0.0)
    tolerance = operator.eps**0.5

    change = float((of_sum / scale - scaled[:, 0] - 2 * scaled[:, 1]).norm()) / size
    if change > tolerance:
        again = operator.matmat(vectors[:, :1].clone())[:, 0].to(torch.float64)
        _refuse_change(operator, change, float((again / scale - scaled[:, 0]).norm()) / size)
    exact = vectors.to(torch.float64)
    asymmetry = abs(float(exact[:, 0] @ scaled[:, 1] - exact[:, 1] @ scaled[:, 0]))
    asymmetry *= math.sqrt(operator.dim) / size
    # Nothing above 0.2 passes for rounding, not even in bfloat16, whose sqrt(eps) is 0.09.
    if asymmetry > min(30 * tolerance, 0.2):
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


def _draw(operator: Operator) -> Tensor:
    """Two unit vectors (dim, 2), always the same: the check must not depend on a run's seed."""
    drawn = np.random.default_rng(20220707).standard_normal((operator.dim, 2))
    unit = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0))
    return unit.to(operator.device, operator.dtype)


def _refuse_change(operator: Operator, of_sum: float, of_repetition: float) -> None:
    if of_repetition > operator.eps**0.5:
        raise NonDeterministicError(
            f"{operator!r} is random: the same product repeated differs by {of_repetition:.1e} "
            "(relative); fix its seed, or call model.eval() if the network has dropout"
        )
    raise NotLinearError(
        f"{operator!r} is not linear: A(u + 2v) differs from Au + 2Av by {of_sum:.1e} (relative); "
        "are its derivatives taken at the weights, or at the vector?"
    )
