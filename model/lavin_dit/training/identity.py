"""What makes a training run the one that it is: what must be the same for its checkpoints to be continued. Never imports torch."""

from collections.abc import Mapping
from typing import Any

from lavin_dit.training_config import TrainingSection

FREE_KEYS = ("execution", "checkpoints", "guard", "log_every_steps")
"""Parameters that may change while a run is under way: none of them decides what is learnt."""
PLACES = {"sha256": {"path"}, "window_shards": {"location", "cache_gib"}}
"""What may change beside a key that may not: of weights where their file lies, and of loading where shards come from and are kept."""
ABSENT = "not set"
SHOWN_LENGTH = 60


def identity_of(config: TrainingSection) -> dict[str, Any]:
    """The parameters that a run cannot change under way; of a weights file its hash and of loading the order, wherever either lies."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=set(FREE_KEYS))
    return {name: _without_places(value) for name, value in settings.items()}


def _without_places(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    dropped: set[str] = next((places for kept, places in PLACES.items() if value.keys() == {kept, *places}), set())
    return {name: _without_places(item) for name, item in value.items() if name not in dropped}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Each key whose value differs, by its dotted name and with both values; none where the two are equal."""
    old, new = _flat(there), _flat(here)
    return [
        f"{key} is {_shown(old, key)} there and {_shown(new, key)} here"
        for key in sorted(old.keys() | new.keys())
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, ABSENT)
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."
