"""The Grafana dashboard of a training run, as code."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableOption, VariableRefresh

from lavin_dit.training.measures import PREFIX
from pipelines.monitoring.rules import (
    CHECKPOINT_AGE,
    DATA_WAIT_RATIO,
    DISK_FREE_RATIO,
    LIVE_PROCESSES,
    NORMAL,
    SAMPLES_RATE,
    STEP_SECONDS_P95,
    TOKENS_RATE,
    span,
)

TITLE, UID = "LaVin training", "lavin-training"
SOURCE = DataSourceRef("prometheus", "${source}")
CHOICES = ("namespace", "run", "network")
CHOSEN = ",".join(f'{name}=~"${name}"' for name in CHOICES)
RATE = span(NORMAL.rate_s)
NUM_COLUMNS = 24

PanelT = TypeVar("PanelT", timeseries.Panel, stat.Panel)


@dataclass(frozen=True)
class Panel:
    """A title, a unit, and the curves by their legends."""

    title: str
    unit: str
    curves: dict[str, str]
    words: str = ""


@dataclass(frozen=True)
class Group:
    """A row of panels; `is_now` shows the last value in place of a curve."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8
    is_now: bool = False


def dashboard() -> str:
    """The dashboard as JSON, the same every time."""
    board = Dashboard(TITLE).uid(UID).tags(["lavin"]).refresh("30s").time("now-6h", "now").tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    for variable in _variables():
        board.with_variable(variable)
    ids = itertools.count(1)
    for group in groups():
        board.with_row(Row(group.title).id(next(ids)))
        for panel in group.panels:
            board.with_panel(_drawn(panel, group).id(next(ids)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def groups() -> tuple[Group, ...]:
    """What is shown, from top to bottom."""
    return (
        Group(
            "Now",
            (
                Panel("Step", "none", {"": f"max({_of('step')})"}),
                Panel("Loss", "none", {"": f"max({_of('loss')})"}),
                Panel("Samples a second", "none", {"": _of(SAMPLES_RATE)}),
                Panel("MFU", "percentunit", {"": f"max({_of('mfu_ratio')})"}),
                Panel("Processes that answer", "none", {"": f"sum({_of(LIVE_PROCESSES)})"}),
                Panel("Last step", "dtdurations", {"": f"time() - max({_of('heartbeat_timestamp_seconds')})"}),
            ),
            height=4,
            is_now=True,
        ),
        Group(
            "What is learnt",
            (
                Panel("Loss", "none", {"loss": _global("loss"), "{{part}}": _global("loss_part", "part")}),
                Panel("Loss by task", "none", {"{{task}}": _global("task_loss", "task")}),
                Panel("Loss by time", "none", {"{{time}}": _global("time_loss", "time")}, "t = 0 is noise, t = 1 is data."),
                Panel("Gradient norm", "none", {"before clipping": _global("gradient_norm")}),
                Panel("Learning rate", "none", {"rate": _global("learning_rate")}),
                Panel(
                    "Skipped steps",
                    "none",
                    {
                        "{{reason}}": f"max by (reason) (increase({_of('skipped_steps_total')}[{RATE}]))",
                        "ways back": f"max(increase({_of('rollbacks_total')}[{RATE}]))",
                    },
                ),
            ),
        ),
        Group(
            "How fast",
            (
                Panel(
                    "Samples a second", "none", {"over 5 minutes": _of(SAMPLES_RATE), "over the last steps": _global("samples_per_second")}
                ),
                Panel("Tokens a second", "none", {"over 5 minutes": _of(TOKENS_RATE), "over the last steps": _global("tokens_per_second")}),
                Panel("MFU", "percentunit", {"": _global("mfu_ratio")}),
                Panel("Step time", "s", {"95 %": _of(STEP_SECONDS_P95), "rank {{rank}}": _mean("step_duration_seconds")}),
                Panel(
                    "Wait for data",
                    "s",
                    {"rank {{rank}}": _mean("data_wait_seconds")},
                    "A slow process shows here: all of them share their step time.",
                ),
                Panel("Share of time that waits for data", "percentunit", {"slowest": _of(DATA_WAIT_RATIO)}),
            ),
        ),
        Group(
            "Alive and safe",
            (
                Panel("Since the last step", "s", {"rank {{rank}}": f"time() - {_of('heartbeat_timestamp_seconds')}"}),
                Panel("Processes", "none", {"answer": _of(LIVE_PROCESSES), "expected": _global("world_size")}),
                Panel("Steps a second", "none", {"rank {{rank}}": f"rate({_of('steps_total')}[{RATE}])"}, "Skipped ones included."),
                Panel(
                    "Since the last checkpoint",
                    "s",
                    {"age": _of(CHECKPOINT_AGE)},
                    "Counted from the start before the first one of a process.",
                ),
                Panel(
                    "Checkpoints",
                    "s",
                    {
                        "written in": _slowest("checkpoint_duration_seconds"),
                        "training waited": _slowest("checkpoint_blocked_seconds"),
                    },
                ),
                Panel("Step of the last checkpoint", "none", {"step": _global("last_checkpoint_step")}),
            ),
        ),
        Group(
            "Resources",
            (
                Panel("Memory on the host", "bytes", {"rank {{rank}}": _of("resident_memory_bytes")}),
                Panel(
                    "Memory on the device",
                    "bytes",
                    {"rank {{rank}}": _of("device_memory_allocated_bytes"), "rank {{rank}}, peak": _of("device_memory_peak_bytes")},
                ),
                Panel("Size of a checkpoint", "bytes", {"bytes": _global("last_checkpoint_bytes")}),
                Panel("Free disk", "bytes", {"free": f"min({_of('disk_free_bytes')})"}),
                Panel("Free share of the disk", "percentunit", {"free": _of(DISK_FREE_RATIO)}),
                Panel("Up since", "dateTimeAsIso", {"rank {{rank}}": f"1000 * {_of('start_timestamp_seconds')}"}),
            ),
        ),
    )


def _of(name: str) -> str:
    """A series of the run that was chosen; a recorded one has its whole name."""
    return f"{name if ':' in name else PREFIX + name}{{{CHOSEN}}}"


def _global(name: str, label: str = "") -> str:
    """What all processes tell alike."""
    return f"max by ({label}) ({_of(name)})" if label else f"max({_of(name)})"


def _mean(name: str) -> str:
    """Of a histogram, for each process."""
    return f"rate({_of(f'{name}_sum')}[{RATE}]) / rate({_of(f'{name}_count')}[{RATE}])"


def _slowest(name: str) -> str:
    return f"max({_mean(name)})"


def _variables() -> Iterator[DatasourceVariable | QueryVariable]:
    yield DatasourceVariable("source").label("Prometheus").type("prometheus")
    everything = VariableOption(selected=True, text="All", value="$__all")
    for name in CHOICES:
        yield (
            QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(f"label_values({PREFIX}step, {name})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            # On a laptop a series has neither a namespace nor a run.
            .all_value(".*")
            .current(everything)
        )


def _drawn(panel: Panel, group: Group) -> timeseries.Panel | stat.Panel:
    width = NUM_COLUMNS // (len(group.panels) if group.is_now else 3)
    if group.is_now:
        last = common.ReduceDataOptions().calcs(["lastNotNull"])
        return _filled(stat.Panel().reduce_options(last).graph_mode(BigValueGraphMode.NONE), panel, width, group.height)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    return _filled(timeseries.Panel().legend(legend).line_width(1), panel, width, group.height)


def _filled(drawn: PanelT, panel: Panel, width: int, height: int) -> PanelT:
    drawn.title(panel.title).unit(panel.unit).datasource(SOURCE).span(width).height(height)
    if panel.words:
        drawn.description(panel.words)
    for index, (legend, expr) in enumerate(panel.curves.items()):
        drawn.with_target(prometheus.Dataquery().expr(expr).legend_format(legend or panel.title).ref_id(chr(ord("A") + index)).range())
    return drawn
