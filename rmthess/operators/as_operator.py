"""One protocol for every symmetric linear map: ours, SciPy's, a matrix, or another package's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from rmthess.operators.check import check_product
from rmthess.operators.errors import NonFiniteError, NotSymmetricError
from rmthess.operators.operator import Operator


class _Wrapped(Operator):
    """What the adapters share: a shape and a name without addresses or contents."""

    def __init__(
        self, source: Any, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.source = source
        self._shape, self._dtype, self._device = shape, dtype, device

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return self._device

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"{type(self.source).__name__}({self.shape[0]}x{self.shape[1]}, {kind})"


class Matrix(_Wrapped):
    """A symmetric matrix held as a torch tensor."""

    def matmat(self, vectors: Tensor) -> Tensor:
        product: Tensor = self.source @ vectors
        return product


class _Foreign(_Wrapped):
    """Somebody else's product, which may fail, or return what it did not promise."""

    @abstractmethod
    def multiply(self, vectors: Tensor) -> Tensor: ...

    def matmat(self, vectors: Tensor) -> Tensor:
        try:
            product = self.multiply(vectors)
        except Exception as error:
            error.add_note(
                f"while {self!r} multiplied vectors of shape {tuple(vectors.shape)}, which its "
                "shape and dtype promise to accept"
            )
            raise
        check_product(self, product, vectors)
        return product


class NumpyOperator(_Foreign):
    """An operator that multiplies NumPy arrays (SciPy's LinearOperator)."""

    def multiply(self, vectors: Tensor) -> Tensor:
        # A copy, so that an operator that writes into its input cannot reach the caller's vectors.
        product = np.asarray(self.source.matmat(np.array(vectors.numpy())))
        if np.iscomplexobj(product):
            raise TypeError(f"{self!r} returned complex numbers; only real operators are supported")
        return torch.tensor(product, dtype=self.dtype)


class TorchOperator(_Foreign):
    """Another package's operator on torch tensors: ``matmat`` where it has one, else ``@``."""

    def multiply(self, vectors: Tensor) -> Tensor:
        multiply = getattr(self.source, "matmat", None) or self.source.__matmul__
        product: Tensor = multiply(vectors)
        return product


def as_operator(source: Any) -> Operator:
    """``source`` as an Operator (shape, dtype, device, matmat).

    ``source``: one of ours (returned as it is), a SciPy LinearOperator or sparse matrix, a
    symmetric NumPy or torch matrix (dim, dim), or an operator with ``shape``, ``dtype``, and
    ``matmat`` or ``@`` on torch tensors, such as those of curvlinops. Integers become float64.

    Raises TypeError for what is no real operator, ValueError for one that is not square or empty,
    NotSymmetricError for a matrix with |A - Aᵀ|/|A| > sqrt(eps), NonFiniteError for NaN in one.

    >>> as_operator(np.eye(3)).matmat(torch.ones(3, 1, dtype=torch.float64)).shape
    torch.Size([3, 1])
    """
    if isinstance(source, Operator):
        return source
    if isinstance(source, np.ndarray):
        return _matrix(source, source.shape, torch.tensor(_real(source)))
    if isinstance(source, Tensor):
        return _matrix(source, tuple(source.shape), source.detach())
    shape = getattr(source, "shape", None)
    if shape is None:
        raise TypeError(
            f"cannot read {type(source).__name__} as an operator: it has no shape; pass a Hessian, "
            "a SciPy LinearOperator, a NumPy or torch matrix, or an object with shape, dtype and @"
        )
    sides = _square(tuple(shape), type(source).__name__)
    if isinstance(source, LinearOperator) or issparse(source):
        operator = aslinearoperator(source)
        return NumpyOperator(operator, sides, _float_dtype(operator.dtype), torch.device("cpu"))
    dtype = getattr(source, "dtype", None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(
            f"{type(source).__name__} has dtype {dtype!r}; an operator on torch tensors needs a "
            "torch dtype, one on NumPy arrays must be a SciPy LinearOperator (aslinearoperator)"
        )
    if not dtype.is_floating_point:
        raise TypeError(f"{type(source).__name__} has dtype {dtype}; a real one is needed")
    if not (hasattr(source, "matmat") or hasattr(source, "__matmul__")):
        raise TypeError(f"{type(source).__name__} has neither matmat nor @")
    device = torch.device(getattr(source, "device", "cpu"))
    return TorchOperator(source, sides, dtype, device)


def symmetry_residual(matrix: Tensor) -> float:
    """|A - Aᵀ| / |A| in the Frobenius norm; 0 for the zero matrix.

    >>> symmetry_residual(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    2.0
    """
    largest = float(matrix.abs().max())
    if largest == 0:
        return 0.0
    scaled = matrix.to(torch.float64) / largest  # squares of 1e160 overflow
    return float((scaled - scaled.T).norm() / scaled.norm())


def _matrix(source: Any, shape: tuple[int, ...], matrix: Tensor) -> Matrix:
    sides = _square(shape, "matrix")
    if matrix.is_complex():
        raise TypeError(f"the matrix has dtype {matrix.dtype}; only real ones are supported")
    if not matrix.is_floating_point():
        matrix = matrix.to(torch.float64)
    bad = ~torch.isfinite(matrix)
    if bool(bad.any()):
        first = tuple(int(i) for i in torch.nonzero(bad)[0])
        raise NonFiniteError(f"the matrix holds NaN or Inf, first at {first}")
    residual = symmetry_residual(matrix)
    if residual > torch.finfo(matrix.dtype).eps ** 0.5:
        raise NotSymmetricError(
            f"the matrix is not symmetric: |A - Aᵀ|/|A| = {residual:.1e}; pass (A + A.T)/2, or AᵀA "
            "for singular values"
        )
    return Matrix(matrix, sides, matrix.dtype, matrix.device)


def _real(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"the matrix has dtype {array.dtype}; only real ones are supported")
    return array.astype(_numpy_float(array.dtype))


def _numpy_float(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if dtype == np.float32 else np.float64


def _float_dtype(dtype: Any) -> torch.dtype:
    if dtype is not None and np.dtype(dtype).kind not in "fiub":
        raise TypeError(f"the operator has dtype {dtype}; only real ones are supported")
    return torch.float32 if dtype is not None and dtype == np.float32 else torch.float64


def _square(shape: tuple[int, ...], what: str) -> tuple[int, int]:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{what} must be square, got shape {shape}; for singular values pass AᵀA")
    if shape[0] == 0:
        raise ValueError(f"{what} is empty: its shape is {shape}")
    return int(shape[0]), int(shape[1])
