"""What each term of the ST-VAE's loss buys, on the demo's data: the laptop recipe's ST-VAE trained again with one thing changed at a time.

Prints a Markdown table. All variants are measured on the same held-out pictures and clips, whether they saw clips or not. By default it
only shows that everything runs; the table in docs/LOG.md says with how many steps it was made.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from components import prepare, train_vae
from lavin_dit.config import load_config
from lavin_dit.data.shards.distinct import unique_members
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.evaluation.reconstruction import clip_metrics, psnr, ssim
from lavin_dit.inference import to_model
from lavin_dit.vae.statistics import describe_latents
from lavin_dit.vae.structure import StructuralDissimilarity
from lavin_dit.weights import load_vae

RECIPE = Path(__file__).parents[1] / "recipes" / "laptop.yaml"
CLIPS = {"prepare.clip_frames": "9", "prepare.num_train_clips": "100", "prepare.num_test_clips": "16"}
MEASURED_PICTURES = 160
STRUCTURE = "train_vae.perceptual={weight: 0.1, features: null}"
"""The weight at which it is about as strong as the rest, at the end of the demo."""


def adversarial(steps: int, *, weight: float = 0.3, begins_at: float = 0.4) -> str:
    first_step = round(begins_at * steps)
    return f"train_vae.adversarial={{weight: {weight}, first_step: {first_step}, width: 16, num_layers: 3, learning_rate: 3.0e-4}}"


def clips(steps: int, frames: int) -> str:
    return f"train_vae.clips={{first_step: {round(0.6 * steps)}, share: 0.5, frames: {frames}}}"


def variants(steps: int) -> dict[str, list[str]]:
    """Overrides of the laptop recipe by the name of the variant."""
    return {
        "squared error alone": ["train_vae.absolute_weight=0.0"],
        "base: squared + 0.2 absolute": [],
        "base + MS-SSIM": [STRUCTURE],
        "base + adversarial": [adversarial(steps)],
        "base + MS-SSIM + adversarial": [STRUCTURE, adversarial(steps)],
        "base + MS-SSIM + strong adversarial": [STRUCTURE, adversarial(steps, weight=1.0)],
        "base, KL x 100": ["train_vae.kl_weight=1.0e-4"],
        "base, KL x 10 000": ["train_vae.kl_weight=1.0e-2"],
        "base, no KL": ["train_vae.kl_weight=0.0"],
        "base + clips": [clips(steps, 5)],
        "all: MS-SSIM, adversarial, clips": [STRUCTURE, adversarial(steps), clips(steps, 5)],
    }


def sharpness(restored: Tensor, pictures: Tensor) -> float:
    """Mean difference between neighbouring pixels, relative to the original's: below 1 is blurred. Shapes: `(b, c, h, w)`."""
    ours, theirs = (sum(x.diff(dim=dim).abs().mean() for dim in (2, 3)) for x in (restored, pictures))
    return float(ours / theirs)


def measure(folder: Path, shards: ShardSet) -> dict[str, float]:
    network = load_vae(folder).module
    members = unique_members(shards)
    pictures = torch.stack([to_model(shards.image(member)) for member in members[:: max(1, len(members) // MEASURED_PICTURES)]])
    moving = torch.stack([torch.stack([to_model(shards.image(member)) for member in clip.frames], dim=1) for clip in shards.clips])
    restored = train_vae.reconstruct(network, pictures[:, :, None], at_once=32)[:, :, 0]
    latents = describe_latents(network, pictures)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "PSNR": psnr(restored, pictures),
        "SSIM": ssim(restored, pictures),
        "1 - MS-SSIM": float(StructuralDissimilarity()(restored[:, :, None], pictures[:, :, None]).mean()),
        "sharpness": sharpness(restored, pictures),
        **{f"clips: {name}": value for name, value in clip_metrics(train_vae.reconstruct(network, moving, at_once=4), moving).items()},
        "KL a value": sum(latents.channel_kl) / len(latents.channel_kl),
        "collapsed": latents.collapsed_share,
        "s a step": median(row["step_s"] for row in rows),
    }


def print_row(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def print_measured(name: str, measured: Mapping[str, float]) -> None:
    print_row([name, *(f"{value:.4g}" for value in measured.values())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="the demo takes 1200")
    parser.add_argument("--scenes", type=int, default=50, help="the demo has 800")
    parser.add_argument("--only", default="", help="variants whose names hold this text")
    parser.add_argument("--folder", type=Path, help="keeps what was trained, and its reconstructions")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    common = [f"{name}={value}" for name, value in CLIPS.items()]
    common += [f"prepare.num_train_scenes={arguments.scenes}", f"train_vae.steps={arguments.steps}", "train_vae.log_every_steps=5"]
    common += [f"train_vae.optimizer.warmup_steps={min(50, arguments.steps // 4)}"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare.run(load_config(RECIPE, common).prepare, {"raw": folder / "raw"}, {"shards": folder / "shards"})
        has_head = False
        for number, (name, overrides) in enumerate(variants(arguments.steps).items()):
            if arguments.only not in name:
                continue
            config = load_config(RECIPE, [*common, *overrides]).train_vae
            train_vae.run(config, {"shards": folder / "shards"}, {"vae": folder / f"vae-{number:02d}"})
            with ShardSet(folder / "shards", "test") as shards:
                measured = measure(folder / f"vae-{number:02d}", shards)
            if not has_head:
                print_row(["variant", *measured])
                print_row(["---"] * (len(measured) + 1))
                has_head = True
            print_measured(name, measured)


if __name__ == "__main__":
    main()
