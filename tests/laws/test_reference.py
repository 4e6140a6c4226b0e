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
    return float(Fraction(text)) if "/" in str(text) else float(text)


def numbers(texts):
    return np.array([number(text) for text in texts])


def atoms(p):
    weights = numbers(p["w"])
    return rm.DiscreteMeasure(numbers(p["t"]), weights / weights.sum())


def convolution(name, parameters):
    """The law of an entry that is made of others, or None."""
    p = {key: text if isinstance(text, list) else number(text) for key, text in parameters.items()}
    MP = rm.MarchenkoPastur
    if name.startswith("generalised_mp_uniform"):
        return rm.SampleCovariance(p["c"], rm.Uniform(p["a"], p["b"]))
    if name.startswith("generalised_mp"):
        return rm.SampleCovariance(p["c"], atoms(p))
    if name.startswith("semicircle_boxplus_mp"):
        return rm.boxplus(rm.Semicircle(p["variance_semicircle"]), MP(p["c"], p["sigma2_mp"]))
    if name.startswith("mp_boxtimes_mp"):
        return rm.boxtimes(MP(p["c1"]), MP(p["c2"]))
    if name.startswith("mp_boxplus_mp"):
        return rm.boxplus(MP(p["c1"], p["sigma2_1"]), MP(p["c2"], p["sigma2_2"]))
    if name.startswith("mp_boxminus_mp"):
        return rm.boxplus(MP(p["c1"]), MP(p["c2"]).dilate(-1))
    if name.startswith("deformed_wigner"):
        return rm.boxplus(atoms(p), rm.Semicircle(p["variance"]))
    if name.startswith("free_compression"):
        wigner = rm.boxplus(atoms(p), rm.Semicircle(p["variance_semicircle"]))
        return rm.compress(wigner, p["alpha"])
    return None


def law_of(entry):
    made = convolution(entry["name"], entry["parameters"])
    if made is not None:
        return made
    p = {name: number(text) for name, text in entry["parameters"].items()}
    if entry["name"].startswith("semicircle"):
        return rm.Semicircle(variance=p["sigma"] ** 2)
    if entry["name"].startswith("wachter"):
        return rm.Wachter(p["c1"], p["c2"])
    if entry["name"].startswith("kesten_mckay"):
        return rm.KestenMcKay(p["d"])
    if entry["name"].startswith("fuss_catalan"):
        return rm.FussCatalan(p["p"])
    return rm.MarchenkoPastur(ratio=p["c"], variance=p["sigma2"])


TOLERANCE = {  # doubles: a few roundings; a quantile divides them by the density
    "density": 1e-14,
    "edges": 1e-15,
    "stieltjes": 1e-14,
    "cdf": 1e-15,
    "ppf": 1e-14,
    "moments": 1e-15,
    "atoms": 1e-15,
    "interval_masses": 1e-14,
    "negative_mass": 1e-14,
}
# a root ω and a few sums over atoms; a quadrature stands for a continuous population
ON_A_KERNEL = 1e-13


def found(entry):
    law, kind = law_of(entry), entry["kind"]
    if kind == "edges":
        return [edge for interval in law.support for edge in interval]
    if kind == "moments":
        return [law.moment(int(order)) for order in entry["points"]]
    if kind == "interval_masses":
        ends = np.array([numbers(interval) for interval in entry["points"]])
        beyond = 1e-9 * (ends[:, 1] - ends[:, 0])
        return law.cdf(ends[:, 1] + beyond) - law.cdf(ends[:, 0] - beyond)
    points = numbers(entry["points"])
    if kind == "negative_mass":
        return law.cdf(points)
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
    made = convolution(entry["name"], entry["parameters"]) is not None
    assert error.max() <= (ON_A_KERNEL if made else TOLERANCE[entry["kind"]])


@entries("moments")
def test_moments_of_exact_parameters_are_exact_rationals(entry):
    if convolution(entry["name"], entry["parameters"]) is not None:
        return
    exact = {name: Fraction(text) for name, text in entry["parameters"].items()}
    if entry["name"].startswith("semicircle"):
        law = rm.Semicircle(exact["sigma"] ** 2)
    elif entry["name"].startswith("fuss_catalan"):
        law = rm.FussCatalan(exact["p"])
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
    "atoms": 5,
    "cdf": 23,
    "density": 26,
    "edges": 26,
    "free_cumulants": 4,
    "interval_masses": 5,
    "moments": 22,
    "negative_mass": 3,
    "outlier": 10,
    "ppf": 4,
    "stieltjes": 26,
    "transforms": 2,
    "tw_cdf": 3,
    "tw_moments": 3,
}


def test_the_table_is_whole():
    """A table that lost its entries would pass every test above."""
    kinds = [entry["kind"] for entry in TABLE]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == COUNTS
