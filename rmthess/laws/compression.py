"""Free compression: the law of a corner of a randomly rotated matrix (theory/compression.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.kernel import Kernel, Terms
from rmthess.laws.kernel_law import (
    KernelLaw,
    check_algebraic,
    cleared,
    coefficients,
    nodes_of,
    shares,
)
from rmthess.laws.law import Law
from rmthess.laws.transforms import r_transform
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Compression(KernelLaw):
    """R(w) = R_μ(α w): the α dim × α dim corner of U A Uᵀ, A of law μ, U Haar orthogonal.

    ``fraction`` 0 < α <= 1. With G_μ(ω) = Σ_j w_j/(ω - t_j) of atoms t_j and a semicircle of
    variance v added to them: z = ω + v G(ω) - (1 - α)/G(ω), and the compressed law has the
    transform G(ω)/α. -1/G is itself a sum of simple poles with positive residues, at the zeros of
    G. Nica & Speicher, Amer. J. Math. 118 (1996).

    >>> from rmthess import DiscreteMeasure
    >>> ((left, right),) = Compression(DiscreteMeasure([-1.0, 1.0], [0.5, 0.5]), 0.5).support
    >>> round(left, 12), round(right, 12)
    (-1.0, 1.0)
    """

    population: SpectralMeasure
    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(
                f"fraction must lie in (0, 1], got {self.fraction}; it is the share of rows kept"
            )

    @property
    def _semicircle(self) -> float:
        """Variance of the semicircle that is added to the atoms."""
        source = self.population
        return float(source.variance) if isinstance(source, DeformedWigner) else 0.0

    @cached_property
    def _nodes(self) -> tuple[Array, Array]:
        source = self.population
        if isinstance(source, DeformedWigner):
            source = source.population
        t, w = nodes_of(source, self._kernel_at)
        return t[w > 0], w[w > 0]

    def _kernel_at(self, nodes: Array, weights: Array) -> Kernel:
        kept = 1 - float(self.fraction)
        zeros, residues, mean = _negative_reciprocal(nodes, weights)
        return Kernel(
            np.concatenate([nodes, zeros]),
            np.concatenate([self._semicircle * weights, kept * residues]),
            float(self.fraction),
            kept * mean,
            self._origin(nodes, weights),
        )

    def _origin(self, nodes: Array, weights: Array) -> tuple[float, float] | None:
        """K(0) = 0 and K'(0) = 1 - (1 - α)/p at an atom 0 of mass p, a pole of m = -G/α."""
        mass = weights[nodes == 0].sum()
        return (0.0, 1 - (1 - float(self.fraction)) / float(mass)) if mass > 0 else None

    @cached_property
    def kernel(self) -> Kernel:
        return self._kernel_at(*self._nodes)

    def _terms(self) -> Terms:
        """The doubles of the population are exact, the zeros of G refined by Newton's method."""
        import mpmath

        t, w = [*map(mpmath.mpf, self._nodes[0])], shares(self._nodes[1], mpmath.mpf(1))
        kept = 1 - mpmath.mpf(self.fraction)
        poles, residues = list(t), [mpmath.mpf(self._semicircle) * wj for wj in w]
        for start in _negative_reciprocal(*self._nodes)[0].tolist():
            zero = mpmath.mpf(start)
            for _ in range(60):
                inverse = [1 / (zero - tj) for tj in t]
                value = mpmath.fsum(wj * x for wj, x in zip(w, inverse, strict=True))
                slope = mpmath.fsum(wj * x * x for wj, x in zip(w, inverse, strict=True))
                zero += value / slope
                if abs(value / slope) <= mpmath.mpf(2) ** (-mpmath.mp.prec // 2 - 4) * abs(zero):
                    break
            inverse = [1 / (zero - tj) for tj in t]
            slope = mpmath.fsum(wj * x * x for wj, x in zip(w, inverse, strict=True))
            poles.append(zero)
            residues.append(kept / slope)
        mean = mpmath.fsum(wj * tj for wj, tj in zip(w, t, strict=True))
        return poles, residues, mpmath.mpf(self.fraction), kept * mean

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        """An atom of μ of mass p > 1 - α survives in place, with mass (p - 1 + α)/α."""
        if self._semicircle:
            return ()
        alpha = float(self.fraction)
        masses = getattr(self.population, "atoms", None)
        if masses is None:
            masses = zip(*self._nodes, strict=True)
        left = [(float(t), (float(p) - 1 + alpha) / alpha) for t, p in masses]
        return tuple((t, p) for t, p in left if p > 1e-14)

    @cached_property
    def _beside_atoms(self) -> list[tuple[float, Compression]]:
        """Atoms t of mass near 1 - α, where the density is 1/√|x - t|, and the law shifted to t."""
        t, w = self._nodes
        hard = (np.abs(1 - (1 - float(self.fraction)) / w) < 1e-2) & (t != 0)
        return [
            (float(place), Compression(DiscreteMeasure(t - place, w), self.fraction))
            for place in t[hard if not self._semicircle else []]
        ]

    def density(self, x: Any) -> Any:
        """Next to such an atom from the shifted law, whose small ω there keeps its digits."""
        density = super().density(x)
        if arithmetic(x).exact or not self._beside_atoms:
            return density
        points, density = np.asarray(x, float), np.array(density)
        width = self.kernel.edges[-1] - self.kernel.edges[0]
        for place, shifted in self._beside_atoms:
            near = np.abs(points - place) <= 1e-3 * width
            density[near] = super(Compression, shifted).density(points[near] - place)
        return density[()]

    def _cauchy(self, omega: Any) -> Any:
        t, w = self._nodes
        if arithmetic(omega).exact:
            pairs = zip(t.tolist(), shares(w, omega), strict=True)
            return sum(wj / (omega - tj) for tj, wj in pairs)
        return (1 / (omega[..., None] - t)) @ w

    def equation(self, m: Any, z: Any) -> Any:
        """1 - Σ_j w_j/(1 - α + G(z - t_j - v G)) with G = -α m, times its denominators."""
        source = self.population
        inner = source.population if isinstance(source, DeformedWigner) else source
        check_algebraic(self, inner)
        parts = (self.fraction, self._semicircle, self._nodes[0])
        (a,), (v,), t = (coefficients(part, m, z) for part in parts)
        w = shares(self._nodes[1], m, z)
        G = -a * m
        terms = [(wj, 1 - a + G * (z - tj - v * G)) for tj, wj in zip(t, w, strict=True)]
        return cleared(1 + 0 * m, terms)

    def _transform(self, omega: Any, z: Any) -> Any:
        return -self._cauchy(omega) / self.fraction

    def _partials(self, omega: Any, z: Any) -> tuple[Any, Any]:
        t, w = self._nodes
        return (1 / (omega[..., None] - t) ** 2) @ w / self.fraction, 0.0

    def _argument(self, omega: Any, x: Any) -> Any:
        """L = (Σ_j w_j log(ω - t_j) + v G²/2 + (1 - α) log G)/α, G in the lower half-plane."""
        t, w = self._nodes
        g = self._cauchy(omega)
        total = np.angle(omega[..., None] - t) @ w + self._semicircle / 2 * np.imag(g**2)
        total -= (1 - self.fraction) * np.arctan2(np.abs(np.imag(g)), np.real(g))
        return total / self.fraction

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of Qᵀ A Q, A of side dim/α rounded, Q random orthonormal: O(dim³)."""
        side = max(check_order("dim", dim), round(dim / float(self.fraction)))
        levels = np.asarray(self.population.quantile((np.arange(side) + 0.5) / side), float)
        q, _ = np.linalg.qr(rng.standard_normal((side, dim)))
        return np.linalg.eigvalsh(q.T @ (levels[:, None] * q))

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_n = α^(n-1) κ_n(μ)."""
        source = self.population
        if isinstance(source, Law):
            cumulants = source.free_cumulants(order)
        else:
            moments = [source.moment(k) for k in range(1, check_order("order", order) + 1)]
            cumulants = free_cumulants_from_moments(moments)
        return [self.fraction**n * kappa for n, kappa in enumerate(cumulants)]

    def moment(self, order: int) -> Any:
        k = check_order("order", order, least=0)
        return 1.0 if k == 0 else moments_from_free_cumulants(self.free_cumulants(k))[-1]

    def r_transform(self, w: Any) -> Any:
        source, inner = self.population, self.fraction * np.asarray(w)
        return source.r_transform(inner) if isinstance(source, Law) else r_transform(source, inner)


def _negative_reciprocal(nodes: Array, weights: Array) -> tuple[Array, Array, float]:
    """Poles, residues and mean in -1/G(ω) = -ω + mean + Σ residues/(ω - poles).

    The poles are the zeros of G, the eigenvalues of diag(nodes) compressed to the complement of
    √weights; each lies between two neighbouring nodes.
    """
    mean = float(weights @ nodes)
    if nodes.size == 1:
        return np.empty(0), np.empty(0), mean
    root = np.sqrt(weights)
    # a Householder reflection takes the first axis to √weights: its other columns span the rest
    axis = root.copy()
    axis[0] += np.copysign(1.0, root[0])
    axis /= np.linalg.norm(axis)
    basis = np.eye(nodes.size)[:, 1:] - 2 * np.outer(axis, axis[1:])
    zeros = np.linalg.eigvalsh(basis.T @ (nodes[:, None] * basis))
    slope = (1 / (zeros[:, None] - nodes) ** 2) @ weights
    return zeros, 1 / slope, mean
