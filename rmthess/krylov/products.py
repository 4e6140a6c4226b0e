"""Products of an operator, scaled to order one and counted."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import torch
from torch import Tensor

from rmthess.krylov.errors import LanczosError
from rmthess.operators.check import check_product
from rmthess.operators.memory import is_exhaustion
from rmthess.operators.operator import Operator


class Products:
    """Rows A q / 2^e with e such that they are of order 1: exact, and no square overflows.

    ``dtype`` is that of the vectors: the operator's, or float32 where that is narrower. ``eps`` is
    its rounding. ``count``: how many products were asked for. ``timeout``: seconds after which a
    product that has not returned is announced on stderr; None never does.
    """

    def __init__(self, operator: Operator, magnitude: float, timeout: float | None = None) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        self.operator = operator
        self.dim, self.device = operator.dim, operator.device
        self.dtype = working_dtype(operator)
        self.eps = torch.finfo(self.dtype).eps
        # The power itself must be a normal number of the dtype, and so must its inverse.
        largest = 1000 if self.dtype == torch.float64 else 120
        exponent = math.frexp(magnitude)[1] if magnitude > 0 else 0
        self._exponent = max(-largest, min(largest, exponent))
        self.count = 0
        self._timeout, self._last = timeout, math.nan

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
            with self._announced(number):
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

    @contextmanager
    def _announced(self, number: int) -> Iterator[None]:
        if self._timeout is None:
            yield
            return
        last = "it is the first" if math.isnan(self._last) else f"the last took {self._last:.3g} s"
        timer = Timer(self._timeout, _announce, (number, self._timeout, last))
        timer.daemon = True
        timer.start()
        start = time.monotonic()
        try:
            yield
        finally:
            timer.cancel()
        self._last = time.monotonic() - start


def _announce(number: int, seconds: float, last: str) -> None:
    print(
        f"rmthess: product {number} has not returned in {seconds:g} s ({last}); "
        "Ctrl-C ends the run with what it has",
        file=sys.stderr,
        flush=True,
    )


def working_dtype(operator: Operator) -> torch.dtype:
    return operator.dtype if operator.dtype.itemsize >= 4 else torch.float32
