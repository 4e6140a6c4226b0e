"""Today's laws against ``tests/reference/laws.json``: values of 16 to 25 digits, exact rationals.

The table was computed in 40 to 50 digits by other code (its ``check`` field says how). A tolerance
bounds |found - value|/max(1, |value|); the entries that no law of today serves are not in the file.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import rmthess as rm
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants

TABLE = json.loads((Path(__file__).parents[1] / "reference" / "laws.json").read_text("utf-8"))


def number(text):
    """A float, or a complex number from [re, im]."""
    if isinstance(text, list):
        return complex(number(text[0]), number(text[1]))
    return float(Fraction(text)) if "/" in text else float(text)


def numbers(texts):
    return np.array([number(text) for text in texts])


def law_of(entry):
    p = {name: number(text) for name, text in entry["parameters"].items()}
    if entry["name"].startswith("semicircle"):
        return rm.Semicircle(variance=p["sigma"] ** 2)
    return rm.MarchenkoPastur(ratio=p["c"], variance=p["sigma2"])


TOLERANCE = {  # doubles: a few roundings; a quantile divides them by the density
    "density": 1e-14,
    "edges": 1e-15,
    "stieltjes": 1e-14,
    "cdf": 1e-15,
    "ppf": 1e-14,
    "moments": 1e-15,
    "atoms": 1e-15,
}


def found(entry):
    law, kind = law_of(entry), entry["kind"]
    if kind == "edges":
        return [edge for interval in law.support for edge in interval]
    if kind == "moments":
        return [law.moment(int(order)) for order in entry["points"]]
    points = numbers(entry["points"])
    if kind == "atoms":
        return [dict(law.atoms).get(x, 0.0) for x in points]
    return getattr(law, "quantile" if kind == "ppf" else kind)(points)


def entries(*kinds):
    chosen = [entry for entry in TABLE if entry["kind"] in kinds]
    return pytest.mark.parametrize("entry", chosen, ids=[entry["name"] for entry in chosen])


@entries(*TOLERANCE)
def test_law_agrees_with_the_table(entry):
    wanted = numbers(entry["values"])
    error = np.abs(found(entry) - wanted) / np.maximum(1, np.abs(wanted))
    assert error.max() <= TOLERANCE[entry["kind"]]


@entries("moments")
def test_moments_of_exact_parameters_are_exact_rationals(entry):
    exact = {name: Fraction(text) for name, text in entry["parameters"].items()}
    if entry["name"].startswith("semicircle"):
        law = rm.Semicircle(exact["sigma"] ** 2)
    else:
        law = rm.MarchenkoPastur(exact["c"], exact["sigma2"])
    wanted = [Fraction(text) for text in entry["values"]]
    assert [law.moment(int(order)) for order in entry["points"]] == wanted
    assert moments_from_free_cumulants(law.free_cumulants(8)) == wanted[1:]


@entries("free_cumulants")
def test_free_cumulants_of_a_moment_sequence_are_exact_rationals(entry):
    moments = [Fraction(text) for text in entry["parameters"]["moments"]]
    wanted = [Fraction(text) for text in entry["values"]]
    assert free_cumulants_from_moments(moments[1:])[: len(wanted)] == wanted


@entries("transforms")
def test_r_and_s_transforms_of_marchenko_pastur(entry):
    w, law = number(entry["parameters"]["g"]), rm.MarchenkoPastur(0.5)
    _, r, s, _ = numbers(entry["values"])  # the other two are transforms of uniform laws
    assert law.r_transform(w) == pytest.approx(r, rel=1e-15)
    assert law.s_transform(w) == pytest.approx(s, rel=1e-15)


@entries("tw_cdf")
def test_tracy_widom_cdf(entry):
    law = rm.tracy_widom(entry["parameters"]["beta"])
    wanted = numbers(entry["values"])
    np.testing.assert_allclose(law.cdf(numbers(entry["points"])), wanted, rtol=0, atol=3e-15)


@entries("tw_moments")
def test_tracy_widom_mean_and_variance(entry):
    law = rm.tracy_widom(entry["parameters"]["beta"])
    mean, variance = numbers(entry["values"])[:2]
    assert law.mean == pytest.approx(mean, abs=1e-12)  # 30 times the error of the cdf
    assert law.variance == pytest.approx(variance, abs=1e-11)


COUNTS = {
    "atoms": 1,
    "cdf": 4,
    "density": 4,
    "edges": 4,
    "free_cumulants": 4,
    "moments": 4,
    "ppf": 4,
    "stieltjes": 4,
    "transforms": 2,
    "tw_cdf": 3,
    "tw_moments": 3,
}


def test_the_table_is_whole():
    """A table that lost its entries would pass every test above."""
    kinds = [entry["kind"] for entry in TABLE]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == COUNTS
