"""Which way of computing products is the fastest here, found by trying each on one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rmthess.operators.backends import Engine
from rmthess.operators.graph import Linear
from rmthess.operators.linearized import Recorded
from rmthess.operators.memory import budget, readable

# In seconds, predicted for the whole run. Below it no choice saves what trying costs, and small
# runs are the same bit for bit whatever the clock says.
WORTHWHILE = 2.0

_FEWEST = 50  # columns in all: trying takes about as long as six
_GAIN = 0.97  # of the time that the shared graph takes; less is noise
_CLEAR = 0.9  # of the same: no need to time again


class Refused(RuntimeError):
    """A way that cannot be taken here; the message says why."""


def tune(engine: Engine, products: int, columns: int) -> None:
    """Settle ``engine`` on the fastest way for ``products`` of ``columns`` columns each.

    Tried are a record of the product and, on a GPU, all columns at once.
    Compiling is not: it takes longer than most runs. Nor is forward over reverse, which was at most
    3% faster than the record of the kept graph and took half as much memory again. What is
    chosen must agree with the shared graph (see ``adopt``). A run predicted to take less than
    ``WORTHWHILE`` seconds is left as it is.
    """
    total, candidates = products * columns, _candidates(engine, columns)
    if total < _FEWEST or not candidates:
        return
    with _Stopwatch(engine) as whole:
        engine.multiply(draw(engine, 1))
    if total * whole.seconds < WORTHWHILE:
        return
    ways, refused = [Way.open(engine, "shared", columns)], {}
    for name in candidates:
        try:
            ways.append(Way.open(engine, name, columns))
        except Refused as reason:
            refused[name] = str(reason)
    found = race(engine, ways, total)
    best = min(ways, key=lambda way: found[way.name])
    if found[best.name] > _GAIN * found["shared"]:
        best = ways[0]
    if best.name != "shared":
        try:
            adopt(engine, best.name, best.graph)
        except Refused as reason:
            refused[best.name], best = str(reason), ways[0]
    timed = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in found.items())
    notes = "".join(f"; {name} refused: {why}" for name, why in refused.items())
    engine.settle(f"{best.name} (a product of one batch: {timed}{notes})")


def adopt(engine: Engine, name: str, first: Linear | None = None) -> None:
    """Compute the products of ``engine`` the way ``name`` from now on.

    ``first``: the first batch, opened that way already. Raises Refused, with nothing changed, if it
    fails, if two random products differ from those of the present way by more than eps^(3/4), or if
    more than the memory budget would be kept.
    """
    # The first makes a recording, the second repeats it.
    rows = draw(engine, 1 if engine.batches == 1 and first is not None else 2)
    wanted = engine.multiply(rows)
    try:
        with _refusing():
            other = engine.by(name, first)
            _check_memory(other, rows)
            found = other.multiply(rows)
        difference = float((found - wanted).norm()) / (float(wanted.norm()) or 1.0)
        eps = max(torch.finfo(value.dtype).eps for value in engine.problem.parameters.values)
        if not difference <= eps**0.75:
            raise Refused(f"its products differ by {difference:.1e} (relative)")
    except BaseException:
        engine.reopen()
        raise
    engine.settle(name, other)


@dataclass(frozen=True, eq=False)
class Way:
    """A way that works: ``graph`` of the first batch, or None where each product opens its own.

    ``rows``: what it is timed on; ``opening``: seconds that it took to be ready, once.
    """

    name: str
    graph: Linear | None
    rows: Tensor
    opening: float

    @classmethod
    def open(cls, engine: Engine, name: str, columns: int) -> Way:
        """Make one product this way, if none was made. Raises Refused if it fails."""
        kept = engine.kept is not None
        rows = draw(engine, 1 if kept and name != "batched" else columns)
        if engine.kept is not None and name == engine.name:
            return cls(name, engine.kept[0], rows, 0.0)
        with _refusing(), _Stopwatch(engine) as watch:
            graph = engine.first(name)
            _product(engine, graph, rows)
        # What it took is spread over the batches, which all use it.
        opening = watch.seconds if kept else watch.seconds / engine.batches
        return cls(name, graph if kept else None, rows, opening)

    def seconds(self, engine: Engine) -> float:
        """For one column."""
        with _Stopwatch(engine) as watch:
            _product(engine, self.graph or engine.first(self.name), self.rows)
        return watch.seconds / len(self.rows)


def race(engine: Engine, ways: list[Way], total: int) -> dict[str, float]:
    """Seconds for one column of the first batch, a share of the opening included; shared first.

    In turns, so that what slows the machine for a moment slows all; twice where it is close.
    """
    least = [way.seconds(engine) for way in ways]
    if min(least) > _CLEAR * least[0]:
        least = [min(before, way.seconds(engine)) for before, way in zip(least, ways, strict=True)]
    return {way.name: found + way.opening / total for way, found in zip(ways, least, strict=True)}


def _product(engine: Engine, graph: Linear, rows: Tensor) -> None:
    engine.add(graph, engine.columns(rows), engine.targets(torch.zeros_like(rows)))


def draw(engine: Engine, count: int) -> Tensor:
    """Random unit rows (count, dim), always the same ones."""
    parameters = engine.problem.parameters
    drawn = np.random.default_rng(20261004).standard_normal((count, parameters.dim))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return torch.from_numpy(drawn).to(parameters.device, parameters.dtype)


def _candidates(engine: Engine, columns: int) -> list[str]:
    on_gpu = engine.problem.parameters.device.type == "cuda"
    return ["recorded", *(["batched"] if on_gpu and columns > 1 else [])]


def _check_memory(engine: Engine, rows: Tensor) -> None:
    """What is kept of the first batch, which is none of the smallest, times their number."""
    first = engine.kept[0] if engine.kept else None
    if isinstance(first, Recorded):
        _product(engine, first, rows[:1])
        needed = first.bytes * engine.batches
        allowed = budget(engine.memory, rows.device)
        if needed > allowed:
            raise Refused(
                f"it would keep {readable(needed)}, the memory budget is {readable(allowed)}"
            )


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Refused:
        raise
    # Whatever it is, the way that works is still there, and the reason is kept.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise Refused(f"{type(error).__name__}: {reason}") from error


class _Stopwatch:
    """Seconds between entering and leaving, work queued on a GPU included.

    On a CPU processor time per thread, so that the load of the machine decides nothing.
    """

    seconds = 0.0

    def __init__(self, engine: Engine) -> None:
        self._device = engine.problem.parameters.device

    def __enter__(self) -> _Stopwatch:
        self._start = self._now()
        return self

    def __exit__(self, *raised: object) -> None:
        self.seconds = self._now() - self._start

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
