"""A figure becomes SVG that is deterministic, safe to inline and readable in both schemes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib import rcParams
from matplotlib.figure import Figure

from rmthess.report import svg
from rmthess.report.svg import drawing_style, legend_above, plain, to_svg, with_prefix


def drawn(label: str = "measured") -> Figure:
    with drawing_style():
        figure = Figure(figsize=svg.WIDE)
        axes = figure.subplots()
        x = np.linspace(0.1, 2, 50)
        axes.fill_between(x, 0.5 * x**-4, 2 * x**-4, alpha=0.2)
        axes.plot(x, x**-4, label=plain(label))
        axes.plot(x, x**-3, "o", label="law")
        axes.set_yscale("log")
        legend_above(axes)
    return figure


def texts(drawing: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", drawing)


def schemes() -> list[dict[str, str]]:
    """The colours of style.css: light, then dark."""
    css = resources.files("rmthess.report").joinpath("style.css").read_text("utf-8")
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)")
    parts = (light, dark.split("@media")[0])
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part)) for part in parts]


def linear(colour: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    c = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """(L₁ + 0.05)/(L₂ + 0.05), L₁ >= L₂ the relative luminances (WCAG 2.2)."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert to_svg(drawn()) == to_svg(drawn())
    figure = drawn()
    assert to_svg(figure) == to_svg(figure)


def test_the_same_bytes_in_another_process() -> None:
    code = (
        "from matplotlib.figure import Figure; from rmthess.report import svg\n"
        "with svg.drawing_style():\n"
        "    f = Figure(); f.subplots().plot([1, 2], [3, 4], 'o')\n"
        "print(svg.to_svg(f))"
    )
    pages = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
        for _ in range(2)
    }
    assert len(pages) == 1


def test_a_drawing_holds_no_date_script_font_or_address() -> None:
    drawing = to_svg(drawn())
    ElementTree.fromstring(drawing)
    assert isinstance(drawing, Markup)
    assert "http" not in drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for word in ("<metadata", "<style", "<script", "<?xml", "<!", "font-family", "Matplotlib"):
        assert word not in drawing
    assert re.match(r'<svg xmlns="[^"]*" viewBox="[^"]*" style="[^"]*">', drawing)


def test_every_colour_follows_the_page() -> None:
    drawing = to_svg(drawn())
    assert set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", drawing))) == set()
    for name in re.findall(r"var\(--([\w-]+)", drawing):
        assert all(name in scheme for scheme in schemes())


def test_colours_that_matplotlib_takes_by_itself_follow_too() -> None:
    figure = Figure()
    axes = figure.subplots()
    for k in range(5):
        axes.plot([0, 1], [k, k], label=str(k))
    axes.legend()
    drawing = to_svg(figure)
    assert [f"--series-{k}" in drawing for k in range(1, 6)] == [True] * 5
    assert set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", drawing))) == set()


def test_series_are_those_of_the_light_scheme() -> None:
    light, dark = schemes()
    assert tuple(light[f"series-{k}"] for k in range(1, 6)) == svg.SERIES
    assert (light["muted"], light["rule"]) == (svg.MUTED, svg.RULE)
    assert light.keys() == dark.keys()


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme: dict[str, str]) -> None:
    for name in ("ink", "muted", "link", "holds", "refused", "undecided", "missing"):
        assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
    for k in range(1, 6):
        assert contrast(scheme[f"series-{k}"], scheme["paper"]) >= 3, k


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_series_differ_for_every_kind_of_colour_vision(scheme: dict[str, str]) -> None:
    # Machado, Oliveira, Fernandes 2009, severity 1; distance in CIE Lab (D65). A just noticeable
    # difference is 2.3; lines are told apart at a glance from about 15.
    visions = [
        np.eye(3),
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    ]
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for vision in visions:
        seen = np.clip([vision @ linear(scheme[f"series-{k}"]) for k in range(1, 6)], 0, 1)
        f = seen @ xyz.T / [0.9505, 1, 1.0888]
        f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
        lab = f @ np.array([[0, 500, 0], [116, -500, 200], [0, 0, -200]])
        for one, other in itertools.combinations(lab, 2):
            assert np.linalg.norm(one - other) > 15


def test_identity_is_never_by_colour_alone() -> None:
    figure = Figure()
    with drawing_style():
        axes = figure.subplots()
        lines = [axes.plot([0, 1])[0] for _ in svg.SERIES]
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 5  # type: ignore[attr-defined]


def test_ids_of_two_drawings_do_not_clash_and_all_resolve() -> None:
    drawing = to_svg(drawn())
    one, two = (with_prefix(drawing, prefix) for prefix in ("f1-", "f2-"))
    ids = [re.findall(r' id="([^"]*)"', text) for text in (one, two)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for text, known in zip((one, two), ids, strict=True):
        assert len(known) == len(set(known))
        references = re.findall(r'(?:href="#|url\(#)([^")]*)', text)
        assert set(references) == set(known)


@pytest.mark.parametrize(
    "label",
    [
        "$x^2$",
        r"\$x$",
        "one $ sign",
        r"$\frac{1}{",
        "a < b & c",
        "<script>alert('x')</script>",
        "谱λ",
    ],
)
def test_labels_are_drawn_as_they_are(label: str) -> None:
    drawing = to_svg(drawn(label))
    assert str(Markup.escape(label)).replace("&#39;", "'") in texts(drawing)
    assert "<script" not in drawing


def test_control_characters_in_labels_are_shown_as_unknown() -> None:
    assert "bell\ufffdnull\ufffd" in texts(to_svg(drawn("bell\x07null\x00")))


def test_powers_of_ten_are_one_string() -> None:
    figure = drawn()
    formatter = figure.axes[0].yaxis.get_major_formatter()
    assert {"10⁰", "10²", "10⁴"} <= set(texts(to_svg(figure)))
    assert figure.axes[0].yaxis.get_major_formatter() is formatter
    figure.axes[0].set_ylim(0.2, 0.9)
    assert "2×10⁻¹" in texts(to_svg(figure))


def test_nothing_global_is_changed() -> None:
    before = dict(rcParams)
    to_svg(drawn())
    assert dict(rcParams) == before


def test_no_pyplot_and_no_display_are_needed() -> None:
    code = (
        "import sys; from matplotlib.figure import Figure; from rmthess.report import svg\n"
        "with svg.drawing_style(): f = Figure(); f.subplots()\n"
        "svg.to_svg(f); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"MPLBACKEND": "agg"})


def test_importing_the_report_does_not_import_matplotlib() -> None:
    code = (
        "import sys, rmthess.report.directory; "
        "assert not {'matplotlib', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_legend_takes_the_columns_that_fit() -> None:
    counts = []
    for size in (svg.WIDE, svg.NARROW):
        with drawing_style():
            figure = Figure(figsize=size)
            axes = figure.subplots()
            for k in range(4):
                axes.plot([0, 1], [0, k], label=f"curve number {k}, of twenty-six")
            legend_above(axes)
        counts.append(figure.legends[0]._ncols)
    assert counts == [2, 1]
    bare = Figure()
    legend_above(bare.subplots())
    assert not bare.legends
