# mypy: allow-untyped-decorators
"""The study: one recipe at several sizes of the J-DiT, every model asked with several numbers of context pairs."""

from kfp import dsl

from components import ops
from components.run_request import AS_IN_RECIPE, NOWHERE
from components.study import NUM_PAIRS, SIZES
from pipelines import stages
from pipelines.placement import SMALL, place

ONE_AT_A_TIME = 1
"""A cluster's job is named after its run and its step, so that no two of a step may run at once; and this machine has no room for two."""


# A pipeline of its own: kfp.local gives a loop nothing but the inputs of the pipeline that it stands in.
@dsl.pipeline(name="sizes")
def over_sizes(
    models: list[dict[str, str]],
    questions: list[str],
    code: str,
    job: str,
    evaluation_job: str,
    workspace: str,
    shards: dsl.Input[dsl.Dataset],
    vae: dsl.Input[dsl.Model],
) -> None:
    """Trains every model, asks it with every number of pairs, and puts the models side by side.

    Args:
        models: The training of each size: its name, and its section.
        questions: The section of each evaluation.
        code: The hash of the code.
        job: How a training runs.
        evaluation_job: How an evaluation runs.
        workspace: Folder of the shared volume.
        shards: The data.
        vae: The ST-VAE.
    """
    with dsl.ParallelFor(models, name="every size", parallelism=ONE_AT_A_TIME) as model:
        transformer = stages.train_dit(section=model.section, code=code, shards=shards, vae=vae, workspace=workspace, job=job)
        dit = transformer.outputs["dit"]

        with dsl.ParallelFor(questions, name="every number of pairs", parallelism=ONE_AT_A_TIME) as question:
            measured = stages.evaluate(
                section=question, code=code, shards=shards, vae=vae, dit=dit, workspace=workspace, job=evaluation_job
            )

        evaluations = dsl.Collected(measured.outputs["evaluation"])
        curve = ops.gather(size=model.size, section=model.section, dit=dit, evaluations=evaluations, workspace=workspace)
        # Copies of small files, and what is drawn from them: seconds, after which the result lies under the run's own name.
        place(curve, "Gather scores", SMALL, hours=1, cached=False)

    compared = ops.compare(curves=dsl.Collected(curve.outputs["curve"]), workspace=workspace)
    place(compared, "Compare models", SMALL, hours=1, cached=False)


@dsl.pipeline(
    name="lavin-dit-study",
    display_name="LaVin-DiT, a study of sizes and pairs",
    description="Trains J-DiTs of several sizes by one recipe, and measures each with several numbers of context pairs.",
)
def study(
    recipe: str = "study",
    overrides: list[str] = [],  # noqa: B006
    sizes: list[str] = list(SIZES),  # noqa: B006
    num_pairs: list[int] = list(NUM_PAIRS),  # noqa: B006
    data_revision: str = "",
    data_repository: str = "",
    launcher: str = "pytorchjob",
    nodes: int = 1,
    processes_per_node: int = 1,
    min_nodes: int = 0,
    accelerator: str = "cpu",
    params: str = "",
    raw: str = "data/raw",
    workspace: str = "/workspace",
) -> None:
    """Trains J-DiTs of several sizes by one recipe, and measures each with several numbers of context pairs.

    Args:
        recipe: A whole set of parameters (recipes/ in the image). Ignored where params is given. Its tasks of weight 0 are held out.
        overrides: Values to change in the recipe, as a list of texts such as ["train_dit.steps=500", "evaluate.seed=1"].
        sizes: Depth and width of each J-DiT, as a list of texts such as ["2x48", "4x192"]; the width is a multiple of that of the
            recipe's heads, and learning rates follow it.
        num_pairs: How many context pairs each model is asked with, as a list of numbers from 0 to the recipe's own.
        data_revision: Branch, tag or full commit of the data to train on, as DVC tracks them in the data repository. Empty: its default
            branch where data_repository is given, else rendered scenes alone.
        data_repository: URL of the git repository that tracks the data. Empty: the one that is set for this cluster.
        launcher: What runs the training steps: a PyTorchJob, a TrainJob, or (local) the step's own pod.
        nodes: Pods of a training job.
        processes_per_node: Training processes in each pod, one for each of its devices.
        min_nodes: Fewest pods that training may go on with when some are lost (PyTorchJob only). 0: all of them.
        accelerator: Kind of device for training and evaluation; the cluster's administrator says which there are.
        params: The whole text of a params.yaml, to be used instead of a recipe.
        raw: Folder of the data, in the data repository (or in the pod, where there is no repository).
        workspace: Folder of the shared volume, which keeps finished outputs between runs, so that nothing is made twice.
    """
    ended = stages.conclude(workspace)

    with dsl.ExitHandler(ended, name="steps"):
        plan = ops.resolve(
            params=params,
            recipe=recipe,
            overrides=overrides,
            model_size=AS_IN_RECIPE,
            stage=NOWHERE,
            data_repository=data_repository,
            data_revision=data_revision,
            raw=raw,
            launcher=launcher,
            nodes=nodes,
            min_nodes=min_nodes,
            processes_per_node=processes_per_node,
            accelerator=accelerator,
            workspace=workspace,
        )
        place(plan, "Check parameters and data", SMALL, hours=0.5, cached=False)

        varied = ops.vary(
            train_dit=plan.outputs["train_dit"],
            evaluate=plan.outputs["evaluate"],
            sizes=sizes,
            num_pairs=num_pairs,
            workspace=workspace,
        )
        place(varied, "Vary sizes and pairs", SMALL, hours=0.5, cached=False)

        data = stages.prepare(plan, workspace)
        # A mistake in the sizes is told before anything is made.
        data.after(varied)
        shards = data.outputs["shards"]

        autoencoder = stages.train_vae(plan, shards, workspace)

        over_sizes(
            models=varied.outputs["models"],
            questions=varied.outputs["questions"],
            code=plan.outputs["code"],
            job=plan.outputs["job"],
            evaluation_job=plan.outputs["evaluation_job"],
            workspace=workspace,
            shards=shards,
            vae=autoencoder.outputs["vae"],
        )
