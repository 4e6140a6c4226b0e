"""Two atoms with two atoms: the subordination equations are Möbius maps, solved in closed form.

If each measure has two atoms, H has one pole, and B₁ and B₂ are w -> (a w + b)/(c w + d). At real z
such maps are automorphisms of the half-plane, the one case that Denjoy and Wolff exclude: B₂∘B₁ can
be the identity, and Newton's method is at a loss. But w₂ is a fixed point of B₁∘B₂, a root of a
quadratic; it is not real where that map is elliptic, (trace)² < 4 det, and so the edges are where
the map is parabolic, (trace)² = 4 det. See theory/free_convolution.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.free.equations import Equations
from rmthess.free.excess import AtomicExcess
from rmthess.free.gaps import Edge

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def two_atoms(equations: Equations) -> TwoAtoms | None:
    """The closed form if each measure has two atoms."""
    one, two = equations.first, equations.second
    if not (isinstance(one, AtomicExcess) and isinstance(two, AtomicExcess)):
        return None
    if one.ends.size > 1 or two.ends.size > 1:
        return None
    return TwoAtoms(
        equations,
        np.array([one.mean, one.residues[0], one.ends[0]]),
        np.array([two.mean, two.residues[0], two.ends[0]]),
    )


@dataclass(frozen=True, eq=False)
class TwoAtoms:
    """Two measures of two atoms, each given by its (mean, residue, pole)."""

    equations: Equations
    one: Array
    two: Array

    def solve(self, z: Complex) -> tuple[Complex, Complex]:
        """w₁ and w₂: the fixed point in the half-plane, on the real line the attracting one."""
        one, two = self.one, self.two
        z = np.where(z.imag < 0, np.conjugate(z), z)
        image = self.equations.image(one, two)
        if image is not None:
            scale, offset = image
            w1 = _fixed_point(self.equations.matrix(one, (z - offset) / scale))
            return w1, scale * w1 + offset
        first, second = self.equations.matrix(one, z), self.equations.matrix(two, z)
        w2 = _fixed_point(np.einsum("ijn,jkn->ikn", first, second))
        with np.errstate(divide="ignore", invalid="ignore"):
            w1 = (second[0, 0] * w2 + second[0, 1]) / (second[1, 0] * w2 + second[1, 1])
        return w1, w2

    @cached_property
    def support(self) -> tuple[tuple[Edge, Edge], ...]:
        """Between neighbouring parabolic points, where the fixed point is not real."""
        turns = np.sort(self.equations.turns(self.one, self.two))
        lone = np.diff(turns) <= 1e-14 * self.equations.width
        keep = np.ones(turns.size, bool)
        keep[:-1] &= ~lone
        keep[1:] &= ~lone
        turns = turns[keep]
        middle = ((turns[:-1] + turns[1:]) / 2).astype(complex)
        filled = self.solve(middle)[1].imag > 0
        w1, w2 = self.solve(turns.astype(complex))
        edges = [
            Edge(float(x), float(p.real), float(q.real), False)
            for x, p, q in zip(turns, w1, w2, strict=True)
        ]
        return tuple((edges[k], edges[k + 1]) for k in np.flatnonzero(filled))


def _fixed_point(matrix: Any) -> Complex:
    """Of w -> (a w + b)/(c w + d): the one with the larger |c w + d|, else with Im w > 0."""
    (a, b), (c, d) = matrix
    half, centre = (a - d) / 2, (a + d) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(half**2 + b * c)
        real = (half.imag == 0) & (b.imag == 0) & (c.imag == 0)
        root = np.where(real & (np.abs(root.imag) > np.abs(root.real)), 1j * root.imag, root)
        root = np.where((root * np.conjugate(centre)).real < 0, -root, root)
        # (w, 1) is the eigenvector (b, λ - a) or (λ - d, c), λ = centre + root: the larger one
        up, down = half + root, root - half
        upper = np.abs(up) + np.abs(c) >= np.abs(b) + np.abs(down)
        w = np.where(upper, up / c, b / down)
        return np.asarray(np.where(real & (w.imag != 0), w.real + 1j * np.abs(w.imag), w))
