import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavin_dit.errors import InputError
from pipelines.cli import app

TINY = Path(__file__).parents[1] / "tiny.yaml"


def ask(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", "--params", str(TINY), *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_table_says_what_fits_and_how_long_it_takes() -> None:
    said = ask("--gpus", "2", "--gpu", "h200")
    assert said.startswith("2 x h200 (1 node of 2, 140 GiB each)\n")
    assert re.search(r"peak memory of a GPU +[\d.]+ MiB +[\d.]+ MiB", said)
    assert re.search(r"speed of a GPU +[\d.]+ TFLOP/s, assumed +[\d.]+ TFLOP/s, reckoned", said)
    assert said.count("fits\n") == 2


@pytest.mark.parametrize(("arguments", "basis"), [(["--mfu", "0.2"], "stated"), (["--gpu", "cpu"], "timed")])
def test_the_table_says_how_speeds_are_known(arguments: list[str], basis: str) -> None:
    assert re.search(rf"speed of a GPU +[\d.]+ TFLOP/s, {basis} +[\d.]+ TFLOP/s, {basis}", ask(*arguments))


def test_what_does_not_fit_is_said_plainly_and_check_makes_it_exit_code_1() -> None:
    too_large = ["--set", 'train_dit.shape="3.4B"', "--set", "prepare.resolution=512", "--gpu", "l4"]
    assert "J-DiT  DOES NOT FIT, not even one sample: shard the state" in ask(*too_large)
    assert CliRunner().invoke(app, ["plan", "--params", str(TINY), *too_large, "--check"]).exit_code == 1


def test_a_state_on_the_host_of_one_job_alone_is_in_the_table_and_its_time_is_said_to_be_missing() -> None:
    said = ask("--gpus", "2", "--set", "train_dit.execution.sharding=full", "--set", "train_dit.execution.cpu_offload=true")
    assert re.search(r"on its host +0 MiB +[\d.]+ MiB", said)
    assert "cpu_offload is on for the J-DiT, and its time is not modelled" in said


def test_every_figure_is_there_as_json() -> None:
    document = json.loads(ask("--json", "--gpus", "4"))
    assert document["dit"]["memory"]["peak"] > 0
    assert document["dit"]["time"]["step_s"] * document["dit"]["steps"] == pytest.approx(document["dit"]["duration_s"])
    assert document["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gpu", "h2"], r"--gpu h2: must be one of a100-40, .*"),
        (["--mfu", "1.5"], r"--mfu 1.5: must be above 0 and at most 1"),
        (["--gpus", "5", "--gpus-per-node", "8"], r"train_vae\.batch_size is 4: must be at least the number of processes \(5\)"),
        (["--gpus", "12"], r"--gpus 12: more than a node holds must be a multiple of what it holds \(--gpus-per-node 8\)"),
        (["--recipe", "laptop"], r"--recipe laptop and --params .*: give one of the two"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}$"):
        CliRunner().invoke(app, ["plan", "--params", str(TINY), *arguments], catch_exceptions=False)
