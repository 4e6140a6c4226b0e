"""All probes of a run: groups of chains, one after the other, until the goal is met."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rmthess.krylov.adaptive import Goal
from rmthess.krylov.chains import Chains
from rmthess.krylov.errors import LanczosError
from rmthess.krylov.probes import Projector, Starts
from rmthess.krylov.products import Products
from rmthess.krylov.room import Room
from rmthess.measure import LanczosMeasure
from rmthess.operators.deflated import Deflated
from rmthess.operators.memory import is_exhaustion
from rmthess.operators.operator import Operator

Array = NDArray[np.float64]


class Survey:
    """Groups of chains, one after the other, until the goal is met."""

    def __init__(
        self,
        products: Products,
        starts: Starts,
        goal: Goal,
        room: Room,
        record: dict[str, Any],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._products, self._starts, self._goal, self._room = products, starts, goal, room
        self._record, self._progress = record, progress
        self._project, self._deflated = _removed(products.operator)
        self._steps = goal.steps
        self._finished: list[tuple[Array, Array]] = []  # α and β; the bases are let go
        self._current: Chains | None = None

    @property
    def done(self) -> str:
        """What is complete, in words."""
        if self._finished:
            return f"{self._probes} probes of {self._steps} steps"
        total = min(self._steps, self._products.dim)
        return f"{self._current.done if self._current else 0} of {total} steps"

    @property
    def _probes(self) -> int:
        return sum(len(alpha) for alpha, _ in self._finished)

    def extend(self) -> bool:
        """Run one more group; False if none is needed."""
        count = min(self._goal.more_probes(self.partial()), self._room.width)
        if count == 0:
            return False
        try:
            self._run(count)
        except Exception as error:
            if not is_exhaustion(error):
                raise
            if count == 1:
                raise MemoryError(
                    f"out of memory with one probe at a time ({error}); take fewer steps, or "
                    "reorthogonalize='none', or give the operator its data in smaller batches"
                ) from error
        else:
            return True
        # Outside the handler: the exception held the frames, and these the tensors.
        self._current = None
        if self._products.device.type == "cuda":
            torch.cuda.empty_cache()
        self._room = replace(self._room, width=count // 2)
        self._record.setdefault("memory", []).append(
            f"out of memory with {count} probes at a time; went on with {count // 2}"
        )
        return True

    def _run(self, count: int) -> None:
        chains = self._current = self._begin(count)
        groups = -(-(self._goal.probes - self._probes) // self._room.width)
        past, look = len(self._finished) * chains.longest, self._goal.outliers or 0
        try:
            while chains.active:
                chains.advance()
                if self._progress is not None:
                    self._progress(past + chains.done, past + groups * chains.longest)
                if not self._finished and chains.done > look:
                    look = chains.done + chains.done // 10
                    if self._goal.has_steps(self.partial(), self._products.eps):
                        self._steps = chains.done
                        break
        except LanczosError as error:
            raise LanczosError(
                f"{error}; the exception's .partial holds {self.done}",
                error.product,
                self.partial(),
            ) from error.__cause__
        self._finished.append((chains.alpha, chains.beta))
        self._current = None

    def _begin(self, count: int) -> Chains:
        products, room = self._products, self._room
        starts = torch.empty(count, products.dim, dtype=products.dtype, device=products.device)
        for index in range(count):
            probe = self._probes + index
            starts[index] = self._starts.unit(probe, products.device, self._project)
        keepers = [room.keeper(products.operator, self._project) for _ in range(count)]
        free = products.dim - self._deflated.size
        return Chains(products, starts, self._steps, free, keepers, room.stride)

    def partial(self) -> LanczosMeasure | None:
        """All finished groups, or what the first one has; None before its first step."""
        if self._current is not None:
            with suppress(LanczosError):
                self._current.read()
        if not self._finished and (self._current is None or self._current.done == 0):
            return None
        return self._measure({"steps": "before the end", "probes": "before the end"})

    def result(self) -> LanczosMeasure:
        """The measure, with the reasons why it ends here."""
        return self._measure(self._goal.report(self._measure({}), self._products.eps))

    def _measure(self, stopped: dict[str, str]) -> LanczosMeasure:
        groups, steps = self._finished, self._steps
        if not groups:
            assert self._current is not None
            groups = [(self._current.alpha, self._current.beta)]
            steps = self._current.done
        alpha, beta = (
            np.concatenate([part[:, :steps] for part in parts])
            for parts in zip(*groups, strict=True)
        )
        scale = self._products.scale
        lengths = np.sum(~np.isnan(beta), axis=1)
        residuals = beta[np.arange(len(beta)), lengths - 1]
        inner = beta[:, :-1].copy()
        inner[inner == 0] = np.nan
        provenance = {
            **self._record,
            **self._room.record(),
            "steps": steps,
            "probes": len(alpha),
            "stopped": stopped,
        }
        return LanczosMeasure(
            alpha * scale,
            inner * scale,
            residuals * scale,
            self._products.dim,
            provenance,
            self._deflated,
        )


def _removed(operator: Operator) -> tuple[Projector | None, Array]:
    """The projector on what is left after all deflations, and the eigenvalues they removed."""
    if not isinstance(operator, Deflated):
        return None, np.empty(0)
    inner, values = _removed(operator.operator)
    outer = operator.project
    both = outer if inner is None else lambda vectors: outer(inner(vectors))
    return both, np.concatenate([values, operator.values])
