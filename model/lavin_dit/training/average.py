"""The exponential moving average of a network's weights, held in the same shards as the weights themselves."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lavin_dit.training.sharding import local_part, trained_weights, whole


class MovingAverage:
    """An average over the weights that are trained; it begins as the first weights that it sees."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._present = trained_weights(network)
        self.weights = {name: weight.detach().clone() for name, weight in self._present.items()}
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's present weights into account."""
        averaged = [local_part(weight) for weight in self.weights.values()]
        present = [local_part(weight) for weight in self._present.values()]
        if self.num_updates == 0:
            for target, source in zip(averaged, present, strict=True):
                target.copy_(source)
        else:
            self._blend(averaged, present, self.num_updates)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The network's whole state with averaged weights where there are some, on every process."""
        state: Mapping[str, Tensor] = self._network.state_dict()
        return {name: whole(self.weights.get(name, value)).detach() for name, value in state.items()}
