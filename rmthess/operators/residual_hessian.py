"""The part of a Hessian that the Gauss–Newton matrix leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rmthess.operators.curvature import Curvature, curvature
from rmthess.operators.hessian import HessianGraph, hessian
from rmthess.operators.outputs import Outputs
from rmthess.operators.parameters import Selection
from rmthess.operators.problem import Evaluation, Weight


def differentiate(evaluation: Evaluation) -> HessianGraph:
    """<r, f(θ)> has the loss's gradient and, r being constant, the Hessian that is wanted."""
    outputs = Outputs.of(evaluation)
    _, residual = outputs.residual()
    found = torch.autograd.grad(
        outputs.tensors, evaluation.leaves, residual, create_graph=True, allow_unused=True
    )
    return HessianGraph(found, evaluation.leaves, evaluation.weight)


def residual_hessian(
    model: nn.Module,
    loss: Callable[..., Any],
    data: Any,
    *,
    params: Selection = None,
    weight: Weight | None = None,
    memory: int | None = None,
) -> Curvature:
    """F v = Σ_i r_i ∂²f_i/∂θ² v with r = ∂l/∂f held fixed: F = H - G.

    It is the Hessian of <r, f(θ)>, so a product costs what one of ``hessian`` costs, and no
    difference of two large matrices is formed. Its spectrum says how far the network is from
    linear, weighted by how wrong it still is: F = 0 where it fits exactly, or is linear.

    Arguments, errors and warnings as for ``hessian``, outputs as for ``gauss_newton``.

    Source: Sagun, Evci, Güney, Dauphin & Bottou, arXiv:1706.04454; theory/gauss_newton.md.

    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> found = residual_hessian(model, lambda f, y: 3 * f.sum(), (x, x))
    >>> found @ torch.tensor([1.0, 0.0], dtype=torch.float64)  # of 3ab in (a, b)
    tensor([0., 3.], dtype=torch.float64)
    """
    found = curvature(
        "ResidualHessian",
        differentiate,
        model,
        loss,
        data,
        params=params,
        weight=weight,
        memory=memory,
        zero_if="the outputs of the model are linear in the chosen parameters",
    )
    if found.hand_written:  # the second derivatives are those of the Hessian, which is checked
        hessian(model, loss, data, params=params, weight=weight, memory=memory)
    return found
