"""The largest Hessian eigenvalue of a mini-batch from all data (theory/batch.md)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.semicircle import Semicircle
from rmthess.measure import check_order
from rmthess.predictions.batch_extrapolation import all_samples
from rmthess.spikes import Spike, additive

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[np.float64]

_CHUNK = 2**24  # entries of H_i v of several samples together
_SPLITS = 1e-3  # relative, between the mean of the samples and the whole, in single precision


@dataclass(frozen=True, eq=False)
class BatchNoise:
    """What the Hessians H_i of single samples say of the largest eigenvalue of a batch.

    ``values`` (k,) the largest of all data, descending; ``variances`` (k,) of v_k·H_i v_1 over the
    samples; ``total`` E|H_i v_1 - H v_1|², the sum over all directions; ``isotropic_total`` the
    same of a random direction, which is P σ² in a model of isotropic noise; ``samples`` N.
    """

    values: Array
    variances: Array
    total: float
    isotropic_total: float
    samples: int

    def factor(self, size: int) -> float:
        """(1/b)(N - b)/(N - 1): the variance of a mean of b of N, drawn without replacement."""
        b = check_order("size", size)
        if b > self.samples:
            raise ValueError(f"size must be at most the {self.samples} samples, got {b}")
        return (self.samples - b) / (b * (self.samples - 1))

    def shift(self, size: int) -> float:
        """factor · Σ_k V_1k/(λ_1 - λ_k), with λ_k = 0 beyond those known."""
        gaps = self.values[0] - self.values[1:]
        rest = max(self.total - float(self.variances.sum()), 0.0)
        pull = float((self.variances[1:] / gaps).sum()) + rest / float(self.values[0])
        return self.factor(size) * pull

    def largest(self, size: int) -> float:
        """E λ_1(b) to second order; NaN, with a warning, where that cannot hold.

        It cannot where the shift is larger than λ_1, or than its distance to λ_2.
        """
        shift, first, second = self.shift(size), float(self.values[0]), float(self.values[1])
        limit = min(first, first - second)
        if shift > limit:
            warnings.warn(
                f"batches of {size} move the largest eigenvalue by {shift:.3g}, more than "
                f"{'itself' if limit == first else 'its distance to the second'}, {limit:.3g}: "
                "second-order perturbation does not hold; take larger batches, or "
                "batch_extrapolation",
                stacklevel=2,
            )
            return float("nan")
        return first + shift

    def isotropic(self, size: int) -> Spike:
        """λ_1 + Pσ²/λ_1 · factor: the same if the noise had no preferred direction (a baseline).

        The batch is then H plus a GOE matrix of variance Pσ² · factor. On the digits Pσ² is 240
        to 370 times too small for the direction of λ_1.
        """
        variance = self.isotropic_total * self.factor(size)
        if variance == 0:
            return Spike(float(self.values[0]), float(self.values[0]), 1.0, 0.0, 0.0)
        return additive(Semicircle(variance), float(self.values[0]))

    def __str__(self) -> str:
        return (
            f"largest {self.values[0]:.4g}, second {self.values[1]:.4g} in {self.samples} samples; "
            f"single samples scatter by {self.total:.3g} (squared) in its direction, by "
            f"{self.isotropic_total:.3g} in a random one\n"
            "Assumes noise that moves the largest eigenvalue less than its distance to the second "
            "(asymptotic)."
        )


def batch_noise(
    model: nn.Module, loss: Callable[..., Any], data: Any, *, count: int = 12, seed: int = 0
) -> BatchNoise:
    """E λ_1(b) = λ_1 + (1/b)(N - b)/(N - 1) Σ_k V_1k/(λ_1 - λ_k), V_1k = Var_i(v_k·H_i v_1).

    Second-order perturbation theory with nothing to fit; only for the largest eigenvalue, since the
    others lie too close to one another. Costs ``count`` eigenpairs of all data, and two products of
    every single sample's Hessian.

    Parameters
    ----------
    model, loss : as for ``hessian``; the loss a mean over samples, of which none sees another.
    data : (inputs, targets), tensors whose first dimension counts samples, or several such batches.
    count : eigenvalues of which λ_1 - λ_k is taken; the others stand as 0.
    seed : of the random direction.

    Raises ValueError where the mean of single samples' Hessians is not the Hessian (class weights,
    BatchNorm).

    Source
    ------
    Derived on the theory page. The isotropic model: Granziol, Zohren & Roberts, JMLR 23 (2022).

    >>> import torch
    >>> x = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None] ** torch.tensor([1, 2])
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> noise = batch_noise(model, torch.nn.MSELoss(), (x, x[:, :1]), count=1)
    >>> round(float(noise.values[0]), 4), round(noise.largest(30), 4)
    (0.6893, 0.7048)
    """
    import torch

    from rmthess.krylov.eigenpairs import eigenpairs
    from rmthess.operators.hessian import hessian

    x, targets = all_samples(model, data)
    if len(x) < 2:
        raise ValueError("one sample has no scatter; batch_noise needs at least two")
    whole = hessian(model, loss, (x, *targets))
    count = min(check_order("count", count, least=1) + 1, whole.dim - 1)
    pairs = eigenpairs(whole, max(count, 1))
    if not pairs.converged:
        raise RuntimeError(f"the eigenvalues of all data were not found: {pairs.message}")
    order = np.argsort(-pairs.values)
    order = order[pairs.values[order] > 0]
    if not order.size:
        raise ValueError("the Hessian has no positive eigenvalue among its largest")
    vectors = pairs.vectors[:, order.copy()]
    values = np.append(pairs.values[order], 0.0)
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(whole.dim, generator=generator, dtype=torch.float64).to(vectors)
    along, total = _scatter(model, loss, x, targets, vectors[:, 0], vectors, whole)
    _, isotropic = _scatter(model, loss, x, targets, u / u.norm(), vectors, whole)
    return BatchNoise(values, np.append(along, 0.0), total, isotropic, len(x))


def _scatter(
    model: nn.Module,
    loss: Callable[..., Any],
    x: Tensor,
    targets: tuple[Tensor, ...],
    v: Tensor,
    vectors: Tensor,
    whole: Any,
) -> tuple[Array, float]:
    """Var_i(v_k·H_i v) for the columns v_k, and E|H_i v - H v|²."""
    import torch

    mean, squares, dots = torch.zeros_like(v), 0.0, []
    step = max(1, _CHUNK // whole.dim)
    product = _single_products(model, loss, v, whole.parameters)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        rows = product(x[part], *(target[part] for target in targets))
        mean += rows.sum(dim=0) / len(x)
        squares += float((rows.double() ** 2).sum()) / len(x)
        dots.append(rows @ vectors)
    expected = whole @ v
    if float((mean - expected).norm()) > _SPLITS * float(expected.norm()):
        raise ValueError(
            "the Hessians of single samples do not average to that of all: the loss must be a "
            "plain mean over samples, and the model must not mix them (BatchNorm in train mode)"
        )
    along = torch.cat(dots).double().var(dim=0, correction=0).cpu().numpy()
    return along, max(squares - float(expected.double() @ expected.double()), 0.0)


def _single_products(
    model: nn.Module, loss: Callable[..., Any], v: Tensor, parameters: Any
) -> Callable[..., Tensor]:
    """(x, targets) → H_i v (samples, dim): ∂(g_i·v)/∂θ, vectorised over samples.

    Reverse over reverse, as in ``hessian``.
    """
    import torch
    from torch.func import functional_call, grad, vmap

    weights = dict(zip(parameters.names, parameters.values, strict=True))
    pieces = dict(zip(parameters.names, parameters.split(v), strict=True))

    def single(weights: dict[str, Tensor], x: Tensor, *targets: Tensor) -> Tensor:
        outputs = functional_call(model, weights, (x[None],))
        value: Tensor = loss(outputs, *(target[None] for target in targets))
        return value

    def slope(weights: dict[str, Tensor], x: Tensor, *targets: Tensor) -> Tensor:
        gradient = grad(single)(weights, x, *targets)
        return torch.stack([(gradient[n] * pieces[n]).sum() for n in pieces]).sum()

    def products(x: Tensor, *targets: Tensor) -> Tensor:
        inside = (None, 0, *(0 for _ in targets))
        found = vmap(grad(slope), in_dims=inside)(weights, x, *targets)
        return torch.cat([found[n].reshape(len(x), -1) for n in pieces], dim=1)

    return products
