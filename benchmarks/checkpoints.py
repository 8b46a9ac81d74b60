"""What one checkpoint a minute costs training at the laptop sizes, and how fast it is written, against a plain copy of the same bytes.

What is lost is the time of training steps with a checkpoint among them, until it is complete, less that of as many steps without one;
the processor time of both tells the same on a machine that has other work, too.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.training_step import dit_loss, training_step, vae_loss
from components.entry import tune_process
from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.training.checkpoints import Checkpoints, Saved
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import CheckpointConfig
from lavin_dit.vae.st_vae import STVae

RULES = CheckpointConfig(every_steps=1, keep_last=2, keep_every_steps=None, keep_best=True, location=None)
INTERVAL_S = 60.0
NUM_STEPS = 8
"""Of a block; a checkpoint of these sizes is complete before their end."""
NUMBERS = count(1)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Weights, average, and AdamW's two moments and counts."""
    weights = network.state_dict()
    copies = {f"{part}.{name}": tensor.clone() for part in ("average", "exp_avg", "exp_avg_sq") for name, tensor in weights.items()}
    counts = {f"step.{name}": torch.tensor(1.0) for name in weights}
    return {f"network.{name}": tensor for name, tensor in weights.items()} | copies | counts


def elapsed_s(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    run()
    return clock() - started


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors."""
    busy_s = 0.0

    def watched() -> None:
        nonlocal busy_s
        busy_s = elapsed_s(run, time.process_time)

    return elapsed_s(watched), busy_s


def copy_s(source: Path, target: Path) -> float:
    """A plain copy of a checkpoint's files, on the disk when it is done."""

    def copy() -> None:
        shutil.copytree(source, target)
        for path in target.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    took_s = elapsed_s(copy)
    shutil.rmtree(target)
    return took_s


def measure(name: str, network: nn.Module, loss: Callable[[], Tensor], folder: Path, repeats: int) -> None:
    saved: list[Saved] = []
    checkpoints = Checkpoints(
        folder / name, RULES, Processes(0, 1, torch.device("cpu")), identity={"benchmark": name}, on_saved=saved.append
    )
    step, state = training_step(network, loss), state_of(network)

    def block(*, saves: bool) -> None:
        for index in range(NUM_STEPS):
            if saves and index == 1:
                checkpoints.save(next(NUMBERS), state, {}, score=1.0)
            step()
        checkpoints.wait()

    block(saves=True)
    saved.clear()
    pairs = [(timed(lambda: block(saves=False)), timed(lambda: block(saves=True))) for _ in range(repeats)]
    lost_s, busy_s = (statistics.median(with_one[clock] - without[clock] for without, with_one in pairs) for clock in (0, 1))
    blocked_s, took_s = (statistics.median(values) for values in zip(*((one.blocked_s, one.duration_s) for one in saved), strict=True))
    size = saved[-1].num_bytes
    plain_s = statistics.median(copy_s(folder / name / f"step-{saved[-1].step:08d}", folder / "copy") for _ in range(repeats))
    speeds = (
        f"written beside it at {size / took_s / 1e6:4.0f} MB/s   plain copy {size / plain_s / 1e6:4.0f} MB/s   ratio {took_s / plain_s:.1f}"
    )
    print(
        f"{name:7s} {size / 1e6:5.1f} MB   training waits {blocked_s * 1e3:5.1f} ms, loses {lost_s * 1e3:6.1f} ms: "
        f"{lost_s / INTERVAL_S:.2%} at one a minute, {busy_s * 1e3:4.0f} ms of a processor   {speeds}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    is_tuned = "GOMP_SPINCOUNT" in os.environ
    tune_process()
    if not is_tuned:
        # As in every step, that must be known before torch is imported.
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606
    torch.set_num_threads(options.threads)
    vae, dit = STVae(VAE_PRESETS["laptop"]), JDit(DIT_PRESETS["laptop"])
    vae.initialise(torch.Generator().manual_seed(0))
    dit.initialise(torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as scratch:
        for name, network, loss in (("ST-VAE", vae, vae_loss(vae)), ("J-DiT", dit, dit_loss(dit))):
            measure(name, network, loss, Path(scratch), options.repeats)


if __name__ == "__main__":
    main()
