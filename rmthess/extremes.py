"""Tracy–Widom laws: where the largest eigenvalue of a random matrix lands at a soft edge.

With B_s(x, y) = Ai(x + y + s) on L^2(0, ∞) and D∓ = det(1 ∓ B_s),
    F_1(s) = D₋(s),   F_2(s) = D₋(s) D₊(s),   F_4(s) = (D₋ + D₊)(√2 s)/2   (Bornemann's scale).
Source: Ferrari & Spohn, J. Phys. A 38 (2005) for F_1; Bornemann, Math. Comp. 79 (2010) and Markov
Process. Relat. Fields 16 (2010) for the numerical determinants and for the scale of F_4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.special import airy

from rmthess.measure import check_probabilities

Array = NDArray[np.float64]

_LEFT, _RIGHT = -12.0, 18.0  # outside, F differs from 0 and 1 by less than 1e-18


def tracy_widom(beta: int) -> TracyWidom:
    """The Tracy–Widom law of index ``beta`` = 1 (real symmetric), 2 (Hermitian) or 4.

    For beta = 4 the argument is in Bornemann's scale (mean -2.30688); in the unscaled convention
    the law is F(s/√2).

    >>> round(float(tracy_widom(2).cdf(0.0)), 12)
    0.969372828355
    """
    if beta not in (1, 2, 4):
        raise ValueError(f"beta must be 1, 2 or 4, got {beta!r}")
    return TracyWidom(int(beta))


@dataclass(frozen=True)
class TracyWidom:
    """cdf, pdf, quantile, mean and variance of one Tracy–Widom law; absolute errors near 1e-14."""

    beta: int

    @property
    def _stretch(self) -> float:
        return float(np.sqrt(2)) if self.beta == 4 else 1.0

    @cached_property
    def _series(self) -> Chebyshev:
        """F(s/stretch) on [left, right]."""
        lower, upper = _determinants()
        if self.beta == 1:
            return lower
        return lower * upper if self.beta == 2 else (lower + upper) / 2

    def cdf(self, s: ArrayLike) -> Any:
        """F(s), vectorised."""
        t = np.asarray(s, float) * self._stretch
        inside = np.clip(self._series(np.clip(t, _LEFT, _RIGHT)), 0.0, 1.0)
        return np.where(t < _LEFT, 0.0, np.where(t > _RIGHT, 1.0, inside))[()]

    def pdf(self, s: ArrayLike) -> Any:
        """F'(s), vectorised."""
        t = np.asarray(s, float) * self._stretch
        density = self._stretch * self._series.deriv()(np.clip(t, _LEFT, _RIGHT))
        return np.where((t < _LEFT) | (t > _RIGHT), 0.0, np.maximum(density, 0.0))[()]

    def quantile(self, p: ArrayLike) -> Any:
        """Inverse of the cdf by bisection; -inf at p = 0 and inf at p = 1."""
        p = check_probabilities(p)
        low, high = np.full(p.shape, _LEFT), np.full(p.shape, _RIGHT)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(p == 0, -np.inf, np.where(p == 1, np.inf, high))[()]

    @property
    def mean(self) -> float:
        """∫ s dF = right - ∫ F."""
        return float(_RIGHT - _definite(self._series)) / self._stretch

    @property
    def variance(self) -> float:
        """∫ s² dF - mean², with ∫ s² dF = right² - 2 ∫ s F."""
        identity = Chebyshev.identity(domain=[_LEFT, _RIGHT])
        second = _RIGHT**2 - 2 * _definite(self._series * identity)
        return float(second) / self._stretch**2 - self.mean**2


_DEGREE = 140  # Chebyshev coefficients of both determinants are below 1e-14 beyond


def _definite(series: Chebyshev) -> Any:
    integral = series.integ()
    return integral(_RIGHT) - integral(_LEFT)


@cache
def _determinants() -> tuple[Chebyshev, Chebyshev]:
    """Chebyshev interpolants of D₋(s) and D₊(s) on [left, right].

    The determinants themselves come from Gauss–Legendre quadrature of the Fredholm determinant,
    which converges exponentially (Bornemann); Ai(16) = 4e-20 ends the half-line.
    """
    nodes, weights = np.polynomial.legendre.leggauss(80)
    points = np.polynomial.chebyshev.chebpts1(_DEGREE + 1)
    values = np.empty((2, points.size))
    for index, s in enumerate(0.5 * (_LEFT + _RIGHT) + 0.5 * (_RIGHT - _LEFT) * points):
        length = max(16.0 - s, 2.0)
        x, w = length * (nodes + 1) / 2, np.sqrt(length * weights / 2)
        kernel = w[:, None] * airy(x[:, None] + x[None, :] + s)[0] * w[None, :]
        # B_s is symmetric: both determinants follow from one set of eigenvalues
        spectrum = np.linalg.eigvalsh(kernel)
        values[:, index] = np.prod(1 - spectrum), np.prod(1 + spectrum)
    # not by the recursion of chebvander, which loses degree² roundings at the ends
    coefficients = dct(values[:, ::-1]) / points.size
    coefficients[:, 0] /= 2
    domain = [_LEFT, _RIGHT]
    return Chebyshev(coefficients[0], domain), Chebyshev(coefficients[1], domain)
