"""One training step of the ST-VAE and the J-DiT at the laptop sizes, with one thread and two, beside its floor.

The floor is the step's multiplications (as torch counts them) at the speed of a large matrix product in the same process.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS, LATENT_CHANNELS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae

VAE_BATCH, DIT_BATCH, NUM_PAIRS, SIDE, LATENT_SIDE = 8, 16, 2, 64, 8


def median_s(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def vae_loss(vae: STVae) -> Callable[[], Tensor]:
    pixels = torch.randn(VAE_BATCH, 3, 1, SIDE, SIDE)
    return lambda: vae.decode(vae.encode(pixels).mean).square().mean()


def dit_loss(dit: JDit) -> Callable[[], Tensor]:
    answer = torch.randn(DIT_BATCH, LATENT_CHANNELS, 1, LATENT_SIDE, LATENT_SIDE)
    prompt = torch.randn(DIT_BATCH, LATENT_CHANNELS, 2 * NUM_PAIRS + 1, LATENT_SIDE, LATENT_SIDE)
    time_ = torch.rand(DIT_BATCH)
    return lambda: dit(answer, prompt, time_).square().mean()


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    vae, dit = STVae(VAE_PRESETS["laptop"]), JDit(DIT_PRESETS["laptop"])
    vae.initialise(torch.Generator().manual_seed(0))
    dit.initialise(torch.Generator().manual_seed(0))
    left, right = torch.randn(2048, 1024), torch.randn(1024, 1024)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        peak = 2 * 2048 * 1024 * 1024 / median_s(lambda: left @ right, repeats)
        for name, network, loss in (("ST-VAE", vae, vae_loss(vae)), ("J-DiT", dit, dit_loss(dit))):
            with FlopCounterMode(display=False) as counter:
                loss().backward()
            floor_s = counter.get_total_flops() / peak
            took_s = median_s(training_step(network, loss), repeats)
            print(
                f"{name:7s} {threads} thread{'s' if threads > 1 else ' '}  {took_s * 1e3:7.1f} ms a step   "
                f"floor {floor_s * 1e3:6.1f} ms ({counter.get_total_flops() / 1e9:.1f} GFLOP at {peak / 1e9:.0f} GFLOP/s)   "
                f"ratio {took_s / floor_s:.2f}"
            )


if __name__ == "__main__":
    main()
