"""A study: one recipe at several sizes of the J-DiT, every model asked with several numbers of context pairs.

The recipe says everything but the sizes: its J-DiT is what they are measured against, its tasks of weight 0 are held out, and the number
of pairs that it evaluates with is the most that a study may ask with.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from lavin_dit.config import EvaluateConfig, section_to_json
from lavin_dit.errors import InputError
from lavin_dit.presets import DitShape
from lavin_dit.training_config import TrainDitConfig

SIZES = ("2x48", "3x96", "4x192", "6x288")
"""Depth and width of the J-DiTs of a study, unless others are asked for."""
NUM_PAIRS = (0, 1, 2, 4, 8)
SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")
RATE_EXPONENT = 0.5
"""How fast the learning rate falls with the width: with its square root. At width 48 the best of three rates was twice that of width 192;
with 1 / width, muP's rule for matrices, it would be four times (docs/study.md)."""


@dataclass(frozen=True)
class Variations:
    """What a study does: a `train_dit` section for every size, and an `evaluate` section for every number of pairs."""

    models: dict[str, TrainDitConfig]
    questions: dict[int, EvaluateConfig]

    def model_items(self) -> list[dict[str, str]]:
        """As the pipeline takes them: a section is text, since numbers inside a dict become floats on the way."""
        return [{"size": size, "section": section_to_json(section)} for size, section in self.models.items()]

    def question_items(self) -> list[str]:
        """As the pipeline takes them."""
        return [section_to_json(section) for section in self.questions.values()]


def vary(train_dit: TrainDitConfig, evaluate: EvaluateConfig, *, sizes: Sequence[str], num_pairs: Iterable[object]) -> Variations:
    """The sections of a study.

    Raises: InputError naming the size or the number of pairs, and what is allowed.
    """
    counts = [_count(number, at_most=evaluate.sampling.num_pairs) for number in num_pairs]
    for size in sizes:
        if not isinstance(size, str):
            raise InputError(f"sizes holds {json.dumps(size)}: must read DEPTHxWIDTH, such as {SIZES[0]}")
    for name, values in (("sizes", list(sizes)), ("num_pairs", counts)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} is {json.dumps(values)}: needs one or more values, and each but once")
    return Variations(
        models={size: resize(train_dit, size) for size in sizes},
        questions={count: _with_pairs(evaluate, count) for count in counts},
    )


def resize(section: TrainDitConfig, size: str) -> TrainDitConfig:
    """The same training of another size, such as `4x192`: heads as wide as the recipe's, and a rate that suits the width.

    Raises: InputError naming the size and what is allowed.
    """
    found = SIZE.fullmatch(size)
    if not found:
        raise InputError(f"sizes holds {size!r}: must read DEPTHxWIDTH, such as {SIZES[0]}")
    depth, dim = int(found[1]), int(found[2])
    reference = section.shape
    if dim % reference.head_dim:
        raise InputError(f"sizes holds {size}: its width must be a multiple of {reference.head_dim}, the width of the recipe's heads")
    try:
        shape = DitShape(depth=depth, dim=dim, num_heads=dim // reference.head_dim, kv_group=reference.kv_group)
    except ValidationError as error:
        raise InputError(f"sizes holds {size}: {error.errors()[0]['ctx']['error']}") from error
    factor = (reference.dim / dim) ** RATE_EXPONENT
    rates = {name: getattr(section.optimizer, name) * factor for name in ("learning_rate", "final_learning_rate")}
    return section.model_copy(update={"shape": shape, "optimizer": section.optimizer.model_copy(update=rates)})


def held_out_tasks(section: TrainDitConfig) -> tuple[str, ...]:
    """The tasks that training never draws."""
    return tuple(sorted(task for task, weight in section.task_weights.items() if weight == 0))


def _count(number: object, *, at_most: int) -> int:
    # A cluster's list may hold anything, and its numbers are floats.
    if isinstance(number, bool) or not isinstance(number, int | float) or not (0 <= number <= at_most and number == int(number)):
        shown = f"{number:g}" if isinstance(number, float) else json.dumps(number)
        raise InputError(
            f"num_pairs holds {shown}: must be a whole number from 0 to evaluate.sampling.num_pairs ({at_most}), for which the "
            "data are checked"
        )
    return int(number)


def _with_pairs(section: EvaluateConfig, count: int) -> EvaluateConfig:
    return section.model_copy(update={"sampling": section.sampling.model_copy(update={"num_pairs": count})})


def experiments(variations: Variations) -> list[list[str]]:
    """The same study as DVC experiments: the arguments of a `dvc exp run --queue` for every size and number of pairs."""
    return [
        ["--name", f"study-{size}-{count}-pairs", *_changes(model, count)]
        for size, model in variations.models.items()
        for count in variations.questions
    ]


def _changes(model: TrainDitConfig, count: int) -> list[str]:
    shape = ", ".join(f"{name}: {value}" for name, value in model.shape.model_dump().items())
    values: dict[str, object] = {"train_dit.shape": f"{{{shape}}}", "evaluate.sampling.num_pairs": count}
    values |= {f"train_dit.optimizer.{name}": getattr(model.optimizer, name) for name in ("learning_rate", "final_learning_rate")}
    return [part for name, value in values.items() for part in ("--set-param", f"{name}={value}")]
