"""An operator on the orthogonal complement of directions that are known already."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmthess.operators.as_operator import as_operator
from rmthess.operators.memory import free_memory, readable
from rmthess.operators.operator import Derived, Operator
from rmthess.operators.vectors import as_columns
from rmthess.ranks.null_space import NullSpace

Array = NDArray[np.float64]

# Columns of one product A Q: a big Q is not doubled by its image.
_BLOCK = 64


@dataclass(frozen=True, eq=False, repr=False)
class Deflated(Derived):
    """(I - P) A (I - P), P the projector on the removed directions, which get eigenvalue 0.

    ``operator``: A; ``subspace``: orthonormal columns (dim, d), or the null space they span;
    ``values``: the removed eigenvalues (d,), qᵀAq, ascending; ``residuals``: |Aq - λq| (d,).

    With R = AQ - QΛ every eigenvalue of A is within |R|₂ of one of ``values`` or of A restricted to
    the complement, both counted with multiplicity (Weyl), and within |R|₂²/gap where a gap parts
    the two (Li & Li, Linear Algebra Appl. 395 (2005), 183-190).
    """

    subspace: Tensor | NullSpace
    values: Array
    residuals: Array

    @property
    def vectors(self) -> Tensor:
        """Q (dim, d), in the order of ``values``."""
        if isinstance(self.subspace, Tensor):
            return self.subspace
        return torch.from_numpy(self.subspace.basis()).to(self.device, self.dtype)

    @property
    def rounding(self) -> float:
        return 16 * self.eps * float(np.abs(self.values).max(initial=0.0)) + self.operator.rounding

    def project(self, vectors: Tensor) -> Tensor:
        """(I - P) times columns (dim, k), in their dtype."""
        return vectors - _inside(self.subspace, vectors)

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        return self.project(self.operator.matmat(self.project(vectors)))

    def __repr__(self) -> str:
        return f"deflate({self.operator!r}, {len(self.values)} vectors)"


def deflate(operator: Any, vectors: Any) -> Deflated:
    """(I - QQᵀ) A (I - QQᵀ): A without directions that are known, so that the rest is resolved.

    ``operator``: anything that ``as_operator`` reads; ``vectors``: columns (dim, d) that span an
    invariant subspace, such as converged Ritz vectors, or ``eigenpairs(...)``, which has some. They
    are made orthonormal in float64 (QR) and rotated so that QᵀAQ = diag(``values``)
    (Rayleigh-Ritz), at the cost of d products.
    Or a ``null_space(...)``, whose projection needs no basis: ``values`` are 0, and ``residuals``
    all hold the largest |APg| of four Gaussian g, which is about the Frobenius norm of AP.

    Raises ValueError for columns that are dependent to half of their digits and where nothing is
    left, MemoryError where the basis does not fit. Warns where the vectors are no eigenvectors: a
    residual is above rounding and above a tenth of the root mean square eigenvalue of what is left.

    Source: Parlett, *The Symmetric Eigenvalue Problem* (1998), chapters 5 (deflation) and 11
    (Rayleigh-Ritz).

    >>> found = deflate(np.diag([1.0, 2.0, 9.0]), [0.0, 0.0, 3.0])
    >>> found.values, found.residuals
    (array([9.]), array([0.]))
    >>> found @ torch.ones(3, dtype=torch.float64)
    tensor([1., 2., 0.], dtype=torch.float64)
    """
    source = as_operator(operator)
    if isinstance(vectors, NullSpace):
        _check_fit(source, vectors)
        _check_count(source, vectors.dim)
        found = _without_null_space(source, vectors)
    else:
        columns = as_columns("vectors", getattr(vectors, "vectors", vectors), source.dim)
        _check_count(source, columns.shape[1])
        found = _without_span(source, columns)
    _warn_of_mixing(found)
    return found


def _without_span(operator: Operator, columns: Tensor) -> Deflated:
    _check_room(operator, columns.shape[1])
    Q = _orthonormal(columns.to(operator.device))
    images = torch.cat(
        [
            operator.matmat(block.to(operator.dtype)).to(torch.float64)
            for block in Q.split(_BLOCK, dim=1)
        ],
        dim=1,
    )
    projected = Q.T @ images
    scale = float(projected.abs().max()) or 1.0  # squares of 1e160 overflow
    values, rotation = torch.linalg.eigh((projected + projected.T) / (2 * scale))
    Q, values = Q @ rotation, values * scale
    residuals = _lengths(images @ rotation - Q * values)
    return Deflated(operator, Q.to(operator.dtype), values.cpu().numpy(), residuals.cpu().numpy())


def _without_null_space(operator: Operator, subspace: NullSpace) -> Deflated:
    within = _inside(subspace, _gaussian(operator, 4))
    largest = float(_lengths(operator.matmat(within).to(torch.float64)).max())
    return Deflated(operator, subspace, np.zeros(subspace.dim), np.full(subspace.dim, largest))


def _inside(subspace: Tensor | NullSpace, vectors: Tensor) -> Tensor:
    """P times columns, in their dtype."""
    found: Tensor
    if isinstance(subspace, Tensor):
        Q = subspace.to(vectors.dtype)
        found = Q @ (Q.T @ vectors)
        return found
    found = torch.from_numpy(subspace.project(vectors.detach().cpu().to(torch.float64).numpy()))
    return found.to(vectors.device, vectors.dtype)


def _orthonormal(columns: Tensor) -> Tensor:
    """A basis of the span, float64. Raises ValueError where a column lies in that of the others."""
    eps = torch.finfo(columns.dtype).eps
    lengths = _lengths(columns.to(torch.float64))
    Q: Tensor
    Q, triangle = torch.linalg.qr(columns / lengths.clamp(min=torch.finfo(torch.float64).tiny))
    smallest = float(torch.linalg.svdvals(triangle)[-1])
    if smallest < eps**0.5:
        raise ValueError(
            f"the {columns.shape[1]} vectors to deflate are linearly dependent: scaled to length "
            f"1, their smallest singular value is {smallest:.1e}; leave out what the others span"
        )
    return Q


def _lengths(columns: Tensor) -> Tensor:
    """Norms of float64 columns, without overflow of the squares."""
    largest = columns.abs().amax(dim=0)
    scaled = columns / largest.clamp(min=torch.finfo(torch.float64).tiny)
    norms: Tensor = torch.linalg.vector_norm(scaled, dim=0) * largest
    return norms


def _gaussian(operator: Operator, columns: int) -> Tensor:
    drawn = np.random.default_rng(19980115).standard_normal((operator.dim, columns))
    return torch.from_numpy(drawn).to(operator.device, operator.dtype)


def _check_fit(operator: Operator, subspace: NullSpace) -> None:
    parameters = operator.parameters
    if parameters is None:
        given, wanted = str(operator.dim), str(subspace.parameters)
    else:
        given = str([tuple(value.shape) for value in parameters.values])
        wanted = str(list(subspace.shapes))
    if given != wanted:
        raise ValueError(
            f"the null space is of parameters of shapes {wanted}, the operator's are {given}; "
            "it is that of all weights of a network without biases"
        )


def _check_count(operator: Operator, count: int) -> None:
    if count >= operator.dim:
        raise ValueError(
            f"{count} vectors to deflate leave nothing of an operator of dim {operator.dim}"
        )


def _check_room(operator: Operator, count: int) -> None:
    needed = 5 * 8 * operator.dim * count  # the columns, Q, its image, and rotated copies of both
    free = free_memory(operator.device)
    if free is not None and needed > free:
        raise MemoryError(
            f"deflating {count} vectors of dim {operator.dim} needs about {readable(needed)} on "
            f"{operator.device}, where {readable(free)} are free; deflate fewer, or pass a "
            "null_space, which needs no basis"
        )


def _warn_of_mixing(found: Deflated) -> None:
    rest = float(_lengths(found.matmat(_gaussian(found, 1)).to(torch.float64)).max())
    rest /= (found.dim - len(found.values)) ** 0.5
    worst = float(found.residuals.max(initial=0.0))
    rounding = 1e3 * found.eps * max(rest, float(np.abs(found.values).max(initial=0.0)))
    if worst > max(0.1 * rest, rounding):
        warnings.warn(
            f"the deflated vectors are no eigenvectors of {found.operator!r}: |Aq - λq| is up to "
            f"{worst:.1e}, where what is left has root mean square eigenvalue {rest:.1e}; its "
            "eigenvalues may be off by the former",
            stacklevel=3,
        )
