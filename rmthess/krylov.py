"""Lanczos: the spectrum of an operator that is known only by its products with vectors.

A Q_m = Q_m T_m + β_m q_{m+1} e_mᵀ  with orthonormal Q_m and tridiagonal T_m. The Gauss rule of T_m
integrates polynomials up to degree 2m - 1 exactly against the spectral measure of A at q_1;
averaged over random q_1 that is the eigenvalue distribution of A.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rmthess import __version__
from rmthess.measure import LanczosMeasure, check_order
from rmthess.operators.as_operator import as_operator
from rmthess.operators.basis import Basis
from rmthess.operators.check import check_operator, check_product
from rmthess.operators.memory import free_memory, readable
from rmthess.operators.operator import Operator

Array = NDArray[np.floating[Any]]

_DRAW: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "sphere": lambda rng, dim: rng.standard_normal(dim),
    "rademacher": lambda rng, dim: rng.integers(0, 2, dim) * 2.0 - 1.0,
}


class LanczosError(RuntimeError):
    """A run that stopped at product ``product``; ``partial`` holds the steps before it, or None."""

    def __init__(self, message: str, product: int, partial: LanczosMeasure | None) -> None:
        super().__init__(message)
        self.product = product
        self.partial = partial


class LanczosInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run; ``partial`` holds the completed steps, or None before the first."""

    def __init__(self, message: str, partial: LanczosMeasure | None) -> None:
        super().__init__(message)
        self.partial = partial


