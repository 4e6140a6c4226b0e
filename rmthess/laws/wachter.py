"""The Wachter law of two compared sample covariances (theory/wachter.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from rmthess.arithmetic import arithmetic, check_positive, is_symbolic, plain
from rmthess.laws.law import Interval, Law
from rmthess.measure import SpectralMeasure, check_order


@dataclass(frozen=True)
class Wachter(Law):
    """ρ(x) = √((b-x)(x-a))/(2π β x(1-x)) on a, b = (√(α(1-β)) ∓ √(β(1-α)))².

    The limit spectrum of A(A + B)⁻¹, A = XᵀX, B = YᵀY, with X (samples1, dim), Y (samples2, dim) of
    independent entries of one variance; ``ratio1`` = dim/samples1, ``ratio2`` = dim/samples2.
    α = samples1/(samples1 + samples2), β = dim/(samples1 + samples2) <= 1. Atoms 1 - 1/ratio1 at 0
    and 1 - 1/ratio2 at 1, where positive. Also the law of a random projection of trace α seen from
    a random subspace of share β. Wachter, Ann. Stat. 8 (1980).

    >>> Wachter(0.5, 0.25).support
    ((0.03752470442573562, 0.7402530733520423),)
    """

    ratio1: Any
    ratio2: Any

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "ratio1": (0.0, np.inf),
        "ratio2": (0.0, np.inf),
    }

    def __post_init__(self) -> None:
        check_positive("ratio1", self.ratio1, "dim / samples of the first matrix")
        check_positive("ratio2", self.ratio2, "dim / samples of the second matrix")
        if not (is_symbolic(self.ratio1) or is_symbolic(self.ratio2)) and self._share >= 1:
            raise ValueError(
                f"1/ratio1 + 1/ratio2 must exceed 1, got {self.ratio1!r} and {self.ratio2!r}; "
                "with fewer samples than dimensions in all, A + B has no inverse"
            )

    @property
    def _trace(self) -> Any:
        """α."""
        return self.ratio2 / (self.ratio1 + self.ratio2)

    @property
    def _share(self) -> Any:
        """β."""
        return self.ratio1 * self.ratio2 / (self.ratio1 + self.ratio2)

    @property
    def _ends(self) -> tuple[Any, Any]:
        """√(ab) = |α - β| and √((1-a)(1-b)) = |1 - α - β|; symbolic ratios are read as below 1."""
        left = self._trace * (1 - self.ratio1)
        right = (1 - self._trace) * (1 - self.ratio2)
        return tuple(v if is_symbolic(v) else abs(v) for v in (left, right))

    @property
    def _roots(self) -> tuple[Any, Any, Any, Any]:
        """√(α(1-β)), √(β(1-α)), √(αβ), √((1-α)(1-β)), each times (ratio1 + ratio2)."""
        sqrt = arithmetic(self.ratio1, self.ratio2).sqrt
        q1, q2 = self.ratio1, self.ratio2
        rest = sqrt(q1 + q2 - q1 * q2)
        return sqrt(q2) * rest, q1 * sqrt(q2), q2 * sqrt(q1), sqrt(q1) * rest

    @property
    def support(self) -> tuple[Interval, ...]:
        p, q, r, s = self._roots
        total = self.ratio1 + self.ratio2
        e, f = self._ends
        # each edge in the form that keeps its distance to the hard edge
        left, right = (e * total / (p + q)) ** 2, ((p + q) / total) ** 2
        if not is_symbolic(right) and right > 0.5:
            right = 1 - (f * total / (r + s)) ** 2
        return ((plain(left), plain(right)),)

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        pairs = ((0 * self.ratio1, self.ratio1), (0 * self.ratio2 + 1, self.ratio2))
        return tuple((x, 1 - 1 / q) for x, q in pairs if not is_symbolic(q) and q > 1)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.ratio1, self.ratio2)
        z = xp.point(z)
        ((a, b),), (e, f), share = self.support, self._ends, self._share
        # the continuous part in the form that cancels neither at large |z| nor at 0 and 1
        root = xp.sqrt(z - a) * xp.sqrt(z - b)
        m = xp.quotient((1 - (e + f) ** 2) / (2 * share), e - (e + f) * z - root)
        for location, mass in self.atoms:
            m = m + xp.quotient(mass, location - z)
        return m

    def equation(self, m: Any, z: Any) -> Any:
        """β z(1-z) m² + ((1-2β) z - (α-β)) m + 1 - β."""
        trace, share = self._trace, self._share
        linear = (1 - 2 * share) * z - (trace - share)
        return share * z * (1 - z) * m**2 + linear * m + 1 - share

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.ratio1, self.ratio2)
        x = xp.real(x)
        ((a, b),) = self.support
        if a != 0 and b != 1:
            top, bottom = xp.sqrt(xp.positive_part((x - a) * (b - x))), x * (1 - x)
        else:  # hard edges: infinite there
            left, right = xp.sqrt(xp.positive_part(x - a)), xp.sqrt(xp.positive_part(b - x))
            top = (left if a != 0 else xp.step(x)) * (right if b != 1 else xp.step(1 - x))
            bottom = (x if a != 0 else left) * (1 - x if b != 1 else right)
        return xp.quotient(top, bottom) / (2 * xp.pi * self._share)

    def cdf(self, x: Any) -> Any:
        """((1-e-f) θ/2 - e φ + f φ')/(πβ), e = |α - β|, f = |1 - α - β|, plus the atoms.

        x = (a+b)/2 - (b-a)/2 cos θ, tan φ = r sin θ/(1 - r cos θ), tan φ' = s sin θ/(1 + s cos θ)
        with r = (√b - √a)/(√b + √a) and s the same of 1 - b, 1 - a.
        """
        xp = arithmetic(x, self.ratio1, self.ratio2)
        x = xp.real(x)
        ((a, b),), (e, f) = self.support, self._ends
        p, q, u, v = self._roots
        r = q / p if is_symbolic(p) else min(p, q) / max(p, q)
        s = u / v if is_symbolic(v) else min(u, v) / max(u, v)
        y = xp.clip(x, a, b)
        left, right = xp.positive_part(y - a), xp.positive_part(b - y)
        sine = 2 * xp.sqrt(left) * xp.sqrt(right) / (left + right)
        cosine = (right - left) / (left + right)
        theta = xp.arctan2(sine, cosine)
        phi = xp.arctan2(r * sine, 1 - r * cosine)
        mirror = xp.arctan2(s * sine, 1 + s * cosine)
        smooth = ((1 - e - f) * theta / 2 - e * phi + f * mirror) / (xp.pi * self._share)
        jumps = sum(mass * xp.step(x - location) for location, mass in self.atoms)
        return xp.clip((smooth + jumps) * xp.real(1), 0, 1)

    def r_transform(self, w: Any) -> Any:
        """R(w) = 2α/(1 - βw + √((1 - βw)² + 4αβw))."""
        xp = arithmetic(w, self.ratio1, self.ratio2)
        trace, t = self._trace, self._share * (w if xp.exact else np.asarray(w))
        # (1-t)² + 4αt < 0 on two vertical rays from |t| = 1 outwards: principal roots are right
        return 2 * trace / (1 - t + xp.sqrt((1 - t) ** 2 + 4 * trace * t))

    def s_transform(self, w: Any) -> Any:
        """S(w) = (1 + βw)/(α + βw)."""
        q1, q2 = self.ratio1, self.ratio2
        w = arithmetic(w, q1, q2).point(w)
        return (q1 + q2 + q1 * q2 * w) / (q2 * (1 + q1 * w))

    def moment(self, order: int) -> Any:
        """The quadratic equation at infinity: a recursion, exact for exact ratios.

        m_n = β(Σ_{i=0}^{n-1} m_i m_{n-1-i} - Σ_{i=1}^{n-1} m_i m_{n-i}) + (α - β) m_{n-1}.
        """
        count = check_order("order", order, least=0)
        trace, share = self._trace, self._share
        moments: list[Any] = [1 + 0 * share]
        for n in range(1, count + 1):
            known = sum(moments[i] * moments[n - 1 - i] for i in range(n))
            inner = sum(moments[i] * moments[n - i] for i in range(1, n))
            moments.append(share * (known - inner) + (trace - share) * moments[n - 1])
        return moments[count]

    def sample(self, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Eigenvalues (dim,) of A(A + B)⁻¹, samples dim/ratio1, dim/ratio2 rounded: O(dim³)."""
        check_order("dim", dim)
        samples = [max(1, round(dim / float(q))) for q in (self.ratio1, self.ratio2)]
        if sum(samples) < dim:
            raise ValueError(f"{samples[0]} + {samples[1]} samples are fewer than dim {dim}")
        data = [rng.normal(size=(count, dim)) for count in samples]
        first, second = (x.T @ x for x in data)
        values = eigh(first, first + second, eigvals_only=True)
        # eigenvalues 0 and 1 that the ranks force come with roundings
        lost = max(0, dim - samples[0])
        values[:lost] = 0.0
        values[dim - max(0, dim - samples[1]) :] = 1.0
        return np.asarray(np.clip(values, 0.0, 1.0))

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """α = mean, β(1 - β) ... from variance = α(1 - α) β."""
        mean = float(np.clip(measure.moment(1), 1e-6, 1 - 1e-6))
        variance = measure.integrate(lambda x: (x - measure.moment(1)) ** 2)
        share = float(np.clip(variance / (mean * (1 - mean)), 1e-9, 1 - 1e-9))
        return {"ratio1": share / mean, "ratio2": share / (1 - mean)}
