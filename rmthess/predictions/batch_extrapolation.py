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

    from rmthess.operators.curvature import Curvature

Array = NDArray[np.float64]

_ROUNDS = (
    4  # at least: Student's t of three degrees of freedom has a standard deviation, of two none
)
_SMALL = 64  # parameters: all eigenvalues by as many products


@dataclass(frozen=True, eq=False)
class BatchExtrapolation:
    """The largest k eigenvalues of all N samples from disjoint sets of b, and from their halves.

    ``whole``, ``half`` (rounds, k + 1, k + 1): M of all sets of a round, and of their halves: the
    Hessian in the span of its leading k + 1 eigenvectors; ``narrow`` (rounds, k, k) that of the
    sets with one vector less. ``alone`` (2, rounds, k): mean λ of the sets and the halves as they
    are; ``overlaps`` (rounds, k): mean square of their eigenvectors in the common span. ``size`` b;
    ``samples`` N; ``tolerance``: the relative error of the largest beyond which the output says so.
    """

    whole: Array
    half: Array
    narrow: Array
    alone: Array
    overlaps: Array
    size: int
    samples: int
    tolerance: float

    @property
    def values(self) -> Array:
        """(k,): eigenvalues of the mean of M, the largest first."""
        return _leading(self.whole)[0][: self.alone.shape[2]]

    @property
    def sums(self) -> Array:
        """(k,): of the largest 1, 2, ..., k."""
        return np.cumsum(self.values)

    @property
    def line(self) -> Array:
        """(k,): Richardson's extrapolation of λ alone, (2 - b/N) λ(b) - (1 - b/N) λ(b/2)."""
        share = self.size / self.samples
        whole, half = self.alone.mean(axis=1)
        return np.asarray((2 - share) * whole - (1 - share) * half)

    @property
    def shared(self) -> NDArray[np.bool_]:
        """(k,): whether half or more of an eigenvector of a set is in the span of the first round.

        Otherwise it is the set's own, as at the edge of a bulk, and second order says nothing.
        """
        return np.asarray(self.overlaps[1:].mean(axis=0) >= 0.5)

    @property
    def errors(self) -> Array:
        """(k,): √(s² + a² + c²), of the scatter between rounds, the size, and k + 1.

        Where the eigenvector is not ``shared``, at least what was corrected.
        """
        corrected = np.abs(self.alone[0].mean(axis=0) - self.values)
        return self._at_least(self._errors(lambda values: values), corrected)

    @property
    def sum_errors(self) -> Array:
        corrected = np.abs(np.cumsum(self.alone[0].mean(axis=0)) - self.sums)
        found = self._errors(lambda values: np.cumsum(values, axis=-1))
        return self._at_least(found, corrected)

    def _at_least(self, errors: Array, corrected: Array) -> Array:
        return np.where(self.shared, errors, np.maximum(errors, corrected))

    def _errors(self, function: Callable[[Array], Array]) -> Array:
        k = self.alone.shape[2]
        (values, each), (halves, _), (narrow, _) = (
            (function(mean[:k]), function(rounds[:, :k]))
            for mean, rounds in map(_leading, (self.whole, self.half, self.narrow))
        )
        n = len(each)
        # Student's t of n - 1 degrees of freedom has the variance (n - 1)/(n - 3).
        scatter = each.var(axis=0, ddof=1) / n * (n - 1) / (n - 3)
        u = np.array([1, 2]) / self.size - 1 / self.samples
        left = (values - halves) * u[0] ** 2 / (u[1] ** 2 - u[0] ** 2)
        return np.asarray(np.sqrt(scatter + left**2 + (values - narrow) ** 2))

    @property
    def known(self) -> bool:
        """Whether the error of the largest is at most ``tolerance`` of it."""
        return bool(self.errors[0] <= self.tolerance * abs(self.values[0]))

    def __str__(self) -> str:
        whole, half = self.alone.mean(axis=1)[:, 0]
        lines = [
            f"largest {self.values[0]:.4g} ± {self.errors[0]:.2g} in all {self.samples} samples; "
            f"{half:.4g} in {self.size // 2}, {whole:.4g} in {self.size}, and by Richardson's line "
            f"through the two {self.line[0]:.4g}"
        ]
        k = self.values.size
        if k > 1:
            lines.append(f"sum of the largest {k} {self.sums[-1]:.4g} ± {self.sum_errors[-1]:.2g}")
        if not self.shared.all():
            lines.append(
                f"eigenvalue {int(np.argmin(self.shared)) + 1} has another eigenvector in each "
                "set, as at the edge of a bulk: not corrected reliably"
            )
        if not self.known:
            off = self.errors[0] / abs(self.values[0]) if self.values[0] else np.inf
            lines.append(
                f"the largest is known to {off:.1%} only: take larger sets, more of them, or more "
                "eigenvalues"
            )
        return "\n".join(
            [*lines, "Assumes sets so large that their noise counts to second order (asymptotic)."]
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
    """M = mean of U (α Λ_A + (1 - α) V_Aᵀ H_B V_A) Uᵀ, α = (1 + b/N)/2, over disjoint sets A, B.

    Λ_A of b samples is too large, because V_A follows their noise, and on other samples V_A has a
    curvature that is too small by as much. The weights α make up for both to second order, whatever
    the noise. U turns each V_A, of count + 1 eigenvectors, into the span that all have in common,
    so that the noise among them averages out before eigenvalues are taken: those of M are right for
    eigenvalues however close to one another, except the last. Where disjoint sets fill the data,
    what is linear in the noise cancels as well.

    The stated error has three parts: the scatter between rounds; what the same from halves of the
    sets says of the fourth order; and what changes with one eigenvector less.

    Parameters
    ----------
    model, loss : as for ``hessian``; the loss a mean over samples.
    data : (inputs, targets), tensors whose first dimension counts samples, or several such batches.
    size : b of a set, even, at most N/2.
    sets : how many at least, 8 or more; in rounds of disjoint ones.
    most, tolerance : rounds are added until the relative error of the largest is at most
        ``tolerance``, or ``most`` sets (None: 4 times ``sets``) are measured.
    count : k, eigenvalues from the largest down.
    seed : of the samples.

    On the digits, a third of them a set, 30 networks with losses from .15 to .005: the largest is
    .1 to .4% off in the median and 1.1% at worst, where Richardson's line is 1 to 4% off and the
    sets alone 3 to 16%. An eighth of them a set: .6 to 1.7%, the line 2 to 6%, the sets 13 to 52%.

    Source
    ------
    Derived on the theory page. ``line`` is Richardson's extrapolation, Phil. Trans. R. Soc. A 210
    (1911), of λ alone, whose second order fails where the two largest are close.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None] ** torch.tensor([1, 2])
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> found = batch_extrapolation(model, torch.nn.MSELoss(), (x, x[:, :1]), size=20, count=1)
    >>> found.values.round(4)
    array([0.6893])
    """
    x, targets = all_samples(model, data)
    size = check_order("size", size, least=2)
    if size % 2 or 2 * size > len(x):
        raise ValueError(f"size must be even and at most half of the {len(x)} samples, got {size}")
    count = check_order("count", count)
    sets = check_order("sets", sets, least=2 * _ROUNDS)
    most = 4 * sets if most is None else check_order("most", most, least=sets)
    check_positive("tolerance", tolerance, "a relative error")
    each = min(len(x) // size, sets // _ROUNDS)
    rng = np.random.default_rng(seed)
    rounds = list[tuple[Array, ...]]()
    frame: Tensor | None = None
    while True:
        rows = rng.permutation(len(x))[: each * size]
        wholes, halves = (
            _measure(model, loss, x, targets, np.split(rows, parts), count + 1)
            for parts in (each, 2 * each)
        )
        if frame is None:
            frame, narrower = (_span(wholes, k) for k in (count + 1, count))
        own = (1 + size / len(x)) / 2, (1 + size / 2 / len(x)) / 2
        rounds.append(
            (
                _corrected(frame, wholes, own[0]),
                _corrected(frame, halves, own[1]),
                _corrected(narrower, wholes, own[0]),
                np.mean([_overlap(frame, one)[:count] for one in wholes], axis=0),
                *(np.mean([one.values[:count] for one in s], axis=0) for s in (wholes, halves)),
            )
        )
        measured = len(rounds) * each
        if measured >= sets:
            whole, half, narrow, overlaps, *alone = map(np.array, zip(*rounds, strict=True))
            result = BatchExtrapolation(
                whole, half, narrow, np.array(alone), overlaps, size, len(x), tolerance
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


@dataclass(frozen=True, eq=False)
class _Set:
    """Λ_A (m,) and V_A (dim, m) of some samples, and V_Aᵀ H_B V_A (m, m) of others."""

    values: Array
    vectors: Tensor
    elsewhere: Array


def _measure(
    model: nn.Module,
    loss: Callable[..., Any],
    x: Tensor,
    targets: tuple[Tensor, ...],
    sets: list[NDArray[np.int64]],
    count: int,
) -> list[_Set]:
    """Each set, with the next one for others."""
    import torch

    from rmthess.operators.hessian import hessian

    operators = []
    for chosen in sets:
        rows = torch.from_numpy(chosen).to(x.device)
        operators.append(hessian(model, loss, (x[rows], *(target[rows] for target in targets))))
    dim = operators[0].dim
    if count > dim + 1:
        raise ValueError(f"count must be at most the {dim} parameters, got {count - 1}")
    found = []
    for operator, other in zip(operators, [*operators[1:], operators[0]], strict=True):
        values, vectors = _largest(operator, min(count, dim))
        quotient = (vectors.T @ other.matmat(vectors)).to(torch.float64).cpu().numpy()
        found.append(_Set(values, vectors, (quotient + quotient.T) / 2))
    return found


def _span(sets: list[_Set], count: int) -> Tensor:
    """(dim, count): orthonormal, nearest to the leading vectors of all sets."""
    import torch

    vectors = torch.cat([one.vectors[:, :count] for one in sets], dim=1)
    left: Tensor = torch.linalg.svd(vectors, full_matrices=False)[0]
    return left[:, :count]


def _corrected(span: Tensor, sets: list[_Set], own: float) -> Array:
    """(m, m): the mean of U (α Λ_A + (1 - α) V_Aᵀ H_B V_A) Uᵀ, α = ``own``, in the span."""
    import torch

    total, m = np.zeros((span.shape[1],) * 2), span.shape[1]
    for one in sets:
        overlap = (span.T @ one.vectors[:, :m]).to(torch.float64).cpu().numpy()
        left, _, right = np.linalg.svd(overlap)
        turn = left @ right  # the orthogonal matrix nearest to the overlap
        matrix = own * np.diag(one.values[:m]) + (1 - own) * one.elsewhere[:m, :m]
        total += turn @ matrix @ turn.T
    return total / len(sets)


def _overlap(span: Tensor, one: _Set) -> Array:
    """(m,): the square of each eigenvector's part in the span."""
    return np.asarray((span.T @ one.vectors).square().sum(dim=0).cpu().numpy())


def _leading(rounds: Array) -> tuple[Array, Array]:
    """Eigenvalues (m,) of the mean, descending, and what each round has there (rounds, m)."""
    values, vectors = np.linalg.eigh(rounds.mean(axis=0))
    each = np.einsum("ji,rjk,ki->ri", vectors, rounds, vectors)
    return values[::-1], each[:, ::-1]


def _largest(operator: Curvature, count: int) -> tuple[Array, Tensor]:
    """The largest eigenvalues (count,), descending, with their eigenvectors (dim, count)."""
    import torch

    from rmthess.krylov.eigenpairs import eigenpairs
    from rmthess.operators.dense import dense

    wanted = count
    while wanted + 1 < operator.dim and operator.dim > _SMALL:
        found = eigenpairs(operator, wanted)
        if not found.converged:
            raise RuntimeError(f"the eigenvalues of a batch were not found: {found.message}")
        order = [i for i in np.argsort(-found.values) if found.values[i] > 0]
        if len(order) >= count:
            return found.values[order[:count]], found.vectors[:, order[:count]]
        wanted += 2 * (count - len(order))  # those of largest modulus are negative ones
    values, vectors = np.linalg.eigh(dense(operator))
    last = slice(None, -count - 1, -1)
    kept = torch.from_numpy(vectors[:, last].copy()).to(operator.device, operator.dtype)
    return values[last], kept
