"""Products of an operator, scaled to order one and counted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rmthess.krylov.errors import LanczosError
from rmthess.operators.check import check_product
from rmthess.operators.memory import is_exhaustion
from rmthess.operators.operator import Operator


class Products:
    """Rows A q / 2^e with e such that they are of order 1: exact, and no square overflows.

    ``dtype`` is that of the vectors: the operator's, or float32 where that is narrower. ``eps`` is
    its rounding. ``count``: how many products were asked for.
    """

    def __init__(self, operator: Operator, magnitude: float) -> None:
        self.operator = operator
        self.dim, self.device = operator.dim, operator.device
        self.dtype = working_dtype(operator)
        self.eps = torch.finfo(self.dtype).eps
        # The power itself must be a normal number of the dtype, and so must its inverse.
        largest = 1000 if self.dtype == torch.float64 else 120
        exponent = math.frexp(magnitude)[1] if magnitude > 0 else 0
        self._exponent = max(-largest, min(largest, exponent))
        self.count = 0

    @property
    def scale(self) -> float:
        return 2.0**self._exponent

    def rows(self, vectors: Tensor) -> Tensor:
        """A q / 2^e for the rows q of ``vectors`` (k, dim), as new memory.

        Out of memory is passed on, any other exception becomes a LanczosError.
        """
        number = self.count + 1
        handed = vectors.T.to(self.operator.dtype)
        try:
            product = self.operator.matmat(handed)
            check_product(self.operator, product, handed)
        except Exception as error:
            if is_exhaustion(error):
                raise
            raise LanczosError(
                f"product {number} failed: {type(error).__name__}: {error}", number
            ) from error
        self.count = number
        return (product.T.to(self.dtype) * 2.0**-self._exponent).contiguous()


def working_dtype(operator: Operator) -> torch.dtype:
    return operator.dtype if operator.dtype.itemsize >= 4 else torch.float32
