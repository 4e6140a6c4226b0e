"""An orthonormal basis that grows by one vector at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK = 32  # rows allocated at a time


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product as a float64 scalar on the vectors' device."""
    found: Tensor = torch.sum(left * right, dtype=torch.float64)
    return found


def norm(vector: Tensor) -> Tensor:
    """Euclidean norm as a float64 scalar on the vector's device."""
    found: Tensor = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return found


class Basis:
    """Rows q_0, ..., q_{size-1} of length dim, at most ``capacity``, allocated as they come.

    ``resident``: how many blocks stay on ``device``; later ones live in host memory (pinned for
    CUDA) and visit the device one at a time. ``project``: a projector on columns, applied in every
    pass: its null space is part of what is removed.

    >>> basis = Basis(2, 3, torch.float64, torch.device("cpu"))
    >>> basis.append(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    >>> vector = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    >>> basis.remove_from(vector).item(), vector.tolist()
    (5.0, [0.0, 3.0, 4.0])
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        resident: int | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.capacity = capacity
        self._dim, self._dtype, self._device = dim, dtype, device
        self._resident, self._project = resident, project
        self._blocks: list[Tensor] = []
        self.size = 0

    def append(self, vector: Tensor) -> None:
        index, row = divmod(self.size, BLOCK)
        if index == len(self._blocks):
            self._blocks.append(self._allocate())
        self._blocks[index][row].copy_(vector, non_blocking=True)
        self.size += 1

    def remove_from(self, vector: Tensor, *, twice: bool = False) -> Tensor:
        """w <- w - Q Qᵀ w in place; returns |w| afterwards, a float64 scalar on the device.

        Gram-Schmidt as two GEMVs a block. A pass that removes more than half of |w|² leaves
        rounding of the removed size behind, so it is repeated (Daniel, Gragg, Kaufman & Stewart,
        Math. Comp. 30 (1976), 772-795: twice is enough unless w lies in the span). To know that
        costs a host synchronisation; ``twice`` makes two passes without asking.
        """
        if twice:
            self._pass_over(vector)
            self._pass_over(vector)
            return norm(vector)
        after = norm(vector)
        for _ in range(3):
            before = after
            self._pass_over(vector)
            after = norm(vector)
            if float(after) > float(before) * math.sqrt(0.5):
                break
        return after

    def truncate(self, size: int) -> None:
        """Forget all but the first ``size`` rows; their memory is kept for the next."""
        self.size = size

    def combine(self, coefficients: Tensor) -> None:
        """Q <- Cᵀ Q for orthonormal columns C (size, kept), by slices of the long side."""
        kept = coefficients.shape[1]
        turn = coefficients.to(self._device, self._dtype).T
        for start in range(0, self._dim, 1 << 16):
            part = slice(start, start + (1 << 16))
            rows = torch.cat([block[:, part] for block in self._filled()])
            for index, new in enumerate((turn @ rows).split(BLOCK)):
                self._blocks[index][: len(new), part] = new
        self.truncate(kept)

    def gather(self) -> Tensor:
        """The rows as one tensor (size, dim) of new memory."""
        if self.size == 0:
            return torch.empty(0, self._dim, dtype=self._dtype, device=self._device)
        return torch.cat(list(self._filled()))

    def _pass_over(self, vector: Tensor) -> None:
        if self._project is not None:
            vector.copy_(self._project(vector[:, None])[:, 0])
        for block in self._filled():
            rows = block.to(self._device, non_blocking=True)
            vector.addmv_(rows.T, rows @ vector, alpha=-1)

    def _filled(self) -> Iterator[Tensor]:
        for index, block in enumerate(self._blocks[: -(-self.size // BLOCK)]):
            yield block[: self.size - index * BLOCK]

    def _allocate(self) -> Tensor:
        shape = min(BLOCK, self.capacity - self.size), self._dim
        if self._resident is None or len(self._blocks) < self._resident:
            return torch.empty(shape, dtype=self._dtype, device=self._device)
        pinned = self._device.type == "cuda"
        return torch.empty(shape, dtype=self._dtype, pin_memory=pinned)
