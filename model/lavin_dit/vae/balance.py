"""How strongly the discriminator pulls, relative to the reconstruction.

Source: Défossez et al., High fidelity neural audio compression, 2022 (the loss balancer): gradients at the model's output, running means.
"""

from collections.abc import Mapping

from lavin_dit.running_mean import follow

RECONSTRUCTION_PULL, ADVERSARIAL_PULL = "reconstruction_pull", "adversarial_pull"
MEAN_DECAY = 0.99
MAX_WEIGHT = 1e4


class Balance:
    """Running means of the norms of both gradients at the pixels.

    They know only steps that are over, so the weight of a step is the same in every process and for every cut into micro-batches.
    """

    def __init__(self) -> None:
        self._means = {RECONSTRUCTION_PULL: 0.0, ADVERSARIAL_PULL: 0.0}
        self._num_steps = 0

    def weight(self, share: float) -> float:
        """The factor that brings the discriminator's gradient to a share of the reconstruction's; 0 before the first step is known."""
        if self._num_steps == 0:
            return 0.0
        return share * min(self._means[RECONSTRUCTION_PULL] / max(self._means[ADVERSARIAL_PULL], 1e-12), MAX_WEIGHT)

    def observe(self, means: Mapping[str, float]) -> None:
        """Takes a step's mean norms over the global batch into account."""
        self._num_steps += 1
        for name, mean in self._means.items():
            self._means[name] = follow(mean, means[name], count=self._num_steps, decay=MEAN_DECAY)

    def state(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {**self._means, "num_steps": float(self._num_steps)}

    def take_up(self, state: Mapping[str, float]) -> None:
        """Goes on from what `state` gave."""
        self._means = {name: float(state[name]) for name in self._means}
        self._num_steps = int(state["num_steps"])
