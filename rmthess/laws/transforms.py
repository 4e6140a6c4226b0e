"""The R-transform of any measure, from its Stieltjes transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

Equation = Callable[[Any, Any], tuple[Any, Any]]


def continued(equation: Equation, w: Any, mean: float, spread: float) -> Any:
    """R(w) as the solution of an equation E(u, R) = 0 from R = mean at u = 0 along u = s w, s to 1.

    ``equation`` returns E and ∂E/∂R. Newton's method in steps of s that are halved until each of
    its corrections is less than a quarter of the one before: then it stays on the branch. No 1/w
    occurs, so that small w keep their digits. Where a branch point lies on the way: NaN.
    """
    w = np.asarray(w)
    flat = w.ravel()
    R = np.full(flat.shape, mean, np.result_type(flat.dtype, float))
    s, ahead = np.zeros(flat.shape), np.ones(flat.shape)
    active = np.flatnonzero(np.isfinite(flat))
    while active.size:
        goal = np.minimum(s[active] + ahead[active], 1.0)
        trial, good = _newton_quarters(equation, goal * flat[active], R[active], spread)
        R[active] = np.where(good, trial, R[active])
        s[active] = np.where(good, goal, s[active])
        ahead[active] *= np.where(good, 2.0, 0.5)
        active = active[(s[active] < 1) & (ahead[active] > 1e-6)]
    R = np.where((s == 1) | np.isnan(flat), R + 0 * flat, np.nan)
    return R.reshape(w.shape)[()]


def _newton_quarters(equation: Equation, u: Any, R: Any, spread: float) -> tuple[Any, Any]:
    """Newton's method, and where every correction was less than a quarter of the last."""
    last, good = np.full(R.shape, spread / 2), np.ones(R.shape, bool)
    with np.errstate(all="ignore"):
        for _ in range(30):
            error, rise = equation(u, R)
            change = np.abs(error / rise)
            R = R - error / rise
            small = change <= 1e-14 * (np.abs(R) + spread)
            good &= small | (change <= last / 4)
            last = change
            if np.all(small | ~good):
                break
    return R, good & small


def _warn_of(lost: NDArray[np.bool_], reason: str) -> None:
    if lost.any():
        warnings.warn(
            f"R-transform has no value at {np.count_nonzero(lost)} of {lost.size} points: {reason}",
            stacklevel=3,
        )


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
        found = continued(equation, w, mean, float(spread))
        _warn_of(np.isnan(found) & ~np.isnan(w), "w lies beyond a branch point")
        return found
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
    likewise on the left, so bisection finds z. Complex w: along s w from R(0). Near w = 0, where
    the difference would cancel: Σ κ_n w^(n-1). A point without a solution, such as a real w beyond
    those end values, is NaN and warned of.
    """
    if isinstance(measure, LanczosMeasure):
        measure = measure.pooled
    if isinstance(measure, DiscreteMeasure):
        return _of_atoms(measure, w)
    if not isinstance(measure, Law):
        raise TypeError(f"an R-transform is of a law or a measure, got {type(measure).__name__}")
    w = np.asarray(w)
    mean = float(measure.moment(1))
    centred = [float(kappa) for kappa in measure.shift(-mean).free_cumulants(14)[1:]]
    small = np.abs(w) * np.abs(measure.breakpoints - mean).max() < 1e-2
    series = mean + w * np.polyval(centred[::-1], np.where(small, w, 0))
    safe = np.where(small, 1.0, w)
    if np.iscomplexobj(w):
        R: Any = continued(_equation(measure), np.where(small, np.nan, w), mean, centred[0] ** 0.5)
    else:
        R = _outside(measure, safe.astype(float)) - 1 / safe
    with np.errstate(all="ignore"):
        error = np.abs(-np.asarray(measure.stieltjes(R + 1 / safe)) - safe)
    lost = ~small & ~(error <= 1e-12 * np.abs(safe)) & ~np.isnan(w)
    _warn_of(lost, "w lies beyond the range of -m outside the support")
    return np.where(small, series, np.where(lost, np.nan, R))[()]


def _equation(law: Law) -> Equation:
    """(u - G(R + 1/u))/u²: R - mean to leading order."""

    def equation(u: Any, R: Any) -> tuple[Any, Any]:
        m, slope = law.stieltjes_and_slope(R + 1 / u)
        return (u + m) / u**2, slope / u**2

    return equation


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
