"""The Hessian of a linear head on real features, a Gaussian a class (theory/glm_classes.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from rmthess.measure import DiscreteMeasure
from rmthess.predictions.class_statistics import ClassStatistics
from rmthess.predictions.features import CurvatureLaw, curvature_law, features
from rmthess.predictions.glm import check_samples, finite
from rmthess.predictions.losses import Loss, as_loss
from rmthess.predictions.prediction import Prediction
from rmthess.ranks.network import RankBound

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_POINTS = 256  # of the grid of h in one class
_TOP = 12  # eigenvalues at the upper end that are found one by one
_STEP = 0.04  # of F, between places from which the rest is interpolated
_WITHIN = 5e-3  # relative, of an upper eigenvalue: below its fluctuation √(2/samples)
_ROUNDS = 200


def glm_classes(
    loss: Loss | str | Callable[..., Any],
    weights: ArrayLike,
    samples: int,
    statistics: ClassStatistics,
    *,
    bias: float = 0.0,
) -> Prediction:
    """The spectrum of (1/n) Σ_i g_i x_i x_iᵀ, g_i = ∂²ℓ/∂h² at w·x_i + bias, a Gaussian a class::

        Q⁻¹ = Σ_k π_k E_k[f x xᵀ] - z,   f = g/(1 + gδ_k),   δ_k = E_k[f² x·Qx]/(n E_k[f²])

    Its eigenvalues are the quantiles (i - 1/2)/dim of the law of tr Q/dim, ``bulk``: a spectrum
    of real features falls off without a gap between bulk and outliers.

    Parameters
    ----------
    loss : as in ``rm.glm``, of the output alone.
    weights, bias : (dim,) and a number, of the head.
    samples : n of the Hessian's average.
    statistics : of the features; ``ClassStatistics.of(features, classes)``.

    Errors
    ------
    As of ``rm.glm``, and a curvature that is negative somewhere or depends on the labels.

    Source
    ------
    ``theory/glm_classes.md``; for one class Liao & Mahoney, NeurIPS 2021.

    >>> rng = np.random.default_rng(0)
    >>> classes = np.repeat([0, 1], 60)
    >>> x = rng.standard_normal((120, 30)) + 2.0 * classes[:, None]
    >>> statistics = ClassStatistics.of(x, classes)
    >>> print(glm_classes("logistic", np.full(30, 0.1), 120, statistics))
    side 30, bulk 0.0117354 to 0.360368
    rank ≤ 30, nullity ≥ 0 (bound)
    120 terms of rank one
    Assumes features that are Gaussian in each of 2 classes; weights that have not seen them; \
