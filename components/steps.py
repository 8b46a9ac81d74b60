"""The table of steps, in order. A step's module, and torch with it, is imported only when the step is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from lavin_dit.config import SECTIONS, Config
from lavin_dit.errors import InputError
from lavin_dit.section import Section

STEPS = ("resolve", "prepare", "train_vae", "train_dit", "evaluate", "export", "gate", "promote")
DISTRIBUTED = ("train_vae", "train_dit")
"""Steps that run under torchrun with any number of processes."""
STEP_OF_OUTPUT = {"shards": "prepare", "vae": "train_vae", "dit": "train_dit", "evaluation": "evaluate"}
"""Which step made an input that records its parameters."""


class Run(Protocol):
    """What a step does: reads the input folders, writes the output folders, atomically."""

    def __call__(self, config: Section, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None: ...


@dataclass(frozen=True)
class Step:
    """One step: the names of the folders that it reads and writes, and what it does."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Run


def load_step(name: str) -> Step:
    """Imports one step.

    Raises: InputError where there is no such step.
    """
    if name not in STEPS:
        raise InputError(f"step {name!r}: must be one of {', '.join(STEPS)}")
    module = import_module(f"components.{name}")
    return Step(name, tuple(module.INPUTS), tuple(module.OUTPUTS), module.run)


def section_of(config: Config, step: str) -> Section:
    """What of the configuration a step sees: its own section, and all of it for `resolve`."""
    if step == "resolve":
        return config
    section = getattr(config, step)
    assert isinstance(section, SECTIONS[step])
    return section
