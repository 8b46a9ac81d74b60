"""Runs a bundle: example pairs and queries in, answers out. Needs numpy and onnxruntime only.

Shapes: `b` queries, `n` context pairs, `h w` pixels, `z y x` latents, `f` prompt frames; see `lavin_dit`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lavin_dit.errors import InputError
from lavin_dit.export.format import BUNDLE_FORMAT, DIT_VELOCITY, FACTS_FILE, TABLE_FILE, VAE_DECODER, VAE_ENCODER, context_file
from lavin_dit.export.integrity import verify_checksums
from lavin_dit.export.pixels import Floats, Pixels, check_draws, check_images, to_model, to_pixels
from lavin_dit.sampling import starting_noise, time_grid


class Nearest(NamedTuple):
    """Whether resizing a task's inputs, and its targets and answers, must not mix their colours."""

    inputs: bool = False
    targets: bool = False


@dataclass(frozen=True)
class TaskFacts:
    """A task that the bundle has default context pairs for; `kind` says how its answers are to be read."""

    name: str
    title: str
    summary: str
    kind: str
    nearest: Nearest


@dataclass(frozen=True)
class Context:
    """Example pairs. Shapes: both `(n, h, w, 3)`."""

    inputs: Pixels
    targets: Pixels


@dataclass(frozen=True)
class _Table:
    """All that depends on the time, a row for each evaluation. Shapes: blocks `(s, depth, 8d)`, final `(s, d)`."""

    blocks: Floats
    final: Floats


