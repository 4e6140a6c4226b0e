"""What the rank formulas ask of a torch model: widths, biases, rank of the inputs, kind of loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmthess.operators.batches import Batches
from rmthess.ranks.linear_network import linear_network_rank
from rmthess.ranks.numerical import numerical_rank

LOSSES: dict[Any, str] = {
    nn.MSELoss: "mse",
    nn.BCEWithLogitsLoss: "mse",  # strictly convex in every output: the same ranks
    nn.CrossEntropyLoss: "cross_entropy",
    nn.functional.mse_loss: "mse",
    nn.functional.binary_cross_entropy_with_logits: "mse",
    nn.functional.cross_entropy: "cross_entropy",
}
ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.Softplus,
)  # fmt: skip


@dataclass(frozen=True)
class HeuristicRank:
    """About how many eigenvalues stand out: ``count`` above ``threshold`` times the largest.

    Not a bound: the rank of a network with activations is larger, and how many eigenvalues stand
    out depends on the size of its weights.
    """

    count: int
    threshold: float
    parameters: int
    because: str

    def __str__(self) -> str:
        return (
            f"about {self.count} of {self.parameters} eigenvalues above {self.threshold:g} of the "
            f"largest (a heuristic, not a bound)\n{self.because}"
        )


def read_linear_network(
    model: nn.Module, loss: Callable[..., Any] | str, data: Any
) -> dict[str, Any]:
    """Arguments of ``linear_network_rank`` and ``exact_rank``, read off a model and its data.

    Parameters
    ----------
    model : ``Sequential`` of ``Linear`` layers, ``Identity`` and ``Flatten`` among them; or one
        ``Linear``.
    loss : MSELoss, BCEWithLogitsLoss or CrossEntropyLoss of torch, or "mse" (any strictly convex
        loss of the outputs) or "cross_entropy".
    data : a batch (inputs, targets) or a re-iterable of batches.

    The rank of the inputs is that of the centred ones where the first layer has a bias.

    >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
    >>> data = torch.eye(3).repeat(2, 1) * torch.arange(1, 7)[:, None], torch.zeros(6, 2)
    >>> read_linear_network(model, nn.MSELoss(), data)
    {'widths': [3, 4, 2], 'input_rank': 3, 'bias': {2}, 'loss': 'mse'}
    """
    return _read(model, loss, data, activations=False)


def heuristic_rank(
    model: nn.Module,
    loss: Callable[..., Any] | str,
    data: Any,
    *,
    threshold: float = 1e-2,
    part: str = "outer_product",
) -> HeuristicRank:
    """The rank of the network without its activations, as a guess at the large eigenvalues.

    It was the number of eigenvalues above 1e-2 to 1e-4 of the largest for tanh at small weights,
    where the network is nearly linear; at ordinary weights, and for ReLU, many more are large.
    The Gauss-Newton part ("outer_product") follows it better than the Hessian.

    Parameters
    ----------
    model : as of ``read_linear_network``, with activations between the layers.
    loss, data, part : as there, and of ``linear_network_rank``.
    threshold : of the largest eigenvalue; the guess means nothing without one.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    bound = linear_network_rank(part=part, **_read(model, loss, data, activations=True))
    return HeuristicRank(
        count=bound.value,
        threshold=float(threshold),
        parameters=bound.parameters,
        because=f"the network without its activations: {bound.because}",
    )


def _read(
    model: nn.Module, loss: Callable[..., Any] | str, data: Any, activations: bool
) -> dict[str, Any]:
    layers: list[tuple[str, nn.Linear]] = []
    flattened = False
    for name, module in _modules(model):
        if isinstance(module, nn.Flatten):
            flattened |= not layers
        elif type(module) is nn.Linear:
            _check_free(name, module, [layer for _, layer in layers])
            layers.append((name, module))
        elif not (type(module) is nn.Identity or (activations and type(module) in ACTIVATIONS)):
            raise ValueError(
                f"layer {name or 'model'!r} is a {type(module).__name__}, which is not linear; the "
                "ranks are those of Linear layers in a row (Identity and Flatten among them). "
                "heuristic_rank leaves activations out, and bounds nothing"
            )
    if not layers:
        raise ValueError("the model has no Linear layer")
    biased = {at for at, (_, layer) in enumerate(layers, start=1) if layer.bias is not None}
    return {
        "widths": [layers[0][1].in_features, *(layer.out_features for _, layer in layers)],
        "input_rank": _input_rank(model, data, biased, flattened),
        "bias": biased,
        "loss": _kind(loss),
    }


def _modules(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Layers in the order they are applied, with dotted names."""
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for child, part in module.named_children():
        yield from _modules(part, f"{name}.{child}" if name else child)
    # named_children leaves out a module that occurs again
    if len(list(module.named_children())) != len(module):
        raise ValueError(
            f"{name or 'model'!r} holds a layer twice; with weights that are shared the ranks are "
            "others"
        )


def _check_free(name: str, layer: nn.Linear, before: list[nn.Linear]) -> None:
    for kind, parameter in layer.named_parameters():
        if not parameter.requires_grad:
            raise ValueError(
                f"{kind} of layer {name or 'model'!r} does not require a gradient; the ranks are "
                "those of all weights together"
            )
        if any(parameter is other for earlier in before for other in earlier.parameters()):
            raise ValueError(
                f"{kind} of layer {name!r} is shared with an earlier layer; the ranks are others"
            )


def _kind(loss: Callable[..., Any] | str) -> str:
    if isinstance(loss, str):
        return loss
    kind = LOSSES.get(loss, LOSSES.get(type(loss)))
    if kind is None:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ValueError(
            f"the ranks for the loss {name} are not known here; if it is strictly convex in the "
            'outputs give "mse", if it is a softmax cross-entropy of logits "cross_entropy"'
        )
    return kind


def _input_rank(model: nn.Module, data: Any, biased: set[int], flattened: bool) -> int:
    device = next(model.parameters()).device
    triangle: Tensor | None = None
    for batch in Batches(data, device):
        x = batch.inputs
        if not isinstance(x, Tensor) or (x.ndim != 2 and not flattened):
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"inputs must have shape (samples, d), got {what}; add a Flatten")
        batch.check_finite()
        rows = x.detach().flatten(1).to("cpu", torch.float64)
        rows = torch.cat([torch.ones(len(rows), 1, dtype=torch.float64), rows], dim=1)
        stacked = rows if triangle is None else torch.cat([triangle, rows])
        triangle = torch.linalg.qr(stacked, mode="r").R
    assert triangle is not None
    # R of [1, X] is [[√n, ·], [0, R_c]], and R_c has the singular values of the centred inputs.
    centred = _rank(triangle[1:, 1:])
    if 1 in biased:
        return centred
    plain = _rank(triangle[:, 1:])
    if biased and centred < plain:
        raise ValueError(
            "a combination of the inputs is constant over the data, so the biases of later layers "
            "can be moved into the first one; no rank is known for this. Give the first layer a "
            "bias, or more samples than inputs"
        )
    return plain


def _rank(matrix: Tensor) -> int:
    if 0 in matrix.shape:
        return 0
    rank = numerical_rank(torch.linalg.svdvals(matrix).numpy())
    if rank.value is None:
        raise ValueError(
            f"the rank of the inputs cannot be decided: {rank.doubt}. Give widths and input_rank "
            "to linear_network_rank"
        )
    return rank.value
