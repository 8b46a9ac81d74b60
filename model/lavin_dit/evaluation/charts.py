"""Training curves as inline SVG: drawn by matplotlib, coloured and set by the page that holds them, the same bytes every time."""

import html
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

Values = NDArray[np.float64]
History = Mapping[str, Values]
"""The columns of a history.csv by name. Shapes: all `(rows,)`."""

STEP_COLUMN = "step"
SIZE_IN = (3.6, 2.0)
LOG_RATIO, DECADES_RATIO = 10.0, 300.0
SMOOTHING_SHARE = 0.04
MIN_ROWS_TO_SMOOTH = 30

# Stand-ins that no other part of a drawing has; the page's own colours take their place.
LINE, INK, GRID = "#010203", "#040506", "#070809"
PAGE_COLOURS = {LINE: "var(--accent)", INK: "var(--muted)", GRID: "var(--rule)"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lavin",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "ytick.minor.left": False,
}


def curve(name: str, steps: Values, values: Values) -> str:
    """One quantity over the steps of a training: every row faintly, and its running mean; logarithmic where it spans decades.

    Shapes: both `(rows,)`; rows that are not finite are left out. `name` keeps the ids of several drawings in a page apart.
    """
    is_shown = np.isfinite(steps) & np.isfinite(values)
    steps, values = steps[is_shown], values[is_shown]
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, steps, values)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), prefix=re.sub(r"[^a-z0-9-]", "-", name.lower()), label=_label(name, steps, values))


def _label(name: str, steps: Values, values: Values) -> str:
    """What the drawing shows, for those who cannot see it."""
    if not len(values):
        return f"{name}: no finite values"
    return f"{name}: from {values[0]:.4g} at step {steps[0]:.0f} to {values[-1]:.4g} at step {steps[-1]:.0f}, lowest {values.min():.4g}"


def _draw(axes: Axes, steps: Values, values: Values) -> None:
    axes.set_xlabel("step")
    is_smooth = len(values) >= MIN_ROWS_TO_SMOOTH
    axes.plot(steps, values, color=LINE, linewidth=0.8 if is_smooth else 1.6, alpha=0.35 if is_smooth else 1.0)
    if is_smooth:
        axes.plot(steps, running_mean(values), color=LINE, linewidth=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ratio = values.max() / values.min() if len(values) and values.min() > 0 else 1.0
    if ratio > LOG_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < DECADES_RATIO else (1.0,), numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        formatter = ScalarFormatter()
        formatter.set_powerlimits((-3, 4))
        axes.yaxis.set_major_formatter(formatter)


def running_mean(values: Values) -> Values:
    """A centred mean over a few hundredths of the rows, narrower towards both ends. Shapes: `(rows,)` to the same."""
    reach = max(1, round(len(values) * SMOOTHING_SHARE))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    room = np.minimum(np.minimum(index, index[::-1]), reach)
    return np.asarray((sums[index + room + 1] - sums[index - room]) / (2 * room + 1), np.float64)


def _inline(document: str, *, prefix: str, label: str) -> str:
    """The drawing alone: no prologue, no names of other sites, no rules for the rest of the page, ids and a label of its own."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg).replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    opening = re.search(r'viewBox="[^"]*"', svg)
    assert opening, "matplotlib wrote no viewBox"
    return f'<svg {opening[0]} role="img" aria-label="{html.escape(label)}">{svg[svg.index(">") + 1 :]}'.rstrip()
