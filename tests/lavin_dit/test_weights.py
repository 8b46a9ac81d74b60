import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import RELEASED_STATISTICS, LatentStatistics, TrainedVae, load_dit, load_vae, save_dit, save_tensors, save_vae


def make_vae() -> TrainedVae:
    return TrainedVae(STVae(VAE_PRESETS["tiny"]), LatentStatistics(shift=0.25, scale=1.5), 32)


def make_dit() -> JDit:
    dit = JDit(DIT_PRESETS["tiny"])
    dit.initialise(torch.Generator().manual_seed(0))
    return dit


def test_a_vae_comes_back_ready_for_inference(tmp_path: Path) -> None:
    vae = make_vae()
    save_vae(tmp_path, vae)
    loaded = load_vae(tmp_path)
    assert (loaded.statistics, loaded.resolution, loaded.module.shape) == (vae.statistics, 32, vae.module.shape)
    expected = vae.module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.module.state_dict().items())
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())


def test_a_dit_comes_back_and_so_does_its_moving_average(tmp_path: Path) -> None:
    dit = make_dit()
    average = {name: tensor + 1.0 for name, tensor in dit.state_dict().items()}
    save_dit(tmp_path, dit)
    assert all(torch.equal(tensor, dit.state_dict()[name]) for name, tensor in load_dit(tmp_path).state_dict().items())
    save_dit(tmp_path, dit, average)
    assert all(torch.equal(tensor, average[name]) for name, tensor in load_dit(tmp_path).state_dict().items())


def test_statistics_restore_what_they_normalise() -> None:
    latents = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(RELEASED_STATISTICS.restore(RELEASED_STATISTICS.normalise(latents)), latents)
    torch.testing.assert_close(RELEASED_STATISTICS.normalise(latents), (latents - 0.032470703125) * 1.08936170213)


def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    save_dit(tmp_path, make_dit())
    path = tmp_path / "weights.safetensors"
    content = path.read_bytes()
    for size in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"weights\.safetensors: does not hold these weights") as refused:
            load_dit(tmp_path)
        assert "\n" not in str(refused.value)
    path.unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors: does not hold these weights"):
        load_dit(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_dit(tmp_path, make_dit())
    with pytest.raises(InputError, match=r"model\.json: cannot be read as this model's description"):
        load_vae(tmp_path)
    facts = tmp_path / "model.json"
    shape = json.loads(facts.read_text())["shape"]
    facts.write_text(json.dumps({"shape": {**shape, "depth": 3}}))
    with pytest.raises(InputError, match=r"weights\.safetensors: does not hold these weights .*blocks\.2"):
        load_dit(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"shape": {"depth": 2}}', '{"shape": "tiny"}', "\xff"])
def test_a_description_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    save_dit(tmp_path, make_dit())
    (tmp_path / "model.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"model\.json: cannot be read as this model's description") as refused:
        load_dit(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/model\.json: cannot be read"):
        load_vae(tmp_path / "nowhere")


def test_a_full_disk_is_reported_as_the_system_does(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*weights\.safetensors"):
            save_tensors({"a": torch.zeros(10_000)}, tmp_path / "weights.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_model_is_read_without_running_anything_of_it(tmp_path: Path) -> None:
    save_dit(tmp_path, make_dit())
    code = (
        "import pickle, pathlib, sys\n"
        "def refuse(*_): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = refuse\n"
        "from lavin_dit.weights import load_dit\n"
        "load_dit(pathlib.Path(sys.argv[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
