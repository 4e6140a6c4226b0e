"""The second derivative of a loss, as what a Hessian sees of it (theory/glm.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Of = Literal["output", "teacher", "residual", "both"]

_FAR: NDArray[Any] = 10.0 ** np.arange(-2, 7)  # where a function without stated bounds is looked at


@dataclass(frozen=True)
class Loss:
    """g = ∂²ℓ/∂h² of a loss ℓ(h, t), h = w·x the output and t = w*·x + noise the teacher's.

    curvature: g, vectorised, of what ``of`` says: "output" g(h), "teacher" g(t), "residual"
    g(h - t) or "both" g(h, t). low, high: its infimum and supremum, infinite where g is not
    bounded; eigenvalues of a Hessian are isolated only on a side where g is bounded. kinks: where a
    g of one argument is not smooth.

    >>> round(float(Loss.logistic().curvature(0.0)), 6)
    0.25
    """

    name: str
    curvature: Callable[..., Any]
    of: Of
    low: float
    high: float
    kinks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.of not in ("output", "teacher", "residual", "both"):
            raise ValueError(
                f"of must be 'output', 'teacher', 'residual' or 'both', got {self.of!r}; "
                "it names the arguments of the curvature"
            )
        if not self.low <= self.high:
            raise ValueError(f"low must not exceed high, got {self.low} and {self.high}")
        if self.kinks and self.of == "both":
            raise ValueError("kinks are points of one argument, and this curvature has two")

    @classmethod
    def logistic(cls) -> Loss:
        """log(1 + exp(∓h)): g = σ(h)(1 - σ(h)), whatever the label."""
        return cls("logistic", lambda h: 0.25 / np.cosh(np.clip(h / 2, -350, 350)) ** 2,
                   "output", 0.0, 0.25)  # fmt: skip

    @classmethod
    def squared(cls) -> Loss:
        """(h - t)²/2: g = 1."""
        return cls("squared", np.ones_like, "residual", 1.0, 1.0)

    @classmethod
    def huber(cls, threshold: float = 1.0) -> Loss:
        """(h - t)²/2 up to |h - t| = threshold, linear beyond: g is 1 or 0."""
        k = _positive("threshold", threshold)
        return cls(f"Huber({k:g})", lambda r: (np.abs(r) < k).astype(float), "residual", 0.0, 1.0,
                   (-k, k))  # fmt: skip

    @classmethod
    def cauchy(cls, scale: float = 1.0) -> Loss:
        """(s²/2) log(1 + r²/s²), r = h - t: g = (1 - r²/s²)/(1 + r²/s²)², below 0 for |r| > s."""
        s = _positive("scale", scale)
        return cls(f"Cauchy({s:g})", lambda r: (1 - (r / s) ** 2) / (1 + (r / s) ** 2) ** 2,
                   "residual", -0.125, 1.0)  # fmt: skip

    @classmethod
    def phase_retrieval(cls) -> Loss:
        """(h² - t²)²/4: g = 3h² - t², without bounds."""
        return cls("phase retrieval", lambda h, t: 3 * h**2 - t**2, "both", -np.inf, np.inf)

    @classmethod
    def truncated_phase(cls, cutoff: float) -> Loss:
        """g = min(t², cutoff): the matrix behind spectral initialisation of phase retrieval.

        Not the Hessian of a loss at w, but of the same form. Lu & Li, Inf. Inference 9 (2020).
        """
        k = _positive("cutoff", cutoff)
        return cls(f"truncated phase({k:g})", lambda t: np.minimum(t**2, k), "teacher", 0.0, k,
                   (-float(np.sqrt(k)), float(np.sqrt(k))))  # fmt: skip

    @classmethod
    def tanh_neuron(cls) -> Loss:
        """(tanh h - tanh t)²/2: g = (1 - u²)² - 2u(1 - u²)(u - tanh t), u = tanh h: indefinite."""

        def curvature(h: Array, t: Array) -> Array:
            u = np.tanh(h)
            return np.asarray((1 - u**2) * ((1 - u**2) - 2 * u * (u - np.tanh(t))))

        # at tanh t = ±1 the bracket is 1 - 3u² + 2u, times 1 - u²; its extrema are roots of a cubic
        u = np.roots([12.0, -6.0, -8.0, 2.0]).real
        ends = (1 - u**2) * (1 - 3 * u**2 + 2 * u)
        return cls("tanh neuron", curvature, "both", float(ends.min()), float(ends.max()))


_NAMED: dict[str, Callable[[], Loss]] = {
    "logistic": Loss.logistic,
    "squared": Loss.squared,
    "huber": Loss.huber,
    "cauchy": Loss.cauchy,
    "phase_retrieval": Loss.phase_retrieval,
    "tanh_neuron": Loss.tanh_neuron,
}


def as_loss(loss: Loss | str | Callable[..., Any]) -> Loss:
    """A loss, its name, or its second derivative g(h) or g(h, t) as a function.

    Of a function the bounds are looked for up to |h|, |t| = 1e6: it counts as unbounded on a side
    where the last three decades still move them by 1 % of their distance.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise ValueError(
                f"loss {loss!r} is not covered; it is one of {', '.join(_NAMED)}, a Loss, or the "
                "second derivative g(h, t) as a function"
            )
        return _NAMED[loss]()
    if not callable(loss):
        raise TypeError(f"loss must be a Loss, a name or a function, got {type(loss).__name__}")
    name = getattr(loss, "__name__", "given")
    if len(signature(loss).parameters) == 1:
        return replace(as_loss(lambda h, t: loss(h)), name=name, curvature=loss, of="output")
    near, far = _range(loss, _FAR[:6]), _range(loss, _FAR)
    reach = near[1] - near[0] + 1e-12 * max(map(abs, near))
    low = -np.inf if far[0] < near[0] - 0.01 * reach else far[0]
    high = np.inf if far[1] > near[1] + 0.01 * reach else far[1]
    return Loss(name, loss, "both", low, high)


def _range(curvature: Callable[..., Any], decades: NDArray[Any]) -> tuple[float, float]:
    fine = np.concatenate([np.linspace(-8, 8, 81), decades, -decades])
    h, t = np.meshgrid(fine, fine)
    with np.errstate(over="ignore", invalid="ignore"):
        g = np.asarray(curvature(h, t), float)
    if np.shape(g) != h.shape:
        raise ValueError(
            f"g(h, t) must return an array of the shape of h, got {np.shape(g)} for {h.shape}"
        )
    if np.isnan(g).any():
        raise ValueError(f"g(h, t) is NaN at {np.count_nonzero(np.isnan(g))} of {g.size} points")
    return float(g.min()), float(g.max())


def _positive(name: str, value: float) -> float:
    if not 0 < value < np.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)
