import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lavin_dit.config import SECTIONS, load_config, parse_config, section_from_json, section_to_json
from lavin_dit.errors import InputError
from lavin_dit.presets import DIT_PRESETS

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"
FILES = [PARAMS, ROOT / "tests" / "tiny.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]

REFUSALS = {
    "train_dit.stesp=4": "train_dit.stesp: unknown parameter",
    "prepare.more={a: 1}": "prepare.more: unknown parameter",
    "bake={}": "bake: unknown parameter",
    "train_dit.steps=4.5": "train_dit.steps is 4.5: input should be a valid integer",
    "train_dit.steps='4'": "train_dit.steps is '4': input should be a valid integer",
    "train_dit.steps=true": "train_dit.steps is True: input should be a valid integer",
    "train_dit.steps=null": "train_dit.steps is None: input should be a valid integer",
    "train_dit.steps=0": "train_dit.steps is 0: input should be greater than 0",
    "train_dit.seed=-1": "train_dit.seed is -1: input should be greater than or equal to 0",
    "train_dit.seed=4294967296": "train_dit.seed is 4294967296: input should be less than 4294967296",
    "train_dit.optimizer.learning_rate=.nan": "train_dit.optimizer.learning_rate is nan: input should be",
    "train_dit.optimizer.learning_rate=.inf": "train_dit.optimizer.learning_rate is inf: input should be",
    "train_dit.optimizer.ema_decay=.nan": "train_dit.optimizer.ema_decay is nan: input should be",
    "train_dit.optimizer.betas=[0.9]": r"train_dit.optimizer.betas.1: missing",
    "train_dit.optimizer.warmup_steps=999999": r"train_dit: optimizer.warmup_steps is 999999: must be below steps \(\d+\)",
    "train_dit.prompt_drop_probability=1.0": "train_dit.prompt_drop_probability is 1.0: input should be less than 1",
    "train_dit.shape=giant": "train_dit.shape is 'giant': must be one of tiny, .*3.4B, or a mapping with the sizes themselves",
    "train_vae.shape=giant": "train_vae.shape is 'giant': must be one of tiny, .*paper, or a mapping with the sizes themselves",
    "train_dit.shape={depth: 2, dim: 40, num_heads: 4, kv_group: 2}": (
        r"train_dit.shape: head_dim is 10 \(dim 40 / num_heads 4\): must be divisible by 6, for three equal rotary parts"
    ),
    "train_dit.shape={depth: 2, dim: 50, num_heads: 4, kv_group: 2}": r"train_dit.shape: dim is 50: must be a multiple of num_heads \(4\)",
    "train_dit.shape={depth: 2, dim: 48, num_heads: 4, kv_group: 3}": (
        r"train_dit.shape: num_heads is 4: must be a multiple of kv_group \(3\)"
    ),
    "train_dit.shape={depth: 2, dim: 12, num_heads: 2, kv_group: 1}": "train_dit.shape: dim is 12: must be at least 24",
    "train_vae.shape={widths: [8, 8, 8, 9], encoder_blocks: 1, decoder_blocks: 1, middle_blocks: 1, norm_groups: 4}": (
        r"train_vae.shape: widths holds 9: every width must be a multiple of norm_groups \(4\)"
    ),
    "prepare.resolution=40": r"prepare.resolution is 40: must be a multiple of 16 \(8x8 latents, 2x2 patches\)",
    "prepare.clip_frames=4": r"prepare.clip_frames is 4: must be 1 \+ 4k",
    "prepare.tasks=[]": "prepare.tasks is .*: tuple should have at least 1 item",
    "prepare.tasks=[depth, edges, depth]": "prepare.tasks is .*: names depth more than once",
    "prepare.tasks=[../etc]": r"prepare.tasks.0 is '\.\./etc': string should match pattern",
    "evaluate.sampling.num_points=1": "evaluate.sampling.num_points is 1: input should be greater than or equal to 2",
    "evaluate.sampling.num_pairs=-1": "evaluate.sampling.num_pairs is -1: input should be greater than or equal to 0",
    "export.sampling.num_pairs=0": "export.sampling: num_pairs is 0: must be at least 1",
    "gate.bounds={depth/abs_rel: {}}": "gate.bounds.depth/abs_rel: a gate needs min, max, or both",
    "gate.bounds={depth/abs_rel: {max: .nan}}": "gate.bounds.depth/abs_rel.max is nan: input should be a finite number",
    "train_dit.checkpoints.location=''": "train_dit.checkpoints.location is '': string should have at least 1 character",
    "gate.against=production": "gate.against is 'production': string should match pattern",
    "train_dit=5": "train_dit is 5: ",
    "train_dit.steps.more=5": "--set train_dit.steps.more=5: train_dit.steps is 2400, not a section",
    "nowhere.steps=5": "--set nowhere.steps=5: nowhere is absent, not a section",
    "train_dit.steps": "--set train_dit.steps: must read section.key=value",
    "=5": "--set =5: must read section.key=value",
    "train_dit..steps=5": "--set train_dit..steps=5: must read section.key=value",
    "train_dit.steps=[1": r"--set train_dit.steps=\[1: the value is not valid YAML",
}


@pytest.mark.parametrize("override", REFUSALS)
def test_a_mistake_is_one_sentence_with_the_keys_path(override: str) -> None:
    with pytest.raises(InputError, match=rf"^{REFUSALS[override]}") as refused:
        load_config(PARAMS, [override])
    assert "\n" not in str(refused.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(InputError, match=r"prepare.seed is -1: .*; .*export.seed is -2: "):
        load_config(PARAMS, ["prepare.seed=-1", "export.seed=-2"])


def test_a_missing_parameter_is_named() -> None:
    document = yaml.safe_load(PARAMS.read_text())
    del document["train_dit"]["steps"], document["promote"]
    with pytest.raises(InputError, match=r"^train_dit.steps: missing; promote: missing$"):
        parse_config(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must be a mapping with the sections prepare, "),
        (b"- prepare", "must be a mapping with the sections prepare, "),
        (b"prepare: [", "is not valid YAML"),
        (b"prepare: !!python/object:os.system {}", "is not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read as a params file"),
        (None, "cannot be read as a params file"),
    ],
)
def test_a_file_that_is_no_params_file_is_named(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"params\.yaml: {sentence}") as refused:
        load_config(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_params_file_of_the_project_loads(path: Path) -> None:
    config = load_config(path)
    assert config.evaluate.sampling.num_pairs >= 1


@pytest.mark.parametrize("step", SECTIONS)
def test_a_section_comes_back_from_its_json(step: str) -> None:
    section = getattr(load_config(PARAMS), step)
    text = section_to_json(section)
    assert section_from_json(step, text) == section
    assert section_to_json(section_from_json(step, text)) == text
    shuffled = dict(reversed(json.loads(text).items()))
    assert section_to_json(section_from_json(step, json.dumps(shuffled))) == text


def test_a_section_refuses_with_its_own_path() -> None:
    with pytest.raises(InputError, match=r"^promote\.nmae: unknown parameter; .*|^promote\.name: missing"):
        section_from_json("promote", '{"nmae": "lavin-dit", "stage": "production"}')
    with pytest.raises(InputError, match=r"^promote: its section is not valid JSON"):
        section_from_json("promote", "{")


def test_overrides_apply_in_order_and_leave_the_rest_alone() -> None:
    plain, changed = load_config(PARAMS), load_config(PARAMS, ["train_dit.steps=777", "train_dit.steps=888", "train_dit.shape=tiny"])
    assert changed.train_dit.steps == 888
    assert changed.train_dit.shape == DIT_PRESETS["tiny"]
    assert changed.train_vae == plain.train_vae


def test_a_preset_and_its_sizes_are_the_same_configuration() -> None:
    named = load_config(PARAMS, ["train_dit.shape=tiny"])
    spelled = load_config(PARAMS, ["train_dit.shape={depth: 2, dim: 48, num_heads: 4, kv_group: 2}"])
    assert section_to_json(named.train_dit) == section_to_json(spelled.train_dit)


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(PARAMS).train_dit.steps = 5  # type: ignore[misc]


def test_reading_a_configuration_does_not_load_torch() -> None:
    code = "import sys, lavin_dit.config, lavin_dit.sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_laptop_recipe_is_what_the_project_starts_with() -> None:
    assert load_config(ROOT / "recipes" / "laptop.yaml") == load_config(PARAMS)
