"""AdamW over a network and what is trained against it, with a state that is there from the first step on."""

import math

import torch
from torch import Tensor, nn

from lavin_dit.training.objective import Objective
from lavin_dit.training.sharding import trained_weights, whole
from lavin_dit.training_config import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine from the peak down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizer:
    """AdamW with clipping by the global norm, apart for the network and its adversary."""

    def __init__(self, objective: Objective[object], config: OptimizerConfig) -> None:
        self._config = config
        self._groups = [(1.0, _trained("network", objective.network))]
        adversary = objective.adversary()
        if adversary:
            self._groups.append((adversary.learning_rate / config.learning_rate, _trained("adversary", adversary.module)))
        groups = [{"params": list(weights.values())} for _, weights in self._groups]
        self._adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True)
        for weight in self._weights().values():
            moments = {name: torch.zeros_like(weight) for name in MOMENTS}
            self._adamw.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}
        self.num_updates = 0

    def set_rate(self, rate: float) -> None:
        """Sets the network's learning rate; an adversary's follows in proportion."""
        for group, (factor, _) in zip(self._adamw.param_groups, self._groups, strict=True):
            group["lr"] = rate * factor

    def clip(self) -> Tensor:
        """Clips the gradients and returns the network's norm before; not finite where any gradient is not."""
        norms = [whole(nn.utils.clip_grad_norm_(weights.values(), self._config.max_grad_norm)) for _, weights in self._groups]
        return norms[0] if all(bool(norm.isfinite()) for norm in norms) else torch.full_like(norms[0], torch.nan)

    def step(self) -> None:
        """One update of every weight."""
        self._adamw.step()
        self.num_updates += 1

    def forget_gradients(self) -> None:
        """Ready for the next step."""
        self._adamw.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Both moments of every weight, and the adversary's weights, which no network's state holds."""
        moments = {f"{moment}.{name}": self._adamw.state[weight][moment] for name, weight in self._weights().items() for moment in MOMENTS}
        return moments | {name: weight.detach() for name, weight in self._weights().items() if name.startswith("adversary.")}

    def take_up(self, num_updates: int) -> None:
        """Goes on after so many updates; the moments are filled in place."""
        self.num_updates = num_updates
        for weight in self._weights().values():
            self._adamw.state[weight]["step"].fill_(float(num_updates))

    def _weights(self) -> dict[str, nn.Parameter]:
        return {name: weight for _, weights in self._groups for name, weight in weights.items()}


def _trained(prefix: str, module: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": weight for name, weight in trained_weights(module).items()}
