"""Roots of the subordination equations: followed down from far above, and certified.

H and N map the upper half-plane to itself, w₁ is a fixed point of B₂∘B₁, and a self-map of the
half-plane has at most one fixed point that is inside it, or on the real line with a derivative
B₂'B₁' <= 1 (Denjoy–Wolff). That is the certificate: *whatever way a solution has been found, a
small residual together with Im w > 0, or with w real and B₁'B₂' <= 1, proves that it is the right
one.* Belinschi & Bercovici, J. Anal. Math. 101 (2007); theory/free_convolution.md.

Far above the axis w₁ and w₂ are known, and on the way down |B₁'B₂'| < 1 (Schwarz–Pick), so Newton's
method can be led along it as far as the real line itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmthess.free.equations import Equations

Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Continuation:
    """Newton's method, the path from above, and the certificate.

    Meets poles and their limits: to be used where NumPy's warnings are off.
    """

    equations: Equations

    def newton(
        self, z: Complex, w1: Complex, w2: Complex, rounds: int
    ) -> tuple[Complex, Complex, Mask, Complex]:
        """Newton's method on B₁(w₁) = w₂, B₂(w₂) = w₁, each point until its step is of rounding.

        w₁, w₂, where it arrived and is certified, and B₁' and B₂' there as rows.
        """
        w1, w2 = np.array(w1, complex), np.array(w2, complex)
        slopes = np.full((2, z.size), np.nan + 0j)
        done = np.zeros(z.shape, bool)
        active = np.arange(z.size)
        scale = self.equations.width
        for _ in range(rounds):
            a, b, at = w1[active], w2[active], z[active]
            image1, slope1 = self.equations.map(self.equations.first, a, at)
            image2, slope2 = self.equations.map(self.equations.second, b, at)
            off1, off2 = b - image1, a - image2
            product = slope1 * slope2
            step1 = -(off2 + slope2 * off1) / (1 - product)
            step2 = slope1 * step1 - off1
            w1[active], w2[active] = a + step1, b + step2
            slopes[:, active] = slope1, slope2
            finite = np.isfinite(step1) & np.isfinite(step2)
            arrived = finite.copy()
            noise = 8 * _EPS * (scale + self.equations.noise(a, b, at))
            gap = np.abs(1 - product)  # to the other root, relatively
            for w, step, off, push in (
                (a, step1, off1, np.abs(slope1 * a)),
                (b, step2, off2, np.abs(slope2 * b)),
            ):
                height, size, digits = np.abs(w.imag), np.abs(step), 4 * _EPS * np.abs(w)
                # quadratic convergence: a step of 1e-9 leaves rounding errors, and next to a cusp,
                # where B₁'B₂' is nearly 1, these are all that the steps are
                digits = np.maximum(digits, np.minimum(digits / gap, 1e-4 * height))
                small = size <= 1e-9 * np.minimum(height, scale) + digits
                exact = np.abs(off) <= noise + 8 * _EPS * push
                room = np.maximum(height, gap * (np.abs(w) + scale))
                arrived &= small | (exact & (size <= 0.1 * room))
            done[active[arrived]] = True
            active = active[~arrived & finite]
            if not active.size:
                break
        return w1, w2, done & self.certified(w1, w2, slopes), slopes

    def descend(self, z: Complex) -> tuple[Complex, Complex]:
        """Newton along z + iη from large η down to 0, the step halved where needed.

        On the path Im w > 0 and |B₁'B₂'| < 1 (Schwarz–Pick): no branch point is met before η = 0.
        """
        conjugate = z.imag < 0
        z = np.where(conjugate, np.conjugate(z), z)
        lift = 2 * self.equations.width + np.abs(z)
        shrink = np.full(z.shape, 0.1)
        top = z + 1j * lift
        w1, w2 = self.equations.start(top)
        for _ in range(2):
            w2 = self.equations.map(self.equations.first, w1, top)[0]
            w1 = self.equations.map(self.equations.second, w2, top)[0]
        w1, w2, done, slopes = self.newton(top, w1, w2, 30)
        lost = ~done
        active = np.flatnonzero(done)
        floor = 1e-13 * self.equations.width
        for _ in range(1000):
            if not active.size:
                break
            now, a, b = lift[active], w1[active], w2[active]
            goal = now * shrink[active]
            goal = np.where(goal < np.maximum(1e-2 * z[active].imag, floor), 0.0, goal)
            above = z[active] + 1j * goal
            rate1, rate2 = self.equations.rates(a, b, z[active] + 1j * now, slopes[:, active])
            change = 1j * (goal - now)
            p, q, good, new = self.newton(above, a + rate1 * change, b + rate2 * change, 12)
            step = active[good]
            w1[step], w2[step], lift[step] = p[good], q[good], goal[good]
            slopes[:, step] = new[:, good]
            faster = np.where(shrink[active] < 0.02, 0.0, shrink[active] ** 2)
            shrink[active] = np.where(good, faster, (0.4 + shrink[active]) / 1.4)
            stuck = shrink[active] > 0.999
            lost[active[stuck]] = True
            active = active[(lift[active] > 0) & ~stuck]
        lost[active] = True
        w1[lost] = w2[lost] = np.nan + 1j * np.nan
        w1[conjugate], w2[conjugate] = np.conjugate(w1[conjugate]), np.conjugate(w2[conjugate])
        return w1, w2

    def certified(self, w1: Complex, w2: Complex, slopes: Complex) -> Mask:
        """Inside the half-plane, or real with B₁'B₂' <= 1."""
        attracts = np.abs(slopes[0] * slopes[1]) <= 1 + 1e-6
        tiny = 1e-10 * (np.abs(w2) + 1e-3 * self.equations.width)
        inside = w2.imag > tiny
        edge = (np.abs(w2.imag) <= tiny) & attracts
        if not self.equations.signed:
            tiny = 1e-10 * (np.abs(w1) + 1e-3 * self.equations.width)
            inside &= w1.imag > tiny
            edge = (w2.imag >= -tiny) & (w1.imag >= -tiny) & attracts
        return np.asarray(inside | edge)
