"""The exact savings of the model against their definitions, interleaved in one process: median times and their ratio."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lavin_dit.dit.blocks import Block, LastBlock
from lavin_dit.dit.rope import Rotation
from lavin_dit.presets import DIT_PRESETS
from lavin_dit.vae.convolutions import CausalConv3d

REPEATS = 25


def medians_s(*runs: Callable[[], object]) -> list[float]:
    """Medians of several functions, run in turn, so that a drifting machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, own in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in times]


def folded_convolution() -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    layer = CausalConv3d(32, 32)
    x = torch.randn(8, 32, 1, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    return lambda: layer(x), lambda: layer.forward_unfolded(x)


def last_block() -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    shape = DIT_PRESETS["laptop"]
    block, last = Block(shape), LastBlock(shape)
    last.load_state_dict(block.state_dict(), strict=True)
    prompt, answer = torch.randn(16, 80, shape.dim), torch.randn(16, 16, shape.dim)
    modulation = torch.randn(16, 8 * shape.dim)
    rotation = Rotation.of_grid(6, 4, 4, shape.head_dim, device=prompt.device)
    return lambda: last(prompt, answer, modulation, rotation), lambda: block(prompt, answer, modulation, rotation)[1]


def main() -> None:
    torch.set_num_threads(1)
    for name, pair in (("folded convolution, one frame", folded_convolution()), ("last block, answer only", last_block())):
        with torch.no_grad():
            saved, whole = medians_s(*pair)
        print(f"{name:30s} {saved * 1e3:7.2f} ms   definition {whole * 1e3:7.2f} ms   {whole / saved:.2f} times faster")


if __name__ == "__main__":
    main()
