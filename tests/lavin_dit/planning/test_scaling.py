from lavin_dit.config import load_config
from lavin_dit.planning.dataset import plan_data
from lavin_dit.planning.layout import Layout
from lavin_dit.planning.plan import plan_dit
from lavin_dit.planning.scaling import DEVICE, DOCUMENT, GIB, RECIPE, fill
from lavin_dit.planning.step_time import DEFAULT_MFU, Fleet, StepTime


def test_the_documents_tables_are_what_the_planning_model_says() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document.count("| 3.4B | 512 |") == 2
    assert fill(document) == document, "run python -m lavin_dit.planning.scaling"


def split_over_64_nodes(size: str, batch_size: int) -> StepTime:
    execution = {"precision": "bfloat16", "sharding": "full", "activation_checkpointing": "none"}
    changes = {"shape": size, "batch_size": batch_size} | {f"execution.{name}": value for name, value in execution.items()}
    config = load_config(RECIPE, [f"train_dit.{name}={value}" for name, value in changes.items()])
    return plan_dit(config, Fleet(DEVICE, Layout(512, 8), DEFAULT_MFU)).time


def test_so_are_the_figures_of_where_it_breaks() -> None:
    one, two, small = (split_over_64_nodes(size, batch) for size, batch in (("3.4B", 512), ("3.4B", 1024), ("0.1B", 640)))
    latents = plan_data(load_config(RECIPE), 1.0).latent_bytes
    said = DOCUMENT.read_text(encoding="utf-8")
    for sentence in (
        f"forward pass takes {one.compute_s / 3 * 1e3:.0f} ms of operations, its backward pass {one.compute_s / 1.5 * 1e3:.0f} ms",
        f"beside one sample {one.exposed_s * 1e3:.0f} ms are waited for, beside two {two.exposed_s * 1e3:.0f} ms",
        f"for {small.compute_s * 1e3:.0f} ms of operations",
        f"take {latents / GIB:.0f} GiB. They are mapped into memory",
    ):
        assert sentence in said
