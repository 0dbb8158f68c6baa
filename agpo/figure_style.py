"""How all figures look: colours that stay distinct under colour blindness, thin rules, no frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, after a dark grey for the reference.
GREY, BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = (
    "#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
)  # fmt: skip
INK, RULE, AXIS = "#333333", "#e6e6e6", "#999999"


def new_figure(title: str, panels: int, columns: int | None = None, shared_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows of ``columns``; made by matplotlib's object API, so any thread can draw."""
    from matplotlib.figure import Figure

    columns = min(columns or panels, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(max(6.4, 4.8 * columns), 0.9 + 3.5 * rows), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=13, color=INK)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared_y).ravel()
    for axes in grid[panels:]:
        axes.remove()
    for axes in grid[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(AXIS)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, list(grid[:panels])


def label_axes(axes: Axes, title: str, across: str) -> None:
    """Name a panel and its horizontal axis."""
    axes.set_title(title.replace("_", " "), fontsize=11, color=INK, loc="left")
    axes.set_xlabel(across, fontsize=10, color=INK)
