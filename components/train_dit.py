"""Step: trains the J-DiT on in-context episodes of latents that are encoded once."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from components.folders import write_json
from components.shared_folder import identity_under_way, shared_folder
from lavin_dit.data.episodes import EpisodeSampler, EpisodeShape, EpisodeWeights
from lavin_dit.data.latents import LatentStore, encode_shards
from lavin_dit.data.reading.remote_shards import OpenShards, open_shards
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.task import Medium
from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import latent_shape
from lavin_dit.training.dit_objective import DitObjective
from lavin_dit.training.exporter import asked_address
from lavin_dit.training.finetuning import adapt, begin, merge
from lavin_dit.training.fit import fit, forget, watch
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training_config import TrainDitConfig
from lavin_dit.weights import load_vae, save_dit

INPUTS = ("shards", "vae")
OUTPUTS = ("dit",)

LAST_ROWS = 10


def run(config: TrainDitConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Trains, or continues a killed run; leaves the averaged weights."""
    with (
        join_processes() as processes,
        shared_folder(outputs["dit"], config, inputs, processes) as folder,
        open_shards(inputs["shards"], "train", config.loading, setting="train_dit.loading") as opened,
    ):
        objective = _objective(config, opened, inputs["vae"], processes, folder)
        fitted = fit("dit", objective, config, processes, folder, identity=identity_under_way(outputs["dit"]))
        if processes.is_first:
            weights = merge(objective.network, fitted.weights) if config.lora else fitted.weights
            save_dit(folder, objective.network, weights)
            loss = fitted.history.mean_of_last("loss", LAST_ROWS)
            num_parameters = sum(weight.numel() for weight in weights.values())
            write_json(folder / "metrics.json", {"loss": loss, "num_parameters": num_parameters})
            forget(folder)
            shutil.rmtree(folder / "latents")


def _objective(config: TrainDitConfig, opened: OpenShards, vae: Path, processes: Processes, folder: Path) -> DitObjective:
    sampler = _sampler(config, opened.shards)
    # Before the latents are encoded, which takes long: weights and addresses that do not fit are refused at once.
    network = _network(config)
    asked_address()
    return DitObjective(network, _latents(config, opened, vae, processes, folder, sampler.media), sampler, config, processes.device)


def _latents(
    config: TrainDitConfig, opened: OpenShards, vae: Path, processes: Processes, folder: Path, media: Collection[Medium]
) -> LatentStore:
    (folder / "latents").mkdir(exist_ok=True)
    trained = load_vae(vae)
    with watch(config, processes, folder) as watchdog:
        watchdog.at(0, "encoding")
        return encode_shards(
            opened.shards, trained, processes, folder / "latents", media=media, cache=opened.cache, on_batch=watchdog.advance
        )


def _sampler(config: TrainDitConfig, shards: ShardSet) -> EpisodeSampler:
    side = shards.resolution
    shapes: dict[Medium, EpisodeShape] = {"image": EpisodeShape(config.max_pairs, latent_shape(1, side, side))}
    if config.clips:
        shapes["clip"] = EpisodeShape(config.clips.max_pairs, latent_shape(shards.clip_frames, side, side))
    return EpisodeSampler(
        {group: shards.pairs_of(*group) for group in sorted(shards.groups)},
        shapes,
        EpisodeWeights(config.task_weights, config.source_weights, config.clips.share if config.clips else 0.0),
        prompt_drop_probability=config.prompt_drop_probability,
        seed=config.seed,
    )


def _network(config: TrainDitConfig) -> JDit:
    """Fresh or given weights, with what of them is trained."""
    network, generator = JDit(config.shape), torch.Generator().manual_seed(config.seed)
    network.initialise(generator)
    begin(network, config, step="train_dit")
    if config.lora:
        adapt(network, config.lora, generator)
    return network
