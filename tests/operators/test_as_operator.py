"""Every kind of operator multiplies alike, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator

import rmthess as rm
from rmthess.operators.as_operator import as_operator
from rmthess.operators.errors import NonFiniteError, NotSymmetricError


def symmetric(dim=6):
    a = np.random.default_rng(0).standard_normal((dim, dim))
    return a + a.T


class Foreign:
    """What curvlinops offers: shape, dtype, device and @ on tensors."""

    def __init__(self, matrix):
        self.matrix = torch.tensor(matrix)
        self.shape, self.dtype, self.device = self.matrix.shape, self.matrix.dtype, "cpu"

    def __matmul__(self, vectors):
        return self.matrix @ vectors


KINDS = {
    "numpy": lambda a: a,
    "torch": torch.tensor,
    "sparse": scipy.sparse.csr_array,
    "scipy": aslinearoperator,
    "foreign": Foreign,
    "wrapped twice": as_operator,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_multiplies_like_its_matrix(kind):
    matrix = symmetric()
    operator = as_operator(KINDS[kind](matrix))
    v = torch.randn(6, 3, dtype=torch.float64)
    np.testing.assert_allclose(operator.matmat(v), matrix @ v.numpy(), atol=1e-13)
    np.testing.assert_allclose(rm.dense(operator), matrix, atol=1e-13)
    assert operator.shape == (6, 6)
    assert operator.dtype == torch.float64
    assert operator.device == torch.device("cpu")
    assert "0x" not in repr(operator)


def test_integers_become_float64_and_float32_stays():
    assert as_operator(np.eye(3, dtype=int)).dtype == torch.float64
    assert as_operator(torch.eye(3, dtype=torch.int64)).dtype == torch.float64
    assert as_operator(np.eye(3, dtype=np.float32)).dtype == torch.float32
    assert as_operator(scipy.sparse.eye_array(3, dtype=np.float32)).dtype == torch.float32


def test_a_read_only_matrix_is_accepted():
    matrix = symmetric()
    matrix.flags.writeable = False
    assert rm.lanczos(matrix, steps=6, probes=1).residuals[0] == 0


@pytest.mark.parametrize("make", [np.ones, torch.ones, lambda s: aslinearoperator(np.ones(s))])
def test_operators_that_are_not_square_are_refused(make):
    with pytest.raises(ValueError, match=r"must be square, got shape \(3, 2\)"):
        as_operator(make((3, 2)))


def test_an_empty_matrix_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        as_operator(np.ones((0, 0)))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_an_asymmetric_matrix_is_refused_with_the_residual(make):
    with pytest.raises(NotSymmetricError, match=r"\|A - Aᵀ\|/\|A\| = 1.4e\+00"):
        as_operator(make([[0.0, 1.0], [0.0, 0.0]]))


def test_complex_and_nan_matrices_are_refused():
    with pytest.raises(TypeError, match="complex128"):
        as_operator(np.eye(2) * 1j)
    with pytest.raises(TypeError, match="complex64"):
        as_operator(torch.eye(2) * 1j)
    with pytest.raises(TypeError, match="complex128"):
        as_operator(aslinearoperator(np.eye(2) * 1j))
    with pytest.raises(NonFiniteError, match=r"first at \(1, 0\)"):
        as_operator(np.array([[1.0, 0.0], [np.nan, 1.0]]))


def test_what_is_no_operator_is_refused_by_name():
    with pytest.raises(TypeError, match="str as an operator: it has no shape"):
        as_operator("hessian.npz")

    class NoType:
        shape = (3, 3)

    with pytest.raises(TypeError, match="NoType has dtype None"):
        as_operator(NoType())
    NoType.dtype = torch.float64
    with pytest.raises(TypeError, match="neither matmat nor @"):
        as_operator(NoType())
