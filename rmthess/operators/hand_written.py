"""Whether hand-written derivatives (torch.autograd.Function) can be differentiated again."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rmthess.operators.curvature import Curvature
from rmthess.operators.graph import plain_gradient


def check_hand_written(hessian: Curvature) -> None:
    """Compare H v with (g(θ + hv) - g(θ - hv))/2h for a random unit v, h = eps^(1/3)(1 + |θ|).

    A ``backward`` that is ``once_differentiable`` or detaches what it saved makes wrong products
    without an error of torch's; they are linear, and in the second case symmetric too. Models
    without such functions are not compared: differences also count the kinks of ReLU, which second
    derivatives leave out.

    Warns where the two differ by 1%; raises RuntimeError where the second derivative fails.
    """
    names = ", ".join(sorted(hessian.hand_written))
    parameters = hessian.parameters
    drawn = np.random.default_rng(19940101).standard_normal(hessian.dim)
    unit = torch.from_numpy(drawn / np.linalg.norm(drawn)).to(hessian.device, hessian.dtype)
    try:
        product = hessian @ unit
    except RuntimeError as error:
        raise RuntimeError(
            f"the second derivative of the loss fails ({error}); its graph holds the hand-written "
            f"{names}: write their backward with differentiable operations of torch"
        ) from error
    point = torch.cat([value.reshape(-1).to(unit) for value in parameters.values])
    eps = torch.finfo(hessian.dtype).eps
    step = eps ** (1 / 3) * (1 + float(point.norm()))
    above, below = (_gradient(hessian, point + side * step * unit) for side in (1, -1))
    difference = (above - below) / (2 * step)
    size = max(float(product.norm()), float(difference.norm()))
    off = float((product - difference).norm())
    if off > 0.01 * size + 10 * eps * float(above.norm()) / step:
        warnings.warn(
            f"a product differs by {off / size:.0%} from the difference of two gradients: the "
            f"backward of the hand-written {names} seems to be once_differentiable or to detach "
            "what it saved, so that second derivatives are missing; write it with differentiable "
            "operations of torch",
            stacklevel=3,
        )


def _gradient(hessian: Curvature, point: Tensor) -> Tensor:
    """The gradient (dim,) of the same loss at another point, float64."""
    problem = hessian.problem
    moved = replace(hessian.parameters, values=tuple(hessian.parameters.split(point)))
    problem = replace(problem, parameters=moved)
    total = torch.zeros(hessian.dim, dtype=torch.float64, device=hessian.device)
    with problem.isolated():
        for batch in problem.batches:
            loss = problem.evaluate(batch)
            if loss is not None:
                share = loss.weight / hessian.total_weight if problem.is_mean else 1.0
                moved.add_to(moved.views(total), plain_gradient(loss), share)
    return total
