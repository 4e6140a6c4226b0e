"""Convolutions whose second derivative takes what the first takes.

y = w * x + b is bilinear, and with the adjoints X(w, g) and W(x, g) of it in x and in w,

    <g, w * x> = <X(w, g), x> = <W(x, g), w>,

so its gradient is X(w, g), W(x, g), and the sum of g. That is bilinear again: along u of the first
and v of the second its own gradient is w * u + v * x in g, X(v, g) in x, and W(u, g) in w, the
same three maps. torch 2.13 computes the last by a dilated convolution of transposed tensors, for
which it has no fast kernel on a CPU: a Hessian-vector product of a small convnet takes three
quarters of the time this way (benchmarks/results).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode

_multiply = torch.ops.aten.convolution.default
_adjoints = torch.ops.aten.convolution_backward.default

_FORWARD = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    "input",
    "weight",
    "bias",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "dilation",
)
_NAMES: dict[Callable[..., Tensor], tuple[str, ...]] = {
    torch.conv1d: _FORWARD,
    torch.conv2d: _FORWARD,
    torch.conv3d: _FORWARD,
    torch.conv_transpose1d: _TRANSPOSED,
    torch.conv_transpose2d: _TRANSPOSED,
    torch.conv_transpose3d: _TRANSPOSED,
}


class Convolutions(TorchFunctionMode):
    """Inside it torch's convolutions have the second derivative of this module.

    >>> x, w = torch.ones(1, 1, 3), torch.ones(1, 1, 2, requires_grad=True)
    >>> with Convolutions():
    ...     y = torch.conv1d(x, w)
    >>> torch.autograd.grad(y.pow(2).sum(), w)[0].flatten()
    tensor([8., 8.])
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = {} if kwargs is None else kwargs
        if func in _NAMES and _is_plain():
            named = dict(zip(_NAMES[func], args, strict=False)) | given
            options = _options(named, transposed=_NAMES[func] is _TRANSPOSED)
            if options is not None:
                apply: Callable[..., Tensor] = _Convolution.apply
                return apply(named["input"], named["weight"], named.get("bias"), options)
        return func(*args, **given)


def is_of_a_convolution(node: object) -> bool:
    """Whether a node of a graph is this module's own."""
    return getattr(type(node), "_forward_cls", None) in (_Convolution, _Gradient)


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.options = options
        value: Tensor = _multiply(x, w, bias, *options)
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        again = torch.is_grad_enabled()  # as under ``create_graph``
        gradient: Callable[..., Any] = _Gradient.apply if again else _gradient
        return *gradient(g, x, w, ctx.options, ctx.needs_input_grad[:3]), None


def _gradient(
    g: Tensor, x: Tensor, w: Tensor, options: tuple[Any, ...], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    found: tuple[Tensor | None, ...] = _adjoints(g, x, w, [g.shape[1]], *options, list(wanted))
    return found


class _Gradient(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, options: tuple[Any, ...], wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, w)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _gradient(g, x, w, options, wanted)

    @staticmethod
    def backward(
        ctx: Any, u: Tensor | None, v: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, w = ctx.saved_tensors
        parts = []
        if u is not None:
            parts.append(_multiply(u, w, None, *ctx.options))
        if v is not None:
            parts.append(_multiply(x, v, bias, *ctx.options))
        elif bias is not None:
            parts.append(bias.reshape(-1, *[1] * (g.dim() - 2)).expand_as(g))
        wanted = [
            v is not None and ctx.needs_input_grad[1],
            u is not None and ctx.needs_input_grad[2],
            False,
        ]
        along: Sequence[Tensor | None] = (None, None)
        if any(wanted):
            first, second = x if u is None else u, w if v is None else v
            along = _adjoints(g, first, second, None, *ctx.options, wanted)
        return sum(parts[1:], parts[0]) if parts else None, *along[:2], None, None


def _options(named: dict[str, Any], transposed: bool) -> tuple[Any, ...] | None:
    """What ``aten.convolution`` takes after the bias; None where torch does more than convolve.

    "same" may pad, a single sample is made a batch, and autocast casts.
    """
    x, w = named["input"], named["weight"]
    padding = named.get("padding", 0)
    more = isinstance(padding, str) or x.dim() != w.dim()
    if more or torch.is_autocast_enabled(x.device.type):
        return None

    def each(value: Any) -> list[int]:
        return [value] * (w.dim() - 2) if isinstance(value, int) else list(value)

    stride, dilation = each(named.get("stride", 1)), each(named.get("dilation", 1))
    beyond = each(named.get("output_padding", 0))
    return stride, each(padding), dilation, transposed, beyond, named.get("groups", 1)


def _is_plain() -> bool:
    """Whether nothing but autograd differentiates here: the model may take derivatives inside."""
    inside = torch._C._are_functorch_transforms_active()
    return not inside and forward_ad._current_level < 0
