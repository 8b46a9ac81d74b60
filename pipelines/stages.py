"""The steps that every pipeline takes, each with its place on a cluster. Called inside of a pipeline's function."""

from typing import Any

from kfp import dsl

from components import ops
from pipelines.placement import LARGE, MEDIUM, SMALL, place


def conclude(workspace: Any) -> dsl.PipelineTask:
    """Records how the run ended, whatever became of it."""
    ended = ops.conclude(workspace=workspace)
    place(ended, "Record the outcome", SMALL, hours=0.5, cached=False)
    return ended


def prepare(plan: dsl.PipelineTask, workspace: Any) -> dsl.PipelineTask:
    """Makes the shards."""
    outputs = plan.outputs
    data = ops.prepare(section=outputs["prepare"], code=outputs["code"], data_hash=outputs["data_hash"], workspace=workspace)
    place(data, "Prepare data", MEDIUM, hours=48, retries=2)
    return data


def train_vae(plan: dsl.PipelineTask, shards: Any, workspace: Any) -> dsl.PipelineTask:
    """Trains the ST-VAE."""
    outputs = plan.outputs
    vae = ops.train_vae(section=outputs["train_vae"], code=outputs["code"], shards=shards, workspace=workspace, job=outputs["job"])
    place(vae, "Train ST-VAE", LARGE, hours=24 * 30, retries=2)
    return vae


def train_dit(*, section: Any, code: Any, shards: Any, vae: Any, workspace: Any, job: Any) -> dsl.PipelineTask:
    """Trains a J-DiT."""
    dit = ops.train_dit(section=section, code=code, shards=shards, vae=vae, workspace=workspace, job=job)
    place(dit, "Train J-DiT", LARGE, hours=24 * 60, retries=2)
    return dit


def evaluate(*, section: Any, code: Any, shards: Any, vae: Any, dit: Any, workspace: Any, job: Any) -> dsl.PipelineTask:
    """Measures a model."""
    measured = ops.evaluate(section=section, code=code, shards=shards, vae=vae, dit=dit, workspace=workspace, job=job)
    place(measured, "Evaluate", LARGE, hours=48, retries=2)
    return measured
