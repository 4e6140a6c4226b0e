"""The bulk of (1/n) Σ g x xᵀ for white x: how fine a grid of g it needs (theory/glm.md)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.free_compound_poisson import FreeCompoundPoisson
from rmthess.measure import DiscreteMeasure
from rmthess.predictions.features import CurvatureLaw, clipped
from rmthess.predictions.losses import Loss

Array = NDArray[np.float64]

_SETTLED = 1e-6  # relative change at a doubling; of a geometric rule its square is the error
_MOST_POINTS = {0: 1, 1: 4096, 2: 256}  # of the grid, an axis
_MOST_NODES = 128  # of the Gauss rule
_SEEN = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])


@dataclass(frozen=True, eq=False)
class WhiteBulk:
    """g on its grid, the bulk, the change at the last doubling in widths of the bulk.

    ``sharp`` says on which side, left and right, the end of the bulk is an edge that the limit law
    has; elsewhere g is unbounded or has a tail that no sample sees, and was clipped.
    """

    law: CurvatureLaw
    bulk: FreeCompoundPoisson
    change: float
    sharp: tuple[bool, bool]


def white_bulk(
    loss: Loss,
    grid: Callable[[int], CurvatureLaw],
    axes: int,
    ratio: float,
    variance: float,
    tail: float,
) -> WhiteBulk:
    """The free compound Poisson law of rate 1/ratio and jumps ratio·variance·g.

    The spectrum sees E[g/(1 + gδ)] with -1/δ outside the range of g, or off the real line: a Gauss
    rule of the law of g converges geometrically whatever the density of g. Grid and rule are
    doubled until the edges settle. Where one does not, g is clipped on that side at its quantile
    ``tail``, half a sample, and what must settle are quantiles of the bulk.
    """
    if np.isfinite([loss.low, loss.high]).all():
        found, ends = _by_edges(grid, axes, ratio * variance, ratio)
        if found is not None:
            return found
    else:
        ends = (np.isfinite(loss.low), np.isfinite(loss.high))
    points = 1024 if axes == 1 else _MOST_POINTS[axes]
    bulks = []
    for count in (points // 2, points):
        law = clipped(grid(count), tail, not ends[0], not ends[1])
        bulks.append(_rule(law, _MOST_NODES // 2, ratio * variance, ratio))
    seen = np.array([bulk.quantile(_SEEN) for bulk in bulks])
    change = float(np.abs(seen[1] - seen[0]).max() / np.ptp(seen[1]))
    if not change <= 1e-2:
        warnings.warn(
            f"the bulk is known to {change:.1g} of its width only, at {points} points of g an axis;"
            " state the kinks of g, or give a smoother g",
            stacklevel=3,
        )
    return WhiteBulk(law, bulks[1], change, ends)


def _by_edges(
    grid: Callable[[int], CurvatureLaw], axes: int, scale: float, ratio: float
) -> tuple[WhiteBulk | None, tuple[bool, bool]]:
    """The bulk if all its edges settle; else None, and which of its two ends do."""
    points, old = min(64, _MOST_POINTS[axes]), np.empty(0)
    while True:
        law = grid(points)
        if not law.values.any():
            raise ValueError("the curvature is 0 everywhere, and so is the Hessian")
        bulk, change, sharp = _rules(law, scale, ratio)
        new: Array = np.ravel(bulk.support)
        if axes:
            change = max(change, _change(old, new))
        if change <= _SETTLED:
            return WhiteBulk(law, bulk, change, (True, True)), sharp
        if points >= _MOST_POINTS[axes] or (points >= 512 and not all(sharp)):
            return None, sharp
        points, old = 2 * points, new


def _rules(
    law: CurvatureLaw, scale: float, ratio: float
) -> tuple[FreeCompoundPoisson, float, tuple[bool, bool]]:
    """The bulk from ever larger Gauss rules, the last change, and which outer edges settled."""
    count, old = 8, np.empty(0)
    while True:
        bulk = _rule(law, count, scale, ratio)
        new: Array = np.ravel(bulk.support)
        if np.unique(law.values).size <= count:
            return bulk, 0.0, (True, True)
        change = _change(old, new)
        if change <= _SETTLED**1.5:
            return bulk, change, (True, True)
        if count >= _MOST_NODES:
            width = float(np.ptp(new))
            left, right = (abs(new[k] - old[k]) <= _SETTLED * width for k in (0, -1))
            return bulk, change, (bool(left), bool(right))
        count, old = 2 * count, new


def _change(old: Array, new: Array) -> float:
    """Of edges, in widths of the bulk; infinite where an interval appeared or went."""
    if old.shape != new.shape:
        return float("inf")
    return float(np.abs(new - old).max() / np.ptp(new))


def _rule(law: CurvatureLaw, count: int, scale: float, ratio: float) -> FreeCompoundPoisson:
    jumps = law.compressed(count)
    return FreeCompoundPoisson(1 / ratio, DiscreteMeasure(scale * jumps.nodes, jumps.weights))
