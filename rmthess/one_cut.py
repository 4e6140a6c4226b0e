"""The bulk of a measured spectrum, read off its Lanczos coefficients: edges and density, no law.

The coefficients of a one-cut bulk with square-root edges settle: a_k → a, b_k → b, and the bulk is
[a - 2b, a + 2b]. On a matrix of side dim they close in by about k/dim on the way, a straight line
whose value at k = 0 belongs to infinite size. Where they have settled the continued fraction may be
closed by the transform of constant coefficients: a smooth density without a bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess import jacobi
from rmthess.measure import LanczosMeasure

Array = NDArray[np.float64]

_LEAST = 16  # steps: eight to settle and eight to see that they have
_ROUGH = 2.5  # the tail may scatter so much more than random vectors explain,
_SHARED = 0.06  # of whose variance the probes of one matrix share about this part,
_LEAN = 6.0  # and lean by so much times k/dim: 0.5 for GOE matrices, 2.7 was the most seen
_PRICE = 6.0  # of one more step, in units of the noise variance; 5 to 7 give the same densities


@dataclass(frozen=True, eq=False)
class Bulk:
    """A one-cut bulk: ``edges`` (left, right), their standard ``errors``, and a density.

    ``depth`` K: so many coefficients are kept, ``diagonals`` (probes, K) and ``off_diagonals``
    (probes, K); those after are ``center`` a and ``half`` b. ``converged`` False: there is no such
    bulk here, edges are NaN, and ``message`` says what the coefficients do instead.

    The density misses the mass that its continued fraction has in poles outside the edges: that of
    outliers that were not deflated, and of noise.
    """

    diagonals: Array
    off_diagonals: Array
    center: float
    half: float
    errors: tuple[float, float]
    converged: bool
    message: str

    @property
    def depth(self) -> int:
        return int(self.diagonals.shape[1])

    @property
    def edges(self) -> tuple[float, float]:
        return self.center - 2 * self.half, self.center + 2 * self.half

    def __str__(self) -> str:
        if not self.converged:
            return self.message
        (left, right), (one, two) = self.edges, self.errors
        return (
            f"bulk from {left:.4g} ± {one:.1g} to {right:.4g} ± {two:.1g}, settled after "
            f"{self.depth} steps; {self.message}"
        )

    def density(self, x: ArrayLike) -> Array:
        """Im m(x + i0)/π of the continued fraction that ends in a and b; 0 outside the edges."""
        return self._density(x, self.diagonals.mean(axis=0), self.off_diagonals.mean(axis=0))

    def density_error(self, x: ArrayLike) -> Array:
        """Standard error of ``density`` over probes (jackknife), ``depth`` and ends held fixed."""
        count = self.diagonals.shape[0]
        if count < 2:
            return np.full(np.shape(x), np.nan)
        parts = np.array(
            [
                self._density(
                    x,
                    np.delete(self.diagonals, probe, axis=0).mean(axis=0),
                    np.delete(self.off_diagonals, probe, axis=0).mean(axis=0),
                )
                for probe in range(count)
            ]
        )
        return np.asarray(np.sqrt(count - 1) * parts.std(axis=0))

    def stieltjes(self, z: ArrayLike) -> NDArray[np.complex128]:
        """m(z) of the continued fraction."""
        return self._transform(z, self.diagonals.mean(axis=0), self.off_diagonals.mean(axis=0))

    def _transform(self, z: ArrayLike, a: Array, b: Array) -> NDArray[np.complex128]:
        if not self.converged:
            return np.full(np.shape(z), complex(np.nan, np.nan))
        # one constant row more, so that the last kept b joins the kept part to the tail
        return jacobi.stieltjes(np.append(a, self.center), b, z, (self.center, self.half))

    def _density(self, x: ArrayLike, a: Array, b: Array) -> Array:
        point = np.asarray(x, float)
        m = self._transform(point, a, b)
        left, right = self.edges
        inside = (point > left) & (point < right)
        return np.where(inside | np.isnan(m), np.abs(m.imag) / np.pi, 0.0)


def bulk(measure: LanczosMeasure) -> Bulk:
    """Edges a ± 2b and density of a one-cut bulk from the averaged Lanczos coefficients.

    A straight line in k is fitted to the second half of a_k and of b_k: its values at 0 are a and
    b, its scatter the noise of one coefficient. The first K coefficients are kept: beyond K they
    agree with the lines within that noise. Outliers delay the settling;
    deflate them first (deflated eigenvalues are not looked at).

    Not converged: fewer than 16 steps before a breakdown; a tail that scatters 2.5 times as much as
    random vectors explain (more than one cut: the coefficients oscillate); lines that lean by more
    than 6 k/dim and four of their errors, or coefficients that never agree with them (heavy tails,
    or too few steps).

    On nine bulks of side 2000 (64 steps, 8 probes; median of 20) edges were within 0.6% of the
    width, and the L1 error of the density below that of the best Gaussian smoothing, by 1.1 to 4
    times; not so beside a cusp, where the coefficients settle slowly (tests/test_one_cut.py).

    >>> from rmthess import Semicircle
    >>> a, b = Semicircle().sample_jacobi(40, 2000, np.random.default_rng(0), probes=8)
    >>> found = bulk(LanczosMeasure(a, b, np.zeros(8), 2000))
    >>> found.converged, np.allclose(found.edges, (-2, 2), atol=0.08)
    (True, True)
    """
    if not isinstance(measure, LanczosMeasure):
        raise TypeError(
            f"bulk reads Lanczos coefficients, got {type(measure).__name__}; of all eigenvalues, "
            "plot the histogram"
        )
    inner = measure.bulk
    pairs = zip(inner.diagonals, inner.off_diagonals, strict=True)
    blocks = [jacobi.leading_block(*pair) for pair in pairs]
    steps = min(a.size for a, _ in blocks) - 1
    if steps < _LEAST:
        return _refused(f"not converged: {steps} steps before a breakdown, {_LEAST} are needed")
    a, b = np.array([a[:steps] for a, _ in blocks]), np.array([b[:steps] for _, b in blocks])
    lines = [_line(part.mean(axis=0)) for part in (a, b)]
    doubt = _doubt(lines, a.shape[0], inner.dim)
    if doubt:
        return _refused(doubt)
    depth = _depth(a.mean(axis=0), b.mean(axis=0), lines)
    if depth > steps // 2:
        return _refused(f"not converged: the coefficients have not settled after {steps} steps")
    error = float(np.hypot(lines[0].error, 2 * lines[1].error))
    return Bulk(
        a[:, :depth], b[:, :depth], lines[0].level, lines[1].level, (error, error), True,
        f"from {a.shape[0]} probes of {steps + 1} steps",
    )  # fmt: skip


@dataclass(frozen=True)
class _Line:
    """level + slope k through the second half, the scatter about it, and the errors of the two."""

    level: float
    slope: float
    noise: float
    error: float
    slope_error: float

    def misfit(self, values: Array) -> Array:
        """Squared distances from the line, in units of the noise."""
        k = np.arange(values.size)
        return np.asarray(((values - self.level - self.slope * k) / self.noise) ** 2)


def _line(values: Array) -> _Line:
    k = np.arange(values.size // 2, values.size)
    design = np.stack([np.ones(k.size), k], axis=1)
    (level, slope), residual = np.linalg.lstsq(design, values[k], rcond=None)[:2]
    noise = float(np.sqrt(residual[0] / (k.size - 2)))
    error, slope_error = noise * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    return _Line(float(level), float(slope), noise, float(error), float(slope_error))


def _doubt(lines: list[_Line], probes: int, dim: int) -> str:
    """Why these are not the lines of a settled bulk; empty if they are.

    Of a random vector a_k scatters by b√(2/dim) and b_k by half of that, as for GOE matrices.
    """
    half = lines[1].level
    if half <= 0:
        return "not converged: the coefficients tend to zero"
    if any(abs(line.slope) > _LEAN * half / dim + 4 * line.slope_error for line in lines):
        return "not converged: the coefficients still drift (heavy tails, or too few steps)"
    expected = half * np.sqrt(2 / dim * (1 / probes + _SHARED))
    rough = max(lines[0].noise / expected, lines[1].noise / (expected / 2))
    if rough > _ROUGH:
        return (
            f"not one-cut: the coefficients scatter {rough:.2g} times as much as random vectors "
            "explain, as they do where there is a gap"
        )
    return ""


def _depth(a: Array, b: Array, lines: list[_Line]) -> int:
    """K that minimises (misfit of the coefficients from K on)/noise² + a price for each step kept.

    Akaike's price is 4, two for each of a_k and b_k, and keeps steps that are noise too often.
    """
    misfit = lines[0].misfit(a) + lines[1].misfit(b)
    after = np.append(np.cumsum(misfit[::-1])[::-1], 0.0)
    return int(np.argmin(after + _PRICE * np.arange(a.size + 1)))


def _refused(message: str) -> Bulk:
    empty = np.empty((1, 0))
    nan = float("nan")
    return Bulk(empty, empty, nan, nan, (nan, nan), False, message)
