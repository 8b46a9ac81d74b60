"""The log line of a step: one form, so that whoever draws bars can leave it out. Never imports torch."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

FIGURES_LINE = re.compile(r"step \d+: loss ")
GIB = 2**30


def step_line(row: Mapping[str, Any]) -> str:
    """The figures of a row of metrics.jsonl in one line, which begins like `FIGURES_LINE`."""
    return f"step {row['step']}: {', '.join(_figures(row))}"


def _figures(row: Mapping[str, Any]) -> Iterator[str]:
    losses = dict(row["losses"])
    yield f"loss {_short(losses.pop('loss', None))}"
    yield from (f"{name} {_short(value)}" for name, value in losses.items())
    yield f"gradient {_short(row['grad_norm'])}"
    yield f"learning rate {_short(row['learning_rate'])}"
    yield f"{_short(row['samples_per_second'])} samples/s"
    yield f"{_short(row['tokens_per_second'])} tokens/s"
    if row["mfu"] is not None:
        yield f"MFU {row['mfu']:.1%}"
    yield f"{_short(row['step_s'])} s a step"
    yield f"{_short(row['data_wait_s'])} s for data"
    yield f"memory {_short(row['memory_gib'])} GiB"
    if row["device_memory_gib"] is not None:
        yield f"device {_short(row['device_memory_gib'])} GiB"
    yield from (f"{count} skipped ({reason})" for reason, count in row["skipped_steps"].items() if count)
    if row["rollbacks"]:
        yield f"{row['rollbacks']} ways back"
    if row["last_checkpoint_step"] is not None:
        yield f"checkpoint {row['last_checkpoint_step']}"
    for kind in ("task", "time"):
        if means := row[f"{kind}_losses"]:
            yield f"by {kind}: " + " ".join(f"{name} {_short(value)}" for name, value in means.items())


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
