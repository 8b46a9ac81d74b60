import os
from pathlib import Path

import pytest

from components.folders import read_json
from components.store import LOCATION_NAME, Store, open_input, produce, publish, store_key
from lavin_dit.config import Config, load_config
from lavin_dit.errors import InputError

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(TINY, ["prepare.num_train_scenes=1", "prepare.num_test_scenes=1", "prepare.tasks=[depth]"])


def prepare(config: Config, folder: Path, data: str = "hash") -> Path:
    inputs = {"raw": folder / "raw"}
    return produce("prepare", config.prepare, inputs, output="shards", store=Store(folder / "store", "code"), known={"raw": data})


def test_an_output_is_made_once(config: Config, tmp_path: Path) -> None:
    first = prepare(config, tmp_path)
    made = (first / "manifest.json").stat().st_mtime_ns
    assert prepare(config, tmp_path) == first
    assert (first / "manifest.json").stat().st_mtime_ns == made


def test_other_data_make_another_output(config: Config, tmp_path: Path) -> None:
    assert prepare(config, tmp_path, "one") != prepare(config, tmp_path, "two")


def test_the_key_sees_section_inputs_and_code(config: Config) -> None:
    keys = [
        store_key(config.prepare, {"raw": "a"}, "code"),
        store_key(config.evaluate, {"raw": "a"}, "code"),
        store_key(config.prepare, {"raw": "b"}, "code"),
        store_key(config.prepare, {"ray": "a"}, "code"),
        store_key(config.prepare, {"raw": "a"}, "edited"),
    ]
    assert len(set(keys)) == 5


def test_a_small_output_is_published_as_it_is_without_a_second_copy(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "vae-1"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights").write_text("w")
    publish(folder, tmp_path / "artifact", output="vae")
    assert open_input(tmp_path / "artifact") == tmp_path / "artifact"
    assert (tmp_path / "artifact" / "sub" / "weights").samefile(folder / "sub" / "weights")


def test_an_output_is_copied_where_links_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "vae-1").mkdir()
    (tmp_path / "vae-1" / "weights").write_text("w")
    publish(tmp_path / "vae-1", tmp_path / "artifact", output="vae")
    assert (tmp_path / "artifact" / "weights").read_text() == "w"


def test_a_heavy_output_stays_in_the_store(config: Config, tmp_path: Path) -> None:
    folder = prepare(config, tmp_path)
    publish(folder, tmp_path / "artifact", output="shards")
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == [LOCATION_NAME]
    assert open_input(tmp_path / "artifact").samefile(folder)


def test_an_output_that_was_removed_from_the_store_is_named(config: Config, tmp_path: Path) -> None:
    folder = prepare(config, tmp_path)
    publish(folder, tmp_path / "artifact", output="shards")
    folder.rename(tmp_path / "gone")
    with pytest.raises(InputError, match=f"{folder.name}: is gone from the store"):
        open_input(tmp_path / "artifact")


def test_the_store_holds_the_section_that_made_an_output(config: Config, tmp_path: Path) -> None:
    assert read_json(prepare(config, tmp_path) / "config.json")["num_train_scenes"] == 1
