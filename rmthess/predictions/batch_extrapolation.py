"""The largest Hessian eigenvalues of all data from those of small batches (theory/batch.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import check_positive
from rmthess.measure import check_order

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[np.float64]

_ROUNDS = (
    4  # at least: Student's t of three degrees of freedom has a standard deviation, of two none
)


@dataclass(frozen=True, eq=False)
class BatchExtrapolation:
    """Eigenvalues 1 to k, the largest first, of batches and by extrapolation of all the data.

    ``whole`` (rounds, k): means over disjoint sets of ``size`` samples, drawn anew each round.
    ``half`` and ``quarter`` (rounds, k): over the halves and quarters of each. ``samples`` N.
    ``gaps`` (rounds, 2): means of (λ_1 - λ_2)² of the wholes and of the halves, 0 if k is 1.
    ``tolerance``: the relative error of the largest beyond which the output says so.
    """

    quarter: Array
    half: Array
    whole: Array
    gaps: Array
    size: int
    samples: int
    tolerance: float

    @property
    def each(self) -> Array:
        """(rounds, k): λ of all data by the line in 1/b - 1/N through the two larger sizes."""
        return self._line(self.whole, self.half)

    def _line(self, whole: Array, half: Array) -> Array:
        share = self.size / self.samples
        return (2 - share) * whole - (1 - share) * half

    @property
    def curved(self) -> Array:
        """(rounds, k): by the parabola through all three sizes."""
        u = np.array([1, 2, 4]) / self.size - 1 / self.samples
        first, second, third = (
            np.prod(np.delete(u, k) / (np.delete(u, k) - u[k])) for k in range(3)
        )
        return np.asarray(first * self.whole + second * self.half + third * self.quarter)

    @property
    def values(self) -> Array:
        """(k,): mean over rounds, of the line."""
        return np.asarray(self.each.mean(axis=0))

    @property
    def pair(self) -> float:
        """λ_1 by the lines of λ_1 + λ_2 and (λ_1 - λ_2)², exact for two alone, however close."""
        both = float(self.each[:, :2].sum(axis=1).mean())
        squared = self._line(self.gaps[:, 0], self.gaps[:, 1]).mean()
        return (both + float(np.sqrt(np.maximum(squared, 0)))) / 2

    @property
    def errors(self) -> Array:
        """(k,): √(s² + a²), s of the scatter of few rounds, a from the line to the parabola.

        Of the largest √(s² + a² + c²), c from the line to ``pair``.
        """
        found = _error(self.each, self.curved)
        if self.each.shape[1] > 1:
            found[0] = np.hypot(found[0], self.pair - self.values[0])
        return found

    @property
    def sums(self) -> Array:
        """(k,): of the largest 1, 2, ..., k."""
        return np.cumsum(self.values)

    @property
    def sum_errors(self) -> Array:
        return _error(np.cumsum(self.each, axis=1), np.cumsum(self.curved, axis=1))

    @property
    def known(self) -> bool:
        """Whether the error of the largest is at most ``tolerance`` of it."""
        return bool(self.errors[0] <= self.tolerance * abs(self.values[0]))

    def __str__(self) -> str:
        lines = [
            f"largest {self.values[0]:.4g} ± {self.errors[0]:.2g} in all {self.samples} samples; "
            f"{self.half[:, 0].mean():.4g} in {self.size // 2}, {self.whole[:, 0].mean():.4g} in "
            f"{self.size}"
        ]
        k = self.values.size
        if k > 1:
            lines.append(f"sum of the largest {k} {self.sums[-1]:.4g} ± {self.sum_errors[-1]:.2g}")
        if not self.known:
            off = self.errors[0] / abs(self.values[0]) if self.values[0] else np.inf
            lines.append(
                f"the largest is known to {off:.1%} only: take larger sets"
                + (" or trust the sum" if k > 1 else ", more of them, or the sum of several")
            )
        return "\n".join(
            [*lines, "Assumes batches so large that the mean is linear in 1/b - 1/N (asymptotic)."]
        )


def batch_extrapolation(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    size: int = 512,
    sets: int = 12,
    most: int | None = None,
    tolerance: float = 0.017,
    count: int = 2,
    seed: int = 0,
) -> BatchExtrapolation:
    """E λ(b) = λ + c (1/b - 1/N): 2λ(b) - λ(b/2) for N → ∞, Richardson's extrapolation.

    Each set of ``size`` random samples is measured whole and in two halves. The halves average to
    the whole, so what is linear in the noise cancels from their difference; and disjoint sets that
    fill the data average to all of it, so it cancels from the mean of a round too. Its quarters
    tell how much a parabola would differ from the line, which is part of the error. So is, of the
    largest, what differs where the two largest are close to one another and repel.

    Parameters
    ----------
    model, loss : as for ``hessian``; the loss a mean over samples.
    data : (inputs, targets), tensors whose first dimension counts samples, or several such batches.
    size : of a set, a multiple of 4, at most N.
    sets : how many at least; in rounds of disjoint ones, of which the standard errors are taken.
    most, tolerance : rounds are added until the relative error of the largest is at most
        ``tolerance``, or ``most`` sets (None: 4 times ``sets``) are measured.
    count : k, eigenvalues from the largest down. Where they lie close to one another trust their
        sums. With 1 the error of the largest knows nothing of the second.
    seed : of the samples.

    On the digits, a third of them a set, ten networks each, the largest came out to .9% at loss
    .15, 2.3% at .01 and 2.1% at .005 in the median, 29 of the 30 within 2.2 of their errors; the
    sum of ten to .2% and 1%. What is known worse than ``tolerance`` the output says.

    Source
    ------
    Richardson, Phil. Trans. R. Soc. A 210 (1911); derived on the theory page.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> batch_extrapolation(model, torch.nn.MSELoss(), (x, x), size=60, count=1).values  # all
    array([0.68926554])
    """
    x, targets = all_samples(model, data)
    size = check_order("size", size, least=4)
    if size % 4 or size > len(x):
        raise ValueError(
            f"size must be a multiple of 4 and at most the {len(x)} samples, got {size}"
        )
    count = check_order("count", count)
    sets = check_order("sets", sets, least=_ROUNDS)
    most = 4 * sets if most is None else check_order("most", most, least=sets)
    check_positive("tolerance", tolerance, "a relative error")
    each = min(len(x) // size, sets // _ROUNDS)
    rng = np.random.default_rng(seed)

    def spectra(rows: NDArray[np.int64], parts: int) -> Array:
        return np.array(
            [_largest(model, loss, x, targets, p, count) for p in np.split(rows, parts)]
        )

    rounds: list[list[Array]] = []
    gaps: list[list[float]] = []
    while True:
        rows = rng.permutation(len(x))[: each * size]
        found = [spectra(rows, parts * each) for parts in (4, 2, 1)]
        rounds.append([values.mean(axis=0) for values in found])
        gaps.append(
            [float(np.mean((v[:, 0] - v[:, int(count > 1)]) ** 2)) for v in (found[2], found[1])]
        )
        measured = len(rounds) * each
        if measured >= sets:
            quarter, half, whole = np.array(rounds).transpose(1, 0, 2)
            result = BatchExtrapolation(
                quarter, half, whole, np.array(gaps), size, len(x), tolerance
            )
            if result.known or measured >= most:
                return result


def all_samples(model: nn.Module, data: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Inputs and targets of all batches, one after the other, where the model is."""
    import torch

    from rmthess.operators.batches import Batches

    rows = []
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    for batch in Batches(data, place):
        batch.check_finite()
        row = (batch.inputs, *batch.targets)
        if not all(isinstance(part, torch.Tensor) and len(part) == batch.samples for part in row):
            raise TypeError(
                f"batch {batch.index} must be (inputs, targets), tensors whose first dimension "
                "counts samples, so that samples can be drawn"
            )
        rows.append(row)
    inputs, *targets = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return inputs, tuple(targets)


