"""The pipeline: data in, a promoted model out."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

from components import ops


class Results(NamedTuple):
    """What people look at when a run is over."""

    shards: Dataset
    evaluation: Artifact
    bundle: Model
    verdict: Artifact


@dsl.pipeline(
    name="lavin-dit",
    display_name="LaVin-DiT",
    description="Trains, evaluates, exports and promotes a vision transformer that learns a task from example pairs.",
)
def lavin(
    recipe: str = "laptop",
    overrides: list[str] = [],  # noqa: B006
    params: str = "",
    raw: str = "data/raw",
    store: str = "runs/store",
    registry: str = "runs/registry",
    processes: int = 1,
) -> Results:
    """Trains, evaluates, exports and promotes a LaVin-DiT.

    Args:
        recipe: Name of a whole set of parameters, such as laptop (a file of recipes/ in the image). Ignored where params is given.
        overrides: Values to change, as a list of texts such as ["train_dit.steps=500", "evaluate.seed=1"].
        params: The text of a whole params.yaml, to be used instead of a recipe.
        raw: Folder with your own pairs and photographs; it may be empty, then only rendered scenes are used.
        store: Folder that keeps finished outputs between runs, so that nothing is made twice.
        registry: Folder of the git repository that records versions and stages.
        processes: Processes of each training step.
    """
    plan = ops.resolve(params=params, recipe=recipe, overrides=overrides, raw=raw)
    plan.set_display_name("Check parameters and data").set_caching_options(False)

    data = ops.prepare(section=plan.outputs["prepare"], raw=raw, data_hash=plan.outputs["data_hash"], store=store)
    data.set_display_name("Prepare data")
    shards = data.outputs["shards"]

    autoencoder = ops.train_vae(section=plan.outputs["train_vae"], shards=shards, store=store, processes=processes)
    autoencoder.set_display_name("Train ST-VAE")
    vae = autoencoder.outputs["vae"]

    transformer = ops.train_dit(section=plan.outputs["train_dit"], shards=shards, vae=vae, store=store, processes=processes)
    transformer.set_display_name("Train J-DiT")
    dit = transformer.outputs["dit"]

    measured = ops.evaluate(section=plan.outputs["evaluate"], shards=shards, vae=vae, dit=dit, store=store)
    measured.set_display_name("Evaluate")
    evaluation = measured.outputs["evaluation"]

    exported = ops.export(section=plan.outputs["export"], shards=shards, vae=vae, dit=dit, evaluation=evaluation, store=store)
    exported.set_display_name("Export bundle")
    bundle = exported.outputs["bundle"]

    # What is in production changes without anything here changing: neither judging nor promoting is ever cached.
    judged = ops.gate(section=plan.outputs["gate"], evaluation=evaluation, bundle=bundle, registry=registry)
    judged.set_display_name("Gate").set_caching_options(False)
    with dsl.If(judged.outputs["Output"] == "promote", name="passed"):
        promoted = ops.promote(section=plan.outputs["promote"], bundle=bundle, verdict=judged.outputs["verdict"], registry=registry)
        promoted.set_display_name("Promote").set_caching_options(False)

    return Results(shards=shards, evaluation=evaluation, bundle=bundle, verdict=judged.outputs["verdict"])
