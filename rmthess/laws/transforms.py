"""The R-transform of any measure, from its Stieltjes transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

Equation = Callable[[Any, Any], tuple[Any, Any]]


def continued(equation: Equation, w: Any, mean: float, spread: float) -> Any:
    """R(w) as the solution of an equation E(u, R) = 0 from R = mean at u = 0 along u = s w, s to 1.

    ``equation`` returns E and ∂E/∂R; Newton's method in each of 32 steps. No 1/w occurs, so that
    small w keep their digits. Where a branch point lies on the way: NaN and a warning.
    """
    w = np.asarray(w)
    flat = w.ravel()
    R = np.full(flat.shape, mean, np.result_type(flat.dtype, float))
    with np.errstate(all="ignore"):
        for s in np.linspace(0, 1, 33)[1:] ** 2:
            start, change = R, np.full(R.shape, np.nan, R.dtype)
            for _ in range(12):
                error, rise = equation(s * flat, R)
                change = error / rise
                R = R - change
                if np.all(~(np.abs(change) > 1e-15 * (np.abs(R) + spread))):
                    break
            settled = np.abs(change) <= 1e-13 * (np.abs(R) + spread)
            R = np.where(settled & (np.abs(R - start) <= 0.5 * np.abs(start) + spread), R, np.nan)
    lost = np.isnan(R) & ~np.isnan(flat)
    if lost.any():
        warnings.warn(
            f"R-transform has no value at {np.count_nonzero(lost)} of {lost.size} points: "
            "w lies beyond a branch point",
            stacklevel=3,
        )
    return R.reshape(w.shape)[()]


def _of_atoms(measure: DiscreteMeasure, w: Any) -> Any:
    """Σ_j p_j (R - t_j)/(1 + w(R - t_j)) = 0; at real w the sum increases with R to its root."""
    kept = measure.weights > 0
    t, p = measure.nodes[kept], measure.weights[kept]

    def equation(u: Any, R: Any) -> tuple[Any, Any]:
        distance = R[..., None] - t
        inverse = 1 / (1 + u[..., None] * distance)
        return (distance * inverse) @ p, inverse**2 @ p

    mean, w = float(measure.moment(1)), np.asarray(w)
    if np.iscomplexobj(w):
        spread = np.sqrt(measure.moment(2) - mean**2)
        return continued(equation, w, mean, float(spread))
    flat = w.ravel().astype(float)
    with np.errstate(all="ignore"):  # all of 1 + w(R - t) positive, and R between mean and end
        low = np.where(flat > 0, np.fmax(mean, t[-1] - 1 / flat), t[0])
        high = np.where(flat > 0, t[-1], np.fmin(mean, t[0] - 1 / flat))
        R = np.where(flat == 0, mean, (low + high) / 2)
        for _ in range(200):
            value, rise = equation(flat, R)
            low, high = np.where(value < 0, R, low), np.where(value > 0, R, high)
            new = R - value / rise
            new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
            done = ~(np.abs(new - R) > 1e-16 * np.abs(R))
            R = np.where(flat == 0, mean, new)
            if np.all(done | (flat == 0)):
                break
    return R.reshape(w.shape)[()]


def r_transform(measure: SpectralMeasure, w: Any) -> Any:
    """R(w) = z - 1/w where G(z) = -m(z) = w, the branch with R(0) = mean.

    Real w: G decreases from its value at the right end of the measure to 0 at infinity, and
    likewise on the left, so bisection finds z. Complex w: Newton's method from z = 1/w + mean +
    variance w. A point without a solution, such as a real w beyond those end values, is NaN and
    warned of.
    """
    if isinstance(measure, LanczosMeasure):
        measure = measure.pooled
    if isinstance(measure, DiscreteMeasure):
        return _of_atoms(measure, w)
    w = np.asarray(w)
    mean = float(measure.moment(1))
    zero = w == 0
    safe = np.where(zero, 1.0, w)
    with np.errstate(all="ignore"):
        if np.iscomplexobj(w):
            variance = float(measure.moment(2)) - mean**2
            z: Any = _newton(measure, safe, 1 / safe + mean + variance * safe)
        else:
            z = _outside(measure, safe.astype(float))
        error = np.abs(-np.asarray(measure.stieltjes(z)) - safe)
    good = zero | (error <= 1e-12 * np.abs(safe))
    if not np.all(good):
        warnings.warn(
            f"R-transform has no value at {np.count_nonzero(~good)} of {good.size} points: "
            "w lies beyond the range of -m outside the support",
            stacklevel=2,
        )
    return np.where(good, np.where(zero, mean, z - 1 / safe), np.nan)[()]


def _outside(measure: SpectralMeasure, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real z beyond the ends of the measure, where 1/(z - left) <= G(z) <= 1/(z - right)."""
    left, right = measure.breakpoints[[0, -1]]
    low = np.where(w > 0, np.maximum(right, left + 1 / w), left + 1 / w)
    high = np.where(w > 0, right + 1 / w, np.minimum(left, right + 1 / w))
    z = (low + high) / 2
    for _ in range(100):
        over = -np.real(measure.stieltjes(z)) > w
        low, high = np.where(over, z, low), np.where(over, high, z)
        step = (low + high) / 2
        if np.all((step == z) | (high - low <= 1e-16 * np.abs(z))):
            break
        z = np.asarray(step)
    return np.asarray(z)


def _newton(measure: SpectralMeasure, w: Any, z: Any) -> Any:
    for _ in range(60):
        value = -np.asarray(measure.stieltjes(z))
        h = 1e-6 * np.abs(z)
        slope = (
            (np.asarray(measure.stieltjes(z - h)) - np.asarray(measure.stieltjes(z + h))) / h / 2
        )
        change = (value - w) / slope
        z = np.asarray(z - change)
        if np.all(~(np.abs(change) > 1e-15 * np.abs(z))):
            break
    return z
