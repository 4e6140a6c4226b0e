"""The Hessian of one batch's loss by forward over reverse, recorded once and repeated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from rmthess.operators.batches import Batch
from rmthess.operators.graph import Pieces
from rmthess.operators.problem import Problem
from rmthess.operators.recording import Recording, record


class Linearized:
    """H v = d/dε g(θ + εv) at ε = 0, the derivative of the gradient along v.

    The first product differentiates and records, every further one runs the record, which holds
    what depends on v and no more. ``weight`` is known from then on; a batch that weighs nothing
    has H = 0. Never reverse over forward: see ``hessian``.

    Source: Frostig, Johnson, Maclaurin, Paszke & Radul, *Decomposing reverse-mode automatic
    differentiation*, arXiv:2105.09469: linearise, and run the linear part.
    """

    def __init__(self, problem: Problem, batch: Batch, *, compile: bool = False) -> None:
        self._problem = problem
        self._batch = batch
        self._compile = compile
        self._recording: Recording | None = None
        self.weight = 0.0

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        if self._recording is not None:
            return self._recording.run(pieces)
        with warnings.catch_warnings():
            # torch 2.13 loads its rules of forward mode, and its compiler, through what it
            # deprecates.
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            value, self._recording = record(self._along, list(pieces))
            if self._compile:
                self._recording = self._recording.compiled()
                self._recording.run(pieces)  # compiles
        return value

    @property
    def bytes(self) -> int:
        """What the record keeps alive."""
        return 0 if self._recording is None else self._recording.bytes

    def _along(self, direction: list[Tensor]) -> Sequence[Tensor]:
        values = self._problem.parameters.values
        gradient = torch.func.grad(self._loss, argnums=tuple(range(len(values))))
        along: Sequence[Tensor] = torch.func.jvp(gradient, values, tuple(direction))[1]
        return along

    def _loss(self, *leaves: Tensor) -> Tensor:
        evaluation = self._problem.evaluate(self._batch, list(leaves))
        if evaluation is None:
            return leaves[0].sum() * 0
        self.weight = evaluation.weight
        return evaluation.value
