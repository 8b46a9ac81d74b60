"""The base of every section of params.yaml, and the kinds of values that sections hold. Never imports torch."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """Parameters that belong together: frozen, no unknown keys, no defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class WeightsFile(Section):
    """Weights that a person names; the hash says which, wherever the file lies."""

    path: str
    """A file of weights, or a folder that holds weights.safetensors, as the step's process sees it."""
    sha256: Sha256
    """Of the file; another content is refused."""


def preset_of(presets: Mapping[str, Any]) -> BeforeValidator:
    """Lets a preset's name stand for its sizes."""

    def look_up(value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in presets:
            raise ValueError(f"must be one of {', '.join(presets)}, or a mapping with the sizes themselves")
        return presets[value]

    return BeforeValidator(look_up)
