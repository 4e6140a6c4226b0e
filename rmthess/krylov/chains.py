"""Lanczos for several probes in lock-step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmthess.krylov.errors import LanczosError
from rmthess.krylov.orthogonality import Keeper
from rmthess.krylov.products import Products
from rmthess.operators.basis import dot

Array = NDArray[np.float64]


class Chains:
    """β_j q_{j+1} = A q_j - α_j q_j - β_{j-1} q_{j-1} for a group of probes.

    ``starts``: unit vectors, the rows (k, dim). ``steps``: the most that will be made. ``free``:
    the dimension in which the chains live, dim less what was deflated. ``stride``: after how many
    steps α and β are read from the device. Until then they act as device scalars, so that a GPU is
    never waited for; a chain that has broken down within a stride goes on with noise, and what it
    gives after its end is dropped.

    ``alpha``, ``beta`` (k, steps), scaled by 2^-e as products are: what has been read so far, the
    first ``done`` steps; NaN after a breakdown, which is β = 0.
    """

    def __init__(
        self,
        products: Products,
        starts: Tensor,
        steps: int,
        free: int,
        keepers: Sequence[Keeper],
        stride: int,
    ) -> None:
        self._products, self._keepers, self._stride = products, keepers, stride
        self.longest, self._free = min(steps, free), free
        self.alpha = np.full((len(starts), steps), np.nan)
        self.beta = np.full((len(starts), steps), np.nan)
        self._scale = np.zeros(len(starts))
        self._current = starts
        self._before: Tensor | None = None
        self._betas: list[Tensor] = []
        self._running = list(range(len(starts)))  # as known on the device
        self._pending: list[Tensor] = []
        self.active = list(self._running)  # as read
        self.done = 0
        for keeper, start in zip(keepers, starts, strict=True):
            keeper.append(start)

    def advance(self) -> None:
        """One step of every active probe."""
        try:
            rows = self._products.rows(self._current)
        except LanczosError:
            self.read()  # NaN in an earlier product may be the cause, and is then the error
            raise
        launched = self.done + len(self._pending) + 1
        scalars, betas = [], []
        for index, probe in enumerate(self._running):
            row, q = rows[index], self._current[index]
            alpha = dot(q, row)
            row.addcmul_(q, alpha.to(row.dtype), value=-1)
            if self._before is not None:
                row.addcmul_(self._before[index], self._betas[index].to(row.dtype), value=-1)
            beta = self._keepers[probe].clean(row, alpha)
            # No entry exceeds β, so a β that underflowed is met by zeros and not by infinities.
            row.div_(beta.to(row.dtype).clamp_min(torch.finfo(row.dtype).tiny))
            if launched < self.longest:
                self._keepers[probe].append(row)
            scalars += [alpha, beta]
            betas.append(beta)
        self._before, self._current, self._betas = self._current, rows, betas
        self._pending.append(torch.stack(scalars))
        if len(self._pending) == self._stride or launched == self.longest:
            self.read()

    def read(self) -> None:
        """Fetch α and β of the steps since the last time: the only wait for the device."""
        pending, self._pending = self._pending, []
        first = self._products.count - len(pending) + 1
        for number, step in enumerate(fetch(pending), first):
            self._record(number, np.reshape(step, (-1, 2)))
        kept = [index for index, probe in enumerate(self._running) if probe in self.active]
        if len(kept) < len(self._running):
            self._running = [self._running[index] for index in kept]
            self._current = self._current[kept]
            self._before = self._before[kept] if self._before is not None else None
            self._betas = [self._betas[index] for index in kept]

    def _record(self, number: int, scalars: Array) -> None:
        found = dict(zip(self._running, scalars, strict=True))
        for probe in self.active:
            if not np.isfinite(found[probe]).all():
                raise LanczosError(f"product {number} holds NaN or Inf for probe {probe}", number)
        for probe in list(self.active):
            alpha, beta = found[probe]
            exhausted = self._is_exhausted(probe, alpha, beta)
            self.alpha[probe, self.done] = alpha
            self.beta[probe, self.done] = 0.0 if exhausted else beta
            if exhausted:
                self.active.remove(probe)
        self.done += 1
        if self.done == self.longest:
            self.active = []

    def _is_exhausted(self, probe: int, alpha: float, beta: float) -> bool:
        """Whether β is rounding: at most max(32 eps, min(dim eps, 1e-10)) |T|.

        Missing a breakdown costs nothing, because T stays exact for a matrix within rounding of A
        (an eigenvalue may then be found twice, within rounding, with its weight split). A false one
        would cost the bulk, which in float32 may lie at 1e-5 of an outlier: hence no dim there.
        """
        before = self.beta[probe, self.done - 1] if self.done > 0 else 0.0
        self._scale[probe] = max(self._scale[probe], abs(alpha) + before)
        threshold = breakdown(self._products) * self._scale[probe]
        return bool(self.done + 1 == self._free or beta <= threshold)


def breakdown(products: Products) -> float:
    """The β, relative to |T|, below which it is rounding."""
    eps = products.eps
    return max(32 * eps, min(products.dim * eps, 1e-10))


def fetch(pending: Sequence[Tensor]) -> list[list[float]]:
    """Numbers from the device, all at once."""
    found: list[list[float]] = torch.stack(list(pending)).tolist() if pending else []
    return found
