"""One batch's curvature: a linear map on the parameters, ready for many products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rmthess.operators.problem import Evaluation

Pieces = Sequence[Tensor | None]  # in the parameters' shapes; None is a zero block


class Linear(Protocol):
    """What a batch contributes to a product: v -> A v, and its weight, known after a product."""

    @property
    def weight(self) -> float: ...

    def product(self, pieces: Sequence[Tensor]) -> Pieces: ...


class Graph(Linear, Protocol):
    """The same with the gradient from which it was made.

    ``is_zero``: whether A vanishes for every v, as that of a loss linear in the parameters does.
    """

    @property
    def gradient(self) -> Pieces: ...

    @property
    def is_zero(self) -> bool: ...


Linearise = Callable[[Evaluation], Graph]


def plain_gradient(evaluation: Evaluation) -> Pieces:
    """Differentiate once and drop the graph."""
    found: Pieces = torch.autograd.grad(evaluation.value, evaluation.leaves, allow_unused=True)
    return found
