"""A symmetric linear map on parameter vectors, and the arithmetic of such maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor


class Operator(ABC):
    """A real symmetric (dim, dim) map: columns (dim, k) on ``device`` in ``dtype`` to the same.

    ``A @ v``, ``A + B``, ``A - B``, ``2.0 * A``, ``-A`` are operators again; nothing is formed.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def matmat(self, vectors: Tensor) -> Tensor:
        """A times the columns of ``vectors`` (dim, k), as new memory."""

    @property
    def dim(self) -> int:
        return self.shape[0]

    @property
    def backend(self) -> str:
        """How products are computed, for the record."""
        return "direct"

    def tuned(self, products: int, columns: int) -> Operator:
        """The same operator, computed the fastest way for ``products`` of ``columns`` each."""
        return self

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """A times (dim,) or (dim, k)."""
        if vectors.ndim == 1:
            return self.matmat(vectors[:, None])[:, 0]
        return self.matmat(vectors)

    def __add__(self, other: Any) -> Operator:
        return Combination.of((1.0, self), (1.0, other))

    def __sub__(self, other: Any) -> Operator:
        return Combination.of((1.0, self), (-1.0, other))

    def __neg__(self) -> Operator:
        return Combination.of((-1.0, self))

    def __mul__(self, factor: float) -> Operator:
        return Combination.of((float(factor), self))

    __rmul__ = __mul__

    def check(self, vectors: Tensor) -> None:
        """Raise unless ``vectors`` is (dim, k) in this operator's dtype."""
        if getattr(vectors, "dtype", None) is not self.dtype:
            given = getattr(vectors, "dtype", type(vectors).__name__)
            raise TypeError(f"vectors must be a torch tensor of dtype {self.dtype}, got {given}")
        if vectors.ndim != 2 or vectors.shape[0] != self.dim:
            raise ValueError(f"vectors must have shape ({self.dim}, k), got {tuple(vectors.shape)}")


@dataclass(frozen=True, eq=False, repr=False)
class Combination(Operator):
    """Σ_i c_i A_i."""

    terms: tuple[tuple[float, Operator], ...]

    @classmethod
    def of(cls, *terms: tuple[float, Any]) -> Combination:
        """Sums of sums are one sum. Raises TypeError or ValueError where the A_i do not match."""
        flat: list[tuple[float, Operator]] = []
        for factor, operator in terms:
            if not isinstance(operator, Operator):
                raise TypeError(
                    f"cannot add {type(operator).__name__} to an operator; "
                    "as_operator makes one of a matrix"
                )
            inner = operator.terms if isinstance(operator, Combination) else ((1.0, operator),)
            flat += [(factor * c, a) for c, a in inner]
        first = flat[0][1]
        for _, operator in flat[1:]:
            mismatch = (operator.shape, operator.device) != (first.shape, first.device)
            if mismatch:
                raise ValueError(
                    f"operators of a sum must have one shape and one device, got {first!r} and "
                    f"{operator!r}"
                )
        return cls(tuple(flat))

    @property
    def shape(self) -> tuple[int, int]:
        return self.terms[0][1].shape

    @property
    def dtype(self) -> torch.dtype:
        return reduce(torch.promote_types, (operator.dtype for _, operator in self.terms))

    @property
    def device(self) -> torch.device:
        return self.terms[0][1].device

    @property
    def backend(self) -> str:
        return " + ".join(operator.backend for _, operator in self.terms)

    def tuned(self, products: int, columns: int) -> Operator:
        return Combination(tuple((c, a.tuned(products, columns)) for c, a in self.terms))

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        total = torch.zeros_like(vectors)
        for factor, operator in self.terms:
            product = operator.matmat(vectors.to(operator.dtype))
            total.add_(product.to(self.dtype), alpha=factor)
        return total

    def __repr__(self) -> str:
        return " + ".join(
            repr(operator) if factor == 1 else f"{factor:g} * {operator!r}"
            for factor, operator in self.terms
        )
