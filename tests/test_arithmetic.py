"""One formula, three namespaces: which arithmetic serves which number, and that all agree."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rmthess.arithmetic import arithmetic, check_finite, check_positive, is_symbolic

NUMERIC = (arithmetic(1.0), arithmetic(mpmath.mpf(1)), arithmetic(sympy.Integer(1)))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((), "numpy"),
        ((1, 2.5, 1j, np.float32(1)), "numpy"),
        (([1, 2], np.arange(3), (4.0,)), "numpy"),
        ((1.0, mpmath.mpf(2)), "mpmath"),
        ((mpmath.mpc(1, 2),), "mpmath"),
        (([1.0, mpmath.mpf(2)],), "mpmath"),
        ((np.array([mpmath.mpf(2)]),), "mpmath"),
        ((mpmath.mpf(2), sympy.Symbol("x")), "sympy"),
        (([mpmath.mpf(2), sympy.Rational(1, 3)],), "sympy"),
        ((np.array([1, 2], dtype=object),), "numpy"),
    ],
)
def test_sympy_comes_before_mpmath_before_numpy(values, name):
    assert arithmetic(*values).name == name
    assert arithmetic(*values).exact == (name != "numpy")


fractions = st.integers(-999, 999).map(lambda k: k / 7)


@given(fractions, fractions)
def test_the_three_arithmetics_agree(x, y):
    for xp in NUMERIC:
        a, b = xp.real(x), xp.real(y)
        assert float(xp.positive_part(a)) == max(x, 0.0)
        assert float(xp.step(a)) == (1.0 if x >= 0 else 0.0)
        assert float(xp.sqrt(xp.real(abs(x)))) == pytest.approx(abs(x) ** 0.5, rel=1e-15)
        if (x, y) != (0, 0):
            assert float(xp.arctan2(a, b)) == pytest.approx(np.arctan2(x, y), rel=1e-14, abs=1e-300)
        if y:
            assert float(xp.quotient(a, b)) == pytest.approx(x / y, rel=1e-15)


@pytest.mark.parametrize("xp", NUMERIC, ids=lambda xp: xp.name)
def test_zero_over_zero_is_zero_and_a_pole_is_infinite(xp):
    assert xp.quotient(xp.real(0), xp.real(0)) == 0
    if xp.name != "sympy":
        assert xp.quotient(xp.real(2), xp.real(0)) == np.inf
        assert xp.quotient(xp.real(-2), xp.real(0)) == -np.inf


@pytest.mark.parametrize("xp", NUMERIC[:2], ids=lambda xp: xp.name)
def test_clip_brings_a_number_between_two_others(xp):
    assert [float(xp.clip(xp.real(x), -1, 2)) for x in (-np.inf, -3, 0.5, np.inf)] == [
        -1,
        -1,
        0.5,
        2,
    ]


def test_an_expression_is_not_clipped():
    x = sympy.Symbol("x")
    assert arithmetic(x).clip(x, -1, 2) == x


def test_the_square_root_of_a_real_point_is_the_limit_from_above():
    for xp in NUMERIC:
        assert complex(xp.sqrt(xp.point(-4))) == 2j


def test_mpmath_functions_carry_the_digits_of_the_context():
    with mpmath.workdps(50):
        xp = arithmetic(mpmath.mpf(1))
        assert abs(xp.sqrt(xp.real(2)) ** 2 - 2) < mpmath.mpf("1e-49")
        array = xp.sqrt(np.array([mpmath.mpf(2), mpmath.mpf(3)]))
        assert abs(array[1] ** 2 - 3) < mpmath.mpf("1e-48")


def test_a_number_is_no_symbol():
    assert is_symbolic(sympy.Symbol("q"))
    assert is_symbolic(sympy.Symbol("q") + 1)
    assert not any(is_symbolic(x) for x in (1.0, sympy.pi, sympy.Rational(1, 3), mpmath.mpf(2)))


GOOD = (0.5, 3, np.float64(2), mpmath.mpf("0.1"), sympy.Rational(1, 3), sympy.Symbol("q"))


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_positive_numbers_and_symbols_pass(value):
    check_positive("ratio", value, "dim / samples")
    check_finite("mean", value, "the centre")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "1", None, 1j, [1.0, 2.0]], ids=repr)
def test_what_is_not_a_finite_number_is_refused_by_name_and_value(value):
    with pytest.raises(ValueError, match=r"ratio must be a positive finite .* it is x"):
        check_positive("ratio", value, "x")
    with pytest.raises(ValueError, match=r"mean must be a finite number, .* it is x"):
        check_finite("mean", value, "x")


@pytest.mark.parametrize("value", [0, -1.5, sympy.Integer(-2), mpmath.mpf(0)], ids=repr)
def test_positive_means_above_zero(value):
    with pytest.raises(ValueError, match="must be a positive finite number"):
        check_positive("ratio", value, "dim / samples")
    check_finite("mean", value, "the centre")
