"""Edges of a law: where its density begins and ends, and how steeply (theory/edges.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmthess.extremes import tracy_widom
from rmthess.laws.kernel_law import KernelLaw
from rmthess.laws.law import Law


@dataclass(frozen=True)
class Edge:
    """An end of an interval of the support.

    ``side`` says on which side of the edge there is no density. ``constant`` a > 0 at a soft edge,
    where ρ(x) ~ (a/π)√|x - location|; NaN at a hard edge, where the density does not vanish.
    """

    location: float
    side: Literal["left", "right"]
    constant: float

    @property
    def soft(self) -> bool:
        """Whether the density vanishes like a square root."""
        return bool(np.isfinite(self.constant))

    def scale(self, dim: int) -> float:
        """(a dim)^(-2/3): the outermost eigenvalue lies at location ± scale · Tracy–Widom.

        0 at a hard edge, which no eigenvalue of the bulk crosses.
        """
        return float((self.constant * dim) ** (-2 / 3)) if self.soft else 0.0

    def threshold(self, dim: int, level: float) -> float:
        """The point that a bulk's outermost eigenvalue passes with probability ``level``."""
        reach = self.scale(dim) * float(tracy_widom(1).quantile(1 - level))
        return self.location + reach if self.side == "right" else self.location - reach


def edges(law: Law) -> tuple[Edge, ...]:
    """Both ends of every interval of the support, from left to right.

    The constant is the limit of π ρ/√distance, extrapolated from 1e-6 and 2e-6 of the interval.

    >>> from rmthess import Semicircle
    >>> [(edge.location, round(edge.constant, 6)) for edge in edges(Semicircle())]
    [(-2.0, 1.0), (2.0, 1.0)]
    """
    found = []
    for left, right in law.support:
        inward = (float(right) - float(left)) * np.array([1e-6, 2e-6])
        found.append(Edge(float(left), "left", _constant(law, float(left), inward)))
        found.append(Edge(float(right), "right", _constant(law, float(right), -inward)))
    return tuple(found)


def cusps(law: Law) -> tuple[float, ...]:
    """Points inside the support where the density vanishes like a cube root: gaps about to open.

    Of laws with a rational kernel.

    >>> from rmthess import DeformedWigner, DiscreteMeasure
    >>> (found,) = cusps(DeformedWigner(DiscreteMeasure([0.0, 2.0], [0.5, 0.5]), variance=1))
    >>> round(found, 12)
    1.0
    """
    if not isinstance(law, KernelLaw):
        raise NotImplementedError(
            f"cusps of a {type(law).__name__} are not known here; look at the minima of its density"
        )
    return tuple(float(x) for x in law.kernel.cusps)


def _constant(law: Law, edge: float, inward: NDArray[np.float64]) -> float:
    density = np.asarray(law.density(edge + inward), float)
    near, far = np.pi * density / np.sqrt(np.abs(inward))
    # next order is linear in the distance; a cube root or a pole shows as a ratio far from 1
    return float(2 * near - far) if abs(near / far - 1) < 0.05 else float("nan")
