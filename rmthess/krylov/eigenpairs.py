"""Extremal eigenpairs by Lanczos with thick restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmthess.krylov.chains import breakdown
from rmthess.krylov.errors import LanczosError
from rmthess.krylov.probes import RandomStarts
from rmthess.krylov.products import Products, working_dtype
from rmthess.measure import check_order
from rmthess.operators.as_operator import as_operator
from rmthess.operators.basis import Basis, dot
from rmthess.operators.check import check_operator
from rmthess.operators.deflated import deflate
from rmthess.operators.memory import free_memory, readable
from rmthess.operators.operator import Operator

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LIMIT = 1000  # products
_MISSED = 1e-3  # chance that a last sweep overlooks an eigenvalue, see _sweep_length
_NEAR = 0.05  # if it lies further out than those found, by this share of the range


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """``values`` (k,) ascending, ``vectors`` (dim, k), ``residuals`` |Av - λv| (k,), all measured.

    ``products`` is what they cost; ``converged`` whether they are all that was asked for, and
    ``message`` says so in a sentence. ``deflated``: the operator without them.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    products: int
    converged: bool
    message: str
    deflated: Operator


def eigenpairs(
    operator: Any,
    count: int | None = None,
    *,
    outside: tuple[float, float] | None = None,
    steps: int = _LIMIT,
    seed: int = 0,
    memory: float | None = None,
) -> Eigenpairs:
    """A v = λ v for the ``count`` eigenvalues of largest modulus, or for all ``outside`` (a, b).

    ``steps``: the most products that are spent; what has converged by then is returned, and
    ``.message`` says what is missing. ``memory``: most bytes for the basis, half of what is free if
    None; a basis that does not fit is restarted from its best Ritz vectors.

    A Ritz pair counts as converged when its residual falls below eps^(3/4) of the largest
    eigenvalue. At the end one product each gives Rayleigh quotients and true residuals.

    One Krylov space holds one vector of each eigenspace. So every search is followed by another,
    from a random vector orthogonal to all that was found, until one finds nothing more. It is so
    long that it overlooks, with probability at most 0.001, an eigenvalue that lies further out than
    the innermost found (or the interval) by 5 percent of the range (Kuczyński & Woźniakowski).
    What is nearer than that to the innermost may be exchanged for it.

    Raises ValueError for bad arguments, MemoryError where the basis cannot hold what is wanted,
    what ``check_operator`` raises, LanczosError for an exception in a product.

    Sources: Wu & Simon, SIAM J. Matrix Anal. Appl. 22 (2000), 602-616 (thick restart); Kuczyński &
    Woźniakowski, ibid. 13 (1992), 1094-1122 (random starts).

    >>> found = eigenpairs(np.diag([1.0, 2.0, 9.0, 9.0, -12.0]), 3)
    >>> found.values.round(12), found.message
    (array([-12.,   9.,   9.]), 'converged: 3 of 3')
    """
    source = as_operator(operator)
    if (count is None) == (outside is None):
        raise ValueError("give either count, or outside=(left, right)")
    steps = check_order("steps", steps)
    source = source.tuned(steps, 1)
    check = check_operator(source)
    return converge(
        source, check.magnitude, count=count, outside=outside, steps=steps, seed=seed, memory=memory
    )


def converge(
    source: Operator,
    magnitude: float,
    *,
    count: int | None = None,
    outside: tuple[float, float] | None = None,
    steps: int = _LIMIT,
    seed: int = 0,
    memory: float | None = None,
) -> Eigenpairs:
    """``eigenpairs`` of an operator that has been checked, with products of about ``magnitude``."""
    products = Products(source, magnitude)
    target = _Target.read(count, outside, products)
    space = _Space(products, _capacity(source, steps, count or 0, memory), seed)
    complete = space.search(target, steps)
    found, of = space.locked, f" of {count}" if count is not None else f" outside {outside}"
    message = f"converged: {found}{of}"
    if not complete:
        message = (
            f"limit reached: {products.count} products gave {found}{of}; others that are wanted "
            "may be missing"
        )
    vectors, spent = space.release(), products.count
    if found == 0:
        empty = np.empty(0)
        return Eigenpairs(empty, vectors, empty, spent, complete, message, source)
    rest = deflate(source, vectors)
    return Eigenpairs(
        rest.values, rest.vectors, rest.residuals, spent + found + 1, complete, message, rest
    )


