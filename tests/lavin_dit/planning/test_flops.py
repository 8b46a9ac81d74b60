from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.config import load_config
from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import TRAINING_FACTOR, dit_flops, dit_recomputed, vae_flops, vae_recomputed
from lavin_dit.planning.layers import dit_training_flops, vae_passes
from lavin_dit.planning.rehearsal import RehearsedVae, one_picture
from lavin_dit.presets import DIT_PRESETS, LATENT_CHANNELS, VAE_PRESETS, DitShape
from lavin_dit.training.finetuning import adapt, freeze
from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut
from lavin_dit.training_config import ExecutionConfig, LoraConfig
from lavin_dit.vae.st_vae import STVae

TINY = Path(__file__).parents[2] / "tiny.yaml"
EMBEDDINGS = ("time_embedding", "prompt_embedder", "answer_embedder", "prompt_embed", "answer_embed")


class Noised(Objective[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The J-DiT's forward pass on random latents."""

    network: JDit

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.network = JDit(shape)

    def batch(self, step: int, samples: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        answer, prompt = (torch.rand(len(samples), LATENT_CHANNELS, frames, 8, 8) for frames in (1, 3))
        return answer, prompt, torch.full((len(samples),), float(step))

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Losses:
        return Losses(self.network(*batch).sum())

    def cost(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Cost:
        return Cost(batch[0].numel(), 0.0)


def counted(run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def dit_inputs(samples: int, frames: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    prompt = torch.zeros(samples, LATENT_CHANNELS, frames, side, side, device="meta")
    return torch.zeros(samples, LATENT_CHANNELS, 1, side, side, device="meta"), prompt, torch.zeros(samples, device="meta")


@pytest.mark.parametrize("size", DIT_PRESETS)
def test_the_j_dits_forward_pass_takes_exactly_what_torch_counts(size: str) -> None:
    with torch.device("meta"):
        network = JDit(DIT_PRESETS[size])
    inputs = dit_inputs(samples=3, frames=5, side=8)
    with torch.no_grad():
        assert counted(lambda: network(*inputs)) == dit_flops(DIT_PRESETS[size], samples=3, prompt_tokens=5 * 16, answer_tokens=16)


@pytest.mark.parametrize("size", ["laptop", "0.03B", "3.4B"])
def test_forward_and_backward_take_three_forwards(size: str) -> None:
    with torch.device("meta"):
        network = JDit(DIT_PRESETS[size])
    inputs = dit_inputs(samples=2, frames=5, side=16)
    forward = dit_flops(DIT_PRESETS[size], samples=2, prompt_tokens=5 * 64, answer_tokens=64)
    assert counted(lambda: network(*inputs).sum().backward()) == pytest.approx(TRAINING_FACTOR * forward, rel=0.02)


@pytest.mark.parametrize(
    "changes", [{}, {"frozen": ("blocks",)}, {"frozen": ("blocks.0", "blocks.1", *EMBEDDINGS)}, {"lora": LoraConfig(rank=2, alpha=4.0)}]
)
def test_forward_and_backward_take_less_where_weights_are_frozen(changes: dict[str, Any]) -> None:
    section = load_config(TINY).train_dit.model_copy(update={"shape": DIT_PRESETS["laptop"]} | changes)
    network = JDit(section.shape)
    freeze(network, section.frozen, key="frozen")
    if section.lora:
        adapt(network, section.lora, torch.Generator())
    network.to("meta")
    inputs = dit_inputs(samples=2, frames=5, side=16)
    planned = dit_training_flops(section, Episodes(2, prompt=5 * 64, answer=64))
    assert counted(lambda: network(*inputs).sum().backward()) == pytest.approx(planned, rel=0.05)


@pytest.mark.parametrize("frozen", [(), ("encoder",), ("decoder",)])
def test_so_does_the_st_vae(frozen: tuple[str, ...]) -> None:
    section = load_config(TINY).train_vae.model_copy(update={"shape": VAE_PRESETS["laptop"], "frozen": frozen})
    network = STVae(section.shape)
    freeze(network, frozen, key="frozen")
    pixels, noise = torch.zeros(1, 3, 1, 32, 32), torch.zeros(1, LATENT_CHANNELS, 1, 4, 4)
    forward = sum(vae_flops(section.shape, samples=1, frames=1, height=32, width=32))
    assert counted(lambda: network(pixels, noise)[0].sum().backward()) == pytest.approx(vae_passes(section) * forward, rel=0.05)


@pytest.mark.parametrize("frames", [1, 5, 9])
@pytest.mark.parametrize("size", VAE_PRESETS)
def test_the_st_vae_takes_exactly_what_torch_counts(size: str, frames: int) -> None:
    with torch.device("meta"):
        network = STVae(VAE_PRESETS[size])
    pixels = torch.zeros(2, 3, frames, 32, 48, device="meta")
    latents = torch.zeros(2, LATENT_CHANNELS, 1 + (frames - 1) // 4, 4, 6, device="meta")
    with torch.no_grad():
        both = counted(lambda: network.encode(pixels)), counted(lambda: network.decode(latents))
    assert both == vae_flops(VAE_PRESETS[size], samples=2, frames=frames, height=32, width=48)


def test_a_single_frame_takes_a_third_of_what_its_causal_convolutions_would() -> None:
    image, clip = (sum(vae_flops(VAE_PRESETS["paper"], samples=1, frames=frames, height=64, width=64)) for frames in (1, 5))
    assert image < clip / 3


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_what_checkpointing_makes_again_is_what_torch_counts(checkpointing: str) -> None:
    execution = ExecutionConfig(
        micro_batch=None, precision="float32", sharding="none", cpu_offload=False, activation_checkpointing=checkpointing, compile=False
    )
    section = load_config(TINY, ["train_vae.shape=laptop", 'train_dit.shape="0.03B"'])
    with one_picture(32) as shards:
        vae = RehearsedVae(section.train_vae, shards, torch.device("cpu"), frames=1)
    objectives = (vae, Noised(section.train_dit.shape))
    shares = (vae_recomputed(VAE_PRESETS["laptop"], checkpointing), dit_recomputed(checkpointing))
    for objective, share in zip(objectives, shares, strict=True):
        batch = objective.batch(0, range(2))
        forward = counted(lambda objective=objective, batch=batch: objective(batch))
        plain = counted(lambda objective=objective, batch=batch: objective(batch).total.backward())
        laid_out = LaidOut(objective, execution, Processes(0, 1, torch.device("cpu")))
        again = counted(lambda laid_out=laid_out, batch=batch: laid_out.losses(batch).total.backward())
        assert (again - plain) / forward == pytest.approx(share, abs=0.02)
