"""``lanczos``: from an operator to the measure of its eigenvalues."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmthess import __version__
from rmthess.krylov.adaptive import Goal
from rmthess.krylov.eigenpairs import Eigenpairs, converge
from rmthess.krylov.errors import LanczosInterrupted
from rmthess.krylov.orthogonality import Method
from rmthess.krylov.probes import GivenStarts, RandomStarts, Starts
from rmthess.krylov.products import Products
from rmthess.krylov.room import Room
from rmthess.krylov.survey import Survey
from rmthess.measure import LanczosMeasure, check_order
from rmthess.operators.as_operator import as_operator
from rmthess.operators.check import check_operator
from rmthess.operators.operator import Operator


def lanczos(
    operator: Any,
    *,
    steps: int = 64,
    probes: int = 8,
    seed: int = 0,
    distribution: str = "sphere",
    start: ArrayLike | Tensor | None = None,
    outliers: int | None = None,
    tolerance: float | None = None,
    deflate: int = 0,
    reorthogonalize: Method | None = None,
    memory: float | None = None,
    timeout: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> LanczosMeasure:
    """β_j q_{j+1} = A q_j - α_j q_j - β_{j-1} q_{j-1} for every probe.

    ``operator``: anything that ``as_operator`` reads, of side dim.

    How much: ``steps``, the Krylov dimension, is the number of products a probe; dim or more gives
    the exact answer after at most dim of them. ``probes``: random starts. Both are met exactly,
    unless ``outliers`` says to stop as soon as that many eigenvalues of largest modulus have
    converged in every probe, or ``tolerance`` to stop adding probes as soon as the standard error
    of the cdf, averaged over the range, is that small; then they are limits. Why a run stopped is
    in its provenance as "stopped".

    Where from: each probe is drawn on the CPU from its own child of ``seed``, so the first k of
    many are those of k. ``distribution``: "sphere" (uniform; the direction of a Gaussian vector) or
    "rademacher" (random signs). ``start``: vectors (dim,) or (dim, k) in place of ``probes``,
    ``seed`` and ``distribution``: their own spectral measures.

    ``deflate``: first find that many eigenpairs of largest modulus (see ``eigenpairs``), then
    measure the others on their own, at the resolution of their own range. The result holds the
    former exactly, as ``.deflated``. An operator from ``deflate(operator, vectors)`` is measured in
    the same way.

    ``reorthogonalize``: "full", at every step; "periodic", whenever orthogonality has fallen to
    sqrt(eps), which gives the same T to rounding for fewer passes; "none" keeps no basis and finds
    ghosts. None is "periodic" on a CPU for dim of 50 000 and more, else "full".
    ``memory``: most bytes for vectors on the operator's device, all that is free if None. What does
    not fit is run a few probes at a time; on a GPU a basis that does not fit alone is kept in host
    memory. Out of memory halves the number at a time.

    ``progress(done, total)`` is called after every step. ``timeout``: a product that has not
    returned after so many seconds is announced on stderr, with what Ctrl-C would leave.

    All probes share one product a step; vectors stay on the operator's device in its dtype (float32
    at least), inner products and T are float64. A breakdown (the Krylov space is exhausted) ends a
    probe with residual 0: its rule is exact. A probe orthogonal to an eigenspace cannot see it.

    Before the run ``check_operator`` spends three products on shape, input, finiteness, linearity,
    symmetry and repeatability.

    Raises ValueError for bad arguments, what ``check_operator`` raises, MemoryError if one probe
    does not fit, LanczosError with the partial result for NaN or an exception in a product, and
    LanczosInterrupted with the partial result on Ctrl-C.

    Sources: Lanczos, J. Res. NBS 45 (1950); Daniel, Gragg, Kaufman & Stewart, Math. Comp. 30 (1976)
    and Simon, Linear Algebra Appl. 61 (1984) for the orthogonalisation; Golub & Meurant, *Matrices,
    Moments and Quadrature* (2010), chapters 4 and 6; Ubaru, Chen & Saad, SIAM J. Matrix Anal. 38
    (2017) for the random starts.

    >>> lanczos(np.diag([1.0, 2.0, 4.0]), steps=5, probes=1).nodes.round(12)[0, :3]
    array([1., 2., 4.])
    >>> found = lanczos(np.diag(np.append(np.linspace(0, 1, 90), [7, 9])), steps=60, outliers=2)
    >>> found.steps, found.provenance["stopped"]["steps"]
    (10, 'converged: the 2 eigenvalues of largest modulus in every probe')
    """
    source = as_operator(operator)
    dim = source.dim
    starts: Starts
    if start is None:
        goal = Goal(steps, probes, outliers, tolerance)
        starts = RandomStarts(dim, seed, distribution)
    else:
        starts = GivenStarts.read(start, dim)
        goal = Goal(steps, starts.vectors.shape[1], outliers, tolerance)
    check_order("deflate", deflate, least=0)
    longest = min(steps, dim)
    room = Room.plan(source, longest, goal.probes, reorthogonalize, memory)
    source = source.tuned(longest, room.width)
    check = check_operator(source)
    record = _record(source, starts, check.asymmetry)
    if deflate:
        found = _largest(source, check.magnitude, deflate, seed, memory)
        source = found.deflated
        record["deflation"] = {
            "products": found.products,
            "residual": float(found.residuals.max(initial=0.0)),
            "stopped": found.message,
        }
        if memory is not None:
            memory = max(memory - found.vectors.nbytes, 1)
    room = Room.plan(source, longest, goal.probes, reorthogonalize, memory)  # in what is left now
    survey = Survey(
        Products(source, check.magnitude, timeout), starts, goal, room, record, progress
    )
    try:
        while survey.extend():
            pass
    except KeyboardInterrupt:
        partial = survey.partial()
        raise LanczosInterrupted(
            f"interrupted after {survey.done}; .partial of this exception holds them", partial
        ) from None
    return survey.result()


def _largest(
    source: Operator, magnitude: float, count: int, seed: int, memory: float | None
) -> Eigenpairs:
    try:
        return converge(source, magnitude, count=count, seed=seed, memory=memory)
    except KeyboardInterrupt:
        raise LanczosInterrupted(
            "interrupted while eigenpairs to deflate were sought, before the first step", None
        ) from None


def _record(source: Operator, starts: Starts, asymmetry: float) -> dict[str, Any]:
    return {
        "method": "lanczos",
        "operator": repr(source),
        **starts.record(),
        "asymmetry": asymmetry,
        "dtype": str(source.dtype).removeprefix("torch."),
        "device": str(source.device),
        "backend": source.backend,
        "threads": torch.get_num_threads(),
        "versions": {
            "rmthess": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
