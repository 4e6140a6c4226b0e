"""Sizes of a fully connected classifier, given or read off a torch model, and its first outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.measure import check_order
from rmthess.predictions.tangent_kernel import ACTIVATIONS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Widths:
    """d, the hidden layers and C, with biases everywhere and one activation."""

    sizes: tuple[int, ...]
    activation: str

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.sizes[1:-1]

    @property
    def outputs(self) -> int:
        return self.sizes[-1]


def read_widths(
    network: int | Sequence[int] | Any, activation: str, scale: float, inputs: int, classes: int
) -> Widths:
    """From hidden widths, or from a Sequential whose weights are within ±scale/√fan-in."""
    if isinstance(network, int | np.integer) and not isinstance(network, bool):
        network = [network]
    if isinstance(network, list | tuple):
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        hidden = [check_order("network, the number of hidden units,", n) for n in network]
        if not hidden:
            raise ValueError("network must have at least one hidden layer, got an empty list")
        return Widths((inputs, *hidden, classes), activation)
    found = _read(network, scale)
    if found.sizes[0] != inputs:
        raise ValueError(f"the network takes {found.sizes[0]} inputs, and the data have {inputs}")
    if found.outputs < classes:
        raise ValueError(
            f"the network has {found.outputs} outputs, and the labels go up to {classes - 1}"
        )
    return found


def _read(model: Any, scale: float) -> Widths:
    from torch import nn

    if not isinstance(model, nn.Sequential):
        raise TypeError(
            "network must be numbers of hidden units or a torch.nn.Sequential of Linear layers "
            f"with ReLU or Tanh between them, got {type(model).__name__}"
        )
    sizes: list[int] = []
    activations: list[str] = []
    for name, module in model.named_children():
        if type(module) is nn.Identity or (type(module) is nn.Flatten and not sizes):
            continue
        if len(sizes) > 1 + len(activations):  # a Linear came last
            if not isinstance(module, nn.ReLU | nn.Tanh):
                raise ValueError(
                    f"layer {name!r} is a {type(module).__name__} where ReLU or Tanh was expected"
                )
            activations.append(type(module).__name__.lower())
            if activations[-1] != activations[0]:
                raise ValueError(
                    f"layer {name!r} is a {type(module).__name__} after {activations[0]}; the "
                    "kernels are those of one activation"
                )
            continue
        if type(module) is not nn.Linear:
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__} where Linear was expected"
            )
        _check_fresh(name, module, scale)
        sizes += [module.out_features] if sizes else [module.in_features, module.out_features]
    if len(sizes) < 3 or len(sizes) != len(activations) + 2:
        raise ValueError(
            f"the model must begin and end with Linear and have a hidden layer, got {len(model)} "
            "layers"
        )
    return Widths(tuple(sizes), activations[0])


def _check_fresh(name: str, layer: Any, scale: float) -> None:
    if layer.bias is None:
        raise ValueError(f"layer {name!r} has no bias; the kernels are those of layers with one")
    most = scale / layer.in_features**0.5
    for kind, part in layer.named_parameters():
        if not part.requires_grad:
            raise ValueError(f"{kind} of layer {name!r} does not require a gradient")
        largest = float(part.detach().abs().max())
        if not largest <= most * (1 + 1e-6):
            raise ValueError(
                f"{kind} of layer {name!r} reaches {largest:.3g}, beyond scale/√fan-in = "
                f"{most:.3g}: it is trained or was drawn otherwise, and the prediction is that of "
                "torch.nn.Linear's own first weights times scale"
            )


def draw_outputs(x: Array, widths: Widths, scale: float, rng: np.random.Generator) -> Array:
    """(samples, C): the outputs of a network as ``torch.nn.Linear`` draws it, times ``scale``."""
    z = x
    for index, (fan_in, fan_out) in enumerate(pairwise(widths.sizes)):
        most = scale / fan_in**0.5
        W, b = rng.uniform(-most, most, (fan_out, fan_in)), rng.uniform(-most, most, fan_out)
        z = (activation_and_slope(z, widths.activation)[0] if index else z) @ W.T + b
    return np.asarray(z)


def activation_and_slope(z: Array, activation: str) -> tuple[Array, Array]:
    if activation == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(float)
    value = np.tanh(z)
    return value, 1 - value**2
