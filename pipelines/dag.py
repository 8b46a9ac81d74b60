"""The pipeline: data in, a promoted model out."""

from kfp import dsl

from components import ops
from pipelines import stages
from pipelines.placement import LARGE, SMALL, place


@dsl.pipeline(
    name="lavin-dit",
    display_name="LaVin-DiT",
    description="Trains, evaluates, exports and promotes a vision transformer that learns a task from example pairs.",
)
def lavin(
    recipe: str = "laptop",
    overrides: list[str] = [],  # noqa: B006
    model_size: str = "recipe",
    data_revision: str = "",
    data_repository: str = "",
    launcher: str = "pytorchjob",
    nodes: int = 1,
    processes_per_node: int = 1,
    min_nodes: int = 0,
    accelerator: str = "cpu",
    stage: str = "recipe",
    params: str = "",
    raw: str = "data/raw",
    workspace: str = "/workspace",
) -> None:
    """Trains, evaluates, exports and promotes a LaVin-DiT.

    Args:
        recipe: A whole set of parameters, made for a purpose and a machine (recipes/ in the image). Ignored where params is given.
        overrides: Values to change in the recipe, as a list of texts such as ["train_dit.steps=500", "evaluate.seed=1"].
        model_size: Size of the J-DiT; "recipe" leaves it as the recipe has it.
        data_revision: Branch, tag or full commit of the data to train on, as DVC tracks them in the data repository. Empty: its default
            branch where data_repository is given, else rendered scenes alone.
        data_repository: URL of the git repository that tracks the data. Empty: the one that is set for this cluster.
        launcher: What runs the training steps: a PyTorchJob, a TrainJob, or (local) the step's own pod.
        nodes: Pods of a training job.
        processes_per_node: Training processes in each pod, one for each of its devices.
        min_nodes: Fewest pods that training may go on with when some are lost (PyTorchJob only). 0: all of them.
        accelerator: Kind of device for training and evaluation; the cluster's administrator says which there are.
        stage: Where a bundle goes that passes the gate; "recipe" leaves it as the recipe has it, "none" promotes nothing.
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
            model_size=model_size,
            stage=stage,
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
        code = plan.outputs["code"]

        data = stages.prepare(plan, workspace)
        shards = data.outputs["shards"]

        autoencoder = stages.train_vae(plan, shards, workspace)
        vae = autoencoder.outputs["vae"]

        transformer = stages.train_dit(
            section=plan.outputs["train_dit"], code=code, shards=shards, vae=vae, workspace=workspace, job=plan.outputs["job"]
        )
        dit = transformer.outputs["dit"]

        measured = stages.evaluate(
            section=plan.outputs["evaluate"],
            code=code,
            shards=shards,
            vae=vae,
            dit=dit,
            workspace=workspace,
            job=plan.outputs["evaluation_job"],
        )
        evaluation = measured.outputs["evaluation"]

        exported = ops.export(
            section=plan.outputs["export"], code=code, shards=shards, vae=vae, dit=dit, evaluation=evaluation, workspace=workspace
        )
        place(exported, "Export bundle", LARGE, hours=12, retries=2)
        bundle = exported.outputs["bundle"]

        judged = ops.gate(
            section=plan.outputs["gate"],
            code=code,
            rival=plan.outputs["rival"],
            stage=plan.outputs["stage"],
            evaluation=evaluation,
            bundle=bundle,
            workspace=workspace,
        )
        place(judged, "Gate", SMALL, hours=1)

        with dsl.If(judged.outputs["Output"] == "promote", name="passed"):
            verdict = judged.outputs["verdict"]
            promoted = ops.promote(section=plan.outputs["promote"], bundle=bundle, verdict=verdict, workspace=workspace)
            # What is in a stage is the world's state, no function of the inputs.
            place(promoted, "Promote", SMALL, hours=1, cached=False)
