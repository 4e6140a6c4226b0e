"""Blocks of an operator: the curvature within one group of parameters, or between two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmthess.operators.as_operator import as_operator
from rmthess.operators.operator import Derived, Operator
from rmthess.operators.parameters import Parameters

Entries = str | Sequence[str] | Callable[[str], bool] | slice | ArrayLike | Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Restricted(Derived):
    """S A Sᵀ, S picking the entries ``rows`` (r,) of a vector."""

    rows: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.rows)

    @property
    def parameters(self) -> None:
        return None

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        return self.operator.matmat(_embed(self.operator.dim, self.rows, vectors))[self.rows]

    def __repr__(self) -> str:
        return f"block({self.operator!r}, {len(self.rows)} entries)"


@dataclass(frozen=True, eq=False, repr=False)
class Dilation(Derived):
    """[[0, B], [Bᵀ, 0]] with B = A[rows, columns] (r, c).

    Its eigenvalues are ±σ_i(B) and |r - c| zeros, its vectors (x, y) with x over the rows and y
    over the columns.
    """

    rows: Tensor
    columns: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        side = len(self.rows) + len(self.columns)
        return side, side

    @property
    def parameters(self) -> None:
        return None

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        dim, width = self.operator.dim, vectors.shape[1]
        x, y = vectors.split([len(self.rows), len(self.columns)])
        both = torch.cat([_embed(dim, self.rows, x), _embed(dim, self.columns, y)], dim=1)
        product = self.operator.matmat(both)
        return torch.cat([product[self.rows, width:], product[self.columns, :width]])

    def __repr__(self) -> str:
        return f"block({self.operator!r}, {len(self.rows)} x {len(self.columns)} entries)"


def block(operator: Any, rows: Entries, columns: Entries | None = None) -> Restricted | Dilation:
    """A[rows, rows], or with ``columns`` the symmetric dilation of B = A[rows, columns].

    ``operator``: anything that ``as_operator`` reads. ``rows``, ``columns``: of a network's
    curvature the name of a parameter ("0.weight"), of a module ("encoder.layer1": all parameters
    below it), a glob pattern ("*.bias"), several of these, or a predicate on the name, in flat
    order; of any operator a slice, indices, or a mask (dim,).

    A product costs one of the whole operator for each column, two for the dilation:
    ``hessian(..., params=...)`` costs a diagonal block only.

    Raises ValueError for unknown names, and for indices that are out of range, repeated or none.

    >>> A = [[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]
    >>> block(torch.tensor(A), [0, 2]) @ torch.tensor([1.0, 0.0])
    tensor([1., 3.])
    >>> block(torch.tensor(A), slice(2), [2]) @ torch.tensor([1.0, 0.0, 1.0])
    tensor([3., 5., 3.])
    """
    source = as_operator(operator)
    first = _entries("rows", source, rows)
    if columns is None:
        return Restricted(source, first)
    return Dilation(source, first, _entries("columns", source, columns))


def _embed(dim: int, entries: Tensor, vectors: Tensor) -> Tensor:
    whole = vectors.new_zeros(dim, vectors.shape[1])
    whole[entries] = vectors
    return whole


def _entries(side: str, operator: Operator, given: Any) -> Tensor:
    """The chosen entries of a vector, as indices on the operator's device."""
    every = torch.arange(operator.dim)
    if isinstance(given, str) or callable(given) or _is_names(given):
        found = _named(side, operator, given, every)
    elif isinstance(given, slice):
        found = every[given]
    else:
        found = _indexed(side, given, every)
    if found.numel() == 0:
        raise ValueError(f"{side} chooses no entry of an operator of dim {operator.dim}")
    return found.to(operator.device)


def _is_names(given: Any) -> bool:
    return isinstance(given, Sequence) and len(given) > 0 and isinstance(given[0], str)


def _named(side: str, operator: Operator, given: Any, every: Tensor) -> Tensor:
    parameters = operator.parameters
    if parameters is None:
        raise ValueError(
            f"{side} names parameters, but {operator!r} has no names; pass a slice or indices"
        )
    chosen = _choose(side, parameters, given)
    pieces = zip(parameters.names, parameters.offsets, parameters.offsets[1:], strict=False)
    kept = [every[start:stop] for name, start, stop in pieces if name in chosen]
    return torch.cat(kept) if kept else every[:0]


def _choose(side: str, parameters: Parameters, given: Any) -> set[str]:
    names = parameters.names
    if callable(given):
        return {name for name in names if given(name)}
    chosen: set[str] = set()
    for pattern in [given] if isinstance(given, str) else given:
        matching = {
            name
            for name in names
            if name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
        }
        if not matching:
            raise ValueError(
                f"{side} {pattern!r} is no parameter, module or pattern of this operator's "
                f"parameters {list(names)}"
            )
        chosen |= matching
    return chosen


def _indexed(side: str, given: Any, every: Tensor) -> Tensor:
    index = torch.as_tensor(given).cpu()
    if index.dtype == torch.bool:
        if index.shape != every.shape:
            raise ValueError(
                f"{side} is a mask of shape {tuple(index.shape)}; it must be ({len(every)},)"
            )
        return every[index]
    if index.ndim != 1 or index.is_floating_point() or index.is_complex():
        raise ValueError(
            f"{side} must be names, a predicate, a slice, a mask or a list of integers, got "
            f"{index.dtype} of shape {tuple(index.shape)}"
        )
    outside = (index < -len(every)) | (index >= len(every))
    if bool(outside.any()):
        raise ValueError(
            f"{side} holds {int(index[outside][0])}, outside an operator of dim {len(every)}"
        )
    found = every[index.long()]
    if found.unique().numel() < found.numel():
        raise ValueError(f"{side} names an entry twice; a block has each once")
    return found
