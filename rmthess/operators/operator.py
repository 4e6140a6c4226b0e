"""A symmetric linear map on parameter vectors, and the arithmetic of such maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from rmthess.operators.parameters import Parameters


class Operator(ABC):
    """A real symmetric (dim, dim) map: columns (dim, k) on ``device`` in ``dtype`` to the same.

    ``A + B``, ``A - B``, ``2.0 * A``, ``-A`` and ``A.shift(c)`` are operators again, of which no
    matrix is formed; ``A @ v`` is a product.
    """

    __array_ufunc__ = None  # so that a NumPy number times an operator is left to the operator

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
    def parameters(self) -> Parameters | None:
        """Which entries belong to which parameters of a network; None where it is of none."""
        return None

    @property
    def backend(self) -> str:
        """How products are computed, for the record."""
        return "direct"

    @property
    def eps(self) -> float:
        """Relative rounding of a product: that of ``dtype``, or of a narrower one inside."""
        return float(torch.finfo(self.dtype).eps)

    @property
    def rounding(self) -> float:
        """The size of A v, |v| = 1, below which it may be the rounding of larger numbers alone."""
        return 0.0

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
        return Combination.of((_number(factor), self))

    __rmul__ = __mul__

    def shift(self, amount: float) -> Operator:
        """A + c I: every eigenvalue moves by ``amount``."""
        return Combination.of((1.0, self), constant=_number(amount))

    def check(self, vectors: Tensor) -> None:
        """Raise unless ``vectors`` is (dim, k) in this operator's dtype."""
        if getattr(vectors, "dtype", None) is not self.dtype:
            given = getattr(vectors, "dtype", type(vectors).__name__)
            raise TypeError(f"vectors must be a torch tensor of dtype {self.dtype}, got {given}")
        if vectors.ndim != 2 or vectors.shape[0] != self.dim:
            raise ValueError(f"vectors must have shape ({self.dim}, k), got {tuple(vectors.shape)}")


@dataclass(frozen=True, eq=False, repr=False)
class Combination(Operator):
    """Σ_i c_i A_i + c I, in the widest dtype of the A_i."""

    terms: tuple[tuple[float, Operator], ...]
    constant: float

    @classmethod
    def of(cls, *terms: tuple[float, Any], constant: float = 0.0) -> Combination:
        """Sums of sums are one sum. Raises TypeError or ValueError where the A_i do not match."""
        flat: list[tuple[float, Operator]] = []
        for factor, operator in terms:
            if not isinstance(operator, Operator):
                raise TypeError(
                    f"cannot add {type(operator).__name__} to an operator; "
                    "as_operator makes one of a matrix, A.shift(c) is A + c I"
                )
            if isinstance(operator, Combination):
                flat += [(factor * c, a) for c, a in operator.terms]
                constant += factor * operator.constant
            else:
                flat.append((factor, operator))
        found = cls(tuple(flat), constant)
        for _, operator in flat:
            _check_match(found, operator)
        return found

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
    def parameters(self) -> Parameters | None:
        known = (operator.parameters for _, operator in self.terms)
        return next((parameters for parameters in known if parameters is not None), None)

    @property
    def eps(self) -> float:
        return max(operator.eps for _, operator in self.terms)

    @property
    def backend(self) -> str:
        return " + ".join(dict.fromkeys(operator.backend for _, operator in self.terms))

    def tuned(self, products: int, columns: int) -> Operator:
        terms = tuple((c, a.tuned(products, columns)) for c, a in self.terms)
        return Combination(terms, self.constant)

    def matmat(self, vectors: Tensor) -> Tensor:
        self.check(vectors)
        total = vectors * self.constant
        for factor, operator in self.terms:
            product = operator.matmat(vectors.to(operator.dtype))
            total.add_(product.to(self.dtype), alpha=factor)
        return total

    def __repr__(self) -> str:
        terms = [(factor, repr(operator)) for factor, operator in self.terms]
        terms += [(self.constant, "I")] if self.constant else []
        text = ""
        for factor, name in terms:
            size = "" if abs(factor) == 1 else f"{abs(factor):g} * "
            text += (" - " if factor < 0 else " + ") + size + name
        return ("-" if text[1] == "-" else "") + text[3:]


@dataclass(frozen=True, eq=False, repr=False)
class Derived(Operator):
    """What is made of one operator and computed by its products: in its dtype, on its device."""

    operator: Operator

    @property
    def shape(self) -> tuple[int, int]:
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        return self.operator.device

    @property
    def parameters(self) -> Parameters | None:
        return self.operator.parameters

    @property
    def eps(self) -> float:
        return self.operator.eps

    @property
    def rounding(self) -> float:
        return self.operator.rounding

    @property
    def backend(self) -> str:
        return self.operator.backend

    def tuned(self, products: int, columns: int) -> Operator:
        return replace(self, operator=self.operator.tuned(products, columns))


def _check_match(total: Combination, operator: Operator) -> None:
    first = total.terms[0][1]
    if (operator.shape, operator.device) != (first.shape, first.device):
        raise ValueError(
            f"operators of a sum must have one shape and one device, got {first!r} on "
            f"{first.device} and {operator!r} on {operator.device}"
        )
    ours, theirs = total.parameters, operator.parameters
    if ours is not None and theirs is not None and ours.names != theirs.names:
        raise ValueError(
            f"operators of a sum must be taken in the same parameters, got {list(ours.names)} and "
            f"{list(theirs.names)}"
        )


def _number(factor: Any) -> float:
    try:
        found = float(factor)
    except (TypeError, ValueError):
        raise TypeError(
            f"an operator is multiplied by or shifted by a number, got {type(factor).__name__}; "
            "A @ v multiplies vectors, operators cannot be multiplied"
        ) from None
    if not math.isfinite(found):
        raise ValueError(f"a factor or shift of an operator must be finite, got {found}")
    return found
