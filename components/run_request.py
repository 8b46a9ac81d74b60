"""What a person asks of a run, typed into a form or a command line, and what it means for the steps."""

import os
from dataclasses import dataclass
from pathlib import Path

from components.launcher.settings import ONE_PROCESS, JobSettings, Platform
from components.pod_environment import REPOSITORY_VARIABLE, RUN_VARIABLE
from components.recipes import params_file
from lavin_dit.config import Config, load_config, parse_config
from lavin_dit.presets import DIT_PRESETS

AS_IN_RECIPE = "recipe"
NOWHERE = "none"
MODEL_SIZES = (AS_IN_RECIPE, *DIT_PRESETS)
STAGES = (AS_IN_RECIPE, NOWHERE, "staging", "production")

LOCAL_RUN = "local"


@dataclass(frozen=True)
class RunRequest:
    """The parameters of the pipeline that `resolve` alone sees; docs of each in the DAG."""

    params: str
    recipe: str
    overrides: list[str]
    model_size: str
    stage: str
    data_repository: str
    data_revision: str
    raw: str
    launcher: str
    nodes: int
    min_nodes: int
    processes_per_node: int
    accelerator: str

    def config(self) -> Config:
        """The whole configuration, with what was chosen put over the recipe.

        Raises: InputError naming the parameter, its value and what is allowed.
        """
        chosen = {"train_dit.shape": self.model_size, "promote.stage": "" if self.stage == NOWHERE else self.stage}
        values = [f"{key}={value}" for key, value in chosen.items() if value not in ("", AS_IN_RECIPE)]
        if self.params:
            return parse_config(self.params, [*self.overrides, *values], source="params")
        return load_config(params_file(None, self.recipe), [*self.overrides, *values])

    def job(self) -> JobSettings:
        """How the training steps run.

        Raises: InputError naming the parameter, its value and what is allowed.
        """
        return JobSettings.parse(
            launcher=self.launcher,
            nodes=self.nodes,
            min_nodes=self.min_nodes or self.nodes,
            processes=self.processes_per_node,
            accelerator=self.accelerator,
        )

    def stage_of(self, config: Config) -> str:
        """The stage that a bundle is to get; `none` where none."""
        return NOWHERE if self.stage == NOWHERE else config.promote.stage

    def repository(self) -> str:
        """The git repository whose tracked data are asked for; empty where only what lies here, or what is rendered, is."""
        return self.data_repository or (os.environ.get(REPOSITORY_VARIABLE, "") if self.data_revision else "")


def evaluation_job(job: JobSettings, platform: Platform) -> JobSettings:
    """How a step runs that knows one process only: in a job of its own for the sake of a device, else in the step's own process."""
    if not job.is_on_cluster or platform.accelerators[job.accelerator].resource is None:
        return ONE_PROCESS
    return job.model_copy(update={"nodes": 1, "min_nodes": 1, "processes": 1})


def run_folder(workspace: Path) -> Path:
    """Where this run keeps what it alone has: what it resolved, and how it ended."""
    return workspace / "runs" / (os.environ.get(RUN_VARIABLE) or LOCAL_RUN)
