"""Drawings of a study's trends, from the content of trends.json: loss and metrics over the model's size and the number of pairs."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lavin_dit.data.pixels import Picture
from lavin_dit.data.tasks import task_of
from lavin_dit.evaluation.charts import GRID, INK, LINE, STYLE
from lavin_dit.evaluation.metrics import METRICS
from lavin_dit.evaluation.trends import HELD_OUT, TRAINED

DPI = 130
COLUMNS = 5
COLOURS = {LINE: "#2a5db0", INK: "#3c4250", GRID: "#d9dde5"}
SIZE_RAMP = LinearSegmentedColormap.from_list("sizes", ["#a9c6f5", "#2a5db0", "#0b1f45"])
PAIRS_RAMP = LinearSegmentedColormap.from_list("pairs", ["#b9b9b9", "#f0b35a", "#c2571a", "#5a1a0a"])
GROUP_TITLES = {TRAINED: "Tasks that training drew", HELD_OUT: "Held-out tasks"}
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Axis:
    """One of the two things that vary: its values in order, where they stand, and how they are called."""

    label: str
    values: tuple[str, ...]
    positions: tuple[float, ...]
    names: tuple[str, ...]
    is_log: bool
    ramp: LinearSegmentedColormap

    def colour(self, index: int) -> Any:
        return self.ramp(index / max(len(self.values) - 1, 1))


def axes_of(document: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """The sizes, by their parameters, and the numbers of pairs, evenly spaced."""
    models, counts = document["models"], document["num_pairs"]
    sizes = Axis(
        label="parameters",
        values=tuple(model["size"] for model in models),
        positions=tuple(float(model["num_parameters"]) for model in models),
        names=tuple(short(model["num_parameters"]) for model in models),
        is_log=True,
        ramp=SIZE_RAMP,
    )
    names = tuple(map(str, counts))
    pairs = Axis("context pairs", names, tuple(map(float, range(len(names)))), names, is_log=False, ramp=PAIRS_RAMP)
    return sizes, pairs


def short(number: float) -> str:
    """A number of parameters as people say it: "4.6 M"."""
    value, unit = (number / 1e6, "M") if number >= 1e6 else (number / 1e3, "k")
    return f"{value:.2g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def draw_losses(document: Mapping[str, Any]) -> bytes:
    """Held-out loss over size, above, and over pairs, below; trained tasks on the left and held-out ones on the right. PNG."""
    sizes, pairs = axes_of(document)
    groups = list(document["loss"])
    with rc_context(_style()):
        figure = Figure(figsize=(4.2 * len(groups), 6.2), layout="constrained")
        grid = figure.subplots(2, len(groups), squeeze=False, sharey="col")
        for column, group in enumerate(groups):
            values = document["loss"][group]["values"]
            _draw(grid[0, column], sizes, pairs, values, swapped=False)
            _draw(grid[1, column], pairs, sizes, values, swapped=True)
            grid[0, column].set_title(GROUP_TITLES[group])
            for row in (0, 1):
                grid[row, column].set_ylabel("flow-matching loss" if column == 0 else "")
        _add_legends(grid[:, -1].flat)
        return _png(figure)


def draw_metrics(document: Mapping[str, Any], *, over_pairs: bool) -> bytes:
    """Every task's own metric, over pairs with a line a size, or over size with a line a number of pairs. PNG."""
    sizes, pairs = axes_of(document)
    across, lines = (pairs, sizes) if over_pairs else (sizes, pairs)
    tasks = document["tasks"]
    num_rows = -(-len(tasks) // COLUMNS)
    with rc_context(_style()):
        figure = Figure(figsize=(2.9 * min(len(tasks), COLUMNS), 2.5 * num_rows + 0.3), layout="constrained")
        grid = figure.subplots(num_rows, min(len(tasks), COLUMNS), squeeze=False)
        for axes, (task, entry) in zip(grid.flat, tasks.items(), strict=False):
            _draw(axes, across, lines, entry["values"], swapped=over_pairs)
            metric = METRICS[entry["metric"]]
            unit = f", {metric.unit}" if metric.unit else ""
            axes.set_title(f"{task_of(task).title}{' (held out)' if entry['held_out'] else ''}", fontsize=9)
            axes.set_ylabel(f"{metric.name}{unit} {ARROWS[metric.better]}", fontsize=8)
        for axes in list(grid.flat)[len(tasks) :]:
            axes.set_axis_off()
        _add_legends([grid[0, -1]])
        return _png(figure)


def draw_answers(
    task: str, sizes: Sequence[str], pairs: Sequence[str], answers: Sequence[Sequence[Picture]], ends: Sequence[Picture]
) -> bytes:
    """One query, answered by every size (rows) with every number of pairs (columns); `ends` are the query and the truth. PNG.

    Shapes: pictures `(h, w, 3)`, all equal.
    """
    with rc_context(_style()):
        figure = Figure(figsize=(1.15 * (len(pairs) + 2.4), 1.15 * len(sizes) + 0.5), layout="constrained")
        grid = figure.subplots(len(sizes), len(pairs) + 2, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for row, (size, pictures) in enumerate(zip(sizes, answers, strict=True)):
            for column, picture in enumerate([ends[0], *pictures, ends[1]]):
                if row == 0 or 0 < column <= len(pairs):
                    grid[row, column].imshow(picture, interpolation="nearest")
            grid[row, 1].set_ylabel(size, rotation=0, ha="right", va="center")
        titles = ["query", *(f"{count} pair{'' if count == '1' else 's'}" for count in pairs), "truth"]
        for column, title in enumerate(titles):
            grid[0, column].set_title(title, fontsize=9)
        figure.suptitle(task_of(task).title, fontsize=10)
        return _png(figure)


def _draw(axes: Axes, across: Axis, lines: Axis, values: Mapping[str, Any], *, swapped: bool) -> None:
    """A line for each value of `lines`, with 95 % confidence within scenes; `values` is by size, then by pairs."""
    for index, (line, name) in enumerate(zip(lines.values, lines.names, strict=True)):
        cells = [values[line][value] if swapped else values[value][line] for value in across.values]
        means, reach = (np.array([cell[key] for cell in cells], np.float64) for key in ("mean", "reach"))
        axes.errorbar(
            across.positions,
            means,
            yerr=np.nan_to_num(reach),
            color=lines.colour(index),
            label=f"{name} {'pairs' if lines.label == 'context pairs' else ''}".strip(),
            linewidth=1.5,
            marker="o",
            markersize=3.5,
            elinewidth=0.7,
            capsize=0,
        )
    if across.is_log:
        axes.set_xscale("log")
    axes.set_xticks(across.positions, across.names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(across.label)


def _add_legends(axes: Iterable[Axes]) -> None:
    for each in axes:
        each.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8, handlelength=1.2)


def _style() -> dict[Any, Any]:
    style = {name: COLOURS.get(value, value) if isinstance(value, str) else value for name, value in STYLE.items()}
    return style | {"axes.titlecolor": COLOURS[INK], "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
