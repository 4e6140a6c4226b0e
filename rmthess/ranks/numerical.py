"""The rank of a measured spectrum, with the gap that justifies it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST_GAP = 1e6

Verdict = Literal["equal", "below", "violated", "undecided"]


class Bound(Protocol):
    """Anything with a rank in it, such as a ``RankBound``."""

    @property
    def value(self) -> int: ...


@dataclass(frozen=True)
class NumericalRank:
    """``value`` is None where no cut, or more than one, is wide enough to be called the rank.

    ``gap`` is the ratio |λ_k| / |λ_{k+1}| at the cut (at the widest one if undecided),
    ``threshold`` the geometric mean of the two, ``dim`` the number of eigenvalues, ``doubt`` the
    reason for ``value is None`` and empty otherwise.
    """

    value: int | None
    gap: float
    threshold: float
    dim: int
    doubt: str = ""

    def verdict(self, bound: Bound) -> Verdict:
        """This rank against a bound: equal, below, violated, or undecided."""
        if self.value is None:
            return "undecided"
        if self.value == bound.value:
            return "equal"
        return "below" if self.value < bound.value else "violated"

    def explain(self, bound: Bound | None = None) -> str:
        """One sentence: the rank, the gap, and the verdict on a bound if one is given."""
        if self.value is None:
            return f"rank of {self.dim} eigenvalues undecided: {self.doubt}"
        said = f"rank {self.value} of {self.dim}, gap {_short(self.gap)}"
        if bound is None:
            return said
        return {
            "equal": f"{said}; equals the bound {bound.value}",
            "below": f"{said}; {bound.value - self.value} below the bound {bound.value}: "
            "it holds, and the point is not a generic one",
            "violated": f"{said}; {self.value - bound.value} above the bound {bound.value}: "
            "the network, its data or its loss are not those of the bound",
        }[self.verdict(bound)]

    def __str__(self) -> str:
        return self.explain()


def numerical_rank(eigenvalues: ArrayLike) -> NumericalRank:
    """Number of eigenvalues above the one wide gap in log |λ|, or "undecided".

    With |λ_1| ≥ … ≥ |λ_n| and the noise floor ε n |λ_1| standing for every smaller value, and once
    more behind the last one so that a matrix of full rank has a gap too::

        rank = k    where |λ_k| / |λ_{k+1}| ≥ 1e6

    It is undecided if there is no such k, or more than one: then it depends on a threshold, and
    no threshold is better than another.

    Parameters
    ----------
    eigenvalues : (n,), of a symmetric matrix that was formed and diagonalised in float64; any
        order, either sign.

    >>> print(numerical_rank([3.0, -0.7, 2e-17, 0.0]))
    rank 2 of 4, gap 2.6e+14
    >>> numerical_rank([1.0, 1e-3, 1e-6, 1e-9, 1e-12]).value is None
    True
    """
    values = _checked(eigenvalues)
    dim, precision = values.size, np.finfo(values.dtype).eps
    sizes = np.sort(np.abs(values.astype(np.float64)))[::-1]
    if sizes[0] == 0:
        return NumericalRank(value=0, gap=np.inf, threshold=0.0, dim=dim)
    floor = dim * float(precision) * sizes[0]
    # A floor above the largest value leaves nothing to cut: the ratio is then 1 throughout.
    ladder = np.append(np.maximum(sizes, floor), floor)
    ratios = ladder[:-1] / ladder[1:]
    widest = int(np.argmax(ratios))
    cuts = np.flatnonzero(ratios >= SMALLEST_GAP)
    gap = float(ratios[widest])
    threshold = float(ladder[widest] / np.sqrt(gap))
    if cuts.size == 1:
        return NumericalRank(value=widest + 1, gap=gap, threshold=threshold, dim=dim)
    if cuts.size:
        ranks = " and ".join(f"{cut + 1} (gap {_short(ratios[cut])})" for cut in cuts)
        doubt = f"there are {cuts.size} wide gaps, for the ranks {ranks}"
    else:
        doubt = f"the widest gap is {_short(gap)}, after {widest + 1}; {SMALLEST_GAP:.0e} is needed"
    return NumericalRank(value=None, gap=gap, threshold=threshold, dim=dim, doubt=doubt)


def _checked(eigenvalues: ArrayLike) -> NDArray[np.floating[Any]]:
    values = np.asarray(eigenvalues)
    if values.ndim != 1:
        raise ValueError(
            f"eigenvalues must be a one-dimensional array, got shape {values.shape}; "
            "of a matrix take numpy.linalg.eigvalsh(matrix) first"
        )
    if values.size == 0:
        raise ValueError("eigenvalues is empty; the rank of nothing is not defined")
    if values.dtype.kind in "iu":
        values = values.astype(np.float64)
    if values.dtype.kind != "f":
        raise ValueError(
            f"eigenvalues must be real numbers, got dtype {values.dtype}; "
            "a symmetric matrix has real ones, numpy.linalg.eigvalsh returns them"
        )
    unusable = np.flatnonzero(~np.isfinite(values))
    if unusable.size:
        raise ValueError(
            f"{unusable.size} of {values.size} eigenvalues are NaN or infinite, the first at "
            f"index {unusable[0]}; find out where the Hessian overflows"
        )
    if values.dtype != np.float64:
        warnings.warn(
            f"eigenvalues are {values.dtype}, with a relative noise floor of at least "
            f"{np.finfo(values.dtype).eps:.0e}: compute the Hessian in float64",
            stacklevel=3,
        )
    return values


def _short(gap: float) -> str:
    return f"{gap:.2g}"
