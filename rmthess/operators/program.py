"""Batches evaluated and multiplied by a program instead of by autograd.

Where no graphs are kept, every product evaluates every batch anew: the model, the loss and the
gradient run through Python and leave a graph, of which there is one product for each direction. All
that is the same sequence of operations for all batches whose tensors have the same shapes, so it
can be written down once (see ``recording``): one part for a batch, another for each direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from rmthess.operators.batches import Batch
from rmthess.operators.graph import Linear, Linearise, Pieces
from rmthess.operators.problem import Evaluation, Problem
from rmthess.operators.recording import NotRecordable, Recording, record
from rmthess.operators.weights import Reduction

_MOST = 8  # forms, such as lengths of texts; batches of others are left to autograd


class Programs:
    """Opens batches by one program for each of their forms, written when the first of it comes.

    What a model does without any operation on a tensor is repeated as it was for that first batch.
    Whether products come out the same is for the caller to check (see ``tuning.adopt``).
    """

    def __init__(self, linearise: Linearise) -> None:
        self._linearise = linearise
        self._known: dict[Any, _Program | None] = {}

    def __call__(self, problem: Problem, batch: Batch) -> Linear | None:
        """Raise NotRecordable if the first batch of all has no program."""
        tensors, form = _form(batch)
        if form not in self._known and len(self._known) < _MOST:
            evaluation = problem.evaluate(batch)
            if evaluation is None:
                return None
            try:
                self._known[form] = self._write(evaluation, tensors)
            except NotRecordable:
                if not self._known:
                    raise
                self._known[form] = None
        program = self._known.get(form)
        if program is not None:
            return program.open(problem, batch, tensors)
        evaluation = problem.evaluate(batch)
        return None if evaluation is None else self._linearise(evaluation)

    def _write(self, evaluation: Evaluation, tensors: list[Tensor]) -> _Program:
        problem, batch = evaluation.problem, evaluation.batch

        def product(found: list[Tensor]) -> Pieces:
            again = problem.evaluate(_filled(batch, found), weight=evaluation.weight)
            assert again is not None
            return self._linearise(again).product(found[len(tensors) :])

        directions = [torch.ones_like(value) for value in problem.parameters.values]
        # Detached, because one tensor may be there twice, as input and as target.
        _, recording = record(product, directions, [x.detach() for x in tensors])
        outputs = tree_map_only(Tensor, lambda x: x.detach().to("meta"), evaluation.outputs)
        return _Program(recording, outputs, evaluation.known)


@dataclass(frozen=True, eq=False)
class _Program:
    """``outputs`` of the model without values, and the loss as far as it is ``known``."""

    recording: Recording
    outputs: Any
    known: Reduction | None

    def open(self, problem: Problem, batch: Batch, tensors: list[Tensor]) -> Linear | None:
        weight = problem.weigh(batch, self.outputs, self.known)
        if weight == 0:
            return None
        return _Opened(weight, self.recording, self.recording.prepare(tensors))


@dataclass(frozen=True, eq=False)
class _Opened:
    weight: float
    recording: Recording
    prepared: Sequence[Tensor]

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        return self.recording.run(pieces, self.prepared)


def _form(batch: Batch) -> tuple[list[Tensor], Any]:
    """The tensors of a batch, and everything else about it."""
    leaves, layout = tree_flatten((batch.inputs, batch.targets))
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    rest = tuple(None if isinstance(x, Tensor) else (type(x), repr(x)) for x in leaves)
    return tensors, (layout, rest, *((x.shape, x.dtype, x.stride()) for x in tensors))


def _filled(batch: Batch, tensors: list[Tensor]) -> Batch:
    """The batch with other tensors."""
    leaves, layout = tree_flatten((batch.inputs, batch.targets))
    rest = iter(tensors)
    inputs, targets = tree_unflatten(
        [next(rest) if isinstance(x, Tensor) else x for x in leaves], layout
    )
    return replace(batch, inputs=inputs, targets=targets)
