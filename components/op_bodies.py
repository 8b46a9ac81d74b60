"""What the KFP components do when they run: the bridge from parameters and artifact paths to a step's section and folders."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

from components.code_version import source_hash
from components.confusion import read_confusion
from components.entry import StepFailedError, clear_errors, configure_logging, stop_when_nobody_reads, tune_process
from components.execution import execute
from components.folders import atomic_folder, read_json, write_json, write_text
from components.gate import VERDICT_FILE, present_version
from components.launcher.settings import ONE_PROCESS, JobSettings, Platform, load_platform
from components.outcome import flat_metrics, record_outcome
from components.pod_environment import RUN_VARIABLE, take_object_store_keys
from components.refusals import refused_once
from components.results import RIVAL_FILE, rival_fingerprint
from components.run_plan import check_job, plan_run
from components.run_request import NOWHERE, RunRequest, evaluation_job, run_folder
from components.store import Store, open_input, produce, publish
from components.study import vary
from components.summaries import outcome_page, plan_page, promotion_page
from components.tracked_data import fetch, recall
from lavin_dit.config import SECTIONS, EvaluateConfig, GateConfig, section_from_json, section_to_json
from lavin_dit.training_config import TrainDitConfig


@contextmanager
def _entered(step: str, workspace: str) -> Iterator[Path]:
    """Every body begins and ends alike; hands over the workspace."""
    tune_process()
    configure_logging()
    # KFP makes every library's chatter heard.
    logging.getLogger().setLevel(logging.WARNING)
    stop_when_nobody_reads()
    take_object_store_keys()
    folder = Path(workspace)
    with clear_errors():
        if RUN_VARIABLE not in os.environ:
            yield folder
            return
        with refused_once(run_folder(folder) / "refusals" / f"{step}.json"):
            yield folder


def run_resolve(request: RunRequest, *, workspace: str, plan: str, summary: str) -> tuple[str, ...]:
    """Resolves a whole run; returns every step's section as JSON, in the order of the steps, then what else decides the results."""
    with _entered("resolve", workspace) as folder:
        config, job, platform = request.config(), request.job(), load_platform()
        check_job(config, job, platform)
        if job.is_on_cluster:
            _check_cluster(job, platform, folder)
        data = plan_run(config, request, workspace=folder, plan=Path(plan))
        rival = present_version(folder / "registry", config.gate.against)
        write_json(Path(plan) / RIVAL_FILE, {"version": rival})
        write_text(Path(summary), plan_page(request, config, data=data, rival=rival, job=job))
        _keep(Path(plan), run_folder(folder) / "plan")
        sections = [section_to_json(getattr(config, step)) for step in SECTIONS]
        jobs = [settings.to_json() for settings in (job, evaluation_job(job, platform))]
        return (*sections, data.hash, source_hash(), rival, *jobs, request.stage_of(config))


def run_prepare(*, section: str, code: str, data_hash: str, workspace: str, shards: str) -> None:
    """Prepares the data set of that hash; tracked data are fetched where no shards of them are there yet."""
    with _entered("prepare", workspace) as folder:
        source = recall(data_hash, folder)
        checked, known, store = section_from_json("prepare", section), {"raw": data_hash}, _store(folder, code)
        is_made = store.place("shards", checked, known).exists()
        raw = source.folder if is_made else fetch(source, folder)
        made = produce("prepare", checked, {"raw": raw}, output="shards", store=store, known=known)
        publish(made, Path(shards), output="shards")


def run_step(
    step: str,
    *,
    section: str,
    code: str,
    inputs: Mapping[str, str],
    output: tuple[str, str],
    workspace: str,
    job: str | None = None,
    known: Mapping[str, str] | None = None,
) -> Path:
    """A step whose inputs are artifacts and whose output is one; returns the output's folder in the store."""
    with _entered(step, workspace) as folder:
        name, path = output
        settings = JobSettings.from_json(job) if job else ONE_PROCESS
        checked = section_from_json(step, section)
        made = produce(step, checked, _open(inputs), output=name, store=_store(folder, code), known=known, job=settings)
        publish(made, Path(path), output=name)
        return made


def run_evaluate(
    *,
    section: str,
    code: str,
    inputs: Mapping[str, str],
    evaluation: str,
    workspace: str,
    job: str,
    metrics: Any,
    confusion: Any,
    shown: Mapping[str, str],
) -> None:
    """Evaluates, and lays out what the KFP UI shows: numbers, a confusion matrix, and `shown`, where to put a copy of each file."""
    output = ("evaluation", evaluation)
    folder = run_step("evaluate", section=section, code=code, inputs=inputs, output=output, workspace=workspace, job=job)
    # The local cache takes an artifact without a file for one that was deleted.
    for artifact, name in ((metrics, "metrics.json"), (confusion, "metrics.json")):
        copyfile(folder / name, artifact.path)
    for name, value in flat_metrics(read_json(folder / "metrics.json")).items():
        metrics.log_metric(name, value)
    if matrix := read_confusion(folder):
        confusion.log_confusion_matrix(list(matrix.classes), matrix.counts)
    for name, target in shown.items():
        copyfile(folder / name, target)


