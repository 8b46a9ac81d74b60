"""The schema of params.yaml: one frozen section a step, no defaults, every refusal one sentence. Never imports torch."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lavin_dit.errors import InputError
from lavin_dit.presets import PATCH_SIZE, SPATIAL_FACTOR, TEMPORAL_FACTOR
from lavin_dit.section import Fraction, Name, NotNegative, NotNegativeReal, Positive, PositiveReal, Section, Seed
from lavin_dit.training_config import TrainDitConfig, TrainVaeConfig

RESOLUTION_STEP = SPATIAL_FACTOR * PATCH_SIZE
OWN_SOURCES = ("scenes", "pairs", "photos")
"""Names of what needs no entry in prepare.sources: rendered scenes, and the user's own pairs and photographs."""


class SourceConfig(Section):
    """A data set as its publishers lay it out."""

    name: Name
    """What its pairs are known by, in weights and reports."""
    reader: Name
    """Which layout it has: coco, nyu_depth ..."""
    folder: str
    """Where it lies below data/raw."""
    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]

    @field_validator("folder")
    @classmethod
    def _lies_below_raw(cls, value: str) -> str:
        if not value or value.startswith(("/", ".")) or ".." in PurePosixPath(value).parts:
            raise ValueError("must be a relative folder below data/raw")
        return value


