"""Does ONNX Runtime answer as torch does? Full sampled predictions on held-out queries, from equal noise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.export.bundle import Model
from lavin_dit.export.runtime import Bundle, Context
from lavin_dit.inference import predict, to_model
from lavin_dit.presets import latent_shape
from lavin_dit.progress import Progress
from lavin_dit.sampling import starting_noise

BATCH = 4


@dataclass(frozen=True)
class Question:
    """A held-out picture, and the default context of its task. Shapes: query `(h, w, 3)` uint8."""

    task: str
    query: NDArray[np.uint8]
    context: Context


def pick_questions(shards: ShardSet, contexts: Mapping[str, Context], *, count: int) -> list[Question]:
    """Up to `count` held-out queries, the first of each task, then the second of each, and so on.

    Raises: InputError where there is none.
    """
    rounds = zip_longest(*(shards.pairs_of(task) for task in contexts))
    pairs = [pair for one_of_each in rounds for pair in one_of_each if pair is not None]
    if not pairs:
        raise InputError(f"{shards.folder}: holds no held-out pairs: export checks its graphs on them")
    return [Question(pair.task, shards.image(pair.input[0]), contexts[pair.task]) for pair in pairs[:count]]


def measure_parity(bundle: Bundle, model: Model, questions: list[Question], *, seed: int, progress: Progress) -> float:
    """How far ONNX Runtime's answers are from torch's, before rounding: ||onnx - torch|| / ||torch|| over all questions."""
    squared_difference = squared_reference = 0.0
    index = 0
    for batch in _batches(questions):
        reference = _answer_with_torch(model, batch, seed=seed, first_index=index)
        answer = _answer_with_onnx(bundle, batch, seed=seed, first_index=index)
        squared_difference += float(np.square(answer.astype(np.float64) - reference).sum())
        squared_reference += float(np.square(reference.astype(np.float64)).sum())
        index += len(batch)
        progress.advance(len(batch), note="parity")
    return float(np.sqrt(squared_difference / squared_reference))


def _batches(questions: list[Question]) -> Iterator[list[Question]]:
    remaining = iter(questions)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _answer_with_onnx(bundle: Bundle, questions: list[Question], *, seed: int, first_index: int) -> NDArray[np.float32]:
    inputs = np.stack([question.context.inputs for question in questions])
    targets = np.stack([question.context.targets for question in questions])
    queries = np.stack([question.query for question in questions])
    return bundle.predict_unrounded(queries, inputs, targets, seed=seed, first_index=first_index)


def _answer_with_torch(model: Model, questions: list[Question], *, seed: int, first_index: int) -> NDArray[np.float32]:
    shape = latent_shape(1, *questions[0].query.shape[:2])
    noise = np.stack([starting_noise(shape, seed=seed, index=first_index + i) for i in range(len(questions))])
    answer = predict(
        model.vae,
        model.dit,
        context_inputs=torch.stack([_to_model(question.context.inputs) for question in questions]),
        context_targets=torch.stack([_to_model(question.context.targets) for question in questions]),
        queries=_to_model([question.query for question in questions]),
        noise=torch.from_numpy(noise),
        sampling=model.sampling,
    )
    return answer[:, :, 0].numpy()


def _to_model(images: NDArray[np.uint8] | list[NDArray[np.uint8]]) -> Tensor:
    """Shapes: `(n, h, w, 3)` to clips of one frame, `(n, 3, 1, h, w)`."""
    return torch.stack([to_model(image[None]) for image in images])
