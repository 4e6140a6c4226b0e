"""Curvature as an adaptive optimiser sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rmthess.operators.as_operator import as_operator
from rmthess.operators.operator import Derived, Operator
from rmthess.operators.parameters import Parameters, Selection, select
from rmthess.operators.vectors import as_columns


@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Derived):
    """S A S with S = diag(``scale``), (dim,)."""

    scale: Tensor

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        scale = self.scale[:, None]
        return scale * self.operator.matmat(scale * vectors)

    def __repr__(self) -> str:
        return f"precondition({self.operator!r})"


def precondition(operator: Any, diagonal: ArrayLike | Tensor) -> Preconditioned:
    """D^(-1/2) A D^(-1/2), D = diag(``diagonal``): symmetric, with the eigenvalues of D⁻¹A.

    ``operator``: anything that ``as_operator`` reads; ``diagonal``: (dim,), positive. A step
    θ - η D⁻¹ g is stable on a quadratic while η λ_max < 2 (η λ_max < 2(1 + β₁)/(1 - β₁) with Adam's
    averaged gradient), λ_max being this operator's.

    Raises ValueError where an entry is not positive.

    Source: Cohen et al., *Adaptive gradient methods at the edge of stability*, arXiv 2207.14484.

    >>> precondition(torch.diag(torch.tensor([1.0, 8.0])), [1.0, 4.0]) @ torch.ones(2)
    tensor([1., 2.])
    """
    source = as_operator(operator)
    found = as_columns("diagonal", diagonal, source.dim)
    if found.shape[1] != 1:
        raise ValueError(f"diagonal must have shape ({source.dim},), got {tuple(found.shape)}")
    entries = found[:, 0].to(torch.float64)
    if not bool((entries > 0).all()):
        raise ValueError(_not_positive(source, entries))
    return Preconditioned(source, entries.rsqrt().to(source.device, source.dtype))


def adam_diagonal(
    optimizer: torch.optim.Optimizer, model: nn.Module, params: Selection = None
) -> Tensor:
    """√v̂ + ε with v̂ = v/(1 - β₂ᵗ): what Adam divides its t-th step by; (dim,), float64.

    ``optimizer``: ``torch.optim.Adam`` or ``AdamW`` after at least one step; ``model`` and
    ``params`` as for ``hessian``, which gives the same order of entries. With ``amsgrad`` v is the
    largest so far.

    Raises TypeError for another optimiser, ValueError where a parameter has no state.

    Source: Kingma & Ba, arXiv 1412.6980, Algorithm 1; Reddi, Kale & Kumar, arXiv 1904.09237.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> model(torch.tensor([3.0])).sum().backward()
    >>> optimizer.step()
    >>> adam_diagonal(optimizer, model)
    tensor([3.0000], dtype=torch.float64)
    """
    if not isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        raise TypeError(
            f"optimizer must be torch.optim.Adam or AdamW, got {type(optimizer).__name__}; pass "
            "its diagonal to precondition"
        )
    by_name = dict(model.named_parameters())
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    pieces = []
    for name in select(model, params).names:
        parameter = by_name[name]
        if id(parameter) not in settings:
            raise ValueError(
                f"parameter {name!r} is not in this optimizer; was it made for another model?"
            )
        pieces.append(_adam(name, optimizer.state[parameter], settings[id(parameter)]))
    return torch.cat(pieces)


def _adam(name: str, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    key = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    if key not in state:
        raise ValueError(
            f"parameter {name!r} has no second moment yet: step the optimizer first, with a "
            "gradient for it, or load its state"
        )
    correction = 1 - float(group["betas"][1]) ** float(state["step"])
    second: Tensor = state[key].detach().reshape(-1).to(torch.float64)
    divisor: Tensor = (second / correction).sqrt() + group["eps"]
    return divisor


def _not_positive(operator: Operator, entries: Tensor) -> str:
    entry = int(torch.nonzero(~(entries > 0))[0, 0])
    parameters: Parameters | None = operator.parameters
    where = "" if parameters is None else f" (parameter {parameters.name_of_entry(entry)!r})"
    return (
        f"diagonal must be positive, got {float(entries[entry]):g} at entry {entry}{where}; "
        "add the optimiser's epsilon"
    )
