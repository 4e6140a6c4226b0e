"""What the README shows runs, and what it points to exists."""

import contextlib
import io
import re
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed():
    """The output of all Python blocks, run in order as one program."""
    matplotlib.use("Agg")
    out, namespace = io.StringIO(), {}
    for block in re.finditer(r"```python\n(.*?)```", README, re.DOTALL):
        line = README[: block.start(1)].count("\n")
        code = compile("\n" * line + block[1], str(ROOT / "README.md"), "exec")
        with contextlib.redirect_stdout(out):
            exec(code, namespace)
    return out.getvalue()


def test_the_example_fit_prints_parameters_and_a_verdict(printed):
    assert "ratio" in printed
    assert "variance" in printed
    assert "Refused" in printed


def test_the_example_rank_equals_its_bound(printed):
    assert "rank 60 of 68" in printed
    assert "equals the bound 60" in printed


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_exists():
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^[\w ]*\b{target}\b[\w ]*:", rules, re.MULTILINE) for target in targets)


def test_every_command_of_the_command_line_exists():
    from rmthess.cli import app

    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"`rmthess (\w+)", README)) == known