logistic loss (heuristic).
    """
    loss, w = as_loss(loss), finite("weights", weights)
    dim = statistics.means.shape[1]
    if w.shape != (dim,):
        raise ValueError(f"weights must have shape ({dim},), got {w.shape}")
    if loss.low < 0:
        raise ValueError(f"the curvature of {loss.name} is not positive, which is not covered")
    if loss.of != "output":
        raise ValueError(f"the curvature of {loss.name} depends on labels, which is not covered")
    n = check_samples(samples, dim)
    head = Mixture(loss, w, float(bias), n, statistics)
    values = head.eigenvalues()
    rank = RankBound(min(n, dim), dim - min(n, dim), dim, "bound", f"{n} terms of rank one")
    known = f"features that are Gaussian in each of {statistics.shares.size} classes"
    return Prediction(
        dim=dim,
        bulk=DiscreteMeasure.from_eigenvalues(values),
        spikes=(),
        rank=rank,
        assumptions=(known, "weights that have not seen them", f"{loss.name} loss"),
        status="heuristic",
    )


@dataclass(frozen=True, eq=False)
class Mixture:
    """The deterministic equivalent of one head on a Gaussian mixture."""

    loss: Loss
    weights: Array
    bias: float
    samples: int
    statistics: ClassStatistics

    @cached_property
    def _laws(self) -> list[tuple[CurvatureLaw, Array]]:
        """g and W = [Cov(x, s), mean] of each class, s the standardised h."""
        found = []
        for mean, C in zip(self.statistics.means, self.statistics.covariances, strict=True):
            known = features(self.weights[None], np.zeros(1), mean, C.__matmul__)
            moved = type(known)(known.offset + self.bias, known.scale, known.directions)
            law = curvature_law(self.loss, moved, _POINTS)
            found.append((law, np.column_stack([known.directions, mean])))
        return found

    def population(self) -> Array:
        """E[g x xᵀ]: what more and more samples would show."""
        return np.asarray(self._mean(np.zeros(len(self._laws)), 1))

    def _mean(self, delta: Any, power: int, only: int | None = None) -> Any:
        """Σ_k π_k E_k[f^power x xᵀ], or the term of one class without its share."""
        total = np.zeros((self.weights.size, self.weights.size), np.asarray(delta).dtype)
        for k, (law, W) in enumerate(self._laws):
            if only is not None and k != only:
                continue
            f = (law.values / (1 + law.values * delta[k])) ** power
            mean, M = _moments(law, f)
            share = self.statistics.shares[k] if only is None else 1.0
            total += share * (mean * self.statistics.covariances[k] + W @ M @ W.T)
        return total

    def _answer(self, delta: Complex, z: complex) -> Complex:
        """E_k[f² x·Qx]/(n E_k[f²]) for each class."""
        Q = np.linalg.inv(self._mean(delta, 1) - z * np.eye(self.weights.size))
        found = np.empty(delta.size, complex)
        for k, (law, W) in enumerate(self._laws):
            f = (law.values / (1 + law.values * delta[k])) ** 2
            mean, M = _moments(law, f)
            form = mean * np.vdot(self.statistics.covariances[k], Q)
            form += np.trace(M @ (W.T @ Q @ W))
            found[k] = form / (self.samples * mean)
        return found

    def solve(self, z: complex, delta: Complex) -> Complex:
        """δ by Anderson's acceleration of the fixed point, from a start in the upper half-plane."""
        points: list[Complex] = []
        images: list[Complex] = []
        for _ in range(_ROUNDS):
            image = self._answer(delta, z)
            points, images = [*points[-4:], delta], [*images[-4:], image]
            off = np.array(images) - np.array(points)
            if np.abs(off[-1]).max() <= 1e-7 * np.abs(image).max():
                return image
            mixed = image
            if len(points) > 1:
                change = (off[1:] - off[:-1]).T
                step = np.linalg.lstsq(change, off[-1], rcond=1e-8)[0]
                mixed = image - np.diff(np.array(images), axis=0).T @ step
            delta = mixed if mixed.imag.min() > 0 else (delta + image) / 2
        return np.full(delta.shape, np.nan + 0j)

    def cdf(self, x: float, delta: Complex) -> tuple[float, Complex]:
        """F(x) = -Im Φ(x + i0)/(π dim), and δ there.

        Φ = log det Q⁻¹ + n Σ π_k E_k[log(1 + gδ_k) - gδ_k/(1 + gδ_k)] is stationary in δ, so its
        derivative in z is -tr Q. All eigenvalues of Q⁻¹ lie in the lower half-plane.
        """
        z = x * (1 + 1e-4j)
        delta = self.solve(z, delta)
        logs = np.log(np.linalg.eigvals(self._mean(delta, 1) - z * np.eye(self.weights.size)))
        total = float(logs.imag.sum())
        for k, (law, _) in enumerate(self._laws):
            t = law.values * delta[k]
            more = law.weights @ (np.log1p(t) - t / (1 + t))
            total += self.samples * self.statistics.shares[k] * float(more.imag)
        return -total / (np.pi * self.weights.size), delta

    def eigenvalues(self) -> Array:
        """Quantiles (i - 1/2)/dim of F, ascending.

        The upper ones lie in intervals of their own, of mass 1/dim: each by bisection. Below them F
        is smooth on the scale of a tenth of the spectrum, and interpolated on a logarithmic axis.
        """
        known = np.linalg.eigvalsh(self.population())[::-1]
        dim, delta = known.size, np.full(len(self._laws), 1j * known.mean() / known[0] ** 2)
        top: list[float] = []
        high = 4 * float(known[0])
        for k in range(min(_TOP, dim)):
            low = float(known[k])
            wanted = 1 - (k + 0.5) / dim
            while self.cdf(low, delta)[0] > wanted:
                low /= 1.3
            while high - low > _WITHIN * low:
                middle = float(np.sqrt(low * high))
                share, delta = self.cdf(middle, delta)
                low, high = (low, middle) if share > wanted else (middle, high)
            top.append(float(np.sqrt(low * high)))
        shares, places = self._below(high, wanted, delta)
        p = (np.arange(dim - len(top)) + 0.5) / dim
        inverse = PchipInterpolator(shares, np.log(places))
        rest = np.where(p < shares[0], 0.0, np.exp(inverse(np.maximum(p, shares[0]))))
        return np.concatenate([rest, top[::-1]])

    def _below(self, high: float, share: float, delta: Complex) -> tuple[Array, Array]:
        """F and x, ascending, up to x = ``high`` where F is ``share``; close enough to interpolate.

        The lower end is where F holds less than half an eigenvalue, or 1e-12 of ``high``.
        """
        low, known = high, [(high, share, delta)]
        while known[-1][1] > 0.4 / self.weights.size and low > 1e-12 * high:
            low /= 2
            known.append((low, *self.cdf(low, known[-1][2])))
        todo = list(zip(known[1:], known, strict=False))
        while todo:
            left, right = todo.pop()
            if right[1] - left[1] > _STEP and right[0] > 1.02 * left[0]:
                middle = float(np.sqrt(left[0] * right[0]))
                known.append((middle, *self.cdf(middle, left[2])))
                todo += [(left, known[-1]), (known[-1], right)]
        known.sort(key=lambda item: item[0])
        x, shares = np.array([item[0] for item in known]), np.array([item[1] for item in known])
        rising = np.concatenate([[True], np.diff(np.maximum.accumulate(shares)) > 0])
        return shares[rising], x[rising]


def _moments(law: CurvatureLaw, f: Any) -> tuple[Any, Any]:
    """``CurvatureLaw.moments`` of a complex f."""
    if not np.iscomplexobj(f):
        return law.moments(f)
    real, imag = law.moments(f.real), law.moments(f.imag)
    return real[0] + 1j * imag[0], real[1] + 1j * imag[1]
