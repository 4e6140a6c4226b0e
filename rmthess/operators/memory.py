"""Bytes: how many are free on a device, and how many a computation graph keeps alive."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on ``device`` now without swapping; None where unknown.

    >>> free_memory(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # The allocator's cache is free for tensors, though the driver counts it as used.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    if device.type != "cpu":
        return None
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def budget(memory: int | None, device: torch.device) -> int:
    """Bytes that may be kept between products: ``memory``, or a quarter of what is free now."""
    if memory is not None:
        return memory
    free = free_memory(device)
    return 0 if free is None else free // 4


def is_exhaustion(error: BaseException) -> bool:
    """Whether ``error`` says that no memory was left; torch has no class for it on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextmanager
def explain_exhaustion() -> Iterator[None]:
    """Turn what torch raises when no memory is left into a MemoryError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not is_exhaustion(error):
            raise
        raise MemoryError(
            "the graph of a batch does not fit in memory; pass the data as more, smaller batches: "
            "of a loss that is a mean or a sum over samples the curvature stays the same (not with "
            "BatchNorm in train mode), and no more than one batch is needed at a time"
        ) from error


def readable(size: float) -> str:
    """A number of bytes for people.

    >>> readable(3_500_000)
    '3.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def keep_freed_memory() -> None:
    """Let the C library keep up to 62 MiB of freed memory, which every product asks for again.

    glibc returns what is free at the end of its heap to the system above twice the size of the
    largest block that it ever freed, up to 32 MiB; what comes back is zeroed page by page, of which
    the products of a convnet spent a quarter of their time. So free one such block, never touched.
    Other C libraries take no notice.
    """
    np.empty(31 << 20, np.uint8)


class SavedBytes:
    """Sum of the sizes of the distinct storages that autograd saved, some left out."""

    def __init__(self, excluded: Iterable[torch.Tensor]) -> None:
        self._excluded = {tensor.untyped_storage().data_ptr() for tensor in excluded}
        self._sizes: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._excluded:
                self._sizes[storage.data_ptr()] = storage.nbytes()
        # Handing back the tensor itself would close a cycle through its node that nothing frees.
        return tensor.detach()

    @property
    def total(self) -> int:
        return sum(self._sizes.values())


@contextmanager
def count_saved_bytes(excluded: Iterable[torch.Tensor] = ()) -> Iterator[SavedBytes]:
    """Measure what a graph built inside the context keeps alive.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> with count_saved_bytes() as saved:
    ...     y = x.exp()
    >>> saved.total
    4000
    """
    saved = SavedBytes(excluded)
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        yield saved
