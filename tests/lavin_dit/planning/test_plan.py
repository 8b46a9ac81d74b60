import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from components import prepare
from lavin_dit.config import load_config
from lavin_dit.data.shards.distinct import DistinctFrames
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.tasks import TASKS
from lavin_dit.errors import InputError
from lavin_dit.planning.dataset import picture_bytes, plan_data
from lavin_dit.planning.devices import DEVICES, device_named, device_peak_flops, known_device
from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import block_flops
from lavin_dit.planning.layers import dit_network, vae_network
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.plan import Plan, plan
from lavin_dit.planning.step_time import Fleet
from lavin_dit.planning.traffic import traffic_of
from lavin_dit.training.feed import micro_ranges
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import ExecutionConfig, LoraConfig
from lavin_dit.vae.discriminator import PatchDiscriminator

RECIPES = Path(__file__).parents[3] / "recipes"
TINY = Path(__file__).parents[2] / "tiny.yaml"


def paper(num_gpus: int, *sets: str, gpu: str = "h200", mfu: float = 0.4) -> Plan:
    usual = ["train_dit.execution.precision=bfloat16", "train_dit.execution.sharding=full"]
    return plan(load_config(RECIPES / "paper.yaml", [*usual, *sets]), Fleet(device_named(gpu), Layout(num_gpus, 8), mfu))


def execution(**changes: Any) -> ExecutionConfig:
    usual = {"micro_batch": None, "precision": "float32", "sharding": "none", "cpu_offload": False, "activation_checkpointing": "none"}
    return ExecutionConfig(**usual | {"compile": False} | changes)


def test_a_share_is_divided_as_the_feed_divides_it() -> None:
    for world, batch_size, micro_batch in ((1, 640, 7), (4, 10, None), (3, 10, 2), (8, 8, 4)):
        ranges = micro_ranges(Processes(0, world, torch.device("cpu")), batch_size, micro_batch)
        parts = MicroBatches.of_share(Layout(world, 8).share(batch_size), micro_batch)
        assert parts.count == len(ranges)
        assert parts.samples >= max(map(len, ranges))


def test_gpus_that_do_not_fill_their_nodes_or_get_no_sample_are_refused() -> None:
    with pytest.raises(InputError, match=r"--gpus 12: more than a node holds must be a multiple"):
        Layout(12, 8)
    with pytest.raises(InputError, match=r"batch_size is 4: must be at least the number of processes \(8\)"):
        Layout(8, 8).share(4)


def test_one_gpu_sends_nothing_and_copies_send_their_gradients_twice() -> None:
    network: dict[str, Any] = {"weights": 1000, "trained": 900, "num_layers": 2, "count": 3}
    assert traffic_of(execution(), Layout(1, 8), **network).node_bytes == 0
    two = traffic_of(execution(), Layout(2, 8), **network)
    assert (two.node_bytes, two.network_bytes) == (2 * 4 * 900 / 2, 0)


def test_every_micro_batch_gathers_split_weights_twice_and_reduces_once() -> None:
    network: dict[str, Any] = {"weights": 1000, "trained": 900, "num_layers": 2}
    one, three = (traffic_of(execution(sharding="full", precision="bfloat16"), Layout(16, 8), **network, count=count) for count in (1, 3))
    assert three.gathers.node_bytes == 3 * one.gathers.node_bytes == 3 * 2 * 2 * 1000 * 15 / 16
    assert three.reductions == one.reductions


def test_hybrid_sharding_sends_less_between_nodes_than_full() -> None:
    network: dict[str, Any] = {"weights": 1000, "trained": 1000, "num_layers": 2, "count": 2}
    full, hybrid = (traffic_of(execution(sharding=sharding), Layout(64, 8), **network) for sharding in ("full", "hybrid"))
    assert hybrid.gathers.network_bytes == 0
    assert hybrid.network_bytes < full.network_bytes


def test_twice_the_gpus_take_half_the_time_while_the_network_is_hidden() -> None:
    one, two = (paper(num_gpus).dit for num_gpus in (8, 16))
    assert one.time.exposed_s < 0.01 * one.time.compute_s
    assert two.time.step_s == pytest.approx(one.time.step_s / 2, rel=0.01)
    assert one.step_flops == two.step_flops


def test_the_mfu_is_that_of_the_operations_less_what_is_recomputed_and_waited_for() -> None:
    assert paper(8).dit.mfu == pytest.approx(0.4, rel=0.01)
    assert paper(8, "train_dit.execution.activation_checkpointing=full").dit.mfu == pytest.approx(0.3, rel=0.01)


def test_operations_that_frozen_weights_spare_are_no_work_done() -> None:
    whole, frozen = (paper(8, f"train_vae.frozen={names}").vae for names in ("[]", "[encoder]"))
    assert 0.6 < frozen.step_flops / whole.step_flops < 0.8
    assert frozen.mfu == pytest.approx(whole.mfu, rel=0.05)


def test_a_batch_of_little_more_than_the_gpus_leaves_some_of_them_waiting() -> None:
    some, many = (paper(num_gpus, "train_vae.batch_size=512").dit for num_gpus in (320, 512))
    assert many.micro_batches.samples == some.micro_batches.samples == 2
    assert many.time.compute_s == some.time.compute_s


def test_a_checkpoint_holds_weights_moments_and_average() -> None:
    job = paper(8).dit
    assert job.checkpoint_bytes == 4 * (job.num_parameters + 3 * job.num_trained)