class PrepareConfig(Section):
    """Which pairs the data set holds."""

    seed: Seed
    resolution: Positive
    """Pixels a side of every square image; a multiple of 16 (8x8 latents, 2x2 patches)."""
    clip_frames: Positive
    """Frames of a clip, 1 + 4k; 1 where there are images alone."""
    tasks: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Tasks drawn from rendered scenes, clips and photographs; pair folders under data/raw add their own."""
    held_out_tasks: tuple[Name, ...]
    """Tasks that are measured and never trained: their pairs go into the test split alone."""
    sources: tuple[SourceConfig, ...]
    """Published data sets under data/raw."""
    difficulty: Annotated[float, Field(ge=0, le=1)]
    """Of rendered scenes: 0 for few plain solids, 1 for all shapes, textures and lights."""
    num_train_scenes: NotNegative
    num_test_scenes: NotNegative
    """Rendered scenes that no training step ever sees."""
    num_train_clips: NotNegative
    """Rendered clips of moving scenes, each of clip_frames frames."""
    num_test_clips: NotNegative
    test_fraction: Fraction
    """Share of the user's photographs, and of pair folders without a test split, that is held out."""
    shard_mib: PositiveReal
    """Size at which a tar shard is closed, in MiB."""
    max_megapixels: PositiveReal
    """An image with more pixels than this is refused (decompression bombs)."""
    photo_format: Literal["png", "webp", "jpeg"]
    """Of photographs and rendered pictures; maps, labels and masks are always PNG."""
    on_bad: Literal["stop", "skip"]
    """What is done about a file of the user's that cannot be read: stop, or leave it out and say so."""

    @field_validator("resolution")
    @classmethod
    def _tokens_fit(cls, value: int) -> int:
        if value % RESOLUTION_STEP:
            raise ValueError(f"must be a multiple of {RESOLUTION_STEP} (8x8 latents, 2x2 patches)")
        return value

    @field_validator("clip_frames")
    @classmethod
    def _clip_compresses(cls, value: int) -> int:
        if (value - 1) % TEMPORAL_FACTOR:
            raise ValueError("must be 1 + 4k (1, 5, 9, 13 ...), the lengths that the ST-VAE compresses")
        return value

    @model_validator(mode="after")
    def _clips_have_frames(self) -> Self:
        has_clips = self.num_train_clips + self.num_test_clips > 0
        if has_clips and self.clip_frames == 1:
            raise ValueError(
                "clip_frames is 1: must be 1 + 4k with k above 0 (5, 9, 13 ...) where num_train_clips or num_test_clips is above 0"
            )
        return self

    @field_validator("tasks", "held_out_tasks")
    @classmethod
    def _tasks_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _check_unique(value)
        return value

    @field_validator("sources")
    @classmethod
    def _sources_differ(cls, value: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        _check_unique([source.name for source in value])
        reserved = [source.name for source in value if source.name in OWN_SOURCES]
        if reserved:
            raise ValueError(f"names a data set {reserved[0]}: {', '.join(OWN_SOURCES)} are names of what is always there")
        return value


class SamplingConfig(Section):
    """How answers are sampled."""

    num_points: Annotated[int, Field(ge=2)]
    """Points of the time grid; one fewer evaluations."""
    guidance_scale: PositiveReal
    """Classifier-free guidance; 1 switches it (and its second evaluation) off."""
    num_pairs: NotNegative
    """Context pairs shown with every query; 0 for the query alone, as classifier-free guidance drops its prompt."""


class EvaluateConfig(Section):
    """What is measured on held-out scenes."""

    seed: Seed
    queries_per_task: Positive
    batch_size: Positive
    examples_per_task: NotNegative
    """Rows of each task's picture grid in the report."""
    sampling: SamplingConfig


class ExportConfig(Section):
    """The bundle and the check it must pass."""

    seed: Seed
    sampling: SamplingConfig
    parity_queries: Positive
    max_relative_error: PositiveReal
    """Largest relative error of a full sampled prediction, ONNX Runtime against torch."""

    @field_validator("sampling")
    @classmethod
    def _shows_a_pair(cls, value: SamplingConfig) -> SamplingConfig:
        if value.num_pairs == 0:
            raise ValueError("num_pairs is 0: must be at least 1, since a bundle tells its tasks by their pairs")
        return value


class Bound(Section):
    """An absolute gate on one metric."""

    min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs min, max, or both")
        return self


class GateConfig(Section):
    """What a model must show before it may be promoted."""

    against: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*#[a-z0-9][a-z0-9_-]*$")]
    """Name and stage of the model that it is compared with, such as `lavin-dit#production`."""
    min_tasks_beating_baselines: NotNegative
    bounds: dict[str, Bound]
    """Absolute gates by metric name, such as `depth/abs_rel`."""
    max_regression: NotNegativeReal
    """How much worse than that model, relatively, each task's own metric may be."""


class PromoteConfig(Section):
    """Under which name and in which stage a bundle is registered."""

    name: Name
    stage: Name


Checked = TypeVar("Checked", bound=Section)


class Config(Section):
    """All of params.yaml."""

    prepare: PrepareConfig
    train_vae: TrainVaeConfig
    train_dit: TrainDitConfig
    evaluate: EvaluateConfig
    export: ExportConfig
    gate: GateConfig
    promote: PromoteConfig

    @model_validator(mode="after")
    def _pictures_can_be_halved(self) -> Self:
        if self.train_vae.adversarial:
            try:
                self.train_vae.adversarial.check_side(self.prepare.resolution)
            except ValueError as error:
                raise ValueError(f"train_vae.{error}") from error
        return self

    @model_validator(mode="after")
    def _clips_are_rendered(self) -> Self:
        clips, prepare = self.train_vae.clips, self.prepare
        if self.train_dit.clips and prepare.clip_frames == 1:
            raise ValueError("train_dit.clips is set: needs prepare.clip_frames above 1 (5, 9, 13 ...)")
        if clips and clips.frames > prepare.clip_frames:
            raise ValueError(f"train_vae.clips.frames is {clips.frames}: must be at most prepare.clip_frames ({prepare.clip_frames})")
        return self


def _check_unique(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(repeated)} more than once")


SECTIONS: dict[str, type[Section]] = {
    "prepare": PrepareConfig,
    "train_vae": TrainVaeConfig,
    "train_dit": TrainDitConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "gate": GateConfig,
    "promote": PromoteConfig,
}


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Reads and validates a whole params file, with `section.key=value` overrides applied first.

    Raises: InputError naming the key's path, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a params file ({error})") from error
    return parse_config(text, overrides, source=str(path))


def parse_config(text: str, overrides: Iterable[str] = (), *, source: str = "params") -> Config:
    """Validates the text of a params file; see `load_config`."""
    try:
        document = _load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise InputError(f"{source}: must be a mapping with the sections {', '.join(SECTIONS)}")
    for override in overrides:
        _override(document, override)
    return validate(Config, document, prefix="")


def section_from_json(step: str, text: str) -> Section:
    """The section of one step, as `resolve` hands it over."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{step}: its section is not valid JSON ({error})") from error
    return validate(SECTIONS[step], document, prefix=f"{step}.")


def section_to_json(section: Section) -> str:
    """Canonical text of a section: equal sections give equal texts."""
    return json.dumps(section.model_dump(mode="json"), sort_keys=True)


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as the number that it is in YAML 1.2; PyYAML follows YAML 1.1, where it is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def _override(document: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError(f"--set {override}: must read section.key=value")
    try:
        value = _load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not valid YAML ({' '.join(str(error).split())})") from error
    target: Any = document
    for depth, key in enumerate(keys[:-1], start=1):
        target = target.get(key)
        if not isinstance(target, dict):
            found = "absent" if target is None else repr(target)
            raise InputError(f"--set {override}: {'.'.join(keys[:depth])} is {found}, not a section")
    target[keys[-1]] = value


def validate(schema: type[Checked], document: object, *, prefix: str) -> Checked:
    """Checks a document against a schema; `prefix` comes before every key's path.

    Raises: InputError naming every key that does not fit, its value and what is allowed.
    """
    try:
        return schema.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        problems = [_sentence(problem, prefix) for problem in error.errors(include_url=False)]
        raise InputError("; ".join(problems)) from error


def _sentence(problem: Any, prefix: str) -> str:
    path = prefix + ".".join(str(part) for part in problem["loc"])
    if not problem["loc"]:
        # A rule on several keys names them itself.
        return f"{prefix.removesuffix('.')}{': ' if prefix else ''}{problem.get('ctx', {}).get('error', problem['msg'])}"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown parameter"
    if problem["type"] == "missing":
        return f"{path}: missing"
    reason = str(problem.get("ctx", {}).get("error", problem["msg"]))
    value = problem["input"]
    shown = "" if isinstance(value, dict) else f" is {value!r}"
    return f"{path}{shown}: {reason[0].lower()}{reason[1:]}"
