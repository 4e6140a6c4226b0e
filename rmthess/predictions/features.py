"""What the curvature g sees of an input: a few Gaussian numbers, their grid and their directions.

x ~ N(mean, C), and g depends on x through r <= 2 linear features. With independent standard normal
s_1..s_r for them, E[x | s] = mean + Γ s, and for every function f of g

    E[f x xᵀ] = E[f] C + W M(f) Wᵀ,    W = [Γ, mean],
    M(f) = [[E f(s sᵀ - 1), E f s], [E f sᵀ, E f]].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.measure import DiscreteMeasure
from rmthess.predictions.losses import Loss

Array = NDArray[np.float64]
Labels = Callable[[Array], Sequence[tuple[Any, Any]]]

_REACH = 8.5  # standard deviations: a tail of 1e-17
_BLOCKS, _EACH = 64, 8
_PANEL = 256  # nodes of the Gauss–Legendre rule between two kinks


@dataclass(frozen=True, eq=False)
class Features:
    """Linear features u = offset + scale s of the inputs, s standard normal (r,).

    offset (k,), scale (k, r), directions Γ (dim, r) with columns Cov(x, s).
    """

    offset: Array
    scale: Array
    directions: Array

    @property
    def count(self) -> int:
        return int(self.scale.shape[1])


def features(
    rows: Array, noise: Array, mean: Array, times_covariance: Callable[[Array], Array]
) -> Features:
    """Of u = rows·x + noise·ε: rows (k, dim), noise (k,) standard deviations, C given by C·v.

    Σ = rows C rowsᵀ + diag(noise²) = scale scaleᵀ, Γ = C rowsᵀ scale⁺ᵀ; directions in which u does
    not vary are left out.
    """
    image = times_covariance(rows.T)
    values, vectors = np.linalg.eigh(rows @ image + np.diag(noise**2))
    kept = values > 1e-14 * max(float(values.max(initial=0.0)), 1e-300)
    root = np.sqrt(values[kept])
    return Features(rows @ mean, vectors[:, kept] * root, image @ (vectors[:, kept] / root))


@dataclass(frozen=True, eq=False)
class CurvatureLaw:
    """g on a grid of s: values (N,), weights (N,) of sum 1, points s (N, r)."""

    values: Array
    weights: Array
    points: Array

    def moments(self, f: Array) -> tuple[float, Array]:
        """E[f] and M(f) of the module's formula, shape (r + 1, r + 1), for f (N,) on the grid."""
        ours = self.weights * f
        y = np.column_stack([self.points, np.ones(ours.size)])
        M = (y * ours[:, None]).T @ y
        total = float(M[-1, -1])
        M[np.arange(y.shape[1] - 1), np.arange(y.shape[1] - 1)] -= total
        return total, M

    def compressed(self, nodes: int) -> DiscreteMeasure:
        """The Gauss rule of the law of g: exact for polynomials of degree below 2 nodes."""
        t, w = self._blocks
        t, w = jacobi.gauss_quadrature(*jacobi.from_quadrature(t, w, nodes))
        kept = w > 1e-20  # a pole of less mass cannot be told from where it acts
        return DiscreteMeasure(t[kept], w[kept] / w[kept].sum())

    @cached_property
    def _blocks(self) -> tuple[Array, Array]:
        """Few nodes for many: 8-point Gauss rules of 64 blocks of g in ascending order.

        Exact for polynomials of degree 15 on every block, so to rounding for what is smooth.
        """
        if self.values.size <= 2 * _BLOCKS * _EACH:
            return self.values, self.weights
        order = np.argsort(self.values)
        size = -(-order.size // _BLOCKS)
        filled = np.pad(order, (0, size * _BLOCKS - order.size), mode="edge")
        t, w = self.values[filled].reshape(_BLOCKS, size), self.weights[filled].copy()
        w[order.size :] = 0.0
        w = w.reshape(t.shape)
        middle, half = (t[:, :1] + t[:, -1:]) / 2, (t[:, -1:] - t[:, :1]) / 2
        unit = (t - middle) / np.where(half > 0, half, 1.0)
        kept = w.sum(axis=1) > 0
        a, b = jacobi.chains(lambda v: unit[kept] * v, np.sqrt(w[kept]), _EACH)
        rules = [jacobi.gauss_quadrature(*pair) for pair in zip(a, b, strict=True)]
        ends = zip(rules, middle[kept, 0], half[kept, 0], w[kept].sum(axis=1), strict=True)
        found = [(m + h * x, mass * share) for (x, share), m, h, mass in ends]
        nodes, weights = (np.concatenate(part) for part in zip(*found, strict=True))
        return nodes, weights


def curvature_law(
    loss: Loss, known: Features, nodes: int, labels: Labels | None = None
) -> CurvatureLaw:
    """g on a grid of ``nodes`` points an axis, times the labels (value, probability) given t.

    The trapezoidal rule, whose error is exponentially small for an analytic g times a Gaussian
    (Trefethen & Weideman, SIAM Rev. 56, 2014); Gauss–Legendre between the kinks of a g of one
    feature.
    """
    if known.count == 0:
        points, weights = np.zeros((1, 0)), np.ones(1)
    elif known.count == 1 and loss.kinks:
        cuts = (np.array(loss.kinks) - known.offset[0]) / known.scale[0, 0]
        points, weights = _panels(np.sort(cuts), min(nodes, _PANEL))
    else:
        axis = np.linspace(-_REACH, _REACH, nodes)
        bell = np.exp(-(axis**2) / 2)
        grids = np.meshgrid(*[axis] * known.count, indexing="ij")
        points = np.column_stack([grid.ravel() for grid in grids])
        weights = bell if known.count == 1 else np.outer(bell, bell).ravel()
        points, weights = points[weights > 1e-18], weights[weights > 1e-18]
    u = (known.offset + points @ known.scale.T).T
    if labels is not None:
        cases = [np.broadcast_arrays(u[1], *case)[1:] for case in labels(u[1])]
        points = np.tile(points, (len(cases), 1))
        weights = np.concatenate([weights * share for _, share in cases])
        u = np.array([np.tile(u[0], len(cases)), np.concatenate([y for y, _ in cases])])
    values = np.asarray(loss.curvature(*u), float)
    if values.shape != weights.shape or not np.isfinite(values).all():
        raise ValueError(
            f"the curvature of {loss.name} has shape {values.shape} for {weights.shape} points, "
            f"{np.count_nonzero(~np.isfinite(values))} of them not finite; it must be a finite "
            "function, vectorised"
        )
    return CurvatureLaw(values, weights / weights.sum(), points)


def _panels(cuts: Array, nodes: int) -> tuple[Array, Array]:
    """Gauss–Legendre on the pieces of [-reach, reach] between the cuts, with the normal density."""
    inside = cuts[(cuts > -_REACH) & (cuts < _REACH)]
    ends = np.concatenate([[-_REACH], inside, [_REACH]])
    t, w = np.polynomial.legendre.leggauss(nodes)
    half, middle = np.diff(ends) / 2, (ends[1:] + ends[:-1]) / 2
    points = (middle[:, None] + half[:, None] * t).ravel()
    weights = (half[:, None] * w).ravel() * np.exp(-(points**2) / 2)
    return points[:, None], weights


def clipped(law: CurvatureLaw, tail: float, low: bool, high: bool) -> CurvatureLaw:
    """The tails of g beyond its quantiles ``tail`` and 1 - ``tail`` moved there, where asked."""
    order = np.argsort(law.values)
    reached = np.cumsum(law.weights[order])
    ends = law.values[order][np.searchsorted(reached, [tail, 1 - tail])]
    values = np.clip(law.values, ends[0] if low else None, ends[1] if high else None)
    return CurvatureLaw(values, law.weights, law.points)
