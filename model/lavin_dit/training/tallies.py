"""Losses summed over micro-batches and processes: of one step, and by bucket over the steps between two log lines."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavin_dit.training.feed import MicroBatch
from lavin_dit.training.objective import Cost, Losses, Tally
from lavin_dit.training.processes import Processes

STATE_KEYS = ("names", "sums", "counts")


class StepTotals:
    """One step's losses and costs over the global batch, and whether any process was asked to stop."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._means: dict[str, Tensor] = {}
        self._cost = Cost(0, 0.0)
        self.tallies: list[Mapping[str, Tally]] = []
        """Of the micro-batches that count."""

    def add(self, micro_batch: MicroBatch[object], losses: Losses, cost: Cost) -> None:
        """Takes a micro-batch into account."""
        for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
            share = micro_batch.weight * value.double()
            self._means[name] = self._means[name] + share if name in self._means else share
        if micro_batch.weight:
            self._cost += cost
            self.tallies.append(losses.tallies)

    def agree(self, *, stop: bool) -> tuple[dict[str, float], Cost, bool]:
        """Means over the global batch, its cost, and whether any process must stop; equal in all of them."""
        own = [float(self._cost.tokens), self._cost.flops, float(stop)]
        *means, tokens, flops, stops = self._processes.total(
            torch.cat([torch.stack(list(self._means.values())), torch.tensor(own, dtype=torch.float64, device=self._processes.device)])
        ).tolist()
        return dict(zip(self._means, means, strict=True)), Cost(int(tokens), flops), stops > 0


class Tallies:
    """Per-sample losses by kind and bucket since they were last asked for; may begin with what `state` gave before a restart."""

    def __init__(self, processes: Processes, state: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._processes = processes
        # The first process has what all of them had; the others know the same kinds.
        self._kinds = {kind: _tally(values, processes) for kind, values in (state or {}).items()}

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Takes a micro-batch into account."""
        for kind, tally in tallies.items():
            before = self._kinds.get(kind)
            self._kinds[kind] = Tally(tally.names, before.sums + tally.sums, before.counts + tally.counts) if before else tally

    def take(self) -> dict[str, dict[str, float]]:
        """Mean loss by kind and name over all processes, where there was a sample; begins anew."""
        means = {
            kind: {name: total / count for name, total, count in zip(*values.values(), strict=True) if count}
            for kind, values in self.state().items()
        }
        self._kinds = {}
        return means

    def state(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint has to keep, of all processes; equal in all of them."""
        return {kind: dict(zip(STATE_KEYS, (list(tally.names), *self._total(tally)), strict=True)) for kind, tally in self._kinds.items()}

    def _total(self, tally: Tally) -> list[list[float]]:
        sums_and_counts: list[list[float]] = self._processes.total(torch.stack([tally.sums, tally.counts])).tolist()
        return sums_and_counts


def _tally(values: Mapping[str, Any], processes: Processes) -> Tally:
    names, *numbers = (values[key] for key in STATE_KEYS)
    sums, counts = (torch.tensor(each, device=processes.device) * processes.is_first for each in numbers)
    return Tally(tuple(names), sums, counts)
