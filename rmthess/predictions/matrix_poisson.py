"""A free compound Poisson law whose jumps are matrices (theory/softmax_glm.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from rmthess.laws.law import Interval, Law
from rmthess.laws.transforms import r_transform

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_CHUNK = 1 << 16  # matrices of one temporary
_GRID = 97
_LONGEST = 400  # steps of the walk along the real axis


@dataclass(frozen=True, eq=False)
class MatrixPoisson(Law):
    """m = tr Δ/(c d),  Δ = c (M(Δ) - z)⁻¹,  M(Δ) = E[(1 + GΔ)⁻¹ G]: Σ_i G_i ⊗ x_i x_iᵀ.

    G positive semidefinite (d, d) at ``jumps`` (N, d, d) with ``weights`` (N,) of sum 1; x_i (dim,)
    independent of G, entries of variance 1/samples; ``ratio`` c = dim/samples below 1. The support
    is taken to be one interval: ``integrate`` of 1 is 1 if it is.
    """

    ratio: float
    jumps: Array
    weights: Array

    @property
    def _side(self) -> int:
        return int(self.jumps.shape[1])

    def mean(self, delta: Any) -> tuple[Any, Any]:
        """F = (1 + GΔ)⁻¹G on the grid, (..., N, d, d), and its expectation M."""
        F = np.linalg.solve(np.eye(self._side) + self.jumps @ delta[..., None, :, :], self.jumps)
        return F, np.einsum("k,...kab->...ab", self.weights, F)

    def _linear(self, F: Any, Q: Any) -> Any:
        """The matrix of dΔ ↦ dΔ - c Q E[F dΔ F] Q, (..., d², d²)."""
        d = self._side
        weighted = self.weights[:, None, None] * F
        T = np.einsum("...kac,...keb->...abce", weighted, F)
        J = -self.ratio * np.einsum("...ia,...abce,...bj->...ijce", Q, T, Q, optimize=True)
        return J.reshape(*J.shape[:-4], d * d, d * d) + np.eye(d * d)

    def _newton(self, z: Any, delta: Any, rounds: int = 8) -> tuple[Any, Any]:
        """Newton's method at each z (B,) from Δ (B, d, d); and where it arrived."""
        d, eye = self._side, np.eye(self._side)
        done = np.zeros(z.shape, bool)
        for _ in range(rounds):
            F, M = self.mean(delta)
            Q = np.linalg.inv(M - z[:, None, None] * eye)
            off = (delta - self.ratio * Q).reshape(z.size, d * d, 1)
            step = np.linalg.solve(self._linear(F, Q), off).reshape(delta.shape)
            delta = delta - step
            size = np.abs(delta).max(axis=(1, 2))
            done = np.abs(step).max(axis=(1, 2)) <= 1e-9 * size  # the next is of rounding size
            if done.all():
                break
        return delta, done

    def slope(self, z: float, delta: Array) -> Array:
        """dΔ/dz at a real z outside the support: Δ' - c Q E[F Δ' F] Q = c Q²."""
        F, M = self.mean(delta)
        Q = np.linalg.inv(M - z * np.eye(self._side))
        right = (self.ratio * Q @ Q).reshape(-1)
        return np.asarray(np.linalg.solve(self._linear(F, Q), right).reshape(delta.shape))

    def at_trace(self, trace: float, delta: Array, z: float) -> tuple[Array, float, float]:
        """Δ, z and dz/d(tr Δ) outside the support where tr Δ is given: analytic through an edge.

        NaN unless the solution found from (Δ, z) is the one that leads to infinity: there Δ and
        M - z are definite, of one sign, and 1 + GΔ never singular.
        """
        d, eye = self._side, np.eye(self._side)
        whole, done = np.zeros((d * d + 1, d * d + 1)), False
        whole[-1, :-1] = eye.reshape(-1)
        for _ in range(30):
            F, M = self.mean(delta)
            residual = (delta @ (M - z * eye) / self.ratio - eye).reshape(-1)
            T = np.einsum("kac,keb->abce", self.weights[:, None, None] * F, F)  # -dM/dΔ
            first = np.einsum("ic,ej->ijce", eye, M - z * eye)
            J = (first - np.einsum("ia,ajce->ijce", delta, T)).reshape(d * d, d * d)
            whole[:-1, :-1], whole[:-1, -1] = J / self.ratio, -delta.reshape(-1) / self.ratio
            step = _solve(whole, np.append(residual, np.trace(delta) - trace))
            delta, z = delta - step[:-1].reshape(d, d), z - float(step[-1])
            delta = (delta + delta.T) / 2
            if not np.isfinite(step).all() or done:
                break
            done = bool(np.abs(step).max() <= 1e-7 * (np.abs(delta).max() + abs(z)))
        sign = np.sign(trace)
        ours = done and np.linalg.eigvalsh(sign * delta)[0] > 0
        ours = ours and np.linalg.det(eye + self.jumps @ delta).min() > 0
        if not ours:
            return delta, float("nan"), float("nan")
        tangent = _solve(whole, np.append(np.zeros(d * d), 1.0))
        return delta, z, float(tangent[-1])

    @cached_property
    def sides(self) -> tuple[tuple[Array, Array, Array], ...]:
        """Left and right of the support: tr Δ, z and Δ on a walk from far out to the edge."""
        return self._walk(1.0), self._walk(-1.0)

    def _walk(self, sign: float) -> tuple[Array, Array, Array]:
        """From tr Δ near 0 (z = ∓∞) in growing steps to the edge, where dz/d(tr Δ) = 0."""
        d, scale = self._side, float(np.abs(self.jumps).max())
        trace = sign * 1e-2 * self.ratio / scale
        path = [self.at_trace(trace, trace / d * np.eye(d), -self.ratio * d / trace)]
        traces, factor = [trace], 1.2
        while len(path) < _LONGEST and factor > 1 + 1e-7:
            new = self.at_trace(traces[-1] * factor, *path[-1][:2])
            near = np.abs(new[0] - path[-1][0]).max() <= 0.5 * np.abs(path[-1][0]).max()
            if not (np.isfinite(new[1]) and near):
                factor = float(np.sqrt(factor))
                continue
            traces, path = [*traces, traces[-1] * factor], [*path, new]
            if new[2] <= 0:
                traces[-1], path[-1] = self._edge(traces[-2], traces[-1], path[-2])
                deltas, places, _ = zip(*path, strict=True)
                return np.array(traces), np.array(places), np.array(deltas)
        raise ValueError(
            f"the bulk has no sharp edge on the {'left' if sign > 0 else 'right'}: followed to "
            f"{path[-1][1]:.3g}, where the curvature has a thin tail"
        )

    def _edge(
        self, before: float, beyond: float, start: tuple[Array, float, float]
    ) -> tuple[float, tuple[Array, float, float]]:
        """Where dz/d(tr Δ) = 0: tr Δ, and Δ, z, 0."""
        guess = start[:2]
        edge = float(
            brentq(lambda t: self.at_trace(t, *guess)[2], before, beyond, rtol=1e-14, xtol=1e-300)
        )
        return edge, self.at_trace(edge, *guess)

    @cached_property
    def support(self) -> tuple[Interval, ...]:
        return ((float(self.sides[0][1][-1]), float(self.sides[1][1][-1])),)

    @cached_property
    def _spline(self) -> CubicSpline:
        """Δ in the angle θ, z = middle - half cos θ: found in the middle, then to both ends."""
        left, right = self.support[0]
        theta = np.linspace(0, np.pi, _GRID)
        x = left + (right - left) * np.sin(theta / 2) ** 2
        deltas = np.empty((_GRID, self._side, self._side), complex)
        deltas[0], deltas[-1] = self.sides[0][2][-1], self.sides[1][2][-1]
        middle = _GRID // 2
        deltas[middle] = self._descend(np.array([x[middle] + 0j]))[0]
        for step in (-1, 1):
            for k in range(middle + step, _GRID - 1 if step > 0 else 0, step):
                guess = deltas[k - step]
                if abs(k - middle) > 1:
                    guess = 2 * guess - deltas[k - 2 * step]
                found, done = self._newton(x[k : k + 1] + 0j, guess[None])
                good = done[0] and np.linalg.eigvalsh(found[0].imag)[0] > 0
                deltas[k] = found[0] if good else self._descend(x[k : k + 1] + 0j)[0]
        return CubicSpline(theta, deltas)

    def _descend(self, z: Complex) -> Complex:
        """Δ at Im z >= 0 from far above, followed down by Newton's method.

        There is one with Im Δ positive definite (Helton, Rashidi Far & Speicher, IMRN 2007).
        """
        eye = np.eye(self._side)
        lift = 4 * float(np.abs(self.jumps).max()) * (1 + self.ratio) * np.ones(z.shape)
        delta = -self.ratio / (z + 1j * lift)[:, None, None] * eye
        delta, _ = self._newton(z + 1j * lift, delta, 40)
        shrink = np.full(z.shape, 0.3)
        active = np.arange(z.size)
        for _ in range(300):
            goal = lift[active] * shrink[active]
            goal = np.where(goal < 1e-11, 0.0, goal)
            new, done = self._newton(z[active] + 1j * goal, delta[active])
            lowest = np.linalg.eigvalsh(new.imag)[:, 0]
            good = done & (lowest > -1e-12 * np.abs(new).max(axis=(1, 2)))
            delta[active[good]], lift[active[good]] = new[good], goal[good]
            shrink[active] = np.where(good, 0.3, (1 + shrink[active]) / 2)
            active = active[lift[active] > 0]
            if not active.size:
                break
        delta[active] = np.nan
        return np.asarray(delta)

    def solve(self, z: Any) -> Complex:
        """Δ (..., d, d) at Im z >= 0, at real z the limit from above."""
        flat = np.ravel(np.asarray(z, complex))
        below = flat.imag < 0
        flat = np.where(below, np.conjugate(flat), flat)
        left, right = self.support[0]
        found = np.empty((flat.size, self._side, self._side), complex)
        inside = (flat.imag == 0) & (flat.real > left) & (flat.real < right)
        block = max(1, _CHUNK // self.weights.size)
        for part in np.array_split(np.flatnonzero(inside), -(-int(inside.sum()) // block) or 1):
            share = (flat[part].real - left) / (right - left)
            guess = self._spline(2 * np.arcsin(np.sqrt(share)))
            found[part], done = self._newton(flat[part], guess)
            found[part[~done]] = np.nan
        for k in map(int, np.flatnonzero(~inside)):
            found[k] = self._descend(flat[k : k + 1])[0]
        found[below] = np.conjugate(found[below])
        return found.reshape(*np.shape(z), self._side, self._side)

    def stieltjes(self, z: Any) -> Any:
        trace = np.trace(self.solve(z), axis1=-2, axis2=-1)
        return (trace / (self.ratio * self._side))[()]

    def r_transform(self, w: Any) -> Any:
        """From the Stieltjes transform."""
        return r_transform(self, w)


def _solve(matrix: Array, right: Array) -> Array:
    """The shortest solution: where classes can be exchanged, all directions turn at one edge."""
    if not np.isfinite(matrix).all():
        return np.full(right.shape, np.nan)
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=1e-9)[0])
