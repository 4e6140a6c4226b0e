"""A kernel about ω = 0, where K(0) and K'(0) are known exactly: hard edges keep their digits.

A law with m = -1/ω, or another pole of m at ω = 0, has density 1/√distance where K'(0) = 0. There
K(ω) - x is a difference of equal numbers; written about ω = 0,

    K(ω) = K(0) + K'(0) ω + ω² Σ_j p_j/(ω - t_j),      p_j = residue_j/t_j²,

nothing cancels: ω and the density have a relative error of rounding size at any distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Anchor:
    """K(0), K'(0), and the poles and residues of K."""

    value: float
    slope: float
    poles: Array
    residues: Array

    @property
    def _shares(self) -> Any:
        return self.residues / self.poles**2

    def near(self, omega: Any) -> Any:
        """Where this form of K loses no more than the sum of simple poles."""
        return np.abs(omega) < np.abs(self.poles).min() / 4

    def _rise(self, omega: Any) -> tuple[Any, Any]:
        """Σ p/(ω - t) and K'(ω)."""
        inverse = 1 / (omega[..., None] - self.poles)
        bend = (omega[..., None] - 2 * self.poles) * inverse**2
        return inverse @ self._shares, self.slope + omega * (bend @ self._shares)

    def __call__(self, omega: Any) -> Any:
        omega = np.asarray(omega)
        return self.value + omega * (self.slope + omega * self._rise(omega)[0])

    def rise(self, omega: Complex) -> Complex:
        """K'."""
        return np.asarray(self._rise(omega)[1])

    def curve(self, omega: Complex) -> Complex:
        """s + i h with K real to rounding, from h² of absolute accuracy.

        Im K = 0 in this form: h² = s² - (K'(0) + 2 s Re P)/Q with P = Σ p/(ω - t) and
        Q = Σ p/|ω - t|², which move little with h.
        """
        s, square = omega.real, omega.imag**2
        for _ in range(4):
            inverse = 1 / ((s[:, None] - self.poles) ** 2 + square[:, None])
            pull = ((s[:, None] - self.poles) * inverse) @ self._shares
            square = np.maximum(s**2 - (self.slope + 2 * s * pull) / (inverse @ self._shares), 0.0)
        return np.asarray(s + 1j * np.sqrt(square))

    def turning_point(self, s: Array) -> Array:
        """Zeros of K' to rounding, from zeros of absolute accuracy."""
        if self.slope == 0:
            return np.zeros_like(s)
        for _ in range(8):
            bend = 2 * (1 / (s[:, None] - self.poles) ** 3) @ self.residues
            s = s - self._rise(s)[1] / bend
        return s

    def polish(self, omega: Complex, z: Complex, outside: NDArray[np.bool_]) -> Complex:
        """Roots ω of K(ω) = z to rounding, from roots of absolute accuracy.

        With P = Σ p/(ω - t) kept, K is quadratic: its root in the upper half-plane, or where K' > 0
        if z is real and outside the support, starts Newton's method.
        """
        distance = z - self.value
        P = self._rise(omega)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(self.slope**2 + 4 * P * distance)
            root = np.where((root * self.slope).real < 0, -root, root)
            larger = -(self.slope + root) / 2
            pair = np.stack([larger / P, -distance / larger])
            rank = np.where(outside, (self.slope + 2 * P * pair).real, pair.imag)
            u = np.where(rank[0] > rank[1], *pair)
            step = u
            for _ in range(6):
                P, rise = self._rise(u)
                step = (u * (self.slope + u * P) - distance) / rise
                u = u - step
        good = (np.abs(step) <= 1e-6 * np.abs(u)) & (outside | (u.imag > 0))
        good &= np.abs(u - omega) <= 1e-3 * np.abs(self.poles).min()
        u = np.where(outside, u.real + 1j * np.maximum(u.imag, 0), u)  # +0j: from above
        return np.asarray(np.where(good, u, omega))
