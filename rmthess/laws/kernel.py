"""The kernel z = K(ω) behind every law that has a rational parametrisation.

    K(ω) = a ω + b + ∫ dρ(t)/(ω - t),      a > 0,  ρ a positive measure of finitely many atoms.

Semicircle ⊞ μ, free compound Poisson laws and their sums, sample covariance and free compression
all have their Stieltjes transform as a function of the root ω(z) in the upper half-plane. What
makes one solver safe for all of them (Biane, Indiana Univ. Math. J. 46, 1997): ω(x + i0) = s + i
h(s), where the height h(s) >= 0 solves ∫ dρ(t)/((s - t)² + h²) = a, or is 0 where the integral at h
= 0 stays below a; and x = Re K(s + i h(s)) increases with s. So

* the edges of the support are K(s) at the real s with K'(s) = 0; between two neighbouring t the
  function K' is concave, so there are none or two, found from its maximum: no gap is missed;
* at real x inside the support there is one complex pair of roots: any root that has converged with
  Im ω > 0 is the right one, and where Newton's method fails, bisection in s cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from rmthess.laws.anchor import Anchor

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Terms = tuple[Sequence[Any], Sequence[Any], Any, Any]

_CHUNK = 1 << 20  # complex numbers of one temporary
_GRID = 257


@dataclass(frozen=True, eq=False)
class Kernel:
    """K(ω) = slope ω + offset + Σ_j residues_j/(ω - poles_j), slope and residues positive.

    ``origin`` is (K(0), K'(0)) where these are known better than from the sum.
    """

    poles: Array
    residues: Array
    slope: float = 1.0
    offset: float = 0.0
    origin: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        poles, index = np.unique(np.asarray(self.poles, float), return_inverse=True)
        residues = np.bincount(index, np.asarray(self.residues, float), poles.size)
        kept = residues > 0
        if not kept.any():
            raise ValueError("a kernel needs at least one pole with a positive residue")
        object.__setattr__(self, "poles", poles[kept])
        object.__setattr__(self, "residues", residues[kept])

    @property
    def _width(self) -> float:
        """A length of the order of the support in ω."""
        spread = float(self.poles[-1] - self.poles[0])
        return spread + 2 * float(np.sqrt(self.residues.sum() / self.slope))

    @cached_property
    def _scaled(self) -> tuple[float, Kernel | None]:
        """L = 2^k and the kernel of ω/L and z/L, where cubes of lengths would leave the doubles.

        A power of two changes no digit.
        """
        largest = max(self._width, float(np.abs(self.poles).max()), abs(self.offset))
        if self._width > 1e-60 and largest < 1e60:
            return 1.0, None
        unit = 2.0 ** round(float(np.log2(self._width)))
        residues = self.residues / unit / unit
        origin = self.origin and (self.origin[0] / unit, self.origin[1])
        return unit, Kernel(self.poles / unit, residues, self.slope, self.offset / unit, origin)

    @cached_property
    def _anchor(self) -> Anchor | None:
        if self.origin is None or (self.poles == 0).any():
            return None
        return Anchor(*self.origin, self.poles, self.residues)

    def __call__(self, omega: Any) -> Any:
        return self._value_and_slope(np.asarray(omega))[0]

    def _value_and_slope(self, omega: Any) -> tuple[Any, Any]:
        """K and K', in blocks of bounded memory."""
        flat = np.ravel(omega)
        value, slope = np.empty_like(flat), np.empty_like(flat)
        for part in self._blocks(flat.size):
            inverse = 1 / (flat[part, None] - self.poles)
            value[part] = inverse @ self.residues
            np.square(inverse, out=inverse)
            slope[part] = inverse @ self.residues
        shape = np.shape(omega)
        value = self.slope * omega + self.offset + value.reshape(shape)
        return value, self.slope - slope.reshape(shape)

    def rise(self, omega: Any) -> Any:
        """K'."""
        return self._value_and_slope(np.asarray(omega))[1]

    def bend(self, omega: Any) -> Any:
        """K''."""
        return 2 * (1 / (omega[..., None] - self.poles) ** 3) @ self.residues

    def _pull(self, s: Array, y: ArrayLike) -> tuple[Array, Array]:
        """f = Σ residues/((s - pole)² + y) and -∂f/∂y, in blocks of bounded memory."""
        height = np.broadcast_to(np.asarray(y, float), s.shape)
        value, slope = np.empty_like(s), np.empty_like(s)
        for part in self._blocks(s.size):
            inverse = 1 / ((s[part, None] - self.poles) ** 2 + height[part, None])
            value[part] = inverse @ self.residues
            slope[part] = inverse**2 @ self.residues
        return value, slope

    def _blocks(self, count: int) -> list[slice]:
        block = max(1, _CHUNK // self.poles.size)
        return [slice(start, start + block) for start in range(0, count, block)]

    @cached_property
    def turning_points(self) -> Array:
        """Real s, ascending, with K'(s) = 0: two by two the ends of the intervals of the support.

        Outside the poles K' increases from -∞ to the slope: one root on each side. Between two
        poles Σ residues/(s - pole)² is convex: two roots where its minimum lies below the slope. A
        gap of the support below the rounding of its ends is no gap.
        """
        unit, scaled = self._scaled
        if scaled is not None:
            return unit * scaled.turning_points
        poles, reach = self.poles, np.sqrt(self.residues.sum() / self.slope)
        nearest = np.sqrt(self.residues / self.slope)
        low, middle, high = self._minima
        opened = self._pull(middle, np.zeros(middle.size))[0] < self.slope
        bottom = middle[opened]
        outer = np.array([poles[0] - nearest[0], poles[-1] + nearest[-1]])
        below = np.concatenate([[poles[0] - reach, poles[-1] + reach], bottom, bottom])
        roots = self._roots(below, np.concatenate([outer, low[opened], high[opened]]))
        pairs = roots[2:].reshape(2, -1)
        ends = np.asarray(self(pairs), float)
        kept = ends[1] - ends[0] > 4e-16 * self._size(pairs).max(axis=0)
        turns = np.sort(np.concatenate([roots[:2], pairs[:, kept].ravel()]))
        if self._anchor is not None:
            near = self._anchor.near(turns)
            turns[near] = self._anchor.turning_point(turns[near])
        return turns

    @cached_property
    def _minima(self) -> tuple[Array, Array, Array]:
        """(low, s, high): where Σ residues/(s - pole)² is least between poles, in its bracket.

        Two poles nearer to each other than the distances at which each alone reaches the slope
        leave no room for a gap.
        """
        nearest = np.sqrt(self.residues / self.slope)
        low, high = self.poles[:-1].copy(), self.poles[1:].copy()
        wide = (high - low) > 0.999 * (nearest[:-1] + nearest[1:])
        low, high = low[wide] + nearest[:-1][wide], high[wide] - nearest[1:][wide]
        middle = (low + high) / 2
        left, right = np.minimum(low, high), np.maximum(low, high)
        active = np.arange(middle.size)
        for _ in range(80):  # Newton's method on the derivative, which increases; or bisection
            s = middle[active]
            inverse = 1 / (s[:, None] - self.poles)
            cubes = inverse**3
            falling, bend = cubes @ self.residues, (cubes * inverse) @ self.residues
            left[active] = a = np.where(falling > 0, s, left[active])
            right[active] = b = np.where(falling > 0, right[active], s)
            step = s + falling / (3 * bend)
            # quadratic convergence: a step of 1e-8 of the way to a pole leaves roundings of it
            done = np.abs(step - s) * np.abs(inverse).max(axis=1) <= 1e-8
            step = np.where((step > a) & (step < b), step, np.where(done, s, (a + b) / 2))
            middle[active] = step
            done |= b - a <= 4e-16 * np.maximum(np.abs(a), np.abs(b))
            active = active[~done]
            if not active.size:
                break
        return low, middle, high

    @cached_property
    def cusps(self) -> Array:
        """K(s) where K' = K'' = 0: where two intervals touch, and the density is a cube root.

        There the least value of Σ residues/(s - pole)² is the slope: to 1e-12 of it, or below it
        with a gap that is lost in the roundings of its ends.
        """
        unit, scaled = self._scaled
        if scaled is not None:
            return unit * scaled.cusps
        low, middle, high = self._minima
        value = self._pull(middle, np.zeros(middle.size))[0]
        turns = self.turning_points
        opened = np.searchsorted(turns, np.maximum(low, high)) > np.searchsorted(
            turns, np.minimum(low, high)
        )
        touching = middle[(value <= (1 + 1e-12) * self.slope) & ~opened]
        return np.asarray(self(touching), float)

    def _size(self, omega: Any) -> Any:
        """A bound on the terms of K(ω), whose roundings K(ω) has.

        Where Σ residues/|ω - pole|² <= slope, by the inequality of Cauchy and Schwarz.
        """
        return self.slope * (np.abs(omega) + self._width) + abs(self.offset)

    def _roots(self, below: Array, above: Array) -> Array:
        """s between ``below``, where Σ residues/(s - pole)² <= slope, and ``above``, where not.

        Newton's method on a convex function from the side where it is large never overshoots;
        bisection takes over where rounding would.
        """
        found, active = above.copy(), np.arange(above.size)
        below, above = below.copy(), above.copy()
        for _ in range(200):
            s = found[active]
            inverse = 1 / (s[:, None] - self.poles)
            squares = inverse**2
            value = squares @ self.residues - self.slope
            below[active] = np.where(value <= 0, s, below[active])
            above[active] = np.where(value <= 0, above[active], s)
            one, other = below[active], above[active]
            step = s + value / (2 * ((squares * inverse) @ self.residues))
            good = (np.minimum(one, other) < step) & (step < np.maximum(one, other))
            step = np.where(good, step, (one + other) / 2)
            found[active] = step
            done = np.abs(step - s) <= 2e-16 * np.maximum(np.abs(s), np.abs(step))
            active = active[~(done | (step == one) | (step == other))]
            if not active.size:
                break
        return found

    @cached_property
    def edges(self) -> Array:
        """K at the turning points: left, right, left, right, ... ends of the support."""
        unit, scaled = self._scaled
        if scaled is not None:
            return unit * scaled.edges
        found = np.asarray(self(self.turning_points), float)
        if self._anchor is not None:
            near = self._anchor.near(self.turning_points)
            found[near] = self._anchor(self.turning_points[near])
        return found

    def height(self, s: Array) -> Array:
        """h(s): the root of Σ residues/((s - pole)² + h²) = slope, or 0; Newton in h²."""
        y = np.empty_like(s)
        tiny = (1e-300 + 1e-18 * self._width) * self._width
        for part in self._blocks(s.size):
            off = s[part, None] - self.poles
            least = np.where((off == 0).any(axis=1), tiny, 0.0)
            y[part] = np.maximum(least, (self.residues / self.slope - off**2).max(axis=1))
        for _ in range(200):
            value, slope = self._pull(s, y)
            step = np.maximum((value - self.slope) / slope, 0.0)
            y = y + step
            if np.all(step <= 1e-15 * y):
                break
        return np.sqrt(y)

    def curve(self, s: Array) -> tuple[Complex, Array, Array]:
        """ω = s + i h(s), x = K(ω) and dx/ds = |K'(ω)|²/Re K'(ω): where the support is real."""
        unit, scaled = self._scaled
        if scaled is not None:
            omega, x, rise = scaled.curve(s / unit)
            return unit * omega, unit * x, rise
        omega = s + 1j * self.height(s)
        value, slope = self._value_and_slope(omega)
        if self._anchor is not None:
            near = self._anchor.near(omega)
            omega[near] = self._anchor.curve(omega[near])
            value[near] = self._anchor(omega[near])
            slope[near] = self._anchor.rise(omega[near])
        with np.errstate(divide="ignore", invalid="ignore"):
            return omega, value.real, np.abs(slope) ** 2 / slope.real

    @cached_property
    def _splines(self) -> CubicSpline:
        """ω on every interval as a function of θ, x = middle - half cos θ: analytic in θ."""
        left, right = self.edges[::2], self.edges[1::2]
        start, stop = self.turning_points[::2], self.turning_points[1::2]
        theta = np.linspace(0, np.pi, int(np.clip(1024 // left.size, 17, _GRID)))
        share = np.sin(theta / 2)[:, None] ** 2
        s = start + (stop - start) * share
        coarse = s + 1j * self.height(s.ravel()).reshape(s.shape)
        coarse[[0, -1]] = start, stop
        reached = np.maximum.accumulate(np.clip(self(coarse).real, left, right))
        angles = 2 * np.arcsin(np.sqrt(np.clip((reached - left) / (right - left), 0, 1)))
        omega = np.empty_like(coarse)
        for k, (angle, values) in enumerate(zip(angles.T, coarse.T, strict=True)):
            angle, unique = np.unique(angle, return_index=True)
            real, imaginary = values[unique].real, values[unique].imag
            omega[:, k] = np.interp(theta, angle, real) + 1j * np.interp(theta, angle, imaginary)
        inner = (left + (right - left) * share)[1:-1]
        index = np.broadcast_to(2 * np.arange(left.size), inner.shape)
        found = self._inside(inner.ravel(), omega[1:-1].ravel(), index.ravel())
        omega[1:-1] = found.reshape(inner.shape)
        omega[[0, -1]] = start, stop
        return CubicSpline(theta, omega)

    def _guess(self, x: Array, index: NDArray[np.intp]) -> Complex:
        """ω at x by the splines; ``index`` of the turning point at which its interval begins."""
        left, right = self.edges[index], self.edges[index + 1]
        theta = 2 * np.arcsin(np.sqrt(np.clip((x - left) / (right - left), 0.0, 1.0)))
        knots = self._splines.x
        cell = np.minimum((theta / knots[1]).astype(int), knots.size - 2)
        a, b, c, d = self._splines.c[:, cell, index // 2]
        t = theta - knots[cell]
        return np.asarray(((a * t + b) * t + c) * t + d)

    def solve(self, z: ArrayLike) -> Complex:
        """ω with K(ω) = z, Im z >= 0; at real z the limit from above, real outside the support."""
        points = np.asarray(z, complex)
        unit, scaled = self._scaled
        if scaled is not None:
            return unit * scaled.solve(points / unit)
        flat = points.ravel()
        below = flat.imag < 0
        flat = np.where(below, np.conjugate(flat), flat)
        omega = np.full(flat.shape, np.nan + 1j * np.nan)
        finite = np.isfinite(flat)
        real = finite & (flat.imag == 0)
        x = flat.real
        where = np.searchsorted(self.edges, x, side="right")
        on_edge = real & (where > 0) & (x == self.edges[np.maximum(where - 1, 0)])
        omega[on_edge] = self.turning_points[where[on_edge] - 1]
        off = finite & (flat.imag > 0)
        room = np.abs(x[:, None] - self.edges).min(axis=1)
        outside = ~on_edge & (where % 2 == 0) & (real | (off & (flat.imag <= 1e-9 * room)))
        if outside.any():  # just above the axis ω moves by i Im z/K', to the square of 1e-9
            s = self._beyond(x[outside], where[outside])
            omega[outside] = s + 1j * flat.imag[outside] / self.rise(s)
        off &= ~outside
        inside = real & ~on_edge & (where % 2 == 1)
        if inside.any():
            index = where[inside] - 1
            omega[inside] = self._inside(x[inside], self._guess(x[inside], index), index)
        if off.any():
            omega[off] = self._above(flat[off])
        if self._anchor is not None:
            near = finite & ~on_edge & self._anchor.near(omega)
            omega[near] = self._anchor.polish(omega[near], flat[near], outside[near])
        omega[below] = np.conjugate(omega[below])
        return omega.reshape(points.shape)

    def _newton(
        self, z: Complex, omega: Complex, rounds: int, rounded: bool = False
    ) -> tuple[Complex, NDArray[np.bool_]]:
        """Newton's method, each point until its step is at rounding level; and where it arrived.

        ``rounded``: K(ω) = z up to roundings counts as arrived, whatever the step.
        """
        omega = np.array(omega, complex)
        done = np.zeros(omega.shape, bool)
        active = np.arange(omega.size)
        for _ in range(rounds):
            value, slope = self._value_and_slope(omega[active])
            with np.errstate(divide="ignore", invalid="ignore"):
                step = (value - z[active]) / slope
            new = omega[active] - step
            omega[active] = new
            # quadratic convergence: a step of 1e-9 leaves an error of rounding size
            small = np.abs(step) <= 1e-9 * np.minimum(np.abs(new.imag), self._width)
            exact = np.abs(step) <= 4e-16 * np.maximum(np.abs(new), self._width)
            arrived = (small | exact) & np.isfinite(new)
            done[active[arrived]] = True
            active = active[~arrived & np.isfinite(new)]
            if not active.size:
                break
        if rounded and active.size:
            # next to a turning point the steps stay above 1e-9: roundings of K over a small K'
            stays = np.abs(self(omega[active]) - z[active]) <= 4e-16 * self._size(omega[active])
            done[active[stays]] = True
        return omega, done

    def _inside(self, x: Array, guess: Complex, index: NDArray[np.intp]) -> Complex:
        """ω at x inside the interval that begins at turning point ``index``."""
        omega, good = self._found(x, guess)
        if not good.all():
            omega[~good] = self._bisect(x[~good], index[~good])
        return omega

    def _found(self, x: Array, guess: Complex) -> tuple[Complex, NDArray[np.bool_]]:
        """Where Newton's method leads from a guess, and whether that is ω."""
        omega, done = self._newton(x.astype(complex), guess, 12)
        omega = np.where(omega.imag < 0, omega.conj(), omega)  # of a real x both are roots
        good = done & (omega.imag > 0)
        doubtful = np.flatnonzero(good & (omega.imag < 1e-3 * self._width))
        good[doubtful] = self._on_curve(omega[doubtful])
        return omega, good

    def _on_curve(self, omega: Complex) -> NDArray[np.bool_]:
        """Whether Σ residues/|ω - pole|² is the slope; at a real root it is the slope less K'.

        A real root next to a cusp can have Im ω > 0 by a rounding error.
        """
        off = self._pull(omega.real, omega.imag**2)[0] - self.slope
        return np.asarray(np.abs(off) <= 0.5 * np.abs(self.rise(omega)))

    def _bisect(self, x: Array, index: NDArray[np.intp]) -> Complex:
        """ω by bisection in s = Re ω, along which x increases; Newton's method now and then."""
        low, high = self.turning_points[index], self.turning_points[index + 1]
        found, left = np.empty(x.shape, complex), np.arange(x.size)
        for halvings in range(60):
            s = (low + high) / 2
            omega = s + 1j * self.height(s)
            if halvings % 6 == 5:
                root, good = self._found(x[left], omega)
                found[left[good]] = root[good]
                low, high, s, omega = low[~good], high[~good], s[~good], omega[~good]
                left = left[~good]
                if not left.size:
                    return found
            over = self(omega).real > x[left]
            low, high = np.where(over, low, s), np.where(over, s, high)
        s = (low + high) / 2
        omega = s + 1j * self.height(s)
        polished, done = self._newton(x[left].astype(complex), omega, 6)
        better = done & (polished.imag > 0)
        better &= np.abs(polished - omega) <= 1e-3 * self._width
        found[left] = np.where(better, polished, omega)
        return found

    def _beyond(self, x: Array, where: NDArray[np.intp]) -> Array:
        """Real ω at x outside the support: K increases there, between two turning points."""
        turns = self.turning_points
        # beyond the outermost poles K(s) lies between slope s + offset and that of one lumped pole
        reach = np.abs(x - self.offset) / self.slope + np.abs(turns[[0, -1]]).max() + self._width
        low = np.where(where == 0, -reach, turns[np.maximum(where - 1, 0)])
        high = np.where(where == turns.size, reach, turns[np.minimum(where, turns.size - 1)])
        s = (low + high) / 2
        for _ in range(120):
            value, slope = self._value_and_slope(s)
            over = value > x
            low, high = np.where(over, low, s), np.where(over, s, high)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = s - (value - x) / slope
            step = np.where((step > low) & (step < high), step, (low + high) / 2)
            done = np.abs(step - s) <= 2e-16 * np.maximum(np.abs(s), np.abs(step))
            s = step
            if done.all():
                break
        return s

    def _above(self, z: Complex) -> Complex:
        """ω at Im z > 0: Newton along z + iη from large η down to 0, halving η where needed.

        K is one-to-one onto the upper half-plane on the domain of such ω, on which Im ω >= Im
        z/slope and K' does not vanish: the path has no branch point.
        """
        far = 4 * self._width * max(self.slope, 1.0) + np.abs(z)
        lift = np.array(far)
        first = np.asarray((z + 1j * lift - self.offset) / self.slope, complex)
        omega, _ = self._newton(z + 1j * lift, first, 30)
        active = np.arange(z.size)
        shrink = np.zeros(z.shape)
        for _ in range(400):
            target = lift[active] * shrink[active]
            target = np.where(target < 1e-3 * z[active].imag, 0.0, target)
            start = omega[active]
            _, slope = self._value_and_slope(start)
            guess = start + 1j * (target - lift[active]) / slope
            new, done = self._newton(z[active] + 1j * target, guess, 6, rounded=True)
            near = np.abs(new - guess) <= 0.3 * np.abs(new.imag)
            good = done & near & (new.imag * self.slope >= 0.999 * z[active].imag)
            omega[active[good]] = new[good]
            lift[active[good]] = target[good]
            shrink[active] = np.where(good, 0.0, (1 + shrink[active]) / 2)
            active = active[lift[active] > 0]
            if not active.size:
                break
        omega[active] = np.nan + 1j * np.nan
        return omega

    def polish(self, z: Any, terms: Terms) -> Any:
        """ω at one mpmath number, to the working precision: Newton from the double solution.

        ``terms`` are the poles, residues, slope and offset as mpmath numbers, where the doubles of
        this kernel are only rounded.
        """
        import mpmath

        poles, residues, slope, offset = terms
        omega = mpmath.mpmathify(complex(self.solve(complex(z))))
        _, rise = self._value_and_slope(np.array([complex(omega)]))
        if abs(rise[0]) <= 1e-7 * self.slope:
            # at an edge, where two roots are 1e-8 apart and Newton's method has no direction
            omega = mpmath.mpc(omega) + 1e-8j * self._width
        elif mpmath.im(omega) == 0:
            omega = mpmath.re(omega)
        tolerance = mpmath.mpf(2) ** (-mpmath.mp.prec // 2 - 4)
        for _ in range(60):
            inverse = [1 / (omega - t) for t in poles]
            value = slope * omega + offset - z
            value += mpmath.fsum(p * r for p, r in zip(residues, inverse, strict=True))
            rise = slope - mpmath.fsum(p * r * r for p, r in zip(residues, inverse, strict=True))
            step = value / rise
            omega -= step
            if abs(step) <= tolerance * abs(omega):  # quadratic: the next step is at rounding level
                return omega
        return mpmath.mpc("nan")
