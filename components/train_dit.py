"""Step: trains the J-DiT on in-context episodes of latents that are encoded once."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from components.folders import write_json
from components.shared_folder import shared_folder
from lavin_dit.config import TrainDitConfig
from lavin_dit.data.episodes import EpisodeSampler
from lavin_dit.data.latents import encode_shards
from lavin_dit.data.shards import ShardSet
from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR
from lavin_dit.training.fit import fit
from lavin_dit.training.objectives import DitObjective
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.weights import load_vae, num_parameters, save_dit

INPUTS = ("shards", "vae")
OUTPUTS = ("dit",)

LAST_ROWS = 10


def run(config: TrainDitConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Trains, or continues a killed run; leaves the averaged weights."""
    with join_processes() as processes, shared_folder(outputs["dit"], config, inputs, processes) as folder:
        objective = _objective(config, inputs, processes, folder)
        fitted = fit("train J-DiT", objective, config, processes, folder)
        if processes.is_first:
            save_dit(folder, objective.network, fitted.weights)
            loss = fitted.history.mean_of_last("loss", LAST_ROWS)
            write_json(folder / "metrics.json", {"loss": loss, "num_parameters": num_parameters(objective.network)})
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            shutil.rmtree(folder / "latents")


def _objective(config: TrainDitConfig, inputs: Mapping[str, Path], processes: Processes, folder: Path) -> DitObjective:
    shards = ShardSet(inputs["shards"], "train")
    pairs = {task: shards.pairs_of(task) for task in shards.tasks}
    side = shards.resolution // SPATIAL_FACTOR
    sampler = EpisodeSampler(
        pairs=pairs,
        task_weights=config.task_weights,
        max_pairs=config.max_pairs,
        prompt_drop_probability=config.prompt_drop_probability,
        noise_shape=(LATENT_CHANNELS, 1, side, side),
        seed=config.seed,
    )
    (folder / "latents").mkdir(exist_ok=True)
    latents = encode_shards(shards, load_vae(inputs["vae"]), processes, folder / "latents")
    network = JDit(config.shape)
    network.initialise(torch.Generator().manual_seed(config.seed))
    return DitObjective(network, latents, sampler, config, processes.device)
