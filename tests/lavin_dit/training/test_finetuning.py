import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavin_dit.adapter import dit_to_authors, vae_to_authors
from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.presets import DIT_PRESETS, LATENT_CHANNELS, VAE_PRESETS
from lavin_dit.section import WeightsFile
from lavin_dit.training.finetuning import adapt, begin_from, freeze, merge
from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training.sharding import LaidOut, whole
from lavin_dit.training_config import ExecutionConfig, LoraConfig
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import WEIGHTS_FILE, save_dit

KEY = "train_dit.initial_weights"
LORA = LoraConfig(rank=2, alpha=4.0)
SHAPE = DIT_PRESETS["tiny"]
SHARDINGS = ("none", "full")


def j_dit(seed: int) -> JDit:
    network = JDit(SHAPE)
    network.initialise(torch.Generator().manual_seed(seed))
    return network


def st_vae(seed: int) -> STVae:
    network = STVae(VAE_PRESETS["tiny"])
    network.initialise(torch.Generator().manual_seed(seed))
    return network


def named(path: Path, file: Path | None = None) -> WeightsFile:
    return WeightsFile(path=str(path), sha256=file_sha256(file or path))


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_weights_are_taken_from_a_folder_or_its_file(tmp_path: Path) -> None:
    save_dit(tmp_path, j_dit(1))
    for path in (tmp_path, tmp_path / WEIGHTS_FILE):
        network = j_dit(0)
        begin_from(network, named(path, tmp_path / WEIGHTS_FILE), key=KEY)
        assert_equal(network, j_dit(1))


def test_the_authors_files_are_known_by_the_names_inside(tmp_path: Path) -> None:
    save_file(dit_to_authors(j_dit(1).state_dict()), tmp_path / "lavin_dit.safetensors")
    dit = j_dit(0)
    begin_from(dit, named(tmp_path / "lavin_dit.safetensors"), key=KEY)
    assert_equal(dit, j_dit(1))
    torch.save({"state_dict": vae_to_authors(st_vae(1).state_dict())}, tmp_path / "stvae.pt")
    vae = st_vae(0)
    begin_from(vae, named(tmp_path / "stvae.pt"), key="train_vae.initial_weights")
    assert_equal(vae, st_vae(1))


def test_another_content_than_the_hash_says_is_refused_with_both_hashes(tmp_path: Path) -> None:
    save_dit(tmp_path, j_dit(1))
    wrong, right = "0" * 64, file_sha256(tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match=rf"{KEY}\.sha256 is {wrong}: .*weights.safetensors has {right}$"):
        begin_from(j_dit(0), WeightsFile(path=str(tmp_path), sha256=wrong), key=KEY)


def test_an_absent_file_and_a_folder_without_weights_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match=rf"{KEY}\.path is {path}: must be a file of weights, or a folder that holds"):
            begin_from(j_dit(0), WeightsFile(path=str(path), sha256="0" * 64), key=KEY)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["TRAP"],)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    torch.save({"state_dict": Trap()}, tmp_path / "stvae.pt")
    with pytest.raises(InputError, match="is neither a safetensors file nor one of torch that holds tensors alone"):
        begin_from(st_vae(0), named(tmp_path / "stvae.pt"), key=KEY)
    assert not (tmp_path / "sprung").exists()


def test_tensors_without_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1)}, tmp_path / "stvae.pt")
    with pytest.raises(InputError, match="must hold tensors by name"):
        begin_from(st_vae(0), named(tmp_path / "stvae.pt"), key=KEY)


@pytest.mark.parametrize("error", [AssertionError("storage key"), struct.error("unpack")])
def test_whatever_the_reader_meets_damaged_bytes_with_is_one_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_settings: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    (tmp_path / "stvae.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is neither a safetensors file nor one of torch that holds tensors alone"):
        begin_from(st_vae(0), named(tmp_path / "stvae.pt"), key=KEY)


