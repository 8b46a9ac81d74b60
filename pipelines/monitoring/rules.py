"""Recording and alert rules over what training processes export. docs/monitoring.md says what to do about each alert."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lavin_dit.training.measures import PREFIX

RUN = "job, namespace, run, network"
"""What the processes of one run have in common, in the eyes of Prometheus."""
SCRAPE_JOB = "lavin-ranks"
"""Of the scrape configuration; the operator writes the namespace before it."""
RUNBOOK = "docs/monitoring.md"

SAMPLES_RATE = "run:lavin_training_samples:rate"
TOKENS_RATE = "run:lavin_training_tokens:rate"
DATA_WAIT_RATIO = "run:lavin_training_data_wait:ratio"
STEP_SECONDS_P95 = "run:lavin_training_step_duration_seconds:p95"
LIVE_PROCESSES = "run:lavin_training_processes:count"
CHECKPOINT_AGE = "run:lavin_training_checkpoint_age_seconds:min"
DISK_FREE_RATIO = "run:lavin_training_disk_free:ratio"

Rule = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What is normal. Units: seconds, or shares of one."""

    rate_s: int = 300
    """Windows over which rates are taken."""
    stall_s: int = 300
    """Longest time without a finished step; the run's own watchdog waits for guard.stall_timeout_s."""
    skips_s: int = 600
    """How long a skipped step is told of."""
    max_spikes: int = 3
    usual_s: int = 3600
    """Whose median a throughput is compared with."""
    min_usual_share: float = 0.7
    max_data_wait_share: float = 0.2
    checkpoint_s: int = 7200
    min_free_share: float = 0.1
    watched_free_share: float = 0.4
    """Below it, a disk that will be full soon is told of."""
    soon_s: int = 14400
    patience_s: int = 600
    """How long slowness must last."""
    missing_s: int = 120
    """How long a process may be missing: pods start and end one after the other."""


NORMAL = Limits()


@dataclass(frozen=True)
class Alert:
    """One alert: when it fires, and what it says."""

    name: str
    expr: str
    for_s: int
    severity: str
    summary: str
    description: str

    def rule(self) -> Rule:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": span(self.for_s),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


def rule_groups(limits: Limits = NORMAL, *, interval_s: int | None = None) -> dict[str, Any]:
    """The content of a rule file; `interval_s` is how often rules are evaluated, where Prometheus is not to decide."""
    interval = {"interval": span(interval_s)} if interval_s else {}
    return {
        "groups": [
            {"name": "lavin-training-records", **interval, "rules": list(records(limits))},
            {"name": "lavin-training-alerts", **interval, "rules": [alert.rule() for alert in alerts(limits)]},
        ]
    }


def records(limits: Limits) -> Iterator[Rule]:
    """One series a run, from those of its processes."""
    rate = span(limits.rate_s)
    buckets = f"sum by ({RUN}, le) (rate({PREFIX}step_duration_seconds_bucket[{rate}]))"
    last_checkpoint = f"{PREFIX}last_checkpoint_timestamp_seconds or {PREFIX}start_timestamp_seconds"
    expressions = {
        SAMPLES_RATE: f"max by ({RUN}) (rate({PREFIX}samples_total[{rate}]))",
        TOKENS_RATE: f"max by ({RUN}) (rate({PREFIX}tokens_total[{rate}]))",
        DATA_WAIT_RATIO: f"max by ({RUN}) (rate({PREFIX}data_wait_seconds_sum[{rate}]) / rate({PREFIX}step_duration_seconds_sum[{rate}]))",
        STEP_SECONDS_P95: f"histogram_quantile(0.95, {buckets})",
        LIVE_PROCESSES: f"count by ({RUN}) ({PREFIX}heartbeat_timestamp_seconds)",
        CHECKPOINT_AGE: f"time() - max by ({RUN}) ({last_checkpoint})",
        DISK_FREE_RATIO: f"min by ({RUN}) ({PREFIX}disk_free_bytes / {PREFIX}disk_size_bytes)",
    }
    for name, expr in expressions.items():
        yield {"record": name, "expr": expr}


def alerts(limits: Limits = NORMAL) -> tuple[Alert, ...]:
    """Every alert."""
    return (*_standing_still(limits), *_learning_nothing(limits), *_slow(limits), *_about_to_lose(limits))