def run_gate(
    *, section: str, code: str, rival: str, stage: str, inputs: Mapping[str, str], workspace: str, outputs: Mapping[str, str]
) -> str:
    """Judges against the version that was in the stage when the run began; returns `promote` or `keep`.

    Raises: StepFailedError where another version has come into the stage since: the verdict would be on another question.
    """
    registry = Path(workspace) / "registry"
    with _entered("gate", workspace):
        against = _against(section)
        if (present := present_version(registry, against)) != rival:
            now, before = present or "nothing", rival or "nothing"
            raise StepFailedError(f"gate: {now} is in {against} now, and {before} was when this run began; run it again, all else is done")
    folder = run_step(
        "gate",
        section=section,
        code=code,
        inputs={**inputs, "registry": str(registry)},
        output=("verdict", outputs["verdict"]),
        workspace=workspace,
        known={"registry": rival_fingerprint(rival)},
    )
    copyfile(folder / "summary.md", outputs["summary"])
    return "promote" if stage != NOWHERE and read_json(folder / VERDICT_FILE)["passed"] else "keep"


def run_promote(*, section: str, inputs: Mapping[str, str], workspace: str, promotion: str, summary: str) -> None:
    """Registers the bundle and gives it its stage. Acts on the world, so it is never taken from the store."""
    with _entered("promote", workspace) as folder:
        folders = {**_open(inputs), "registry": folder / "registry"}
        execute("promote", section_from_json("promote", section), folders, {"promotion": Path(promotion)})
        write_text(Path(summary), promotion_page(read_json(Path(promotion) / "promotion.json")))
        _keep(Path(promotion), run_folder(folder) / "promotion")


def run_conclude(*, state: str, error: str, workspace: str, summary: str, metrics: Any) -> None:
    """Records how the run ended, pushes its metrics, and removes the jobs that it left."""
    with _entered("conclude", workspace) as folder:
        outcome = record_outcome(folder, run_folder(folder), state=state, error=error)
        write_text(Path(summary), outcome_page(outcome))
        write_json(Path(metrics.path), outcome.metrics)
        for name, value in outcome.metrics.items():
            metrics.log_metric(name, value)


def run_vary(*, train_dit: str, evaluate: str, sizes: Sequence[str], num_pairs: Sequence[float], workspace: str) -> tuple[Any, Any]:
    """Every model and every question of a study, as the pipeline's loops take them."""
    with _entered("vary", workspace):
        model, question = section_from_json("train_dit", train_dit), section_from_json("evaluate", evaluate)
        assert isinstance(model, TrainDitConfig)
        assert isinstance(question, EvaluateConfig)
        variations = vary(model, question, sizes=sizes, num_pairs=num_pairs)
        return variations.model_items(), variations.question_items()


def run_gather(*, size: str, section: str, dit: str, evaluations: Sequence[str], workspace: str, curve: str) -> None:
    """Gathers what one model of a study scored."""
    # matplotlib and scikit-image come with it, and no other body needs them.
    from components.curves import write_curve

    with _entered("gather", workspace):
        checked = section_from_json("train_dit", section)
        assert isinstance(checked, TrainDitConfig)
        Path(curve).mkdir(parents=True, exist_ok=True)
        write_curve(Path(curve), size=size, section=checked, dit=Path(dit), evaluations=[Path(each) for each in evaluations])


def run_compare(*, curves: Sequence[str], workspace: str, trends: str, report: str, summary: str) -> None:
    """Puts the models of a study side by side."""
    from components.trends import write_trends

    with _entered("compare", workspace) as folder:
        Path(trends).mkdir(parents=True, exist_ok=True)
        write_trends([Path(each) for each in curves], Path(trends))
        copyfile(Path(trends) / "report.html", report)
        copyfile(Path(trends) / "summary.md", summary)
        _keep(Path(trends), run_folder(folder) / "trends")


def _check_cluster(job: JobSettings, platform: Platform, workspace: Path) -> None:
    # The Kubernetes client takes a second to import, and a local run does without it.
    from components.launcher.preflight import check_cluster
    from components.launcher.surroundings import Surroundings

    check_cluster(job, Surroundings.from_environment(), platform, workspace=workspace)


def _against(section: str) -> str:
    gate = section_from_json("gate", section)
    assert isinstance(gate, GateConfig)
    return gate.against


def _store(workspace: Path, code: str) -> Store:
    return Store(workspace / "store", code)


def _open(inputs: Mapping[str, str]) -> dict[str, Path]:
    return {name: open_input(Path(path)) for name, path in inputs.items()}


def _keep(folder: Path, target: Path) -> None:
    """A copy that outlives KFP's own, under the run's name."""
    with atomic_folder(target, key=str(folder)) as beside:
        copytree(folder, beside, dirs_exist_ok=True)