def test_a_checkpoint_holds_the_adversary_too() -> None:
    job = paper(8).vae
    weights = sum(weight.numel() for weight in PatchDiscriminator(width=64, num_layers=3).parameters())
    assert job.checkpoint_bytes == 4 * (job.num_parameters + 3 * job.num_trained + 3 * weights)


def test_pictures_take_what_was_measured() -> None:
    for resolution, measured in ((64, 0.974), (128, 0.615), (256, 0.445)):
        assert picture_bytes(resolution, 0.0) / resolution**2 == pytest.approx(measured, rel=0.1)


def test_every_device_is_known_by_the_name_that_its_driver_gives() -> None:
    for device in DEVICES.values():
        assert known_device(f"NVIDIA {device.reported_as}") == device
    assert known_device("NVIDIA L40") is None
    with pytest.raises(InputError, match=r"--gpu h300: must be one of a100-40, .*, cpu"):
        device_named("h300")


def test_a_cpus_peak_is_measured_once() -> None:
    peak = device_peak_flops(torch.device("cpu"), "float32")
    assert peak
    assert 1e8 < peak < 1e14
    assert device_peak_flops(torch.device("cpu"), "float32") == peak


def test_frozen_weights_have_no_backward_pass_of_their_own() -> None:
    config = load_config(RECIPES / "paper.yaml")
    whole = dit_network(config.train_dit, samples=1, resolution=256, frames=1, on_gpu=True)
    lora = config.train_dit.model_copy(update={"lora": LoraConfig(rank=16, alpha=16.0)})
    adapted = dit_network(lora, samples=1, resolution=256, frames=1, on_gpu=True)
    decoder = config.train_vae.model_copy(update={"frozen": ("encoder",)})
    half = vae_network(decoder, samples=1, resolution=256, frames=1, on_gpu=True)
    assert whole.backward == 2.0
    # Attention has no weights: its products have gradients of both their factors, whatever is frozen.
    tokens = Episodes.of_pairs(1, num_pairs=config.train_dit.max_pairs, resolution=256)
    block = block_flops(config.train_dit.shape, tokens.prompt, tokens.answer, is_last=False)
    assert adapted.backward == pytest.approx(1 + block.attention / sum(block), abs=0.05)
    assert 0.5 < half.backward / 2 < 0.75


def test_clips_share_the_steps_of_the_j_dit() -> None:
    pictures = paper(8, "train_dit.clips=null")
    shared = paper(8, "train_dit.clips={share: 0.5, max_pairs: 8}")
    clips = paper(8, "train_dit.clips={share: 1.0, max_pairs: 8}")
    assert shared.dit.step_flops == pytest.approx((pictures.dit.step_flops + clips.dit.step_flops) / 2)
    assert pictures.dit.memory.peak < shared.dit.memory.peak == clips.dit.memory.peak
    assert pictures.data.latent_bytes < shared.data.latent_bytes


def test_the_data_are_what_prepare_writes_and_training_encodes(tmp_path: Path) -> None:
    names = [name for name, task in TASKS.items() if not task.needs_figures]
    config = load_config(
        TINY,
        [
            f"prepare.tasks=[{', '.join(names)}]",
            "prepare.held_out_tasks=[depth, optical_flow]",
            "prepare.num_train_scenes=3",
            "prepare.num_test_scenes=2",
            "prepare.clip_frames=5",
            "prepare.num_train_clips=2",
            "prepare.num_test_clips=1",
            "train_dit.clips={share: 0.5, max_pairs: 1}",
        ],
    )
    planned = plan_data(config, 1e12)
    prepare.run(config.prepare, {"raw": tmp_path / "raw"}, {"shards": tmp_path / "shards"})
    counts = json.loads((tmp_path / "shards" / "metrics.json").read_text())["pairs"]
    assert sum(counts.values()) == planned.num_pairs
    with ShardSet(tmp_path / "shards", "train") as shards:
        distinct = [DistinctFrames(index) for index in shards.indices.values()]
        # Flat pictures, such as the normals of an empty sky, may be equal by chance.
        assert sum(len(frames) * frames.num_frames for frames in distinct) == pytest.approx(planned.num_pictures, rel=0.05)


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_shards_take_what_prepare_writes(difficulty: float, tmp_path: Path) -> None:
    names = [name for name, task in TASKS.items() if task.from_scene and not task.needs_figures]
    scenes = [f"prepare.difficulty={difficulty}", "prepare.resolution=128", "prepare.num_train_scenes=6", "prepare.num_test_scenes=2"]
    config = load_config(TINY, [f"prepare.tasks=[{', '.join(names)}]", *scenes])
    prepare.run(config.prepare, {"raw": tmp_path / "raw"}, {"shards": tmp_path / "shards"})
    written = sum(path.stat().st_size for path in (tmp_path / "shards").rglob("*.tar"))
    assert plan_data(config, 1e12).shard_bytes == pytest.approx(written, rel=0.15)


def test_planning_never_imports_torch() -> None:
    code = "import sys, lavin_dit.planning.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_stated_mfu_a_cpus_own_layers_are_timed() -> None:
    config = load_config(TINY, ["prepare.resolution=16", "train_dit.clips={share: 0.5, max_pairs: 1}", "prepare.clip_frames=5"])
    planned = plan(config, Fleet(device_named("cpu"), Layout(1, 1), mfu=None))
    for job in (planned.vae, planned.dit):
        operations = job.speed.flops * job.time.compute_s
        assert operations == pytest.approx(job.step_flops, rel=0.05)
        assert job.mfu == pytest.approx(job.step_flops / job.time.step_s / planned.fleet.device.float32_flops)
