"""What low-rank updates read and write beside the products that they update: theirs are as thin as memory is fast. Never imports torch."""

from dataclasses import dataclass

from lavin_dit.planning.dit_activations import Arithmetic, Episodes
from lavin_dit.planning.weights import adapted, block_weights
from lavin_dit.training_config import TrainDitConfig


@dataclass(frozen=True)
class Accesses:
    """Reads and writes of a token's numbers in one pass: of those that a linear takes, that it gives, and that are between the halves."""

    taken: int
    given: int
    between: int


FORWARD = Accesses(taken=1, given=6, between=2)
"""The first half reads and writes, the second reads and writes, then it is scaled (twice) and added to what the linear gives (thrice)."""
BACKWARD = Accesses(taken=5, given=4, between=4)
"""The gradient is scaled (twice) and read for both factors of the second half; the same of the first half, whose gradient is added to the
linear's own."""


def updates_bytes(config: TrainDitConfig, episodes: Episodes, *, recomputed: float) -> float:
    """All that the updates of a micro-batch's forward and backward passes read and write; 0 where there are none."""
    if config.lora is None:
        return 0.0
    numbers = 0.0
    for index in range(config.shape.depth):
        for linear in adapted(block_weights(config.shape, index), config.frozen):
            given, taken = linear.shape
            tokens = episodes.samples * (episodes.prompt if "prompt" in linear.name else episodes.answer)
            for accesses, passes in ((FORWARD, 1 + recomputed), (BACKWARD, 1)):
                each = accesses.taken * taken + accesses.given * given + accesses.between * config.lora.rank
                numbers += passes * tokens * each
    return numbers * Arithmetic(config.execution.precision, on_gpu=True).narrow