class Bundle:
    """An exported model; open it with `Bundle.open`. Not for use from several threads at once."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], num_threads: int) -> None:
        self.folder = folder
        self.facts = facts
        self._num_threads = num_threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True, num_threads: int = 0) -> Self:
        """Opens a bundle; graphs are loaded when first needed.

        `num_threads` for each graph, 0 leaves it to ONNX Runtime. `verify` reads every file and checks its sha256.
        Raises: InputError where the folder is no bundle of this format, or a file does not match its hash.
        """
        if not (folder / FACTS_FILE).is_file():
            raise InputError(f"{folder}: is not a bundle, it holds no {FACTS_FILE}")
        if num_threads < 0:
            raise InputError(f"num_threads is {num_threads}: must be 0 or more")
        if verify:
            verify_checksums(folder)
        return cls(folder, _read_facts(folder / FACTS_FILE), num_threads)

    @property
    def resolution(self) -> int:
        """Pixels a side of the images that the model was trained on."""
        return int(self.facts["resolution"])

    @property
    def num_pairs(self) -> int:
        """Context pairs of its default contexts."""
        return int(self.facts["sampling"]["num_pairs"])

    @cached_property
    def tasks(self) -> Mapping[str, TaskFacts]:
        """The tasks with default context pairs, by name."""
        return {
            name: TaskFacts(
                name,
                task["title"],
                task["summary"],
                task["kind"],
                # Bundles made before there were tasks with drawn inputs do not say.
                Nearest(inputs=task.get("input_is_nearest", False), targets=task["is_nearest"]),
            )
            for name, task in self.facts["tasks"].items()
        }

    def nearest(self, task: str | None) -> Nearest:
        """How a task's pictures are resized; of one without default pairs, all are taken for photographs."""
        facts = self.tasks.get(task or "")
        return facts.nearest if facts else Nearest()

    def contexts(self, task: str) -> Context:
        """A task's default context pairs.

        Raises: InputError naming the tasks there are.
        """
        if task not in self.tasks:
            raise InputError(f"task {task!r}: this bundle has example pairs for {', '.join(self.tasks)}; for another task, give your own")
        with np.load(self.folder / context_file(task), allow_pickle=False) as arrays:
            return Context(arrays["inputs"], arrays["targets"])

    def predict(
        self,
        queries: Pixels,
        context_inputs: Pixels,
        context_targets: Pixels,
        *,
        seed: int = 0,
        first_index: int = 0,
        num_points: int | None = None,
        guidance_scale: float | None = None,
    ) -> Pixels:
        """Answers to queries.

        Shapes: queries `(b, h, w, 3)`, contexts `(b, n, h, w, 3)`, or `(1, n, h, w, 3)` for the same pairs with every query, to
        `(b, h, w, 3)`; h and w multiples of 16.
        The noise of query i depends on (seed, first_index + i) alone. What is None is the bundle's own.
        Raises: InputError naming the argument, what it is, and what is allowed.
        """
        images = self.predict_unrounded(
            queries,
            context_inputs,
            context_targets,
            seed=seed,
            first_index=first_index,
            num_points=num_points,
            guidance_scale=guidance_scale,
        )
        return to_pixels(images)

    def predict_unrounded(
        self,
        queries: Pixels,
        context_inputs: Pixels,
        context_targets: Pixels,
        *,
        seed: int = 0,
        first_index: int = 0,
        num_points: int | None = None,
        guidance_scale: float | None = None,
    ) -> Floats:
        """`predict` before its answers are clamped and rounded. Shapes: returns `(b, 3, h, w)`, in about [-1, 1]."""
        check_images(queries, context_inputs, context_targets)
        check_draws(seed, first_index)
        scale = self._guidance_scale(guidance_scale)
        self._check_points(num_points)
        prompt = self._encode_prompt(queries, context_inputs, context_targets)
        noise = _starting_noise(prompt, seed, first_index)
        return self._run(VAE_DECODER, latents=self._sample(prompt, noise, scale))

    def _encode_prompt(self, queries: Pixels, inputs: Pixels, targets: Pixels) -> Floats:
        """`in1, out1, in2, out2, ..., query` as frames of latents. Shapes: returns `(b, z, 2n + 1, y, x)`."""
        shown, num_pairs = inputs.shape[:2]
        images = np.concatenate([_flat(inputs), _flat(targets), queries])
        latents = self._run(VAE_ENCODER, images=to_model(images))
        pairs, query = np.split(latents, [2 * shown * num_pairs])
        pairs = pairs.reshape(2, shown, num_pairs, *latents.shape[1:])  # pair b n z y x
        frames = pairs.transpose(1, 3, 2, 0, 4, 5).reshape(shown, latents.shape[1], 2 * num_pairs, *latents.shape[2:])
        frames = np.broadcast_to(frames, (len(queries), *frames.shape[1:]))
        return np.concatenate([frames, query[:, :, None]], axis=2)

    def _sample(self, prompt: Floats, noise: Floats, guidance_scale: float) -> Floats:
        """Solves the flow by Euler steps. Shapes: prompt `(b, z, f, y, x)`, noise `(b, z, 1, y, x)`, to `(b, z, y, x)`."""
        grid, z = self._time_grid, noise
        dropped = _drop_prompt(prompt)
        for index in range(len(grid) - 1):
            velocity = self._velocity(z, prompt, index)
            if guidance_scale != 1.0:
                free = self._velocity(z, dropped, index)
                velocity = free + guidance_scale * (velocity - free)
            z = z + float(grid[index + 1] - grid[index]) * velocity
        return z[:, :, 0]

    def _velocity(self, answer: Floats, prompt: Floats, index: int) -> Floats:
        row = slice(index, index + 1)
        return self._run(DIT_VELOCITY, answer=answer, prompt=prompt, blocks=self._table.blocks[row], final=self._table.final[row])

    def _run(self, graph: str, **inputs: Floats) -> Floats:
        if graph not in self._sessions:
            self._sessions[graph] = self._load(graph)
        (output,) = self._sessions[graph].run(None, inputs)
        assert isinstance(output, np.ndarray)
        return output

    def _load(self, graph: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        path = self.folder / self.facts["graphs"][graph]["file"]
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _table(self) -> _Table:
        with np.load(self.folder / TABLE_FILE, allow_pickle=False) as arrays:
            return _Table(arrays["blocks"], arrays["final"])

    @cached_property
    def _time_grid(self) -> NDArray[np.float64]:
        return time_grid(self.facts["sampling"]["num_points"])

    def _guidance_scale(self, asked: float | None) -> float:
        scale = float(self.facts["sampling"]["guidance_scale"]) if asked is None else float(asked)
        if not 0 < scale < np.inf:
            raise InputError(f"guidance_scale is {scale:g}: must be above 0; 1 switches guidance off")
        return scale

    def _check_points(self, asked: int | None) -> None:
        held = self.facts["sampling"]["num_points"]
        if asked not in (None, held):
            raise InputError(
                f"num_points is {asked}: this bundle holds the modulations of its own {held}-point time grid only; "
                "export again with another export.sampling.num_points"
            )


def _read_facts(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a bundle's description ({error})") from error
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != BUNDLE_FORMAT:
        raise InputError(f"{path}: is of format {found}, this runtime reads format {BUNDLE_FORMAT}")
    assert isinstance(facts, dict)
    return facts


def _starting_noise(prompt: Floats, seed: int, first_index: int) -> Floats:
    _, channels, _, rows, columns = prompt.shape
    shape = (channels, 1, rows, columns)
    return np.stack([starting_noise(shape, seed=seed, index=first_index + i) for i in range(len(prompt))])


def _drop_prompt(prompt: Floats) -> Floats:
    query = prompt[:, :, -1:]
    return np.concatenate([np.zeros_like(query), query], axis=2)


def _flat(images: Pixels) -> Pixels:
    return images.reshape(-1, *images.shape[2:])