def _largest(
    model: nn.Module,
    loss: Callable[..., Any],
    x: Tensor,
    targets: tuple[Tensor, ...],
    chosen: NDArray[np.int64],
    count: int,
) -> Array:
    """(count,): the largest eigenvalues of these samples, descending."""
    import torch

    from rmthess.krylov.eigenpairs import eigenpairs
    from rmthess.operators.dense import eigenvalues
    from rmthess.operators.hessian import hessian

    rows = torch.from_numpy(chosen).to(x.device)
    operator = hessian(model, loss, (x[rows], *(target[rows] for target in targets)))
    wanted = count
    while wanted + 1 < operator.dim:
        found = eigenpairs(operator, wanted)
        if not found.converged:
            raise RuntimeError(f"the eigenvalues of a batch were not found: {found.message}")
        positive = found.values[found.values > 0]
        if len(positive) >= count:
            return np.asarray(positive[::-1][:count])
        wanted += 2 * (count - len(positive))  # those of largest modulus are negative ones
    if count > operator.dim:
        raise ValueError(f"count must be at most the {operator.dim} parameters, got {count}")
    return eigenvalues(operator)[::-1][:count]


def _error(each: Array, curved: Array) -> Array:
    """√(s² + a²): s² that of Student's t of the mean of n rounds, whose variance is (n-1)/(n-3)."""
    n = len(each)
    scatter = each.var(axis=0, ddof=1) / n * (n - 1) / (n - 3)
    return np.asarray(np.sqrt(scatter + (curved - each).mean(axis=0) ** 2))
