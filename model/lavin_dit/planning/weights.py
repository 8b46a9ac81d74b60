"""Every weight of the networks by its name and shape, and which of them a section trains. Never imports torch."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lavin_dit.errors import InputError
from lavin_dit.planning.vae_layers import Volume, layer_weights, vae_layers
from lavin_dit.presets import MODULATIONS_PER_SIDE, PATCH_DIM, SPATIAL_FACTOR, TIME_FEATURES, DitShape, VaeShape
from lavin_dit.training_config import LoraConfig

SIDES = ("prompt", "answer")
SMALLEST = Volume(1, SPATIAL_FACTOR, SPATIAL_FACTOR)


class Weight(NamedTuple):
    """A weight."""

    name: str
    shape: tuple[int, ...]
    trained: bool = True
    """Whether training moves it at all: nobody reads the last block's prompt."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_linear(self) -> bool:
        """Whether it is the matrix of a linear layer."""
        return len(self.shape) == 2 and self.name.endswith(".weight")


def dit_weights(shape: DitShape) -> list[Weight]:
    """Those of a J-DiT, in the order of computation: embeddings, every modulation, the blocks, the last layer."""
    modulations = [weight for index in range(shape.depth) for weight in modulation_weights(shape, index)]
    blocks = [weight for index in range(shape.depth) for weight in block_weights(shape, index)]
    return [*first_weights(shape), *modulations, *blocks, *last_weights(shape)]


def first_weights(shape: DitShape) -> list[Weight]:
    """Those of what comes before its modulations and blocks."""
    dim = shape.dim
    time = [*_linear("time_embedding.mlp.0", TIME_FEATURES, dim), *_linear("time_embedding.mlp.2", dim, dim)]
    embeddings = [Weight(f"{side}_embed", (1, dim)) for side in SIDES]
    embedders = [
        weight
        for side in SIDES
        for weight in (*_linear(f"{side}_embedder.0", PATCH_DIM, dim), *_vectors(f"{side}_embedder.1", dim, ("weight", "bias")))
    ]
    return [*time, *embeddings, *embedders]


def last_weights(shape: DitShape) -> list[Weight]:
    """Those of its last layer."""
    return [*_linear("final_layer.modulation", shape.dim, shape.dim), *_linear("final_layer.linear", shape.dim, PATCH_DIM)]


def modulation_weights(shape: DitShape, index: int) -> list[Weight]:
    """Those of a block's modulations."""
    return [weight for side in SIDES for weight in _linear(f"blocks.{index}.{side}_modulation.linear", shape.dim, _modulated(shape))]


def block_weights(shape: DitShape, index: int) -> list[Weight]:
    """Those of a block without its modulations."""
    return [weight for side in SIDES for weight in _side_weights(shape, index, side)]


def vae_weights(shape: VaeShape) -> list[Weight]:
    """Those of an ST-VAE, in the order of computation."""
    return [weight for weights in vae_layer_weights(shape) for weight in weights]


def vae_layer_weights(shape: VaeShape) -> list[list[Weight]]:
    """Those of each of its layers."""
    return [[Weight(name, (size,)) for name, size in layer_weights(layer)] for layer in vae_layers(shape, SMALLEST)]


def num_weights(weights: Sequence[Weight]) -> int:
    """How many numbers they are."""
    return sum(weight.size for weight in weights)


def num_trained(weights: Sequence[Weight], frozen: Sequence[str], lora: LoraConfig | None = None) -> int:
    """How many numbers training moves: of these weights, or of the low-rank updates beside them."""
    return lora_of(weights, frozen, lora) if lora else num_weights(moved(weights, frozen))


def lora_of(weights: Sequence[Weight], frozen: Sequence[str], lora: LoraConfig | None) -> int:
    """Numbers of the low-rank updates beside those of them that are linears of blocks; 0 where there are no updates."""
    return lora.rank * sum(sum(weight.shape) for weight in adapted(weights, frozen)) if lora else 0


def adapted(weights: Sequence[Weight], frozen: Sequence[str]) -> list[Weight]:
    """Those that low-rank updates are put beside: the linears of blocks that would be trained."""
    return [weight for weight in moved(weights, frozen) if weight.is_linear and weight.name.startswith("blocks.")]


def moved(weights: Sequence[Weight], frozen: Sequence[str]) -> list[Weight]:
    """Those of them that training moves, where there are no low-rank updates."""
    return [weight for weight in weights if weight.trained and not is_frozen(weight.name, frozen)]


def is_frozen(name: str, frozen: Sequence[str]) -> bool:
    """Whether a weight has one of these names, or begins so, up to a dot."""
    return any(_begins(name, beginning) for beginning in frozen)


def check_frozen(frozen: Sequence[str], weights: Mapping[str, bool], *, key: str) -> None:
    """`weights` says of each name whether training would move it.

    Raises: InputError, which names `key`, for a name that no weight has, and where nothing is left to train.
    """
    for name in frozen:
        if not any(_begins(weight, name) for weight in weights):
            raise InputError(f"{key} has {name}: no weight's name is or begins so{_offer(name, weights)}")
    if not any(is_trained and not is_frozen(name, frozen) for name, is_trained in weights.items()):
        raise InputError(f"{key} is {', '.join(frozen)}: leaves no weight to train")


def _offer(name: str, weights: Iterable[str]) -> str:
    beginnings = {".".join(parts[: index + 1]) for parts in (full.split(".") for full in weights) for index in range(len(parts))}
    close = difflib.get_close_matches(name, sorted(beginnings), n=3) or sorted({full.split(".")[0] for full in weights})
    return f"; names near it: {', '.join(close)}"


def _begins(name: str, beginning: str) -> bool:
    return f"{name}.".startswith(f"{beginning.rstrip('.')}.")


def _side_weights(shape: DitShape, index: int, side: str) -> Iterator[Weight]:
    dim, key_dim, hidden = shape.dim, shape.num_kv_heads * shape.head_dim, shape.hidden_dim
    is_read = side == "answer" or index + 1 < shape.depth
    attention, feed_forward = f"blocks.{index}.attention.{side}", f"blocks.{index}.{side}_feed_forward"
    yield Weight(f"{attention}.query.weight", (dim, dim), is_read)
    yield Weight(f"{attention}.query_norm.weight", (dim,), is_read)
    yield Weight(f"{attention}.key.weight", (key_dim, dim))
    yield Weight(f"{attention}.key_norm.weight", (key_dim,))
    yield Weight(f"{attention}.value.weight", (key_dim, dim))
    yield Weight(f"{attention}.out.weight", (dim, dim), is_read)
    yield Weight(f"{feed_forward}.gate.weight", (hidden, dim), is_read)
    yield Weight(f"{feed_forward}.up.weight", (hidden, dim), is_read)
    yield Weight(f"{feed_forward}.down.weight", (dim, hidden), is_read)


def _modulated(shape: DitShape) -> int:
    return MODULATIONS_PER_SIDE * shape.dim


def _linear(name: str, width_in: int, width_out: int) -> list[Weight]:
    return [Weight(f"{name}.weight", (width_out, width_in)), Weight(f"{name}.bias", (width_out,))]


def _vectors(name: str, width: int, kinds: Sequence[str]) -> list[Weight]:
    return [Weight(f"{name}.{kind}", (width,)) for kind in kinds]
