"""Data as a sequence of batches that can be read again and again.

A batch is ``(inputs, *targets)``. The model is called with ``model(x)`` for a tensor,
``model(*x)`` for a tuple or list and ``model(**x)`` for a dict of inputs; the loss with
``loss(output, *targets)``. A batch that is itself a dict has no targets: ``loss(model(**batch))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from rmthess.operators.errors import NonFiniteError


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the model's device; ``given`` is what the user's data yielded.

    ``start``: how many samples came before it.
    """

    index: int
    start: int
    inputs: Any
    targets: tuple[Any, ...]
    given: Any

    @property
    def samples(self) -> int:
        """First dimension of the first tensor among the targets, else among the inputs."""
        for _, tensor in (*_tensors(self.targets, "targets"), *_tensors(self.inputs, "inputs")):
            return int(tensor.shape[0]) if tensor.ndim else 1
        raise TypeError(f"batch {self.index} holds no tensor")

    def check_finite(self) -> None:
        """Raise NonFiniteError that says which tensor of the batch holds NaN or infinity."""
        named = (*_tensors(self.inputs, "inputs"), *_tensors(self.targets, "targets"))
        for where, tensor in named:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            bad = ~torch.isfinite(tensor)
            if bool(bad.any()):
                first = tuple(int(i) for i in torch.nonzero(bad)[0])
                raise NonFiniteError(
                    f"batch {self.index}: {where} holds {int(bad.sum())} values that are not "
                    f"finite (NaN or Inf), the first at {first}; clean the data"
                )


class Batches:
    """``data`` read as batches: one if it is a tuple whose first item is a tensor or a dict.

    Anything else is iterated over, once a pass. Raises TypeError for an iterator (it can be read
    once) and for a Dataset of single samples, ValueError for data without batches or samples.

    >>> data = [(torch.ones(8, 3), torch.ones(8))]
    >>> [batch.samples for batch in Batches(data, torch.device("cpu"))]
    [8]
    """

    def __init__(self, data: Any, device: torch.device) -> None:
        self.is_single = (
            isinstance(data, tuple) and len(data) > 0 and isinstance(data[0], (Tensor, Mapping))
        )
        if isinstance(data, (Tensor, Mapping)):
            raise TypeError(
                f"data is a {type(data).__name__}; one batch is a tuple (inputs, *targets), "
                "several are a list or a DataLoader of such"
            )
        if isinstance(data, Iterator):
            raise TypeError(
                f"data is a {type(data).__name__}, which is exhausted after one pass, and every "
                "product needs another; pass list(data) or a DataLoader"
            )
        if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            raise TypeError(
                f"data is a Dataset of single samples ({type(data).__name__}); "
                "wrap it: DataLoader(dataset, batch_size=...)"
            )
        if not self.is_single and not isinstance(data, Iterable):
            raise TypeError(f"data must be a batch or an iterable of batches, got {type(data)}")
        self._data = data
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        found = [self._data] if self.is_single else self._data
        index, start = -1, 0
        for index, given in enumerate(found):
            batch = self._read(index, start, given)
            start += batch.samples
            yield batch
        if index < 0:
            raise ValueError(
                "data is empty: it yielded no batch. If it did before, it can be read only once: "
                "pass a list or a DataLoader"
            )

    def _read(self, index: int, start: int, given: Any) -> Batch:
        if isinstance(given, Mapping):
            inputs, targets = given, ()
        elif isinstance(given, (tuple, list)) and len(given) > 0:
            inputs, targets = given[0], tuple(given[1:])
        else:
            raise TypeError(
                f"batch {index} is a {type(given).__name__}, not (inputs, *targets); for one batch "
                "pass the tuple (inputs, targets) itself, inputs in a tuple as [((x1, x2), y)]"
            )
        batch = Batch(index, start, move(inputs, self._device), move(targets, self._device), given)
        if batch.samples == 0:
            raise ValueError(f"batch {index} is empty: its first dimension is 0")
        return batch


def move(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in it on ``device``; containers are rebuilt, tensors shared."""
    return _map_tensors(value, lambda tensor: tensor.to(device))


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map_tensors(item, change) for item in value)
    return value


def _tensors(value: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            yield from _tensors(item, f"{where}[{key}]")
