import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lavin_dit.errors import InputError
from lavin_dit.export.pictures import squeeze, stretch
from lavin_dit.export.runtime import Bundle
from pipelines.predict import predict

WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "scipy", "yaml", "einops", "safetensors", "skimage"):
    sys.modules[name] = None
import typer
from pipelines.predict import predict
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(predict)
app()
"""


def draw(path: Path, width: int = 40, height: int = 24, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return draw(tmp_path / "query.png")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number, name in enumerate(("a", "b", "c")):
        draw(tmp_path / "pairs" / f"{name}_input.png", seed=10 + number)
        draw(tmp_path / "pairs" / f"{name}_target.png", seed=20 + number)
    return tmp_path / "pairs"


def test_the_answer_is_the_models_at_the_querys_own_size(exported_bundle: Path, query: Path, tmp_path: Path) -> None:
    predict(exported_bundle, [query], tmp_path / "out.png", task="denoising", seed=3)
    bundle = Bundle.open(exported_bundle)
    context = bundle.contexts("denoising")
    with Image.open(query) as image:
        (answer,) = bundle.predict(squeeze(image, 32)[None], context.inputs[None], context.targets[None], seed=3)
    assert np.array_equal(read(tmp_path / "out.png"), np.asarray(stretch(answer, (40, 24), is_nearest=False)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "query.png"]


def test_the_colours_of_labels_are_not_mixed(exported_bundle: Path, query: Path, tmp_path: Path) -> None:
    predict(exported_bundle, [query], tmp_path / "out.png", task="semantic")
    bundle = Bundle.open(exported_bundle)
    context = bundle.contexts("semantic")
    with Image.open(query) as image:
        (answer,) = bundle.predict(squeeze(image, 32)[None], context.inputs[None], context.targets[None])
    painted = {tuple(colour) for colour in answer.reshape(-1, 3)}
    assert {tuple(colour) for colour in read(tmp_path / "out.png").reshape(-1, 3)} <= painted


def test_each_answer_is_the_same_alone_and_among_others(exported_bundle: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.jpg", "notes.txt")):
        draw(tmp_path / "queries" / name, seed=number) if name != "notes.txt" else (tmp_path / "queries" / name).write_text("no image")
    extra = draw(tmp_path / "extra.png", 16, 16, seed=9)
    predict(exported_bundle, [tmp_path / "queries", extra], tmp_path / "answers", task="denoising")
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == ["a.png", "b.png", "extra.png"]
    predict(exported_bundle, [tmp_path / "queries" / "b.jpg"], tmp_path / "alone.png", task="denoising")
    assert np.array_equal(read(tmp_path / "alone.png"), read(tmp_path / "answers" / "b.png"))
    assert read(tmp_path / "answers" / "extra.png").shape == (16, 16, 3)


def test_ones_own_pairs_are_shown_and_no_task_is_needed(exported_bundle: Path, query: Path, pairs: Path, tmp_path: Path) -> None:
    predict(exported_bundle, [query], tmp_path / "out.jpg", context=pairs)
    predict(exported_bundle, [query], tmp_path / "two.png", context=pairs, pairs=2)
    predict(exported_bundle, [query], tmp_path / "three.png", task="my_own_task", context=pairs, pairs=3)
    assert not np.array_equal(read(tmp_path / "two.png"), read(tmp_path / "three.png"))
    (pairs / "c_input.png").unlink()
    (pairs / "c_target.png").unlink()
    predict(exported_bundle, [query], tmp_path / "again.png", context=pairs)
    assert np.array_equal(read(tmp_path / "two.png"), read(tmp_path / "again.png"))


def test_another_seed_or_guidance_gives_another_answer(exported_bundle: Path, query: Path, tmp_path: Path) -> None:
    answers = []
    for number, settings in enumerate(({}, {"seed": 1}, {"guidance": 1.0}, {"pairs": 1})):
        predict(exported_bundle, [query], tmp_path / f"{number}.png", task="denoising", **settings)
        answers.append(read(tmp_path / f"{number}.png").tobytes())
    assert len(set(answers)) == 4


def test_it_works_from_the_command_line_without_torch(exported_bundle: Path, query: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    arguments = [str(exported_bundle), "--context", str(pairs), "--query", str(query), "--out", str(out), "--seed", "2"]
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    predict(exported_bundle, [query], tmp_path / "here.png", context=pairs, seed=2)
    assert np.array_equal(read(out), read(tmp_path / "here.png"))


def test_the_command_tells_its_options() -> None:
    app = typer.Typer()
    app.command()(predict)
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("BUNDLE", "--query", "--out", "--task", "--context", "--pairs", "--seed", "--guidance"):
        assert option in result.output


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such query": ({"query": ["absent.png"]}, r"--query absent\.png: there is no such file"),
    "not an image": ({"query": ["text.png"]}, r"text\.png: cannot be read as an image"),
    "empty folder": ({"query": ["empty"]}, "empty: holds no images"),
    "no such bundle": ({"bundle": "absent"}, r"absent: is not a bundle, it holds no bundle\.json"),
    "tampered bundle": ({"bundle": "tampered"}, r"model_card\.md: has changed"),
    "unknown task": ({"task": "pose"}, "task 'pose': this bundle has example pairs for denoising, semantic"),
    "no task": ({"task": None}, "--task: say one of denoising, semantic, or show your own pairs with --context"),
    "too many pairs": ({"pairs": 3}, "--pairs 3: the bundle holds 2 of denoising"),
    "too many own pairs": ({"context": "pairs", "pairs": 4}, "--pairs 4: .*pairs holds 3"),
    "context is no folder": ({"context": "query.png"}, r"query\.png: must be a folder with pairs"),
    "context without images": ({"context": "empty"}, "empty: holds no images"),
    "context without pairs": ({"context": "queries"}, "must be named <name>_input or <name>_target"),
    "half a pair": ({"context": "half"}, r"a_input\.png: has no target: a_target\.<ext> is missing"),
    "repeated name": ({"context": "twice"}, r"a_input\.png: repeats the name a_input of .*a_input\.jpg"),
    "sizes differ": ({"context": "unequal"}, r"a_target\.png: is 16x16, but its input is 40x24"),
    "out folder missing": ({"out": "absent/out.png"}, "--out absent/out.png: the folder absent does not exist"),
    "out is no image": ({"out": "out.txt"}, r"--out out\.txt: must end in one of \.png"),
    "out is a file": ({"query": ["queries", "query.png"], "out": "text.png"}, r"--out text\.png: must be a folder for 2 pictures"),
    "out is the query": ({"out": "query.png"}, r"--out query\.png: would overwrite a query"),
    "names clash": ({"query": ["query.png", "queries"], "out": "answers"}, r"query\.png: its answer .* would overwrite that of"),
    "bad guidance": ({"guidance": -1.0}, "guidance_scale is -1: must be above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(
    exported_bundle: Path, query: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "queries" / "query.png", seed=1)
    draw(tmp_path / "half" / "a_input.png")
    for folder, name in (("twice", "a_input.jpg"), ("twice", "a_input.png"), ("unequal", "a_input.png")):
        draw(tmp_path / folder / name)
    draw(tmp_path / "unequal" / "a_target.png", 16, 16)
    shutil.copytree(exported_bundle, tmp_path / "tampered")
    (tmp_path / "tampered" / "model_card.md").write_text("better than it is")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    changed, message = BAD[case]
    given = {"bundle": exported_bundle, "query": ["query.png"], "out": "out.png", "task": "denoising", **changed}
    paths = {name: Path(value) for name, value in given.items() if name in ("bundle", "out", "context")}
    with pytest.raises(InputError, match=message) as caught:
        predict(**{**given, **paths, "query": [Path(name) for name in given["query"]]})
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
