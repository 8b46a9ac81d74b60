import logging
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.errors import InputError
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import vgg_flops
from lavin_dit.section import WeightsFile
from lavin_dit.training_config import PerceptualConfig
from lavin_dit.vae.perceptual import FeatureDistance, perceptual_term
from lavin_dit.vae.structure import StructuralDissimilarity
from lavin_dit.vae.vgg import Vgg16, load_vgg
from tests.lavin_dit.vae.vgg_file import LAST_OF_STAGES, named, vgg_layers, vgg_tensors


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return vgg_tensors(with_channel_weights=True)


@pytest.fixture(scope="module")
def vgg(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Vgg16:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(tensors, path)
    return load_vgg(named(path))


def features_of(tensors: dict[str, Tensor], pictures: Tensor) -> list[Tensor]:
    """As the layers themselves give them, one after the other."""
    layers = vgg_layers()
    layers.load_state_dict({name.removeprefix("features."): weight for name, weight in tensors.items() if name.startswith("features.")})
    x = (pictures - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    features = []
    for number, layer in enumerate(layers):
        x = layer(x)
        if number in LAST_OF_STAGES:
            features.append(x.detach())
    return features


def test_features_are_those_of_torchvisions_layers(vgg: Vgg16, tensors: dict[str, Tensor]) -> None:
    pictures = draw(2, 3, 32, 32)
    torch.testing.assert_close(vgg(pictures), features_of(tensors, pictures))


def test_the_distance_is_that_of_lpips(vgg: Vgg16, tensors: dict[str, Tensor]) -> None:
    pixels, restored = draw(2, 3, 1, 32, 32), draw(2, 3, 1, 32, 32, seed=1)
    expected = torch.zeros(2)
    pairs = zip(features_of(tensors, restored[:, :, 0]), features_of(tensors, pixels[:, :, 0]), strict=True)
    for index, (ours, theirs) in enumerate(pairs):
        ours, theirs = (x / x.norm(dim=1, keepdim=True) for x in (ours, theirs))
        weights = tensors[f"lin{index}.model.1.weight"]
        expected += torch.nn.functional.conv2d((ours - theirs).square(), weights).mean(dim=(1, 2, 3))
    torch.testing.assert_close(FeatureDistance(vgg)(restored, pixels), expected, rtol=1e-3, atol=1e-4)


def test_without_weights_of_channels_all_count_alike(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: weight for name, weight in tensors.items() if not name.startswith("lin")}, tmp_path / "vgg16.safetensors")
    vgg = load_vgg(named(tmp_path / "vgg16.safetensors"))
    assert all((weights == 1).all() for weights in vgg.channel_weights)
    pictures = draw(1, 3, 16, 16)
    torch.testing.assert_close(vgg(pictures), features_of(tensors, pictures))


def test_a_clip_is_as_far_as_its_frames_on_average_and_equal_clips_are_not_apart(vgg: Vgg16) -> None:
    distance = FeatureDistance(vgg)
    clips, restored = draw(2, 3, 5, 16, 16), draw(2, 3, 5, 16, 16, seed=1)
    frames = torch.stack([distance(restored[:, :, [t]], clips[:, :, [t]]) for t in range(5)])
    torch.testing.assert_close(distance(restored, clips), frames.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(distance(clips, clips), torch.zeros(2))


def test_only_the_reconstruction_gets_a_gradient(vgg: Vgg16) -> None:
    pixels, restored = draw(1, 3, 1, 16, 16).requires_grad_(), draw(1, 3, 1, 16, 16, seed=1).requires_grad_()
    FeatureDistance(vgg)(restored, pixels).sum().backward()
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
    assert restored.grad.abs().max() > 0
    assert pixels.grad is None
    assert not any(weight.requires_grad for weight in vgg.parameters())


def test_a_forward_pass_takes_as_many_operations_as_torch_counts(vgg: Vgg16) -> None:
    with FlopCounterMode(display=False) as counter:
        vgg(draw(2, 3, 48, 32))
    assert counter.get_total_flops() == vgg_flops(Volume(2, 48, 32))


def test_a_weight_of_zero_computes_nothing_and_needs_no_file() -> None:
    absent = WeightsFile(path="nowhere.pth", sha256="0" * 64)
    assert perceptual_term(PerceptualConfig(weight=0.0, features=absent)) is None


def test_the_log_says_once_which_term_is_used(tensors: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(tensors, tmp_path / "vgg16.pth")
    with caplog.at_level(logging.INFO, logger="lavin_dit.vae.perceptual"):
        assert isinstance(perceptual_term(PerceptualConfig(weight=1.0, features=None)), StructuralDissimilarity)
        assert isinstance(perceptual_term(PerceptualConfig(weight=1.0, features=named(tmp_path / "vgg16.pth"))), FeatureDistance)
    assert [record.getMessage() for record in caplog.records] == [
        "perceptual term: multi-scale structural similarity, since perceptual.features names no file",
        f"perceptual term: distance of VGG16 features ({tmp_path / 'vgg16.pth'})",
    ]


class Stranger:
    """What a pickle could bring along."""


def write_without(name: str) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda tensors, path: torch.save({key: value for key, value in tensors.items() if key != name}, path)


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor], Path], object], str]] = {
    "no convolution": (write_without("features.28.bias"), r"has no features\.28\.bias: must hold VGG16 in torchvision's layout"),
    "no channel weights of one stage": (write_without("lin3.model.1.weight"), r"has no lin3\.model\.1\.weight"),
    "another shape": (
        lambda tensors, path: torch.save({**tensors, "features.0.weight": torch.zeros(64, 3, 5, 5)}, path),
        r"its features\.0\.weight is \(64, 3, 5, 5\): VGG16's is \(64, 3, 3, 3\)",
    ),
    "no number": (
        lambda tensors, path: torch.save({**tensors, "features.0.bias": torch.full((64,), torch.nan)}, path),
        r"its features\.0\.bias must hold finite floating-point numbers",
    ),
    "code": (lambda _, path: torch.save(Stranger(), path), r"cannot be read as weights without running code"),
    "no weights": (lambda _, path: path.write_bytes(b"<html>not found</html>"), r"cannot be read as weights without running code"),
    "a list": (lambda _, path: torch.save([torch.zeros(1)], path), r"holds a list: must map names to weights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_with_something_else_is_refused_by_name(damage: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    write, message = DAMAGES[damage]
    path = tmp_path / "vgg16.pth"
    # Which weights are where does not depend on what they are: none of the larger ones is written.
    light = {name: weight if weight.numel() < 20_000 else torch.zeros(()).expand(weight.shape) for name, weight in tensors.items()}
    write(light, path)
    with pytest.raises(InputError, match=rf"vgg16\.pth: {message}") as refused:
        load_vgg(named(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("error", [IndexError("0"), AttributeError("1"), TypeError("2"), AssertionError("3"), struct.error("4")])
def test_whatever_the_reader_meets_damaged_bytes_with_is_one_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_settings: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    (tmp_path / "vgg16.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"vgg16\.pth: cannot be read as weights without running code"):
        load_vgg(named(tmp_path / "vgg16.pth"))


def test_another_hash_and_an_absent_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"another file")
    with pytest.raises(InputError, match=r"vgg16\.pth: its sha256 is [0-9a-f]{64}, and perceptual\.features\.sha256 asks for 0{64}$"):
        load_vgg(WeightsFile(path=str(path), sha256="0" * 64))
    with pytest.raises(InputError, match=r"^perceptual\.features\.path is .*nowhere\.pth: there is no such file$"):
        load_vgg(WeightsFile(path=str(tmp_path / "nowhere.pth"), sha256="0" * 64))