def changed(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    if change == "missing":
        return {name: tensor for name, tensor in state.items() if name != "prompt_embed"}
    embed = state["prompt_embed"]
    changes = {
        "extra": {"more": torch.ones(1)},
        "another shape": {"prompt_embed": torch.ones(2)},
        "no number": {"prompt_embed": torch.full_like(embed, torch.nan)},
        "whole numbers": {"prompt_embed": embed.int()},
    }
    return state | changes[change]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("missing", "lacks prompt_embed, which a network of this shape has"),
        ("extra", "holds more, which a network of this shape does not have"),
        ("another shape", r"prompt_embed is \(2,\), must be \(1, \d+\) for this shape"),
        ("no number", "prompt_embed must hold finite floating-point numbers"),
        ("whole numbers", "prompt_embed must hold finite floating-point numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: str, sentence: str, tmp_path: Path) -> None:
    save_file(changed(j_dit(1).state_dict(), change), tmp_path / "w.safetensors")
    network = j_dit(0)
    with pytest.raises(InputError, match=f"{KEY}.path is .*w.safetensors: {sentence}$"):
        begin_from(network, named(tmp_path / "w.safetensors"), key=KEY)
    assert_equal(network, j_dit(0))


def trained(network: nn.Module) -> set[str]:
    return {name for name, weight in network.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", ["blocks.0", "blocks.0.", "blocks.0.attention", "prompt_embed", "prompt_embedder.0.weight"])
def test_a_name_or_the_beginning_of_names_is_frozen(name: str) -> None:
    network = j_dit(0)
    before = trained(network)
    freeze(network, [name], key="train_dit.frozen")
    beginning = name.rstrip(".")
    assert before - trained(network) == {full for full in before if full == beginning or full.startswith(f"{beginning}.")} != set()


def test_a_name_that_is_not_there_is_refused_with_those_near_it() -> None:
    with pytest.raises(InputError, match=r"train_vae\.frozen has encodr: no weight's name is or begins so; names near it: .*encoder"):
        freeze(st_vae(0), ["encodr"], key="train_vae.frozen")
    with pytest.raises(InputError, match=r"train_vae\.frozen has enc: .*names near it: .*encoder"):
        freeze(st_vae(0), ["enc"], key="train_vae.frozen")


def test_a_network_with_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(InputError, match=r"train_vae\.frozen is encoder, decoder: leaves no weight to train"):
        freeze(st_vae(0), ["encoder", "decoder"], key="train_vae.frozen")


def adapted(seed: int = 0) -> JDit:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    network = j_dit(seed)
    adapt(network, LORA, torch.Generator().manual_seed(5))
    return network


def shaken(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As after training: no update is zero any more."""
    generator = torch.Generator().manual_seed(9)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def velocity(network: JDit) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    answer, prompt = (torch.randn(2, LATENT_CHANNELS, frames, 4, 4, generator=generator) for frames in (1, 2))
    result: Tensor = network(answer, prompt, torch.tensor([0.2, 0.7]))
    return result


def test_an_adapted_network_begins_as_what_it_adapts_and_trains_updates_alone() -> None:
    network, plain = adapted(), j_dit(0)
    torch.testing.assert_close(velocity(network), velocity(plain), rtol=0, atol=0)
    expected = {
        name.removesuffix(".weight")
        for name in trained(plain)
        if name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name
    }
    assert trained(network) == {f"{name}.lora_{side}.default.weight" for name in expected for side in "AB"}


def test_the_first_updates_hang_on_the_generator_alone() -> None:
    first, second = adapted(), j_dit(0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    adapt(second, LORA, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(second, first)


def test_a_frozen_linear_gets_no_update() -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    network = j_dit(0)
    freeze(network, ["blocks.0"], key="train_dit.frozen")
    adapt(network, LORA, torch.Generator())
    assert trained(network)
    assert all(name.startswith("blocks.1.") for name in trained(network))
    nothing = j_dit(0)
    freeze(nothing, ["blocks"], key="train_dit.frozen")
    with pytest.raises(InputError, match="lora is set: frozen leaves no linear of the blocks to adapt"):
        adapt(nothing, LORA, torch.Generator())


def test_a_merged_state_is_that_of_a_plain_network_which_computes_the_same(tmp_path: Path) -> None:
    network, twin = adapted(), adapted()
    averaged = shaken(network.state_dict())
    merged = merge(network, averaged)
    twin.load_state_dict(averaged, strict=True)
    plain = JDit(SHAPE)
    plain.load_state_dict(merged, strict=True)
    torch.testing.assert_close(velocity(plain), velocity(twin), rtol=1e-4, atol=1e-5)
    save_dit(tmp_path, j_dit(0), merged)
    begin_from(j_dit(0), named(tmp_path, tmp_path / WEIGHTS_FILE), key=KEY)


def test_merging_takes_averages_of_the_trained_weights_alone_too() -> None:
    network = adapted()
    averaged = {name: tensor for name, tensor in shaken(network.state_dict()).items() if ".lora_" in name}
    whole_state = network.state_dict() | averaged
    torch.testing.assert_close(merge(network, averaged), merge(network, whole_state), rtol=0, atol=0)


def test_without_the_library_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"lora is set: needs the package peft, .*lavin-pipelines\[lora\]"):
        adapt(j_dit(0), LORA, torch.Generator())


class Velocity(Objective[int]):
    """A loss that every weight beneath takes part in."""

    def __init__(self, network: JDit) -> None:
        super().__init__()
        self.network = network

    def batch(self, step: int, samples: range) -> int:  # noqa: ARG002
        return step

    def forward(self, batch: int) -> Losses:  # noqa: ARG002
        assert isinstance(self.network, JDit)
        loss = (velocity(self.network) - 1.0).square().mean()
        return Losses(loss, {}, {})

    def cost(self, batch: int) -> Cost:  # noqa: ARG002
        return Cost(0, 0.0)


def gradients(sharding: str, processes: Processes) -> dict[str, Tensor]:
    # Zero gates and a zero last layer would hide every gradient.
    network = adapted()
    network.load_state_dict(shaken(network.state_dict()), strict=True)
    execution = ExecutionConfig.model_validate(
        {
            "micro_batch": None,
            "precision": "float32",
            "sharding": sharding,
            "cpu_offload": False,
            "activation_checkpointing": "none",
            "compile": False,
        }
    )
    laid_out = LaidOut(Velocity(network), execution, processes)
    laid_out.losses(0).total.backward()  # type: ignore[no-untyped-call]
    laid_out.meet()
    return {name: whole(weight.grad) for name, weight in network.named_parameters() if weight.grad is not None}


def test_an_adapted_network_trains_over_processes_as_in_one(tmp_path: Path) -> None:
    single = gradients("none", Processes(0, 1, torch.device("cpu")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, __file__, str(tmp_path)], env={**place, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    assert single
    assert all(".lora_" in name for name in single)
    for sharding in SHARDINGS:
        found = torch.load(tmp_path / f"{sharding}.pt", weights_only=True)
        torch.testing.assert_close(found, single, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    with join_processes() as both:
        for way in SHARDINGS:
            found_here = gradients(way, both)
            if both.is_first:
                torch.save(found_here, Path(sys.argv[1]) / f"{way}.pt")
