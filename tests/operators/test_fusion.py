"""Rewritten records give what the function gives, whatever is written over in between."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmthess.operators.recording import record

SIDE = 4


def draw(seed, count):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(SIDE, SIDE, generator=rng, dtype=torch.float64) for _ in range(count)]


def program(seed):
    """A random linear program: products with constants, sums, views, and writing in place."""
    plan = np.random.default_rng(seed).integers(0, 10**6, size=(25, 3))

    def run(vectors):
        constants = draw(seed + 1, 3)
        values = [*vectors]
        for what, first, second in plan:
            x, y = values[first % len(values)], values[second % len(values)]
            c = constants[second % 3]
            made = (
                lambda x=x, y=y: x + y,
                lambda x=x, y=y: x - y,
                lambda x=x, c=c: x @ c,
                lambda x=x, c=c: c @ x,
                lambda x=x, c=c: x * c,
                lambda x=x: x.t(),
                lambda x=x: x + torch.zeros_like(x),
                lambda x=x, y=y: x.clone().add_(y),
                lambda x=x: torch.bmm(x[None], constants[0][None])[0],
                lambda x=x: x / 2.0,
                lambda x=x, y=y, c=c: y + x @ c,
                lambda x=x, y=y, c=c: y - x * c,
                lambda x=x, c=c: torch.ops.aten.tanh_backward(x, c),
                lambda x=x: x[None].unbind(0)[0],
            )[what % 14]()
            own = any(made is not v and made.data_ptr() == v.data_ptr() for v in vectors)
            if what % 5 == 0 and not own:
                made.mul_(0.5)  # also what other values look at
            values.append(made)
        return [v.clone() for v in values[-3:]]

    return run


@pytest.mark.parametrize("seed", range(200))
def test_a_random_program_is_repeated_as_it_was_run(seed):
    run = program(seed)
    first, second = draw(seed + 2, 2), draw(seed + 3, 2)
    before = [x.clone() for x in second]
    value, recording = record(run, [x.clone() for x in first])
    for given, kept in ((second, before), (first, first)):
        found, wanted = recording.run(given), run([x.clone() for x in kept])
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    for x, y in zip(value, recording.run(first), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    for x, y in zip(second, before, strict=True):
        assert torch.equal(x, y)


def calls(recording):
    names = [str(node.target) for node in recording.graph.nodes if node.op == "call_function"]
    return [name.removeprefix("aten.") for name in names]


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x, c: x @ c + c @ x, ["mm.default", "addmm_.default"]),
        (lambda x, c: c @ x - x * c, ["mm.default", "addcmul_.default"]),
        (lambda x, c: x + x @ c, ["addmm.default"]),
        (lambda x, c: (x @ c) / 2.0 * c, ["mm.default", "div_.Tensor", "mul_.Tensor"]),
        (lambda x, c: x.t().t() * c + torch.zeros_like(x), ["mul.Tensor"]),
    ],
)
def test_sums_are_added_in_their_products(function, wanted):
    c = draw(0, 1)[0]
    _, recording = record(lambda v: [function(v[0], c)], draw(1, 1))
    assert calls(recording) == wanted


def test_a_factor_that_is_overwritten_before_the_sum_is_multiplied_in_time():
    def function(vectors):
        factor = vectors[0] * 2.0
        product = factor @ vectors[1].new_ones(SIDE, SIDE)
        factor.mul_(3.0)
        return [product + factor.clone()]

    given = draw(5, 2)
    value, recording = record(function, given)
    torch.testing.assert_close(recording.run(given)[0], value[0])
    torch.testing.assert_close(value[0], 2 * given[0] @ torch.ones_like(given[0]) + 6 * given[0])


def test_a_copy_made_by_adding_zero_is_still_one_where_the_original_changes():
    def function(vectors):
        x = vectors[0] * 2.0
        copy = x + torch.zeros_like(x)
        x.add_(1.0)
        return [copy, x * 1.0]

    given = draw(6, 1)
    _, recording = record(function, given)
    found = recording.run(given)
    torch.testing.assert_close(found[0], 2 * given[0])
    torch.testing.assert_close(found[1], 2 * given[0] + 1)
