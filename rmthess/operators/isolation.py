"""Leave no trace: the model, the random states and torch's switches are as they were afterwards."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def untouched(model: nn.Module, devices: Iterable[torch.device]) -> Iterator[None]:
    """Restore on leaving, errors included, whatever running the model may change.

    Restored: plain attributes of every module (train/eval mode, counters, cached tensors), random
    states of torch, NumPy and Python, and the switches below. Parameters and buffers are not
    restored here because ``functional_call`` never touches them.

    Attention runs on the MATH backend: the fused kernels have no second derivative
    (pytorch#116350). Recurrent layers run without cuDNN for the same reason.
    """
    devices = set(devices)
    on_gpu = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    # The global NumPy generator is the one that users' transforms draw from.
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=on_gpu))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if on_gpu and any(isinstance(m, nn.RNNBase) for m in model.modules()):
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for module, before in attributes:
            now = vars(module)
            for name in [name for name in now if name not in before]:
                del now[name]
            now.update(before)


def random_state(devices: Iterable[torch.device]) -> list[bytes]:
    """The states of torch's generators, to see whether a forward pass drew from them."""
    states = [torch.get_rng_state()]
    states += [
        torch.cuda.get_rng_state(d) for d in sorted(set(devices), key=str) if d.type == "cuda"
    ]
    return [state.numpy().tobytes() for state in states]


@contextmanager
def eager() -> Iterator[None]:
    """Run what is compiled in a model as it was written: compiled code has no second derivative.

    Imports nothing: without torch._dynamo in memory nothing has been compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
