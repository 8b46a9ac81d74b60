from pathlib import Path
from typing import Any

import pytest

from lavin_dit.config import load_config
from lavin_dit.planning.devices import DEVICES
from lavin_dit.planning.gpu_times import plain_passes_s
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.speeds import ASSUMED, RECKONED, STATED, dit_speed
from lavin_dit.planning.step_time import Fleet
from lavin_dit.training_config import LoraConfig, TrainDitConfig

TINY = Path(__file__).parents[2] / "tiny.yaml"
BFLOAT16 = {"execution.precision": "bfloat16"}
LORA = LoraConfig(rank=16, alpha=8.0)
FULL, SELECTIVE = ({"execution.activation_checkpointing": kind} for kind in ("full", "selective"))
H100 = (
    ("laptop", (1, 16), 64, {"max_pairs": 2}, 21.9),
    ("0.03B", (1, 16), 128, {"max_pairs": 4} | BFLOAT16, 65.9),
    ("0.1B", (1, 16), 128, {"max_pairs": 4} | BFLOAT16, 85.3),
    ("0.1B", (1, 16), 128, {"max_pairs": 4}, 130.2),
    ("0.1B", (1, 16), 128, {"max_pairs": 4, "lora": LORA} | BFLOAT16, 236.1),
    ("0.1B", (4, 8), 128, {"max_pairs": 4} | BFLOAT16, 461.2),
    ("0.1B", (1, 8), 256, {"max_pairs": 8} | BFLOAT16, 160.3),
    ("0.1B", (1, 8), 256, {"max_pairs": 8} | FULL | BFLOAT16, 204.4),
    ("0.1B", (1, 8), 256, {"max_pairs": 8} | SELECTIVE | BFLOAT16, 282.4),
    ("1.0B", (1, 4), 256, {"max_pairs": 8} | BFLOAT16, 408.9),
)
"""Size, micro-batches and samples of each, resolution, changes, and the milliseconds of a measured step (docs/LOG.md, 2026-11-28).

The third gave the cost of a kernel, the fifth that of a low-rank update, the seventh the passes through memory.
"""
BUSY = (H100[3], H100[6], H100[7], H100[9])
"""Those that keep the GPU busy longer than their kernels take to start."""


def section(shape: str, changes: dict[str, Any]) -> TrainDitConfig:
    values = {"shape": shape} | {key: value for key, value in changes.items() if key != "lora"}
    plain = load_config(TINY, [f"train_dit.{key}={value}" for key, value in values.items()]).train_dit
    return plain.model_copy(update={"lora": changes.get("lora")})


@pytest.mark.parametrize(("shape", "parts", "resolution", "changes", "step_ms"), H100)
def test_steps_are_reckoned_as_they_were_measured(
    shape: str, parts: tuple[int, int], resolution: int, changes: dict[str, Any], step_ms: float
) -> None:
    count, samples = parts
    passes_s = plain_passes_s(section(shape, changes), DEVICES["h100"], samples=samples, resolution=resolution, count=count)
    keeps_busy = (shape, parts, resolution, changes, step_ms) in BUSY
    assert count * passes_s * 1e3 == pytest.approx(step_ms, rel=0.07 if keeps_busy else 0.25)


def test_twice_the_samples_take_twice_as_long_once_the_gpu_is_busy() -> None:
    config = section("0.1B", {"max_pairs": 8} | BFLOAT16)
    small, few, many = (plain_passes_s(config, DEVICES["h100"], samples=samples, resolution=256) for samples in (1, 8, 16))
    assert many == pytest.approx(2 * few, rel=0.01)
    assert small > few / 8


def test_micro_batches_after_the_first_add_their_gradients() -> None:
    fleet = Fleet(DEVICES["h100"], Layout(1, 8), None)
    # The tiny network starts kernels all the time.
    one, four = (dit_speed(load_config(TINY), fleet, MicroBatches(count, 2), backward=2.0).flops for count in (1, 4))
    assert four < one


def test_a_stated_share_goes_before_what_is_reckoned_and_compiled_blocks_are_not_reckoned() -> None:
    config, parts = load_config(TINY), MicroBatches(1, 2)
    compiled = load_config(TINY, ["train_dit.execution.compile=true"])
    stated, silent = (Fleet(DEVICES["h200"], Layout(1, 8), mfu) for mfu in (0.4, None))
    bases = [dit_speed(each, fleet, parts, backward=2.0).basis for each, fleet in ((config, stated), (config, silent), (compiled, silent))]
    assert bases == [STATED, RECKONED, ASSUMED]
