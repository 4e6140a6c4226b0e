"""Products recorded once and repeated, and the Hessian by forward over reverse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from rmthess.operators.batches import Batch
from rmthess.operators.graph import Linear, Pieces
from rmthess.operators.problem import Problem
from rmthess.operators.recording import Recording, record


class Recorded:
    """The products of ``graph`` without whatever in them does not depend on the direction.

    The first product records, every further one runs the record; ``graph`` is let go in between. Of
    a double backward this leaves the very operations that depend on v, on the same numbers.

    Source: Frostig, Johnson, Maclaurin, Paszke & Radul, *Decomposing reverse-mode automatic
    differentiation*, arXiv:2105.09469: linearise, and run the linear part.
    """

    def __init__(self, graph: Linear, *, compile: bool = False) -> None:
        self._graph: Linear | None = graph
        self._compile = compile
        self._recording: Recording | None = None
        self._weight = 0.0

    @property
    def weight(self) -> float:
        return self._weight if self._graph is None else self._graph.weight

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        if self._recording is not None:
            return self._recording.run(pieces)
        assert self._graph is not None
        with warnings.catch_warnings():
            # torch 2.13 loads its rules of forward mode, and its compiler, through what it
            # deprecates.
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            value, self._recording = record(self._graph.product, list(pieces))
            if self._compile:
                self._recording = self._recording.compiled()
                self._recording.run(pieces)  # compiles
        self._weight, self._graph = self._graph.weight, None
        return value

    @property
    def bytes(self) -> int:
        """What the record keeps alive."""
        return 0 if self._recording is None else self._recording.bytes


class ForwardOverReverse:
    """H v = d/dε g(θ + εv) at ε = 0, the derivative of the gradient along v.

    Everything is computed anew at every product, so it is to be ``Recorded``. ``weight`` is known
    after a product; a batch that weighs nothing has H = 0. Never reverse over forward: see
    ``hessian``.
    """

    def __init__(self, problem: Problem, batch: Batch) -> None:
        self._problem = problem
        self._batch = batch
        self.weight = 0.0

    def product(self, pieces: Sequence[Tensor]) -> Pieces:
        values = self._problem.parameters.values
        gradient = torch.func.grad(self._loss, argnums=tuple(range(len(values))))
        along: Pieces = torch.func.jvp(gradient, values, tuple(pieces))[1]
        return along

    def _loss(self, *leaves: Tensor) -> Tensor:
        evaluation = self._problem.evaluate(self._batch, list(leaves))
        if evaluation is None:
            return leaves[0].sum() * 0
        self.weight = evaluation.weight
        return evaluation.value