def lanczos(
    operator: Any,
    *,
    steps: int = 64,
    probes: int = 8,
    seed: int = 0,
    distribution: str = "sphere",
    start: ArrayLike | Tensor | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> LanczosMeasure:
    """β_j q_{j+1} = A q_j - α_j q_j - β_{j-1} q_{j-1} for every probe, fully reorthogonalised.

    ``operator``: anything that ``as_operator`` reads, of side dim. ``steps``: Krylov dimension, the
    number of products a probe; dim or more gives the exact answer after at most dim of them.
    ``probes``: random starts, each from its own child of ``seed``, drawn on the CPU: the first k of
    many are those of k. ``distribution``: "sphere" (uniform) or "rademacher" (random signs).
    ``start``: vectors (dim,) or (dim, k) in place of ``probes``, ``seed`` and ``distribution``.
    ``progress(done, total)`` is called after every step.

    All probes share one product a step; vectors stay on the operator's device in its dtype (float32
    at least), inner products and T are float64. A breakdown (the Krylov space is exhausted) ends a
    probe with residual 0: its rule is exact. A probe orthogonal to an eigenspace cannot see it.

    Before the run ``check_operator`` spends three products on shape, input, finiteness, symmetry
    and repeatability.

    Raises ValueError for bad arguments, what ``check_operator`` raises, MemoryError if the bases do
    not fit, LanczosError with the partial result for NaN or an exception in a product, and
    LanczosInterrupted with the partial result on Ctrl-C.

    Sources: Lanczos, J. Res. NBS 45 (1950); Daniel, Gragg, Kaufman & Stewart, Math. Comp. 30 (1976)
    for the orthogonalisation; Golub & Meurant, *Matrices, Moments and Quadrature* (2010), chapters
    4 and 6; Ubaru, Chen & Saad, SIAM J. Matrix Anal. 38 (2017) for the random starts.

    >>> lanczos(np.diag([1.0, 2.0, 4.0]), steps=5, probes=1).nodes.round(12)[0, :3]
    array([1., 2., 4.])
    """
    source = as_operator(operator)
    dim = source.shape[0]
    steps = check_order("steps", steps)
    if start is None:
        probes = check_order("probes", probes)
        starts = _draw(dim, probes, seed, distribution)
    else:
        given = _read_start(start, dim)
        probes, starts = given.shape[1], iter(given.T)
    _check_memory(source, min(steps, dim), probes)
    source = source.tuned(min(steps, dim), probes)
    check = check_operator(source)
    random = start is None
    provenance = {
        "method": "lanczos",
        "operator": repr(source),
        "steps": steps,
        "probes": probes,
        "seed": int(seed) if random else None,
        "distribution": distribution if random else "start",
        "asymmetry": check.asymmetry,
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
    run = _Run(source, starts, probes, steps, check.magnitude, provenance)
    try:
        while run.active:
            run.advance()
            if progress is not None:
                progress(run.done, run.longest)
    except KeyboardInterrupt:
        raise LanczosInterrupted(
            f"interrupted after {run.done} of {run.longest} steps; .partial of this exception "
            "holds them",
            run.partial(),
        ) from None
    return run.measure(steps)


class _Run:
    """Lanczos for all probes in lock-step; ``done`` steps are complete, ``active`` probes go on.

    Works on A / 2^e with e such that products are of order 1: exact, and no square overflows.
    """

    def __init__(
        self,
        operator: Operator,
        starts: Iterable[Array],
        probes: int,
        steps: int,
        magnitude: float,
        provenance: dict[str, Any],
    ) -> None:
        self._operator = operator
        self._provenance = provenance
        self.dim = operator.shape[0]
        self.longest = min(steps, self.dim)
        dtype = _working_dtype(operator)
        # The power itself must be a normal number of the dtype, and so must its inverse.
        largest = 1000 if dtype == torch.float64 else 120
        exponent = math.frexp(magnitude)[1] if magnitude > 0 else 0
        self._exponent = max(-largest, min(largest, exponent))
        self._bases = []
        for start in starts:
            basis = Basis(self.longest, self.dim, dtype, operator.device)
            basis.append(torch.from_numpy(_normalised(start)).to(operator.device, dtype))
            self._bases.append(basis)
        self._alpha = np.full((probes, steps), np.nan)
        self._beta = np.full((probes, steps), np.nan)
        self._largest = np.zeros(probes)
        self.active = list(range(probes))
        self.done = 0

    def advance(self) -> None:
        """One step of every active probe."""
        product = self._multiply()
        j, alpha, beta = self.done, dict[int, float](), dict[int, float]()
        for row, probe in zip(product, self.active, strict=True):
            basis = self._bases[probe]
            q = basis.rows[-1]
            a = float(torch.sum(q * row, dtype=torch.float64))
            row.sub_(q, alpha=a)
            if j > 0:
                row.sub_(basis.rows[-2], alpha=self._beta[probe, j - 1])
            alpha[probe], beta[probe] = a, basis.remove_from(row)
        going_on = []
        for row, probe in zip(product, self.active, strict=True):
            self._alpha[probe, j] = alpha[probe]
            self._beta[probe, j] = 0.0 if self._is_exhausted(probe, alpha, beta) else beta[probe]
            if self._beta[probe, j] > 0 and j + 1 < self.longest:
                self._bases[probe].append(row / beta[probe])
                going_on.append(probe)
        self.active = going_on
        self.done = j + 1

    def _is_exhausted(self, probe: int, alpha: dict[int, float], beta: dict[int, float]) -> bool:
        """Whether β is rounding: at most max(32 eps, min(dim eps, 1e-10)) |T|.

        Missing a breakdown costs nothing, because T stays exact for a matrix within rounding of A
        (an eigenvalue may then be found twice, within rounding, with its weight split). A false one
        would cost the bulk, which in float32 may lie at 1e-5 of an outlier: hence no dim there.
        """
        j = self.done
        before = self._beta[probe, j - 1] if j > 0 else 0.0
        scale = max(self._largest[probe], abs(alpha[probe]) + before)
        self._largest[probe] = scale
        eps = torch.finfo(_working_dtype(self._operator)).eps
        relative = max(32 * eps, min(self.dim * eps, 1e-10))
        return j + 1 == self.dim or beta[probe] <= relative * scale

    def _multiply(self) -> Tensor:
        """Rows A q / 2^e of the active probes, as new memory."""
        number = self.done + 1
        vectors = torch.stack([self._bases[probe].rows[-1] for probe in self.active]).T
        vectors = vectors.to(self._operator.dtype)
        try:
            product = self._operator.matmat(vectors)
            check_product(self._operator, product, vectors)
        except Exception as error:
            raise LanczosError(
                f"product {number} of {self.longest} failed: {type(error).__name__}: {error}; "
                f"the exception's .partial holds {self.done} steps",
                number,
                self.partial(),
            ) from error
        rows = product.T.to(_working_dtype(self._operator)) * 2.0**-self._exponent
        finite = torch.isfinite(rows).all(dim=1).tolist()
        if not all(finite):
            raise LanczosError(
                f"product {number} of {self.longest} holds NaN or Inf for probe "
                f"{self.active[finite.index(False)]}; the exception's .partial holds "
                f"{self.done} steps",
                number,
                self.partial(),
            )
        return rows.contiguous()

    def partial(self) -> LanczosMeasure | None:
        """The measure after the completed steps; None before the first."""
        return self.measure(self.done) if self.done else None

    def measure(self, steps: int) -> LanczosMeasure:
        scale = 2.0**self._exponent
        alpha, beta = self._alpha[:, :steps] * scale, self._beta[:, :steps] * scale
        lengths = np.sum(~np.isnan(beta), axis=1)
        residuals = beta[np.arange(len(beta)), lengths - 1]
        inner = beta[:, :-1].copy()
        inner[inner == 0] = np.nan
        provenance = self._provenance | {"steps": steps}
        return LanczosMeasure(alpha, inner, residuals, self.dim, provenance)


def _working_dtype(operator: Operator) -> torch.dtype:
    return operator.dtype if operator.dtype.itemsize >= 4 else torch.float32


def _draw(dim: int, probes: int, seed: int, distribution: str) -> Iterator[Array]:
    if distribution not in _DRAW:
        raise ValueError(f"distribution must be one of {sorted(_DRAW)}, got {distribution!r}")
    children = np.random.SeedSequence(seed).spawn(probes)
    return (_DRAW[distribution](np.random.default_rng(child), dim) for child in children)


def _read_start(start: ArrayLike | Tensor, dim: int) -> Array:
    if isinstance(start, Tensor):
        start = start.detach().cpu().to(torch.float64).numpy()
    found = np.asarray(start, float)
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[0] != dim or found.shape[1] == 0:
        raise ValueError(f"start must have shape ({dim},) or ({dim}, k), got {np.shape(start)}")
    if not np.isfinite(found).all() or not found.any(axis=0).all():
        raise ValueError("start must be finite and have no zero column")
    return found


def _normalised(vector: Array) -> Array:
    scaled = vector / np.abs(vector).max()  # so that no square overflows
    unit: Array = scaled / np.linalg.norm(scaled)
    return unit


def _check_memory(operator: Operator, steps: int, probes: int) -> None:
    vector = operator.shape[0] * _working_dtype(operator).itemsize
    needed = probes * (steps + 4) * vector  # 4: a product, its input and two temporaries
    free = free_memory(operator.device)
    if free is not None and needed > free:
        fitting = max(0, free // (probes * vector) - 4)
        raise MemoryError(
            f"{probes} probes of {steps} steps at dim {operator.shape[0]} need "
            f"{readable(needed)} on {operator.device}, where {readable(free)} are free; "
            f"{fitting} steps would fit, or fewer probes"
        )
