"""Spectra of other tools: literal structures shaped as they return them, against the run itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import rmthess as rm
from rmthess import jacobi
from rmthess.adapters import SmoothedMeasure, from_csv, from_density, from_quadratures, from_ritz

DIM = 500
A, B = rm.MarchenkoPastur(0.43, 1.7).sample_jacobi(20, DIM, np.random.default_rng(3), 3)
RULES = [jacobi.gauss_quadrature(a, b) for a, b in zip(A, B)]
NODES, WEIGHTS = [nodes for nodes, _ in RULES], [weights for _, weights in RULES]


def test_gauss_rules_give_back_the_run_and_its_residual():
    measure = from_quadratures(NODES, WEIGHTS, DIM)
    assert (measure.probes, measure.steps, measure.dim) == (3, 19, DIM)
    np.testing.assert_allclose(measure.diagonals, A[:, :19], atol=1e-12)
    np.testing.assert_allclose(measure.off_diagonals, B[:, :18], atol=1e-12)
    np.testing.assert_allclose(measure.residuals, B[:, 18], atol=1e-12)


def test_pyhessian_lists_of_single_precision_in_any_order():
    """density() returns lists of lists of numpy.float32, unsorted (torch.eig)."""
    order = np.random.default_rng(4).permutation(20)
    values = [list(nodes[order].astype(np.float32)) for nodes in NODES]
    weights = [list(w[order].astype(np.float32)) for w in WEIGHTS]
    measure = from_quadratures(values, weights, DIM)
    np.testing.assert_allclose(measure.diagonals, A[:, :19], atol=2e-5)  # 1e-7 of the width, grown
    assert measure.provenance["dtype"] == "float32"
    assert measure.errors.min() > 1e-7 * np.sqrt(DIM)
    assert rm.fit(rm.MarchenkoPastur, measure, bootstrap=100).accepted()


def test_eigenthings_rows_are_padded_after_a_breakdown():
    """raw_eigenvalues (runs, m) padded by NaN, raw_weights by 0: the shorter run is exact."""
    result = SimpleNamespace(
        raw_eigenvalues=np.array([[-1.0, 1.0, np.nan], [-1.0, 0.0, 1.0]]),
        raw_weights=np.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]]),
    )
    measure = from_quadratures(result.raw_eigenvalues, result.raw_weights, 9)
    assert measure.steps == 2
    np.testing.assert_allclose(measure.diagonals, [[0.0, 0.0], [0.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(measure.off_diagonals, [[1.0], [np.sqrt(0.5)]])
    np.testing.assert_allclose(measure.residuals, [0.0, np.sqrt(0.5)])


def test_curvlinops_eigenvectors_of_the_tridiagonal_matrix():
    """fast_lanczos returns (evals, evecs) of one run, eigenvectors in columns."""
    runs = [np.linalg.eigh(np.diag(a) + np.diag(b, 1) + np.diag(b, -1)) for a, b in zip(A, B)]
    measure = from_ritz([tuple(run) for run in runs], DIM)
    np.testing.assert_allclose(measure.diagonals, A[:, :19], atol=1e-12)


def test_a_smoothed_density_keeps_its_width():
    """A Gaussian of deviation 0.1 around 1: mass 1, mean 1, variance width²; no p-value."""
    grid = np.linspace(0, 2, 1024)
    density = np.exp(-(((grid - 1) / 0.1) ** 2) / 2) / (0.1 * np.sqrt(2 * np.pi))
    measure = from_density(grid, density, width=0.1, dim=DIM)
    assert isinstance(measure, SmoothedMeasure)
    assert measure.resolution == 0.1
    assert measure.moment(1) == pytest.approx(1, rel=1e-12)
    assert measure.integrate(lambda x: (x - 1) ** 2) == pytest.approx(0.01, rel=1e-9)
    found = rm.fit(rm.Semicircle, measure)
    assert "not the eigenvalues of a matrix" in found.message


def test_weights_are_normalised_with_a_warning():
    with pytest.warns(UserWarning, match=r"run 2: weights summed to 3 and were divided by it"):
        measure = from_quadratures(NODES, [WEIGHTS[0], 3 * WEIGHTS[1], WEIGHTS[2]], DIM)
    np.testing.assert_allclose(measure.diagonals, A[:, :19], atol=1e-12)


# ------------------------------------------------------------------- tables


def table(tmp_path, text):
    path = tmp_path / "spectrum.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_column_is_all_eigenvalues(tmp_path):
    for text in ("eigenvalue\n3\n1\n2\n", "# measured\n3\n1\n\n2\n", "\ufeff3\n1\n2"):
        measure = rm.load(table(tmp_path, text))
        assert measure.dim == 3
        np.testing.assert_array_equal(measure.nodes, [1, 2, 3])


def test_two_columns_are_a_measure_whose_side_a_comment_may_state(tmp_path):
    measure = from_csv(table(tmp_path, "# dim = 40\neigenvalue,weight\n1,0.25\n3,0.75\n"))
    assert measure.dim == 40
    assert measure.moment(1) == 2.5
    assert from_csv(table(tmp_path, "1,0.25\n3,0.75\n"), dim=9).dim == 9


def test_three_columns_are_lanczos_runs(tmp_path):
    rows = [
        f"{float(x)!r},{float(w)!r},{k}" for k in range(3) for x, w in zip(NODES[k], WEIGHTS[k])
    ]
    text = "\n".join([f"# dim={DIM}", "eigenvalue,weight,probe", *rows])
    measure = rm.load(table(tmp_path, text))
    np.testing.assert_allclose(measure.diagonals, A[:, :19], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\nx\n", "line 2: not a number"),
        ("1,2\n3\n", "line 2 has 1 columns"),
        ("1,2,3,4\n", "line 1 has 4 columns"),
        ("1\nnan\n", "line 2: numbers must be finite"),
        ("# nothing\n", "holds no numbers"),
        ("1,0.5,0\n2,0.5,0\n", "need the side of the matrix"),
        ("# dim = 7\n1\n2\n", "dim = 7, but there are 2 eigenvalues"),
        ("1,-0.5\n2,1.5\n", "weights must be finite and not negative, got -0.5"),
    ],
)
def test_a_bad_table_is_refused_by_its_line(tmp_path, text, sentence):
    path = table(tmp_path, text)
    with pytest.raises(ValueError, match=sentence):
        from_csv(path)
    with pytest.raises(ValueError, match=r"spectrum\.csv"):  # with the name of the file
        rm.load(path)


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("nodes", "weights", "sentence"),
    [
        ([], [], "one of weights a run, got 0 and 0"),
        ([[1.0, 2.0]], [[1.0], [1.0]], "got 1 and 2"),
        ([1.0, 2.0], [0.5, 0.5], r"of a single run pass \[nodes\]"),
        ([[1.0, 2.0]], [[1.0]], "run 1: 2 nodes and 1 weights"),
        ([[1.0]], [[1.0]], "at least 2 nodes"),
        ([[1.0, np.inf]], [[0.5, 0.5]], "run 1: nodes must be finite"),
        ([[1.0, np.nan]], [[0.5, 0.5]], "run 1: nodes must be finite"),
        ([[1.0, 2.0]], [[1.5, -0.5]], "not negative, got -0.5"),
        ([[1.0, 2.0]], [[0.0, 0.0]], "sum to 0"),
        ([[1.0, 2.0]], [[np.nan, 1.0]], "must be finite"),
    ],
)
def test_bad_rules_are_refused(nodes, weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_quadratures(nodes, weights, DIM)


def test_the_side_is_asked_for():
    with pytest.raises(TypeError, match="dim"):
        from_quadratures(NODES, WEIGHTS)
    with pytest.raises(ValueError, match="dim must be an integer of at least 1, got None"):
        from_quadratures(NODES, WEIGHTS, None)


@pytest.mark.parametrize(
    ("grid", "density", "width", "sentence"),
    [
        ([0.0, 1.0], [1.0], 0.1, "of one length"),
        ([1.0, 0.0], [1.0, 1.0], 0.1, "the grid ascending"),
        ([0.0, 1.0], [1.0, 1.0], 0.0, "width must be positive, got 0.0"),
        ([0.0, 1.0], [-1.0, 3.0], 0.1, "density must be finite and not negative"),
    ],
)
def test_a_bad_density_is_refused(grid, density, width, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_density(grid, density, width)


def test_eigenvectors_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"a run is a pair of eigenvalues \(m,\) and eigenvectors"):
        from_ritz([(np.ones(3), np.ones((2, 3)))], DIM)
