"""The steps' KFP face: one component a step, whose body is one import and one call.

A section crosses as a JSON string, because KFP turns the integers of a dict into floats. Parameters with `str` folders (`raw`, `store`,
`registry`) name folders of a shared volume; everything else is an artifact.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

IMAGE = "lavin-pipelines"
"""Stands for the image until the pipeline is compiled for one."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(params: str, recipe: str, overrides: list[str], raw: str, plan: Output[Artifact]) -> NamedTuple(  # type: ignore[valid-type]
    "Resolved",
    [
        ("prepare", str),
        ("train_vae", str),
        ("train_dit", str),
        ("evaluate", str),
        ("export", str),
        ("gate", str),
        ("promote", str),
        ("data_hash", str),
    ],
):
    """Checks the whole configuration and the data; hands every step its own section."""
    from components.op_bodies import run_resolve

    return run_resolve(params=params, recipe=recipe, overrides=overrides, raw=raw, plan=plan.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(section: str, raw: str, data_hash: str, store: str, shards: Output[Dataset]) -> None:
    """Renders scenes, reads the user's own pairs and photographs, and writes tar shards."""
    from components.op_bodies import run_prepare

    run_prepare(section=section, raw=raw, data_hash=data_hash, store=store, shards=shards.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_vae(section: str, shards: Input[Dataset], store: str, processes: int, vae: Output[Model]) -> None:
    """Trains the ST-VAE."""
    from components.op_bodies import run_step

    run_step("train_vae", section=section, inputs={"shards": shards.path}, output=("vae", vae.path), store=store, processes=processes)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_dit(section: str, shards: Input[Dataset], vae: Input[Model], store: str, processes: int, dit: Output[Model]) -> None:
    """Trains the J-DiT."""
    from components.op_bodies import run_step

    inputs = {"shards": shards.path, "vae": vae.path}
    run_step("train_dit", section=section, inputs=inputs, output=("dit", dit.path), store=store, processes=processes)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    section: str,
    shards: Input[Dataset],
    vae: Input[Model],
    dit: Input[Model],
    store: str,
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Measures the model on held-out scenes, against two baselines."""
    from components.op_bodies import run_evaluate

    run_evaluate(
        section=section,
        inputs={"shards": shards.path, "vae": vae.path, "dit": dit.path},
        evaluation=evaluation.path,
        store=store,
        metrics=metrics.metadata,
        # The local cache takes an artifact without a file for one that was deleted.
        shown={"metrics.json": metrics.path, "report.html": report.path, "summary.md": summary.path},
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    section: str,
    shards: Input[Dataset],
    vae: Input[Model],
    dit: Input[Model],
    evaluation: Input[Artifact],
    store: str,
    bundle: Output[Model],
) -> None:
    """Writes the ONNX bundle and checks it against torch."""
    from components.op_bodies import run_step

    inputs = {"shards": shards.path, "vae": vae.path, "dit": dit.path, "evaluation": evaluation.path}
    run_step("export", section=section, inputs=inputs, output=("bundle", bundle.path), store=store)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(section: str, evaluation: Input[Artifact], bundle: Input[Model], registry: str, verdict: Output[Artifact]) -> str:
    """Judges the bundle by its metrics, absolutely and against what is in the stage; says `promote` or `keep`."""
    from components.op_bodies import run_gate

    inputs = {"evaluation": evaluation.path, "bundle": bundle.path}
    return run_gate(section=section, inputs=inputs, registry=registry, verdict=verdict.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(section: str, bundle: Input[Model], verdict: Input[Artifact], registry: str, promotion: Output[Artifact]) -> None:
    """Registers the bundle as a version and gives it its stage."""
    from components.op_bodies import run_promote

    inputs = {"bundle": bundle.path, "verdict": verdict.path}
    run_promote(section=section, inputs=inputs, registry=registry, promotion=promotion.path)
