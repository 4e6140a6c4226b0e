"""The gradient of one batch's loss, kept in a form that can be differentiated once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmthess.operators.problem import Loss

Gradient = Sequence[Tensor | None]


@dataclass(frozen=True, eq=False)
class Graph:
    """g = ∂l/∂θ as a graph on ``leaves``; an entry is None where l does not depend on that leaf."""

    gradient: Gradient
    leaves: list[Tensor]
    weight: float

    @property
    def is_constant(self) -> bool:
        """Whether l is linear in the parameters: then g has no graph and H is zero."""
        return not any(g is not None and g.requires_grad for g in self.gradient)

    def product(self, pieces: Sequence[Tensor]) -> Gradient:
        """H v = ∂(g·v)/∂θ, v given in the leaves' shapes; None is a zero block."""
        live = [i for i, g in enumerate(self.gradient) if g is not None and g.requires_grad]
        if not live:
            return [None] * len(self.leaves)
        found: Gradient = torch.autograd.grad(
            [g for g in self.gradient if g is not None and g.requires_grad],
            self.leaves,
            [pieces[i] for i in live],
            retain_graph=True,
            allow_unused=True,
        )
        return found


def build_graph(loss: Loss) -> Graph:
    """Differentiate once and keep what a second differentiation needs."""
    found = torch.autograd.grad(loss.value, loss.leaves, create_graph=True, allow_unused=True)
    return Graph(found, loss.leaves, loss.weight)


def plain_gradient(loss: Loss) -> Gradient:
    """Differentiate once and drop the graph."""
    found: Gradient = torch.autograd.grad(loss.value, loss.leaves, allow_unused=True)
    return found