def _standing_still(limits: Limits) -> Iterator[Alert]:
    yield Alert(
        "LavinTrainingStalled",
        f"time() - max by ({RUN}) ({PREFIX}heartbeat_timestamp_seconds) > {limits.stall_s}",
        0,
        "critical",
        "{{ $labels.network }} training {{ $labels.run }} stands still",
        "No process of {{ $labels.namespace }}/{{ $labels.run }} has finished a step for {{ $value | humanizeDuration }}.",
    )
    yield Alert(
        "LavinRankMissing",
        f"count by ({RUN}) ({PREFIX}heartbeat_timestamp_seconds) < max by ({RUN}) ({PREFIX}world_size)",
        limits.missing_s,
        "critical",
        "Processes of {{ $labels.network }} training {{ $labels.run }} do not answer",
        "Only {{ $value }} processes of {{ $labels.namespace }}/{{ $labels.run }} answer Prometheus; others are gone, stopped or cut off.",
    )
    yield Alert(
        "LavinRankUnreachable",
        f'up{{job=~"(.*/)?{SCRAPE_JOB}"}} == 0',
        limits.patience_s,
        "warning",
        "{{ $labels.instance }} does not answer Prometheus",
        "The training process at {{ $labels.instance }} {{ $labels.pod }} has a target and no metrics.",
    )


def _learning_nothing(limits: Limits) -> Iterator[Alert]:
    window = span(limits.skips_s)
    skipped = f"max by ({RUN}) (increase({PREFIX}skipped_steps_total{{reason="
    yield Alert(
        "LavinLossNotFinite",
        f'{skipped}"not_finite"}}[{window}])) > 0',
        0,
        "critical",
        "The loss of {{ $labels.network }} training {{ $labels.run }} is not a number",
        "Steps of {{ $labels.namespace }}/{{ $labels.run }} had a loss or a gradient that is not finite, and were skipped.",
    )
    yield Alert(
        "LavinLossSpikes",
        f'{skipped}"spike"}}[{window}])) >= {limits.max_spikes}',
        0,
        "warning",
        "The loss of {{ $labels.network }} training {{ $labels.run }} explodes",
        "{{ $value | humanize }} steps of {{ $labels.namespace }}/{{ $labels.run }} had a loss far above its mean, and were skipped.",
    )
    yield Alert(
        "LavinRolledBack",
        f"max by ({RUN}) (increase({PREFIX}rollbacks_total[{window}])) > 0",
        0,
        "warning",
        "{{ $labels.network }} training {{ $labels.run }} went back to a checkpoint",
        "Too many steps in a row of {{ $labels.namespace }}/{{ $labels.run }} were skipped.",
    )


def _slow(limits: Limits) -> Iterator[Alert]:
    usual = f"quantile_over_time(0.5, {SAMPLES_RATE}[{span(limits.usual_s)}])"
    yield Alert(
        "LavinThroughputDropped",
        f"{SAMPLES_RATE} / {usual} < {limits.min_usual_share} and {SAMPLES_RATE} > 0",
        limits.patience_s,
        "warning",
        "{{ $labels.network }} training {{ $labels.run }} has become slow",
        "{{ $labels.namespace }}/{{ $labels.run }} goes at {{ $value | humanizePercentage }} of its usual samples a second.",
    )
    yield Alert(
        "LavinDataBound",
        f"{DATA_WAIT_RATIO} > {limits.max_data_wait_share}",
        limits.patience_s,
        "warning",
        "{{ $labels.network }} training {{ $labels.run }} waits for data",
        "A process of {{ $labels.namespace }}/{{ $labels.run }} waits for its batches {{ $value | humanizePercentage }} of its time.",
    )


def _about_to_lose(limits: Limits) -> Iterator[Alert]:
    soon = f"min by ({RUN}) (predict_linear({PREFIX}disk_free_bytes[{span(limits.usual_s)}], {limits.soon_s})) < 0"
    yield Alert(
        "LavinCheckpointTooOld",
        f"{CHECKPOINT_AGE} > {limits.checkpoint_s}",
        0,
        "warning",
        "{{ $labels.network }} training {{ $labels.run }} has no recent checkpoint",
        "What {{ $labels.namespace }}/{{ $labels.run }} learnt in the last {{ $value | humanizeDuration }} would be lost with it.",
    )
    yield Alert(
        "LavinDiskFilling",
        f"{DISK_FREE_RATIO} < {limits.min_free_share} or ({DISK_FREE_RATIO} < {limits.watched_free_share} and {soon})",
        limits.patience_s,
        "warning",
        "The disk of {{ $labels.network }} training {{ $labels.run }} fills up",
        "{{ $value | humanizePercentage }} of the disk that {{ $labels.namespace }}/{{ $labels.run }} writes to is free.",
    )


def span(seconds: int) -> str:
    """A duration as Prometheus writes it, in the largest unit that fits."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
