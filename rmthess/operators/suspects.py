"""Names of what in a model may be at fault when its curvature cannot be computed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from rmthess.operators.convolution import is_of_a_convolution


def stochastic_modules(model: nn.Module, modes: Mapping[str, bool]) -> list[str]:
    """Names and classes of modules that draw random numbers in the mode they are in."""
    found = []
    for name, module in model.named_modules():
        if not modes[name]:
            continue
        rate = getattr(module, "p", None) if _is_dropout(module) else getattr(module, "dropout", 0)
        draws = isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0
        if draws or isinstance(module, nn.RReLU):
            found.append(_label(name, module))
    return found


def mixing_modules(model: nn.Module, modes: Mapping[str, bool]) -> list[str]:
    """Names and classes of modules that normalise over the batch in the mode they are in.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> mixing_modules(model, {name: True for name, _ in model.named_modules()})
    ['1 (BatchNorm1d)']
    """
    return [
        _label(name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (modes[name] or not module.track_running_stats)
    ]


def hand_written(value: Tensor) -> set[str]:
    """Names of the user's ``torch.autograd.Function`` subclasses in the graph of ``value``."""
    seen, found = set(), set[str]()
    waiting = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction) and not is_of_a_convolution(node):
            found.add(node.name().removesuffix("Backward"))
        waiting += [parent for parent, _ in node.next_functions]
    return found


def _label(name: str, module: nn.Module) -> str:
    return f"{name or 'model'} ({type(module).__name__})"


def _is_dropout(module: nn.Module) -> bool:
    return "dropout" in type(module).__name__.lower()
