"""A ReLU classifier of one hidden layer and its data, drawn or read off a torch model, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Layers:
    """f(x) = A relu(W x + b) + c: W (h, d), b (h,), A (C, h), c (C,); None where there is none."""

    W: Array
    b: Array | None
    A: Array
    c: Array | None

    @property
    def parameters(self) -> int:
        return sum(part.size for part in (self.W, self.b, self.A, self.c) if part is not None)


def draw_layers(
    inputs: int, hidden: int, outputs: int, rng: np.random.Generator, scale: float = 1.0
) -> Layers:
    """Weights and biases uniform within ±scale/√fan-in: torch.nn.Linear's own law."""

    def uniform(fan_in: int, *shape: int) -> Array:
        return np.asarray(rng.uniform(-scale, scale, shape) / np.sqrt(fan_in))

    return Layers(
        W=uniform(inputs, hidden, inputs),
        b=uniform(inputs, hidden),
        A=uniform(hidden, outputs, hidden),
        c=uniform(hidden, outputs),
    )


def read_relu_classifier(model: Any) -> Layers:
    """The weights of a ``Sequential`` of Linear, ReLU, Linear (Flatten and Identity among them)."""
    from torch import nn

    if not isinstance(model, nn.Sequential):
        raise TypeError(
            "network must be a number of hidden units or a torch.nn.Sequential of Linear, ReLU, "
            f"Linear, got {type(model).__name__}"
        )
    wanted: list[type[nn.Module]] = [nn.Linear, nn.ReLU, nn.Linear]
    found: list[tuple[str, nn.Linear]] = []
    for name, module in model.named_children():
        if type(module) is nn.Identity or (type(module) is nn.Flatten and not found):
            continue
        kind = wanted.pop(0) if wanted else None
        if type(module) is not kind:
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__} where "
                f"{kind.__name__ if kind else 'the end'} was expected; the blocks are those of "
                "Linear, ReLU, Linear"
            )
        if isinstance(module, nn.Linear):
            found.append((name, module))
    if wanted or len(list(model.named_children())) != len(model):
        raise ValueError(
            f"the model must hold Linear, ReLU and Linear, each once, got {len(model)} layers"
        )
    first, last = found
    if first[1].weight is last[1].weight:
        raise ValueError(f"layers {first[0]!r} and {last[0]!r} share their weight")
    return Layers(*_arrays(*first), *_arrays(*last))


def _arrays(name: str, layer: nn.Linear) -> tuple[Array, Array | None]:
    for kind, parameter in layer.named_parameters():
        if not parameter.requires_grad:
            raise ValueError(
                f"{kind} of layer {name!r} does not require a gradient; the blocks are those of "
                "all weights together"
            )
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"{kind} of layer {name!r} has entries that are NaN or infinite")
    weight: Array = layer.weight.detach().cpu().double().numpy()
    bias = None if layer.bias is None else layer.bias.detach().cpu().double().numpy()
    return weight, bias


def check_cross_entropy(loss: Any) -> None:
    if loss == "cross_entropy" or getattr(loss, "__name__", None) == "cross_entropy":
        return
    if type(loss).__name__ != "CrossEntropyLoss":
        name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        raise ValueError(f"the loss must be softmax cross-entropy, got {name}; r is that of it")
    plain = loss.weight is None and loss.label_smoothing == 0 and loss.reduction == "mean"
    if not plain:
        raise ValueError(
            "the cross-entropy must be a plain mean, without weights and smoothing, got "
            f"weight={loss.weight}, label_smoothing={loss.label_smoothing}, "
            f"reduction={loss.reduction!r}"
        )


def checked_data(inputs: ArrayLike, labels: ArrayLike) -> tuple[Array, Labels]:
    x, y = (np.asarray(a.detach().cpu() if hasattr(a, "detach") else a) for a in (inputs, labels))
    if x.ndim > 2:
        x = x.reshape(len(x), -1)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"inputs must have shape (samples, d), got {x.shape}")
    x = x.astype(float)
    if not np.isfinite(x).all():
        sample = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"inputs must be finite; sample {sample} has NaN or infinite features")
    if y.shape != x.shape[:1]:
        raise ValueError(f"labels must have shape ({len(x)},), one class a sample, got {y.shape}")
    if y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(f"labels must be integers from 0 on, got {y.dtype} from {y.min()}")
    y = y.astype(np.int64)
    if y.min() == y.max():
        raise ValueError(f"labels hold the one class {y[0]}; at least two are needed")
    if y.max() >= len(x):
        raise ValueError(f"{y.max() + 1} classes are more than the {len(x)} samples")
    return x, y


def check_fit(layers: Layers, x: Array, y: Labels) -> None:
    classes, inputs = len(layers.A), layers.W.shape[1]
    if inputs != x.shape[1]:
        raise ValueError(f"the network takes {inputs} inputs, and the data have {x.shape[1]}")
    if y.max() >= classes:
        raise ValueError(f"the network has {classes} outputs, and the labels go up to {y.max()}")
    if classes > len(x):
        raise ValueError(f"{classes} classes are more than the {len(x)} samples")
