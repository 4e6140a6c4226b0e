"""Which way of computing products is the fastest here, found by trying each on one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from rmthess.operators.backends import Engine
from rmthess.operators.graph import Linear
from rmthess.operators.linearized import Recorded
from rmthess.operators.memory import budget, readable

# In seconds, predicted for the whole run. Below it no choice saves what trying costs, and small
# runs are the same bit for bit whatever the clock says.
WORTHWHILE = 10.0

_FEWEST = 50  # columns in all: trying takes about as long as ten
_GAIN = 0.97  # of the time that the shared graph takes; less is noise


class Refused(RuntimeError):
    """A way that cannot be taken here; the message says why."""


def tune(engine: Engine, products: int, columns: int) -> None:
    """Settle ``engine`` on the fastest way for ``products`` of ``columns`` columns each.

    Tried are a record of the product and, on a GPU, all columns at once. Compiling is not: it takes
    longer than most runs. Nor is forward over reverse, which takes far more memory and two to three
    times as long to record, unless there are convolutions: the weight gradients in their double
    backward are slow (it gained 7%; 3% and less elsewhere). What is chosen must agree with the
    shared graph (see ``adopt``). A run predicted to take less than ``WORTHWHILE`` seconds is left
    as it is.
    """
    total, row, candidates = products * columns, draw(engine, 1), _candidates(engine, columns)
    if total < _FEWEST:
        return
    with _Stopwatch(engine) as whole:
        engine.multiply(row)
    if total * whole.seconds < WORTHWHILE:
        return
    seconds, opened = attempt(engine, "shared", products, columns)
    found, refused, best = {"shared": seconds}, {}, "shared"
    for name in candidates:
        try:
            seconds, graph = attempt(engine, name, products, columns)
        except Refused as reason:
            refused[name] = str(reason)
            continue
        found[name] = seconds
        if name == "recorded" and isinstance(graph, Recorded) and graph.convolves:
            candidates += [other for other in ("linearized",) if other in engine.ways]
        if seconds < min(_GAIN * found["shared"], found[best]):
            best, opened = name, graph
    if best != "shared":
        try:
            adopt(engine, best, opened)
        except Refused as reason:
            refused[best], best = str(reason), "shared"
    timed = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in found.items())
    notes = "".join(f"; {name} refused: {why}" for name, why in refused.items())
    engine.settle(f"{best} (a product of one batch: {timed}{notes})")


def adopt(engine: Engine, name: str, first: Linear | None = None) -> None:
    """Compute the products of ``engine`` the way ``name`` from now on.

    ``first``: the first batch, opened that way already. Raises Refused, with nothing changed, if it
    fails, if two random products differ from those of the present way by more than eps^(3/4), or if
    more than the memory budget would be kept.
    """
    rows = draw(engine, 2)  # the first makes a recording, the second repeats it
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


def attempt(engine: Engine, name: str, products: int, columns: int) -> tuple[float, Linear | None]:
    """Seconds for a product of one column with the first batch, and that batch opened.

    A share of the set-up is included: of what is kept there is one set-up (none for the graph that
    is there already), of what is not, one for all columns of a product. Raises Refused if it fails.
    """
    is_kept = engine.kept is not None
    rows = draw(engine, 1 if is_kept and name != "batched" else columns)
    pieces, out = [engine.problem.parameters.split(row) for row in rows], torch.zeros_like(rows)
    with _refusing():
        graph, opening = engine.first(name), 0.0
        if not (is_kept and name == "shared"):
            if not is_kept:  # set up at every product, hence timed when it is warm
                engine.add(graph, pieces[:1], out[:1])
            del graph
            with _Stopwatch(engine) as watch:
                graph = engine.first(name)
                engine.add(graph, pieces[:1], out[:1])
            opening = watch.seconds
        times = []
        for _ in range(2):
            with _Stopwatch(engine) as watch:
                engine.add(graph, pieces, out)
            times.append(watch.seconds)
    seconds = min(times) / len(rows)
    sharing = products * columns if is_kept else columns
    return seconds + max(opening - seconds, 0.0) / sharing, graph if is_kept else None


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
        columns = [engine.problem.parameters.split(rows[0])]
        engine.add(first, columns, torch.zeros_like(rows[:1]))
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
