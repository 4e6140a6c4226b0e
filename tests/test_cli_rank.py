"""``rmthess rank``: the exact rank beside the formula, and the table over widths and depths."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from commands import invoke, refused

import rmthess as rm


def test_verify_adds_the_exact_rank_and_what_it_proves() -> None:
    result = invoke("rank", 7, 5, 3, 4, 6, "--verify")
    bound, exact = rm.linear_network_rank([7, 5, 3, 4, 6]), rm.exact_rank([7, 5, 3, 4, 6])
    assert result.exit_code == 0
    assert result.stdout == f"{bound}\nexact: {exact}\n"
    assert "proves that this point attains it" in result.stdout


def test_verify_counts_with_the_options_that_were_given() -> None:
    result = invoke(
        "rank", 5, 4, 3, "--bias", "--loss", "cross_entropy", "--input-rank", 2, "--part",
        "outer_product", "--verify",
    )  # fmt: skip
    exact = rm.exact_rank(
        [5, 4, 3], input_rank=2, bias=True, loss="cross_entropy", part="outer_product"
    )
    assert f"exact: {exact}" in result.stdout


def test_a_rank_without_a_closed_form_is_counted_and_says_so() -> None:
    result = invoke("rank", 5, 4, 4, 3, "--bias", "--part", "functional")
    assert result.exit_code == 0
    assert "(computed)" in result.stdout


def test_verifying_what_is_too_large_is_refused_with_its_size() -> None:
    refused(invoke("rank", 200, 100, 100, "--verify"), "30000 × 30000", "minutes")


def test_sweep_writes_a_table_and_a_figure(tmp_path: Path) -> None:
    table = tmp_path / "ranks.csv"
    result = invoke("rank", 6, 9, 4, "--sweep", table)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"table: {table}\nfigure: {table.with_suffix('.svg')}\n")
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["depth"] for row in rows} == {"2", "3", "4", "5"}
    assert {row["status"] for row in rows} == {"proved"}
    for row in rows:
        widths = [6, *[int(row["hidden_width"])] * (int(row["depth"]) - 1), 4]
        assert int(row["rank"]) == rm.linear_network_rank(widths).value
        assert int(row["rank"]) + int(row["nullity"]) == int(row["parameters"])
    assert table.with_suffix(".svg").read_text().startswith("<?xml")


def test_a_sweep_says_the_same_twice(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        invoke("rank", 5, 5, "--sweep", tmp_path / f"{name}.csv", "--bias")
        written.append([(tmp_path / f"{name}.{end}").read_bytes() for end in ("csv", "svg")])
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["ranks.txt", "missing/ranks.csv"])
def test_a_table_that_cannot_be_written_is_refused(name: str, tmp_path: Path) -> None:
    refused(invoke("rank", 5, 4, 3, "--sweep", tmp_path / name), Path(name).stem)
    assert list(tmp_path.iterdir()) == []
