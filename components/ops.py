"""The steps' KFP face: one component a step, whose body is one import and one call.

A section crosses as a JSON string, because KFP turns the integers of a dict into floats. `workspace` names the folder of a shared volume
(`store`, `registry`, `data` and `runs` lie in it); `code` is the hash of the code in the image, so that KFP's cache sees what a mutable
tag hides; `job` says how a step's processes run. Everything else is an artifact.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output, PipelineTaskFinalStatus

IMAGE = "lavin-pipelines"
"""Stands for the image until the pipeline is compiled for one."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(
    params: str,
    recipe: str,
    overrides: list[str],
    model_size: str,
    stage: str,
    data_repository: str,
    data_revision: str,
    raw: str,
    launcher: str,
    nodes: int,
    min_nodes: int,
    processes_per_node: int,
    accelerator: str,
    workspace: str,
    plan: Output[Artifact],
    summary: Output[Markdown],
) -> NamedTuple(  # type: ignore[valid-type]
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
        ("code", str),
        ("rival", str),
        ("job", str),
        ("evaluation_job", str),
        ("stage", str),
    ],
):
    """Checks the whole configuration, the data and the cluster; hands every step its own section."""
    from components.op_bodies import run_resolve
    from components.run_request import RunRequest

    request = RunRequest(
        params=params,
        recipe=recipe,
        overrides=overrides,
        model_size=model_size,
        stage=stage,
        data_repository=data_repository,
        data_revision=data_revision,
        raw=raw,
        launcher=launcher,
        # A number in KFP's documents is a float, and comes as one where the document is taken as it is.
        nodes=int(nodes),
        min_nodes=int(min_nodes),
        processes_per_node=int(processes_per_node),
        accelerator=accelerator,
    )
    return run_resolve(request, workspace=workspace, plan=plan.path, summary=summary.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(section: str, code: str, data_hash: str, workspace: str, shards: Output[Dataset]) -> None:
    """Fetches the data of that hash, renders scenes, and writes tar shards."""
    from components.op_bodies import run_prepare

    run_prepare(section=section, code=code, data_hash=data_hash, workspace=workspace, shards=shards.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_vae(section: str, code: str, shards: Input[Dataset], workspace: str, job: str, vae: Output[Model]) -> None:
    """Trains the ST-VAE."""
    from components.op_bodies import run_step

    run_step(
        "train_vae", section=section, code=code, inputs={"shards": shards.path}, output=("vae", vae.path), workspace=workspace, job=job
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_dit(section: str, code: str, shards: Input[Dataset], vae: Input[Model], workspace: str, job: str, dit: Output[Model]) -> None:
    """Trains the J-DiT."""
    from components.op_bodies import run_step

    inputs = {"shards": shards.path, "vae": vae.path}
    run_step("train_dit", section=section, code=code, inputs=inputs, output=("dit", dit.path), workspace=workspace, job=job)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    section: str,
    code: str,
    shards: Input[Dataset],
    vae: Input[Model],
    dit: Input[Model],
    workspace: str,
    job: str,
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Measures the model on held-out scenes, against two baselines."""
    from components.op_bodies import run_evaluate

    run_evaluate(
        section=section,
        code=code,
        inputs={"shards": shards.path, "vae": vae.path, "dit": dit.path},
        evaluation=evaluation.path,
        workspace=workspace,
        job=job,
        metrics=metrics,
        confusion=confusion,
        shown={"report.html": report.path, "summary.md": summary.path},
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    section: str,
    code: str,
    shards: Input[Dataset],
    vae: Input[Model],
    dit: Input[Model],
    evaluation: Input[Artifact],
    workspace: str,
    bundle: Output[Model],
) -> None:
    """Writes the ONNX bundle and checks it against torch."""
    from components.op_bodies import run_step

    inputs = {"shards": shards.path, "vae": vae.path, "dit": dit.path, "evaluation": evaluation.path}
    run_step("export", section=section, code=code, inputs=inputs, output=("bundle", bundle.path), workspace=workspace)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    section: str,
    code: str,
    rival: str,
    stage: str,
    evaluation: Input[Artifact],
    bundle: Input[Model],
    workspace: str,
    verdict: Output[Artifact],
    summary: Output[Markdown],
) -> str:
    """Judges the bundle by its metrics, absolutely and against what is in production; says `promote` or `keep`."""
    from components.op_bodies import run_gate

    inputs = {"evaluation": evaluation.path, "bundle": bundle.path}
    outputs = {"verdict": verdict.path, "summary": summary.path}
    return run_gate(section=section, code=code, rival=rival, stage=stage, inputs=inputs, workspace=workspace, outputs=outputs)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    section: str, bundle: Input[Model], verdict: Input[Artifact], workspace: str, promotion: Output[Artifact], summary: Output[Markdown]
) -> None:
    """Registers the bundle as a version and gives it its stage."""
    from components.op_bodies import run_promote

    inputs = {"bundle": bundle.path, "verdict": verdict.path}
    run_promote(section=section, inputs=inputs, workspace=workspace, promotion=promotion.path, summary=summary.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def vary(train_dit: str, evaluate: str, sizes: list[str], num_pairs: list[int], workspace: str) -> NamedTuple(  # type: ignore[valid-type]
    "Varied", [("models", list[dict[str, str]]), ("questions", list[str])]
):
    """Turns a recipe into a study: a training for every size, an evaluation for every number of context pairs."""
    from components.op_bodies import run_vary

    return run_vary(train_dit=train_dit, evaluate=evaluate, sizes=sizes, num_pairs=num_pairs, workspace=workspace)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gather(size: str, section: str, dit: Input[Model], evaluations: Input[list[Artifact]], workspace: str, curve: Output[Artifact]) -> None:
    """Gathers what one model of a study scored with each number of pairs."""
    from components.op_bodies import run_gather

    paths = [evaluation.path for evaluation in evaluations]
    run_gather(size=size, section=section, dit=dit.path, evaluations=paths, workspace=workspace, curve=curve.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    curves: Input[list[Artifact]], workspace: str, trends: Output[Artifact], report: Output[HTML], summary: Output[Markdown]
) -> None:
    """Puts the models of a study side by side: figures, drawings, and what is sure."""
    from components.op_bodies import run_compare

    paths = [curve.path for curve in curves]
    run_compare(curves=paths, workspace=workspace, trends=trends.path, report=report.path, summary=summary.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def conclude(workspace: str, status: PipelineTaskFinalStatus, summary: Output[Markdown], metrics: Output[Metrics]) -> None:
    """Records how the run ended, pushes its metrics, and removes what it left running."""
    from components.op_bodies import run_conclude

    error = status.error_message or ""
    run_conclude(state=status.state, error=error, workspace=workspace, summary=summary.path, metrics=metrics)
