"""A figure of the page: panels side by side, and below each other for a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from rmthess.report.document import Figure
from rmthess.report.svg import NARROW, WIDE, drawing_style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """What draws on given axes, and its height as a share of a usual panel."""

    draw: Callable[[Axes], object]
    height: float = 1.0


def panels(items: Sequence[Panel], *, caption: str, alt: str, columns: int = 2) -> Figure:
    """The panels in rows of ``columns``; the heights of a row are that of its first panel.

    >>> figure = panels([Panel(lambda axes: axes.plot([1, 2]))], caption="A line.", alt="A line.")
    >>> figure.svg.startswith("<svg") and figure.narrow is not None
    True
    """
    return Figure(_drawn(items, columns, WIDE), caption, alt, narrow=_drawn(items, 1, NARROW))


def _drawn(items: Sequence[Panel], columns: int, size: tuple[float, float]) -> Markup:
    from matplotlib.figure import Figure as Canvas

    columns = min(columns, len(items))
    heights = [item.height for item in items[::columns]]
    width, height = size
    each = height if columns == 1 else 0.72 * height
    with drawing_style():
        canvas = Canvas(figsize=(width, each * sum(heights)))
        grid = canvas.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel()
        for axes, item in zip(grid, items, strict=False):
            item.draw(axes)
            _lift_legend(axes, 72 * width / columns)
        for axes in grid[len(items) :]:
            axes.set_axis_off()
        return to_svg(canvas)


def _lift_legend(axes: Axes, room: float) -> None:
    """The legend goes above the panel, where it hides nothing, in as many columns as fit."""
    old = axes.get_legend()
    if old is None:
        return
    old.remove()
    handles, labels = axes.get_legend_handles_labels()
    entry = 42 + 5.4 * max(len(label) for label in labels)  # points: handle, gaps, letters
    columns = max(1, min(len(labels), int((room - 40) / entry)))
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.1,
        ncols=columns, handlelength=2.0, columnspacing=1.2, labelspacing=0.25,
    )  # fmt: skip
