"""How many probes fit at once, and where their vectors live."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rmthess.krylov.orthogonality import METHODS, Full, Keeper, Local, Method, Periodic
from rmthess.krylov.probes import Projector
from rmthess.krylov.products import working_dtype
from rmthess.operators.basis import BLOCK, Basis
from rmthess.operators.memory import free_memory, readable
from rmthess.operators.operator import Operator

_SCRATCH = 5  # vectors a probe besides its basis: q_j, q_{j-1}, a product, its input, a temporary
_LARGE = 50_000  # side: below 30 000 deciding took as long as it saved, at 100 000 it saved a fifth
STRIDE = 8  # steps between two reads of the scalars of a GPU


@dataclass(frozen=True)
class Room:
    """``width`` probes at a time, ``resident`` blocks of each basis on the device (None: all).

    ``ahead``: whether the host hands out work without waiting for the device.

    >>> from rmthess.operators.as_operator import as_operator
    >>> Room.plan(as_operator(torch.eye(1000)), 64, 8, None, memory=600_000).width
    2
    """

    method: Method
    steps: int
    width: int
    resident: int | None
    ahead: bool

    @classmethod
    def plan(
        cls,
        operator: Operator,
        steps: int,
        probes: int,
        method: Method | None,
        memory: float | None,
    ) -> Room:
        """As many probes as fit into ``memory`` bytes, or into what is free.

        ``method``: None is "periodic" for a large operator on a CPU. On a GPU every decision is a
        wait, and a small basis lies in the cache.
        On a GPU a basis that does not fit alone is kept in host memory, but for its first blocks.
        Raises MemoryError where one probe cannot be run.
        """
        dim = operator.dim
        if method is None:
            method = "periodic" if operator.device.type == "cpu" and dim >= _LARGE else "full"
        if method not in METHODS:
            raise ValueError(f"reorthogonalize must be one of {METHODS}, got {method!r}")
        if memory is not None and not memory > 0:
            raise ValueError(f"memory must be a positive number of bytes, got {memory}")
        vector = dim * working_dtype(operator).itemsize
        rows = 0 if method == "none" else steps
        free = free_memory(operator.device)
        limits = [int(limit) for limit in (free, memory) if limit is not None]
        space = min(limits) // vector if limits else probes * (rows + _SCRATCH)
        cuda = operator.device.type == "cuda"
        ahead = cuda and method != "periodic"  # which decides on every step
        room = cls(method, steps, min(probes, space // (rows + _SCRATCH)), None, ahead)
        if room.width > 0:
            return room
        resident = (space - _SCRATCH) // BLOCK - 1  # one block is passing through
        host = free_memory(torch.device("cpu"))
        outside = (rows - resident * BLOCK) * vector
        if cuda and resident >= 0 and (host is None or outside < host):
            return replace(room, width=1, resident=resident)
        raise MemoryError(
            f"one probe of {steps} steps at dim {dim} needs "
            f"{readable((rows + _SCRATCH) * vector)} on {operator.device}, where "
            f"{readable(min(limits))} may be used; {max(0, space - _SCRATCH)} steps would fit, and "
            f"reorthogonalize='none' needs {readable(_SCRATCH * vector)} but finds ghosts"
        )

    @property
    def stride(self) -> int:
        return STRIDE if self.ahead else 1

    def keeper(self, operator: Operator, project: Projector | None) -> Keeper:
        dtype, device = working_dtype(operator), operator.device
        empty = Basis(0, operator.dim, dtype, device, project=project)
        if self.method == "none":
            return Local(empty, self.ahead)
        basis = Basis(
            self.steps, operator.dim, dtype, device, resident=self.resident, project=project
        )
        if self.method == "periodic":
            return Periodic(basis, empty, torch.finfo(dtype).eps)
        return Full(basis, self.ahead)

    def record(self) -> dict[str, object]:
        """For the provenance."""
        found: dict[str, object] = {
            "reorthogonalize": self.method,
            "probes_at_once": self.width,
        }
        if self.method == "none":
            found["caution"] = (
                "converged eigenvalues may appear several times: weights and densities are right, "
                "counts of Ritz values are not"
            )
        if self.resident is not None:
            found["basis"] = f"in host memory but for {self.resident * BLOCK} rows"
        return found
