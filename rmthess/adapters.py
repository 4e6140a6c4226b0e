"""Spectra that other tools measured: Gauss rules, smoothed densities, tables.

    PyHessian              values, weights = hessian(...).density()
                           from_quadratures(values, weights, dim)
    hessian-eigenthings    result = spectral_density(operator)
                           from_quadratures(result.raw_eigenvalues, result.raw_weights, dim)
    curvlinops             runs = [fast_lanczos(A, ncv) for _ in range(probes)]
                           from_ritz(runs, dim)
                           grid, density = lanczos_approximate_spectrum(A, ncv)
                           from_density(grid, density, width, dim)

None of them is imported here: arrays, tensors on the CPU and lists are all taken. ``dim``, the
number of parameters, is in none of these results, and sets the size of finite-size fluctuations.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess import jacobi
from rmthess.measure import DiscreteMeasure, LanczosMeasure, check_order

Array = NDArray[np.float64]


def from_quadratures(
    nodes: Sequence[ArrayLike], weights: Sequence[ArrayLike], dim: int
) -> LanczosMeasure:
    """One Gauss rule a run -> its Jacobi coefficients, and so the Lanczos run behind it.

    nodes, weights: a list a run, in any order. NaN nodes are padding, and say that the run ended in
        a breakdown; weights of sum other than 1 are normalised with a warning.
    dim: side of the matrix.

    The last step of each run becomes its residual, which these tools do not return: n nodes make
    n - 1 steps with honest error bounds. A node of weight 0 was not seen by the run and drops out.

    >>> from_quadratures([[-1.0, 0.0, 1.0]], [[0.25, 0.5, 0.25]], dim=10).steps
    2
    """
    if len(nodes) != len(weights) or len(nodes) == 0:
        raise ValueError(
            f"a list of nodes and one of weights a run, got {len(nodes)} and {len(weights)}"
        )
    single = any(np.ndim(row) != 1 for row in (*nodes, *weights))
    if single:
        raise ValueError("nodes and weights hold one list a run; of a single run pass [nodes]")
    rules = [_rule(k, *pair) for k, pair in enumerate(zip(nodes, weights, strict=True), 1)]
    most = max(x.size for x, _, _ in rules)
    going_on = [x.size for x, _, ended in rules if not ended]
    if min(going_on, default=2) < 2:
        raise ValueError("a run needs at least 2 nodes: the last of its steps becomes its residual")
    a, b = np.full((len(rules), most), np.nan), np.full((len(rules), most - 1), np.nan)
    for row, (x, w, _) in enumerate(rules):
        a[row, : x.size], b[row, : x.size - 1] = jacobi.from_quadrature(x, w, x.size)
    provenance = {"source": "quadrature nodes and weights", "dtype": _dtype(nodes)}
    whole = LanczosMeasure(a, b, np.zeros(len(rules)), dim, provenance)
    return whole.truncate(min(going_on) - 1) if going_on else whole


def from_ritz(runs: Iterable[tuple[ArrayLike, ArrayLike]], dim: int) -> LanczosMeasure:
    """Eigenvalues (m,) and eigenvectors (m, m) of each run's tridiagonal matrix: weights are the
    squared first entries of the columns.

    >>> run = np.linalg.eigh(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> from_ritz([run], dim=10).diagonals
    array([[0.]])
    """
    pairs = [(np.asarray(values), np.asarray(vectors)) for values, vectors in runs]
    for values, vectors in pairs:
        if vectors.shape != (*values.shape, *values.shape) or values.ndim != 1:
            raise ValueError(
                "a run is a pair of eigenvalues (m,) and eigenvectors (m, m), got shapes "
                f"{values.shape} and {vectors.shape}"
            )
    return from_quadratures([v for v, _ in pairs], [u[0] ** 2 for _, u in pairs], dim)


@dataclass(frozen=True, eq=False, init=False)
class SmoothedMeasure(DiscreteMeasure):
    """A density on a grid, smoothed by somebody else: a measure of resolution ``width``."""

    resolution: float

    def __init__(
        self, nodes: ArrayLike, weights: ArrayLike, width: float, dim: int | None = None
    ) -> None:
        super().__init__(nodes, weights, dim)
        object.__setattr__(self, "resolution", width)


def from_density(
    grid: ArrayLike, density: ArrayLike, width: float, dim: int | None = None
) -> SmoothedMeasure:
    """A density on an ascending grid, as a measure with atoms at the grid (trapezoidal rule).

    width: standard deviation of the kernel that smoothed it. It stays in the measure: second
        moments are larger by width², nothing finer than it is real, and a fit has no p-value.
        curvlinops' kernel has range/((ncv - 1) √(2 log kappa)), with the range of its grid
        and kappa = 3; hessian-eigenthings returns it as ``sigma``.

    >>> from_density([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], width=0.5).resolution
    0.5
    """
    x, rho = np.asarray(grid, float), np.asarray(density, float)
    if x.ndim != 1 or x.shape != rho.shape or x.size < 2 or not (np.diff(x) > 0).all():
        raise ValueError(
            "grid and density must be one-dimensional and of one length, the grid ascending, got "
            f"shapes {x.shape} and {rho.shape}"
        )
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"width must be positive, got {width}; it is the kernel's deviation")
    cells = np.convolve(np.diff(x), [0.5, 0.5])
    return SmoothedMeasure(x, _normalised("density", rho * cells, 0.02), width, dim)


def from_csv(path: str | os.PathLike[str], dim: int | None = None) -> Any:
    """A table: ``eigenvalue``, or ``eigenvalue,weight``, or ``eigenvalue,weight,probe``.

    A first line of names is skipped, and lines that begin with #; ``# dim = 1810`` among them gives
    the side, if ``dim`` does not. One column is all eigenvalues of a matrix, two a measure, three
    the Gauss rules of Lanczos runs, which need a side.
    """
    rows, stated = _read(path)
    side = stated if dim is None else check_order("dim", dim)
    columns = len(rows[0])
    table = np.array(rows)
    if columns == 1:
        if side not in (None, len(rows)):
            raise ValueError(
                f"dim = {side}, but there are {len(rows)} eigenvalues; all of them are needed, or "
                "weights in a second column"
            )
        return DiscreteMeasure.from_eigenvalues(table[:, 0])
    if columns == 2:
        return DiscreteMeasure(table[:, 0], _normalised("weights", table[:, 1]), side)
    if side is None:
        raise ValueError("Lanczos runs need the side of the matrix: pass dim=, or a line # dim = n")
    runs = [table[table[:, 2] == probe] for probe in np.unique(table[:, 2])]
    return from_quadratures([run[:, 0] for run in runs], [run[:, 1] for run in runs], side)


def _read(path: str | os.PathLike[str]) -> tuple[list[list[float]], int | None]:
    """Rows of numbers, all of one length, and the side that a comment states."""
    rows: list[list[float]] = []
    side = None
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, cells in enumerate(csv.reader(file), 1):
            if not any(cell.strip() for cell in cells):
                continue
            if cells[0].lstrip().startswith("#"):
                found = re.search(r"dim\s*=\s*(\d+)", ",".join(cells))
                side = int(found[1]) if found else side
                continue
            try:
                values = [float(cell) for cell in cells]
            except ValueError:
                if not rows:  # the names of the columns
                    continue
                raise ValueError(f"line {number}: not a number among {cells}") from None
            if len(values) not in (1, 2, 3) or (rows and len(values) != len(rows[0])):
                raise ValueError(
                    f"line {number} has {len(values)} columns; a table is eigenvalue, or "
                    "eigenvalue,weight, or eigenvalue,weight,probe"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"line {number}: numbers must be finite, got {cells}")
            rows.append(values)
    if not rows:
        raise ValueError("holds no numbers")
    return rows, side


def _rule(run: int, nodes: ArrayLike, weights: ArrayLike) -> tuple[Array, Array, bool]:
    """Nodes, weights, and whether the run ended by itself."""
    x, w = np.asarray(nodes, float), np.asarray(weights, float)
    if x.shape != w.shape:
        raise ValueError(f"run {run}: {x.size} nodes and {w.size} weights")
    padding = np.isnan(x) & ~(w > 0)
    x, w = x[~padding], w[~padding]
    if not np.isfinite(x).all():
        raise ValueError(f"run {run}: nodes must be finite, got {x[~np.isfinite(x)]}")
    w = _normalised(f"run {run}: weights", w)
    return x[w > 0], w[w > 0], bool(padding.any())


def _normalised(what: str, weights: Array, slack: float = 1e-4) -> Array:
    """Weights of sum 1; with a warning where they are farther off than roundings."""
    if weights.size == 0 or not np.isfinite(weights).all() or weights.min() < 0:
        least = weights.min() if weights.size else "none"
        raise ValueError(f"{what} must be finite and not negative, got {least} at the least")
    total = float(weights.sum())
    if not total > 0:
        raise ValueError(f"{what} sum to 0")
    if abs(total - 1) > slack:
        warnings.warn(f"{what} summed to {total:.6g} and were divided by it", stacklevel=4)
    return weights / total


def _dtype(rows: Sequence[ArrayLike]) -> str:
    """float32 where the first run came so, for the rounding of its products."""
    first = rows[0]
    cell = first[0] if isinstance(first, list | tuple) else first
    return "float32" if "float32" in str(getattr(cell, "dtype", "")) else "float64"