@dataclass(frozen=True)
class _Target:
    """The ``count`` largest in modulus, or (count None) what lies outside [left, right]."""

    count: int | None
    left: float = 0.0
    right: float = 0.0

    @classmethod
    def read(
        cls, count: int | None, outside: tuple[float, float] | None, products: Products
    ) -> _Target:
        if outside is None:
            count = check_order("count", count)
            if count >= products.dim:
                raise ValueError(
                    f"count must be below dim = {products.dim}, got {count}; eigenvalues() gives "
                    "all, without their vectors"
                )
            return cls(count)
        left, right = outside
        if not left <= right:
            raise ValueError(f"outside must be (left, right) with left <= right, got {outside}")
        return cls(None, left / products.scale, right / products.scale)

    def distance(self, values: Array) -> Array:
        """How far out: the larger, the sooner it converges."""
        if self.count is not None:
            return np.abs(values)
        return np.maximum(values - self.right, self.left - values)

    def wants(self, values: Array) -> Mask:
        """Which of all known values are wanted."""
        out = self.distance(values)
        if self.count is None:
            return np.asarray(out > 0)
        mask = np.zeros(values.size, bool)
        mask[np.argsort(-out, kind="stable")[: self.count]] = True
        return mask


class _Space:
    """Rows: eigenvectors that are locked, then a Krylov space in their complement.

    ``values``: of the locked, in units of the scaled products, as is the projection H of A on the
    rest. ``coupling``: A Q = Q H + q coupling, with q the vector that comes next.
    """

    def __init__(self, products: Products, capacity: int, seed: int) -> None:
        self._products = products
        self._basis = Basis(capacity, products.dim, products.dtype, products.device)
        self._starts = RandomStarts(products.dim, seed, "sphere")
        self._drawn = 0
        self._values = np.empty(0)
        self._largest = 0.0

    @property
    def locked(self) -> int:
        return int(self._values.size)

    def release(self) -> Tensor:
        """The locked vectors as columns; the basis is given up."""
        self._basis.truncate(self.locked)
        vectors = self._basis.gather().T
        del self._basis
        return vectors

    def search(self, target: _Target, limit: int) -> bool:
        """Sweep until a sweep finds nothing more; False if ``limit`` products were not enough."""
        while self._begin():
            new = self._sweep(target, limit)
            if new is None:
                return False
            if new == 0:
                break
        return True

    def _begin(self) -> bool:
        """Start a Krylov space from a random vector; False where the complement is empty."""
        self._basis.truncate(self.locked)
        self._H, self._coupling = np.zeros((0, 0)), np.zeros(0)
        self._next = self._draw()
        return self._next is not None

    def _draw(self) -> Tensor | None:
        if self._basis.size == self._products.dim:
            return None
        start = self._starts.unit(self._drawn, self._products.device)
        vector = start.to(self._products.dtype)
        self._drawn += 1
        return vector.div_(self._basis.remove_from(vector).to(vector.dtype))

    def _sweep(self, target: _Target, limit: int) -> int | None:
        """Lock what is wanted of one Krylov space; how many are new, None at the limit."""
        least, need, look, done = _sweep_length(self._products.dim), target.count or 0, 0, 0
        while True:
            self._expand()
            done += 1
            size = self._H.shape[0]
            spent = self._products.count >= limit
            exhausted = self._next is None
            full = self._basis.size == self._basis.capacity
            if not (spent or exhausted or full) and done < max(least, look):
                continue
            look = done + 1 + done // 20
            values, Y = np.linalg.eigh(self._H)
            residuals = np.abs(self._coupling @ Y)
            wanted = target.wants(np.concatenate([self._values, values]))
            new = wanted[self.locked :]
            top = max(np.abs(values).max(), np.abs(self._values).max(initial=0.0))
            good = residuals <= self._products.eps**0.75 * top
            enough = exhausted or (done >= least and self.locked + size >= need)
            if (enough and good[new].all()) or spent:
                finished = bool(enough and good[new].all())
                kept = new & good
                self._lock(wanted[: self.locked], values, Y, kept)
                return int(kept.sum()) if finished else None
            if full:
                self._restart(target, values, Y, residuals, int(new.sum()))

    def _expand(self) -> None:
        """Multiply the next vector, and orthogonalise what comes out."""
        q, size = self._next, self._H.shape[0]
        assert q is not None
        self._basis.append(q)
        row = self._products.rows(q[None])[0]
        alpha = dot(q, row)
        row.addcmul_(q, alpha.to(row.dtype), value=-1)
        beta = float(self._basis.remove_from(row))
        H = np.zeros((size + 1, size + 1))
        H[:size, :size] = self._H
        H[:size, size] = H[size, :size] = self._coupling
        H[size, size] = float(alpha)
        if not np.isfinite(H[size, size] + beta):
            number = self._products.count
            raise LanczosError(f"product {number} holds NaN or Inf", number)
        self._largest = max(self._largest, abs(H[size, size]) + beta)
        self._H, self._coupling = H, np.zeros(size + 1)
        if self._basis.size < self._products.dim and beta > (
            breakdown(self._products) * self._largest
        ):
            self._coupling[size] = beta
            self._next = row.div_(beta)
        else:
            self._next = self._draw()

    def _lock(self, still: Mask, values: Array, Y: Array, new: Mask) -> None:
        """Keep the locked vectors that are still wanted, and the new Ritz vectors."""
        turn = np.zeros((self._basis.size, int(still.sum() + new.sum())))
        turn[: self.locked, : still.sum()] = np.eye(self.locked)[:, still]
        turn[self.locked :, still.sum() :] = Y[:, new]
        self._basis.combine(torch.from_numpy(turn))
        self._values = np.concatenate([self._values[still], values[new]])

    def _restart(
        self, target: _Target, values: Array, Y: Array, residuals: Array, wanted: int
    ) -> None:
        """Keep the Ritz vectors that are wanted, and half of the room for those next to them."""
        size = values.size
        kept = min(wanted + (size - wanted) // 2, size - 1)
        if size - kept < 2:
            raise MemoryError(
                f"a basis of {self._basis.capacity} vectors cannot hold the {wanted} eigenvectors "
                "that are wanted; give more memory, or ask for fewer"
            )
        order = np.argsort(-target.distance(values), kind="stable")[:kept]
        turn = np.zeros((self._basis.size, self.locked + kept))
        turn[: self.locked, : self.locked] = np.eye(self.locked)
        turn[self.locked :, self.locked :] = Y[:, order]
        self._coupling = (self._coupling @ Y)[order]
        self._H = np.diag(values[order])
        self._basis.combine(torch.from_numpy(turn))


def _sweep_length(dim: int) -> int:
    """Products j with 1.648 sqrt(dim) exp(-sqrt(ε) (2j - 1)) = the chance of missing one."""
    return math.ceil(0.5 + math.log(1.648 * math.sqrt(dim) / _MISSED) / (2 * math.sqrt(_NEAR)))


def _capacity(operator: Operator, steps: int, count: int, memory: float | None) -> int:
    """Rows of the basis: all that may be needed, or what fits."""
    vector = operator.dim * working_dtype(operator).itemsize
    free = free_memory(operator.device)
    space = memory if memory is not None else None if free is None else free // 2
    needed = min(operator.dim, steps + count)
    if space is None:
        return needed
    fitting = int(space // vector) - 5  # a product, its input, and slices
    if fitting < min(needed, count + 8):
        raise MemoryError(
            f"{count} eigenvectors of dim {operator.dim} need a basis of at least {count + 8}, "
            f"{readable((count + 13) * vector)}, where {readable(space)} may be used"
        )
    return min(needed, fitting)
