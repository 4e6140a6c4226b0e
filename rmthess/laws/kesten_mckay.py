"""The Kesten–McKay law of random regular graphs (theory/kesten_mckay.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic, check_positive, is_symbolic, plain
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Interval, Law
from rmthess.measure import SpectralMeasure, check_order


@dataclass(frozen=True)
class KestenMcKay(Law):
    """ρ(x) = d √(4(d-1) - x²)/(2π (d² - x²)) on ± 2√(d-1);  m = -2(d-1)/((d-2) z + d √√).

    √√ = √(z - 2√(d-1)) √(z + 2√(d-1)). The limit spectrum of the adjacency matrix of a random graph
    in which every vertex has ``degree`` d >= 2 neighbours, or of a sum of d independent random
    symmetries ±1; d may be real. McKay, Linear Algebra Appl. 40 (1981); Kesten, Trans. AMS 92
    (1959).

    >>> KestenMcKay(3).moment(4)
    15
    """

    degree: Any

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"degree": (2.0, np.inf)}

    def __post_init__(self) -> None:
        check_positive("degree", self.degree, "the number of neighbours of each vertex")
        if not is_symbolic(self.degree) and self.degree < 2:
            raise ValueError(
                f"degree must be at least 2, got {self.degree!r}; "
                "graphs of lower degree are isolated edges and points"
            )

    @property
    def _edge(self) -> Any:
        return 2 * arithmetic(self.degree).sqrt(self.degree - 1)

    @property
    def support(self) -> tuple[Interval, ...]:
        return ((plain(-self._edge), plain(self._edge)),)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.degree)
        d, z = self.degree, xp.point(z)
        root = xp.sqrt(z - self._edge) * xp.sqrt(z + self._edge)
        return -xp.quotient(2 * (d - 1), (d - 2) * z + d * root)

    def equation(self, m: Any, z: Any) -> Any:
        """(d² - z²) m² + (d - 2) z m + d - 1."""
        d = self.degree
        return (d**2 - z**2) * m**2 + (d - 2) * z * m + d - 1

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.degree)
        d, x = self.degree, xp.real(x)
        inside = xp.positive_part((self._edge - x) * (self._edge + x))
        if d == 2:  # cycles: the arcsine law, infinite at its edges
            y = xp.clip(x, -self._edge, self._edge)
            on = xp.step(self._edge - x) * xp.step(self._edge + x)
            return xp.quotient(on, xp.pi * xp.sqrt((self._edge - y) * (self._edge + y)))
        y = xp.clip(x, -self._edge, self._edge)
        return d * xp.sqrt(inside) / (2 * xp.pi * (d - y) * (d + y))

    def cdf(self, x: Any) -> Any:
        """1/2 + (2 arcsin(x/edge) + (d-2) arctan(x √(4(d-1) - x²)/(2d(d-1) - x²)))/(2π)."""
        xp = arithmetic(x, self.degree)
        d = self.degree
        x = xp.clip(xp.real(x), -self._edge, self._edge)
        root = xp.sqrt(xp.positive_part((self._edge - x) * (self._edge + x)))
        turn = 2 * xp.arctan2(x, root) + (d - 2) * xp.arctan2(x * root, 2 * d * (d - 1) - x**2)
        return xp.clip(xp.real(1) / 2 + turn / (2 * xp.pi), 0, 1)

    def r_transform(self, w: Any) -> Any:
        """R(w) = 2 d w/(1 + √(1 + 4 w²)): d times that of a fair coin ±1."""
        xp = arithmetic(w, self.degree)
        w = w if xp.exact else np.asarray(w)
        return 2 * self.degree * w / (1 + xp.sqrt(1 + 4 * w**2))

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_2n = d (-1)^(n-1) C_(n-1) with Catalan numbers; the odd ones vanish."""
        count = check_order("order", order)
        coin = [
            0 if k % 2 else (-1) ** (k // 2 - 1) * _catalan(k // 2 - 1) for k in range(1, count + 1)
        ]
        return [self.degree * value for value in coin]

    def moment(self, order: int) -> Any:
        """Closed walks on the tree: Σ_j j/(2s-j) binom(2s-j, s) d^j (d-1)^(s-j), order = 2s."""
        k = check_order("order", order, least=0)
        if k % 2:
            return 0 * self.degree
        s, d = k // 2, self.degree
        if s == 0:
            return d**0
        return sum(
            comb(2 * s - j, s) * j // (2 * s - j) * d**j * (d - 1) ** (s - j)
            for j in range(1, s + 1)
        )

    def jacobi(self, steps: int) -> Coefficients:
        """a_k = 0; b_0 = √d, then b_k = √(d-1): the radius of the tree, walked outwards."""
        off_diagonal = np.full(check_order("steps", steps) - 1, float(self._edge) / 2)
        off_diagonal[:1] = np.sqrt(float(self.degree))
        return np.zeros(steps), off_diagonal

    def sample(self, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Eigenvalues (dim,) of a simple random regular graph on ``dim`` vertices: O(dim³)."""
        check_order("dim", dim)
        if self.degree != int(self.degree):
            raise ValueError(f"a graph needs an integer degree, got {self.degree!r}")
        return np.asarray(np.linalg.eigvalsh(random_regular_graph(dim, int(self.degree), rng)))

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """d = m_2."""
        return {"degree": max(measure.moment(2), 2.0)}


def _catalan(n: int) -> int:
    return comb(2 * n, n) // (n + 1)


def random_regular_graph(dim: int, degree: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Adjacency matrix (dim, dim): random pairing of half-edges, then switches until simple.

    A loop or a double edge is switched with a random other edge (McKay & Wormald, J. Algorithms 11,
    1990, in the simplest form: near uniform).
    """
    if degree >= dim or dim * degree % 2:
        raise ValueError(
            f"a graph of degree {degree} needs more than {degree} vertices and an even number of "
            f"half-edges, got dim {dim}"
        )
    ends = rng.permutation(np.repeat(np.arange(dim), degree)).reshape(-1, 2)
    while True:
        keys = np.sort(ends, axis=1) @ np.array([dim, 1])
        first = np.unique(keys, return_index=True)[1]
        repeated = np.ones(len(ends), bool)
        repeated[first] = False
        bad = np.flatnonzero(repeated | (ends[:, 0] == ends[:, 1]))
        if bad.size == 0:
            break
        for edge in bad:
            other = rng.integers(len(ends))
            ends[edge, 1], ends[other, 1] = ends[other, 1], ends[edge, 1]
    matrix = np.zeros((dim, dim))
    matrix[ends[:, 0], ends[:, 1]] = matrix[ends[:, 1], ends[:, 0]] = 1.0
    return matrix
