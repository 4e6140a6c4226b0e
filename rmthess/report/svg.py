"""A matplotlib figure as inline SVG that follows the colours and the fonts of its page.

Black becomes the text colour of the page, white its paper, and the colours of `SERIES` (like
matplotlib's own first five) become CSS variables that `style.css` defines for light and dark. Text
stays text: small, selectable, in the font of the page. No pyplot, no display, no date: the same
figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0f558f", "#d4671c", "#179a83", "#bb68cc", "#4f3c08")  # as style.css has them for light
MUTED = "#5c6670"
RULE = "#d5dae0"
WIDE = (7.6, 4.1)  # inches
NARROW = (3.7, 3.5)  # inches: for a phone

_VARIABLES = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper, #ffffff)",
    MUTED: f"var(--muted, {MUTED})",
    **dict.fromkeys((RULE, "#b0b0b0", "#cccccc"), f"var(--rule, {RULE})"),
    **{
        colour: f"var(--series-{k}, {SERIES[k - 1]})"
        for names in (SERIES, ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"))
        for k, colour in enumerate(names, start=1)
    },
}
_DASHES = ("-", (0, (5, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (1.2, 1.4)), (0, (9, 2)))
_SVG = "http://www.w3.org/2000/svg"
_ROOT_STYLE = "stroke-linejoin: round; stroke-linecap: butt; fill: currentColor"
_SUPERSCRIPT = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Settings for axes that are made and drawn within; those outside are untouched.

    Each line of a cycle has its own dashes as well as its own colour.

    >>> from matplotlib.figure import Figure
    >>> with drawing_style():
    ...     figure = Figure(figsize=WIDE)
    ...     axes = figure.subplots()
    """
    import matplotlib.style
    from cycler import cycler

    settings: dict[Any, Any] = {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=SERIES) + cycler(linestyle=_DASHES),
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": "#000000",
        "ytick.labelcolor": "#000000",
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "lines.linewidth": 1.5,
        "figure.constrained_layout.use": True,
        "figure.dpi": 72,
    }
    with matplotlib.style.context(["default", settings]):
        yield


def legend_above(axes: Axes) -> None:
    """A legend over the axes, where it hides nothing, in as many columns as the figure has room.

    For a figure with constrained layout, as `drawing_style` makes it.
    """
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if figure is not None and labels:
        entry = 45 + 5.6 * max(len(label) for label in labels)  # points: handle, gaps, letters
        columns = max(1, int(72 * figure.get_figwidth() / entry))
        figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)))


def plain(text: str) -> str:
    """``text`` as a label that matplotlib draws as it is: no mathtext, no control characters.

    >>> plain("weights of $x$")
    'weights of \\\\$x\\\\$'
    """
    return clean(text).replace("$", r"\$")


def clean(text: str) -> str:
    """``text`` with the characters that neither XML nor HTML may hold replaced by U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


def to_svg(figure: Figure) -> Markup:
    """``figure`` as an <svg> element without width, height, date, comment or named font."""
    import matplotlib

    buffer = io.StringIO()
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "rmthess",
        "savefig.bbox": None,
    }
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(settings), _unicode_powers(figure), warnings.catch_warnings():
        # The browser draws the text, with fonts that have the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.draw_without_rendering()  # tick labels and constrained layout settle together
        figure.savefig(buffer, format="svg", facecolor="none", edgecolor="none", metadata=nothing)
    root = _parse(buffer.getvalue())
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("style", _ROOT_STYLE)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    referenced = set(re.findall(r"#([^\s)\"';]+)", " ".join(_references(root))))
    for element in root.iter():
        _restyle(element)
        if element.get("id") not in referenced:
            element.attrib.pop("id", None)
    return _serialise(root)


def with_prefix(svg: Markup, prefix: str) -> Markup:
    """``svg`` with ``prefix`` before every id and every reference to one.

    >>> print(with_prefix(Markup('<svg><path id="a" /><use href="#a" /></svg>'), "one-"))
    <svg xmlns="http://www.w3.org/2000/svg"><path id="one-a" /><use href="#one-a" /></svg>
    """
    root = _parse(svg)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, prefix + value)
            elif key == "href" and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
    return _serialise(root)


def _parse(svg: str) -> ElementTree.Element:
    """The tree without namespaces, which HTML does not need, and without indentation."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if "}" in key]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
        if element.tag not in ("text", "tspan"):
            element.text = (element.text or "").strip()
        if element.tag != "tspan":
            element.tail = (element.tail or "").strip()
    root.attrib = {"xmlns": _SVG, **root.attrib}
    return root


def _serialise(root: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        for value in element.attrib.values():
            if value.startswith("#") or "url(#" in value:
                yield value


def _restyle(element: ElementTree.Element) -> None:
    """Colours of the page, fonts of the page, a hundredth of a point."""
    if "style" in element.attrib:
        style = re.sub(r"font-family: [^;]*(; |$)", "", element.attrib["style"]).removesuffix("; ")
        element.set("style", re.sub(r"#[0-9a-f]{6}", lambda m: _VARIABLES.get(m[0], m[0]), style))
    if element.get("transform", "").startswith(("rotate(0 ", "rotate(-0 ")):
        del element.attrib["transform"]
    for key in ("d", "points", "x", "y", "width", "height"):
        if key in element.attrib:
            short = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", element.attrib[key])
            element.set(key, " ".join(short.split()))


@contextmanager
def _unicode_powers(figure: Figure) -> Iterator[None]:
    """Tick labels 10⁻³ as one string: mathtext places each digit by the metrics of its own font."""
    from matplotlib.ticker import Formatter, LogFormatter

    class Powers(Formatter):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(self, x: float, pos: int | None = None) -> str:
            label = self.inner(x, pos).replace(r"\times", "×").replace(r"\mathdefault", "")
            powers = re.sub(r"\^\{([^}]*)\}", lambda m: m[1].translate(_SUPERSCRIPT), label)
            return re.sub(r"[${}]", "", powers)

        def set_locs(self, locs: Any) -> None:
            self.inner.set_locs(locs)

    changed = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for ticker in (axis.major, axis.minor):
                if isinstance(ticker.formatter, LogFormatter):
                    changed.append((ticker, ticker.formatter))
                    ticker.formatter = Powers(ticker.formatter)
    try:
        yield
    finally:
        for ticker, formatter in changed:
            ticker.formatter = formatter
