"""The dense matrix against its operator, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import rmthess as rm
from rmthess.operators.errors import NonFiniteError, NotSymmetricError


def operator(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3)).to(dtype)
    x = torch.randn(30, 8, dtype=dtype)
    return rm.hessian(model, nn.CrossEntropyLoss(), (x, torch.arange(30) % 3))


def test_dense_multiplies_like_the_operator_across_column_blocks():
    found = operator()
    assert found.dim > 64  # more than one block of columns
    v = torch.randn(found.dim, dtype=torch.float64)
    np.testing.assert_allclose(rm.dense(found) @ v.numpy(), (found @ v).numpy(), atol=1e-14)


def test_dense_is_exactly_symmetric_float64():
    for dtype in (torch.float64, torch.float32):
        matrix = rm.dense(operator(dtype))
        assert matrix.dtype == np.float64
        assert (matrix == matrix.T).all()


def test_eigenvalues_sum_to_the_trace_and_square_sum_to_the_norm():
    matrix, values = rm.dense(operator()), rm.eigenvalues(operator())
    assert (np.diff(values) >= 0).all()
    assert values.sum() == pytest.approx(np.trace(matrix), rel=1e-12)
    assert (values**2).sum() == pytest.approx((matrix**2).sum(), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e160, 1e-160])
def test_clement_eigenvalues_are_exact_integers_at_any_scale(scale):
    n = 40
    k = np.arange(1, n)
    clement = np.diag(np.sqrt(k * (n - k)), 1)
    found = rm.eigenvalues((clement + clement.T) * scale) / scale
    np.testing.assert_allclose(found, np.arange(-(n - 1), n, 2), atol=1e-11)


def test_a_large_operator_is_refused_with_the_memory_it_needs():
    huge = LinearOperator((20_000, 20_000), matvec=lambda v: v, dtype=float)
    with pytest.raises(ValueError, match=r"dim 20000 is above limit=10000: .* 9.6 GB.*lanczos"):
        rm.eigenvalues(huge)
    with pytest.raises(MemoryError, match=r"needs about .* free"):
        rm.dense(LinearOperator((10**7, 10**7), matvec=lambda v: v, dtype=float), limit=10**8)


def test_an_asymmetric_operator_is_refused_with_the_residual():
    matrix = np.diag(np.arange(1.0, 6.0))
    matrix[0, 4] = 1e-6
    with pytest.raises(NotSymmetricError, match=r"= 1.9e-07, where its dtype rounds to 2e-16"):
        rm.dense(LinearOperator((5, 5), matvec=lambda v: matrix @ v, dtype=float))


def test_nan_in_the_operator_names_the_entry():
    matrix = np.eye(5)

    def multiply(v):
        out = matrix @ v
        out[3] = np.nan if np.any(v[1]) else out[3]
        return out

    with pytest.raises(NonFiniteError, match=r"first at \(3, 1\)"):
        rm.dense(LinearOperator((5, 5), matvec=multiply, dtype=float))


@pytest.mark.parametrize("wrap", [spectral_norm, weight_norm])
def test_a_second_derivative_that_torch_gets_wrong_is_refused_not_returned(wrap):
    # On torch 2.13 double backward through weight_norm is wrong (30% asymmetry); spectral_norm,
    # in eval mode, is right.
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    found = rm.hessian(model, nn.CrossEntropyLoss(), (x, y))
    if wrap is weight_norm and torch.__version__.startswith("2.13"):
        with pytest.raises(NotSymmetricError):
            rm.dense(found)
        with pytest.raises(NotSymmetricError):
            rm.lanczos(found)
    else:
        matrix = rm.dense(found)
        assert (matrix == matrix.T).all()
