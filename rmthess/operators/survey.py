"""Two passes through the data before the first product: everything is checked, nothing assumed.

The first sums loss and gradient and stops at NaN, empty data or wrong labels. The second repeats
both, which finds dropout, random augmentation and data that can be read only once, and keeps the
graphs if they fit.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from rmthess.operators.batches import Batch
from rmthess.operators.errors import NonDeterministicError, NonFiniteError
from rmthess.operators.graph import Graph, Linearise, Pieces, plain_gradient
from rmthess.operators.isolation import random_state
from rmthess.operators.memory import budget, count_saved_bytes
from rmthess.operators.problem import Evaluation, Problem
from rmthess.operators.suspects import hand_written, mixing_modules, stochastic_modules


class Totals:
    """Weighted sums over the batches of one pass, not yet divided by the total weight.

    ``loss_scale`` and ``gradient_scale`` sum absolute values and norms: the scale of rounding.
    """

    def __init__(self, problem: Problem) -> None:
        parameters = problem.parameters
        self._problem = problem
        self.loss = self.loss_scale = self.gradient_scale = self.weight = 0.0
        self.gradient = torch.zeros(parameters.dim, dtype=torch.float64, device=parameters.device)
        self.batches = 0
        self.used: set[int] = set()

    def add(self, batch: Batch, loss: Evaluation | None, gradient: Pieces) -> None:
        self.batches += 1
        if loss is None:
            return
        share = loss.weight if self._problem.is_mean else 1.0
        own = torch.zeros_like(self.gradient)
        plain = [None if g is None else g.detach() for g in gradient]
        parameters = self._problem.parameters
        parameters.add_to(parameters.views(own), plain, share)
        if not bool(torch.isfinite(own).all()):
            entry = int(torch.nonzero(~torch.isfinite(own))[0, 0])
            name = self._problem.parameters.name_of_entry(entry)
            raise NonFiniteError(
                f"the gradient of batch {batch.index} is not finite, first in parameter {name!r}, "
                "although the loss is: look for a square root or norm at 0, or 0 * inf in a mask"
            )
        value = share * float(loss.value.detach())
        self.loss += value
        self.loss_scale += abs(value)
        self.gradient += own
        self.gradient_scale += float(own.norm())
        self.weight += loss.weight
        self.used |= {i for i, g in enumerate(gradient) if g is not None}

    @property
    def unused(self) -> tuple[str, ...]:
        names = self._problem.parameters.names
        return tuple(name for i, name in enumerate(names) if i not in self.used)


class Survey:
    """The first pass: totals, and the bytes that the graphs of all batches take."""

    def __init__(self, problem: Problem, linearise: Linearise) -> None:
        self.totals = Totals(problem)
        self._linearise = linearise
        self.is_zero = True
        self.draws_random_numbers = False
        self.hand_written: set[str] = set()
        self.samples = self._measured_samples = self._measured_bytes = 0
        for batch in problem.batches:
            batch.check_finite()
            self.samples += batch.samples
            self._visit(problem, batch)
        if self.totals.weight == 0:
            raise ValueError(
                "the total weight of the data is 0: every label is ignored or has class weight 0"
            )

    @property
    def graph_bytes(self) -> float:
        """Estimate for all batches together: the measured one, scaled by samples."""
        return self._measured_bytes * self.samples / max(self._measured_samples, 1)

    def _visit(self, problem: Problem, batch: Batch) -> None:
        # Until one graph shows that the operator is not zero; usually that is the first.
        measured = self.is_zero
        counter = count_saved_bytes(problem.parameters.values) if measured else nullcontext()
        with counter as saved:
            loss = self._evaluate(problem, batch)
            if loss is None:
                self.totals.add(batch, None, ())
                return
            gradient: Pieces
            if measured:
                graph = self._linearise(loss)
                gradient = graph.gradient
                self.is_zero = graph.is_zero
            else:
                gradient = plain_gradient(loss)
        if saved is not None:
            self._measured_samples, self._measured_bytes = batch.samples, saved.total
        self.totals.add(batch, loss, gradient)

    def _evaluate(self, problem: Problem, batch: Batch) -> Evaluation | None:
        devices = {value.device for value in problem.parameters.values}
        before = random_state(devices)
        loss = problem.evaluate(batch)
        self.draws_random_numbers |= random_state(devices) != before
        if loss is not None and not self.totals.used:
            self.hand_written = hand_written(loss.value)
        return loss


def repeat(
    problem: Problem, linearise: Linearise, survey: Survey, memory: int | None
) -> list[Graph] | None:
    """The second pass; returns the graph of a single batch, or all if they fit in ``memory``."""
    allowed = budget(memory, problem.parameters.device)
    keep = problem.batches.is_single or survey.graph_bytes <= allowed
    totals, graphs = Totals(problem), list[Graph]()
    for batch in problem.batches:
        loss = problem.evaluate(batch)
        if loss is None:
            totals.add(batch, None, ())
        elif keep:
            graph = linearise(loss)
            graphs.append(graph)
            totals.add(batch, loss, graph.gradient)
        else:
            totals.add(batch, loss, plain_gradient(loss))
    _compare(problem, survey, totals)
    return graphs if keep else None


def _compare(problem: Problem, survey: Survey, again: Totals) -> None:
    """Refuse a loss that changed between the passes.

    Where the model drew random numbers any difference counts. Otherwise a shuffled loader may round
    differently, and near a minimum either loss or gradient alone may be all rounding: both must
    differ by more than sqrt(eps).
    """
    first = survey.totals
    if again.batches != first.batches or abs(again.weight - first.weight) > 1e-9 * first.weight:
        raise NonDeterministicError(
            f"the data changed between two passes: {first.batches} batches of total weight "
            f"{first.weight:g}, then {again.batches} of {again.weight:g}; pass data that stays the "
            "same, without drop_last and shuffle together"
        )
    by_loss = _relative(abs(again.loss - first.loss), first.loss_scale)
    by_gradient = _relative(float((again.gradient - first.gradient).norm()), first.gradient_scale)
    tolerance = torch.finfo(problem.parameters.dtype).eps ** 0.5
    if survey.draws_random_numbers:
        changed = by_loss > 0 or by_gradient > 0
    else:
        changed = min(by_loss, by_gradient) > tolerance
    if changed:
        culprit = _culprit(problem)
        raise NonDeterministicError(
            f"the loss is random: repeated on the same data it changed by {by_loss:.1e} and its "
            f"gradient by {by_gradient:.1e} (relative); {culprit}"
        )


def _culprit(problem: Problem) -> str:
    drawing = stochastic_modules(problem.model, problem.modes)
    if drawing:
        return (
            f"these modules draw random numbers in train mode: {', '.join(drawing)}; "
            "call model.eval()"
        )
    mixing = mixing_modules(problem.model, problem.modes)
    if mixing:
        return (
            f"these modules normalise over a batch in train mode: {', '.join(mixing)}, and the "
            "loader seems to shuffle; call model.eval(), or fix the batches"
        )
    return (
        "no dropout module in train mode was found, so the model, the loss or the data "
        "(augmentation?) draws random numbers; fix them first"
    )


def _relative(difference: float, scale: float) -> float:
    return difference / scale if scale > 0 else float(difference > 0)
