"""Subordination: the free convolution of any two measures, at eta = 0 (theory/free_convolution.md).

The points w₁(z), w₂(z) of the upper half-plane at which the terms have the transform of their free
convolution (Biane, Math. Z. 227 (1998)), at any z and on the real line itself. What they solve is
in ``equations``; the support is what the ``gaps`` leave. On each of its intervals w₁ and w₂ are
found once from above (``continuation``) and become splines of the logit of θ, x = left +
width sin²(θ/2), in which square-root edges are smooth; Newton's method takes their values to
rounding. Whatever is not certified then is reached from above, point by point.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from rmthess.free.continuation import Continuation
from rmthess.free.equations import Equations
from rmthess.free.gaps import Edge, gaps
from rmthess.free.two_atoms import TwoAtoms, two_atoms

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_EPS = float(np.finfo(float).eps)
_ANGLES = np.linspace(-14, 14, 113)  # logits of θ/π, x = left + width sin²(θ/2)
_NEAR = 1e-6  # of its length beyond an interval, √ depth says where to begin
_FEW = 3  # |logit| up to which an interval is reached from high above it


@contextmanager
def _quiet() -> Iterator[None]:
    """Poles and their limits are expected; so are iterates at which a nested convolution fails."""
    ignored = np.errstate(divide="ignore", invalid="ignore", over="ignore")
    with ignored, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, eq=False)
class Subordination:
    """w₁(z), w₂(z) for the two measures of a sum or a product."""

    equations: Equations

    @property
    def width(self) -> float:
        """A length of the order of the support."""
        return self.equations.width

    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        """m(z)."""
        return self.equations.transform(w1, w2, z)

    @cached_property
    def _continuation(self) -> Continuation:
        return Continuation(self.equations)

    @cached_property
    def _two_atoms(self) -> TwoAtoms | None:
        return two_atoms(self.equations)

    @cached_property
    @_quiet()
    def support(self) -> tuple[tuple[Edge, Edge], ...]:
        """The intervals of the support between the gaps; they may touch."""
        if self._two_atoms is not None:
            return self._two_atoms.support
        found = gaps(self.equations, self._continuation)
        return tuple((a.right, b.left) for a, b in pairwise(found))

    @cached_property
    def edges(self) -> Array:
        return np.array([edge.x for pair in self.support for edge in pair])

    def solve(self, z: Any) -> tuple[Complex, Complex]:
        """w₁ and w₂ at Im z >= 0, at real z the limits from above; NaN and a warning on failure."""
        points = np.asarray(z, complex)
        flat = points.ravel()
        finite = np.flatnonzero(np.isfinite(flat))
        with _quiet():
            w1, w2 = self._solve(flat, finite)
        bad = np.count_nonzero(np.isnan(w1[finite]))
        if bad:
            warnings.warn(
                f"free convolution: no certified solution at {bad} of {flat.size} points; "
                "they are NaN",
                stacklevel=3,
            )
        return w1.reshape(points.shape), w2.reshape(points.shape)

    def _solve(self, flat: Complex, finite: NDArray[np.intp]) -> tuple[Complex, Complex]:
        """The same for one row of points, of which these are finite."""
        w1, w2 = (np.full(flat.shape, np.nan + 1j * np.nan) for _ in range(2))
        if self._two_atoms is not None:
            w1[finite], w2[finite] = self._two_atoms.solve(flat[finite])
            below = flat.imag < 0
            w1[below], w2[below] = np.conjugate(w1[below]), np.conjugate(w2[below])
            return w1, w2
        real = flat.imag == 0
        where = np.searchsorted(self.edges, flat.real, side="right")
        left_to_do = np.ones(flat.shape, bool)
        for k, (left, right) in enumerate(self.support):
            ours = finite[(real & (where == 2 * k + 1))[finite]]
            for edge in (left, right):
                near = np.abs(flat - edge.x) <= (0.0 if edge.hard else 8 * _EPS * self.width)
                on = finite[near[finite]]
                w1[on], w2[on], left_to_do[on] = edge.first, edge.second, False
            ours = ours[left_to_do[ours]]
            starts = [(ours, self._guess(k, flat[ours].real))] if ours.size else []
            for side, edge in ((-1, left), (1, right)):
                depth = side * (flat.real - edge.x)
                near = real & left_to_do & (depth > 0) & (depth <= _NEAR * (right.x - left.x))
                beyond = np.flatnonzero(near)
                if beyond.size and not edge.hard:
                    starts.append((beyond, self._mirrored(k, edge, side, depth[beyond])))
            for ours, guess in starts:
                a, b, good, _ = self._continuation.newton(flat[ours], *guess, 20)
                w1[ours[good]], w2[ours[good]] = a[good], b[good]
                left_to_do[ours[good]] = False
        rest = finite[left_to_do[finite]]
        if rest.size:
            w1[rest], w2[rest] = self._continuation.descend(flat[rest])
        return w1, w2

    def _mirrored(self, k: int, edge: Edge, side: int, depth: Array) -> tuple[Complex, Complex]:
        """w₁ and w₂ in a gap, ``depth`` beyond that end of interval k.

        w - w(edge) is c √depth there, and i c √depth as far inside.
        """
        inside = self._guess(k, edge.x - side * depth)
        ends = (edge.first, edge.second)
        first, second = (
            np.asarray(end + side * w.imag, complex) for end, w in zip(ends, inside, strict=True)
        )
        return first, second

    def _guess(self, k: int, x: Array) -> tuple[Complex, Complex]:
        """w₁ and w₂ inside interval k by splines in the logit of the angle."""
        left, right = self.support[k]
        share = np.clip((x - left.x) / (right.x - left.x), 0.0, 1.0)
        other = np.clip((right.x - x) / (right.x - left.x), 0.0, 1.0)
        theta, rest = 2 * np.arcsin(np.sqrt(share)), 2 * np.arcsin(np.sqrt(other))
        with np.errstate(divide="ignore"):
            logit = np.log(theta) - np.log(rest)
        inner = np.clip(logit, _ANGLES[0], _ANGLES[-1])
        found = []
        for spline, ends in zip(self._splines[k], zip(left[1:3], right[1:3]), strict=True):
            w = spline(inner)
            for edge, beyond in zip(ends, (logit - inner < 0, logit - inner > 0), strict=True):
                shrink = np.exp(-np.abs(logit[beyond] - inner[beyond]))
                w[beyond] = edge + (w[beyond] - edge) * shrink
            found.append(w)
        return found[0], found[1]

    @cached_property
    def _splines(self) -> list[tuple[CubicSpline, CubicSpline]]:
        """w₁ and w₂ on each interval, solved from above in the middle and outwards from there."""
        theta = np.pi / (1 + np.exp(-_ANGLES))
        rest = np.pi / (1 + np.exp(_ANGLES))
        middle = np.abs(_ANGLES) <= _FEW
        found = []
        for left, right in self.support:
            length = right.x - left.x
            x = np.where(
                _ANGLES < 0,
                left.x + length * np.sin(theta / 2) ** 2,
                right.x - length * np.sin(rest / 2) ** 2,
            )
            z = x.astype(complex)
            w = np.full((2, z.size), np.nan + 1j * np.nan)
            w[:, middle] = self._continuation.descend(z[middle])
            near = np.where(
                _ANGLES < 0, [[left.first], [left.second]], [[right.first], [right.second]]
            )
            angle = np.where(_ANGLES < 0, theta, rest)
            start = np.where(_ANGLES < 0, *np.flatnonzero(middle)[[0, -1]])
            guess = near + (w[:, start] - near) * angle / angle[start]
            outer = np.flatnonzero(~middle)
            a, b, good, _ = self._continuation.newton(
                z[outer], guess[0, outer], guess[1, outer], 20
            )
            w[:, outer] = np.where(good, [a, b], guess[:, outer])
            missing = outer[~good]
            if missing.size:
                again = np.array(self._continuation.descend(z[missing]))
                w[:, missing] = np.where(np.isnan(again), w[:, missing], again)
            usable = np.isfinite(w).all(axis=0)
            if np.count_nonzero(usable) < 4:
                usable, w = np.ones(z.size, bool), np.full(w.shape, 1j * self.width)
            s = _ANGLES[usable]
            found.append((CubicSpline(s, w[0, usable]), CubicSpline(s, w[1, usable])))
        return found
