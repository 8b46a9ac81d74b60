"""A second ST-VAE, written plainly from the definition and in the authors' names, compared with ours through the adapter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavin_dit.adapter import load_authors_vae, vae_from_authors, vae_to_authors
from lavin_dit.presets import VaeShape
from lavin_dit.vae.blocks import SpatialNorm
from lavin_dit.vae.convolutions import CausalConv3d, Downsample, Upsample
from lavin_dit.vae.st_vae import STVae

SHAPE = VaeShape(widths=(4, 8, 8, 12), encoder_blocks=2, decoder_blocks=3, middle_blocks=2, norm_groups=4)
Weights = dict[str, Tensor]


def sizes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and kernel of every convolution, and name and width of every norm, as the authors call them."""
    widths, last = SHAPE.widths, SHAPE.widths[-1]
    yield "encoder.conv_in.conv", (widths[0], 3, 3, 3, 3)
    for i, width in enumerate(widths):
        for j in range(SHAPE.encoder_blocks):
            yield from block_sizes(f"encoder.down_blocks.{i}.resnets.{j}", widths[max(i - 1, 0)] if j == 0 else width, width, spatial=False)
        if i < 3:
            yield f"encoder.down_blocks.{i}.downsamplers.0.conv", (width, width, 3, 3)
    for side in ("encoder", "decoder"):
        for j in range(SHAPE.middle_blocks):
            yield from block_sizes(f"{side}.mid_block.resnets.{j}", last, last, spatial=side == "decoder")
    yield from norm_sizes("encoder.norm_out", last, spatial=False)
    yield "encoder.conv_out.conv", (32, last, 3, 3, 3)
    yield "decoder.conv_in.conv", (last, 16, 3, 3, 3)
    backwards = widths[::-1]
    for i, width in enumerate(backwards):
        for j in range(SHAPE.decoder_blocks):
            yield from block_sizes(f"decoder.up_blocks.{i}.resnets.{j}", backwards[max(i - 1, 0)] if j == 0 else width, width, spatial=True)
        if i < 3:
            yield f"decoder.up_blocks.{i}.upsamplers.0.conv", (width, width, 3, 3)
    yield from norm_sizes("decoder.norm_out", widths[0], spatial=True)
    yield "decoder.conv_out.conv", (3, widths[0], 3, 3, 3)


def block_sizes(name: str, width_in: int, width: int, *, spatial: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from norm_sizes(f"{name}.norm1", width_in, spatial=spatial)
    yield f"{name}.conv1.conv", (width, width_in, 3, 3, 3)
    yield from norm_sizes(f"{name}.norm2", width, spatial=spatial)
    yield f"{name}.conv2.conv", (width, width, 3, 3, 3)
    if width_in != width:
        yield f"{name}.conv_shortcut", (width, width_in, 1, 1, 1)


def norm_sizes(name: str, width: int, *, spatial: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    if not spatial:
        yield name, (width,)
        return
    yield f"{name}.norm_layer", (width,)
    yield f"{name}.conv_y.conv", (width, 16, 1, 1, 1)
    yield f"{name}.conv_b.conv", (width, 16, 1, 1, 1)


@pytest.fixture(scope="module")
def weights() -> Weights:
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64)

    made = {}
    for name, size in sizes():
        fan_in = torch.Size(size[1:]).numel() if len(size) > 1 else 16
        made[f"{name}.weight"] = draw(*size) / fan_in**0.5 + (1.0 if len(size) == 1 else 0.0)
        made[f"{name}.bias"] = 0.3 * draw(size[0])
    return made


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def causal_conv(x: Tensor, w: Weights, name: str) -> Tensor:
    kernel, bias = w[f"{name}.conv.weight"], w[f"{name}.conv.bias"]
    b, _, t, height, width = x.shape
    padded = torch.zeros(b, x.shape[1], t + 2, height + 2, width + 2, dtype=x.dtype)
    for frame in range(t + 2):
        padded[:, :, frame, 1:-1, 1:-1] = x[:, :, max(frame - 2, 0)]
    y = torch.zeros(b, len(kernel), t, height, width, dtype=x.dtype) + bias.view(1, -1, 1, 1, 1)
    for k in range(3):
        for i in range(3):
            for j in range(3):
                seen = padded[:, :, k : k + t, i : i + height, j : j + width]
                y += torch.einsum("oc,bcthw->bothw", kernel[:, :, k, i, j], seen)
    return y


def pointwise(x: Tensor, w: Weights, name: str) -> Tensor:
    return torch.einsum("oc,bcthw->bothw", w[f"{name}.weight"][:, :, 0, 0, 0], x) + w[f"{name}.bias"].view(1, -1, 1, 1, 1)


def frame_conv(padded: Tensor, w: Weights, name: str, *, stride: int) -> Tensor:
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    height, width = (padded.shape[3] - 3) // stride + 1, (padded.shape[4] - 3) // stride + 1
    y: Tensor | int = 0
    for i in range(3):
        for j in range(3):
            seen = padded[:, :, :, i : i + stride * height : stride, j : j + stride * width : stride][..., :height, :width]
            y = y + torch.einsum("oc,bcthw->bothw", kernel[:, :, i, j], seen)
    return y + bias.view(1, -1, 1, 1, 1)


def group_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    groups = []
    for part in x.chunk(SHAPE.norm_groups, dim=1):
        mean = part.mean(dim=(1, 2, 3, 4), keepdim=True)
        variance = ((part - mean) ** 2).mean(dim=(1, 2, 3, 4), keepdim=True)
        groups.append((part - mean) / torch.sqrt(variance + 1e-6))
    return torch.cat(groups, dim=1) * w[f"{name}.weight"].view(1, -1, 1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1, 1)


def nearest(z: Tensor, size: tuple[int, ...]) -> Tensor:
    for axis, wanted in zip((2, 3, 4), size, strict=True):
        z = z.index_select(axis, torch.tensor([i * z.shape[axis] // wanted for i in range(wanted)]))
    return z


def spatial_norm(x: Tensor, z: Tensor, w: Weights, name: str) -> Tensor:
    t, height, width = x.shape[2:]
    if t > 1 and t % 2 == 1:
        z = torch.cat([nearest(z[:, :, :1], (1, height, width)), nearest(z[:, :, 1:], (t - 1, height, width))], dim=2)
    else:
        z = nearest(z, (t, height, width))
    return group_norm(x, w, f"{name}.norm_layer") * pointwise(z, w, f"{name}.conv_y.conv") + pointwise(z, w, f"{name}.conv_b.conv")


def norm(x: Tensor, z: Tensor | None, w: Weights, name: str) -> Tensor:
    return group_norm(x, w, name) if z is None else spatial_norm(x, z, w, name)


def residual_block(x: Tensor, z: Tensor | None, w: Weights, name: str) -> Tensor:
    y = causal_conv(silu(norm(x, z, w, f"{name}.norm1")), w, f"{name}.conv1")
    y = causal_conv(silu(norm(y, z, w, f"{name}.norm2")), w, f"{name}.conv2")
    return y + (pointwise(x, w, f"{name}.conv_shortcut") if f"{name}.conv_shortcut.weight" in w else x)


def downsample(x: Tensor, w: Weights, name: str, *, time: bool) -> Tensor:
    frames = list(x.unbind(2))
    if time and len(frames) > 1:
        kept = frames[: len(frames) % 2]
        rest = frames[len(frames) % 2 :]
        frames = kept + [(rest[i] + rest[i + 1]) / 2 for i in range(0, len(rest), 2)]
    x = torch.stack(frames, dim=2)
    padded = torch.zeros(*x.shape[:3], x.shape[3] + 1, x.shape[4] + 1, dtype=x.dtype)
    padded[..., :-1, :-1] = x
    return frame_conv(padded, w, f"{name}.conv", stride=2)


def upsample(x: Tensor, w: Weights, name: str, *, time: bool) -> Tensor:
    frames = list(x.unbind(2))
    if time:
        frames = frames[:1] + [frame for frame in frames[1:] for _ in range(2)]
    x = torch.stack(frames, dim=2)
    x = nearest(x, (x.shape[2], 2 * x.shape[3], 2 * x.shape[4]))
    padded = torch.zeros(*x.shape[:3], x.shape[3] + 2, x.shape[4] + 2, dtype=x.dtype)
    padded[..., 1:-1, 1:-1] = x
    return frame_conv(padded, w, f"{name}.conv", stride=1)


def encode(pixels: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    x = causal_conv(pixels, w, "encoder.conv_in")
    for i in range(4):
        for j in range(SHAPE.encoder_blocks):
            x = residual_block(x, None, w, f"encoder.down_blocks.{i}.resnets.{j}")
        if i < 3:
            x = downsample(x, w, f"encoder.down_blocks.{i}.downsamplers.0", time=i < 2)
    for j in range(SHAPE.middle_blocks):
        x = residual_block(x, None, w, f"encoder.mid_block.resnets.{j}")
    moments = causal_conv(silu(group_norm(x, w, "encoder.norm_out")), w, "encoder.conv_out")
    return moments[:, :16], moments[:, 16:].clamp(-30, 20)


def decode(z: Tensor, w: Weights) -> Tensor:
    x = causal_conv(z, w, "decoder.conv_in")
    for j in range(SHAPE.middle_blocks):
        x = residual_block(x, z, w, f"decoder.mid_block.resnets.{j}")
    for i in range(4):
        for j in range(SHAPE.decoder_blocks):
            x = residual_block(x, z, w, f"decoder.up_blocks.{i}.resnets.{j}")
        if i < 3:
            x = upsample(x, w, f"decoder.up_blocks.{i}.upsamplers.0", time=i < 2)
    return causal_conv(silu(spatial_norm(x, z, w, "decoder.norm_out")), w, "decoder.conv_out")


def draw(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def ours(weights: Weights) -> STVae:
    vae = STVae(SHAPE).double()
    vae.load_state_dict(vae_from_authors(weights), strict=True)
    return vae.requires_grad_(False)


def part(module: torch.nn.Module, w: Weights, prefix: str, names: dict[str, str]) -> torch.nn.Module:
    """One of our layers with weights of the authors' layer at `prefix`; `names` maps our parts to theirs."""
    state = {f"{ours}{kind}": w[f"{prefix}{theirs}.{kind}"] for ours, theirs in names.items() for kind in ("weight", "bias")}
    module.double().load_state_dict(state, strict=True)
    return module.requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_causal_convolution_is_the_defined_one(weights: Weights, frames: int) -> None:
    layer, x = part(CausalConv3d(3, 4), weights, "encoder.conv_in", {"": ".conv"}), draw(2, 3, frames, 6, 5)
    assert relative_error(layer(x), causal_conv(x, weights, "encoder.conv_in")) < 1e-12


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("halves_time", [True, False])
def test_a_downsampler_is_the_defined_one(weights: Weights, frames: int, halves_time: bool) -> None:
    name, x = "encoder.down_blocks.0.downsamplers.0", draw(2, 4, frames, 6, 8)
    layer = part(Downsample(4, halves_time=halves_time), weights, name, {"conv.": ".conv"})
    assert relative_error(layer(x), downsample(x, weights, name, time=halves_time)) < 1e-12


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("doubles_time", [True, False])
def test_an_upsampler_is_the_defined_one(weights: Weights, frames: int, doubles_time: bool) -> None:
    name, x = "decoder.up_blocks.0.upsamplers.0", draw(2, 12, frames, 3, 4)
    layer = part(Upsample(12, doubles_time=doubles_time), weights, name, {"conv.": ".conv"})
    assert relative_error(layer(x), upsample(x, weights, name, time=doubles_time)) < 1e-12


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (2, 2), (2, 3), (2, 5), (3, 3), (3, 5), (3, 9), (4, 13)])
def test_a_spatial_norm_is_the_defined_one(weights: Weights, latent_frames: int, frames: int) -> None:
    x, z = draw(2, 4, frames, 6, 8), draw(2, 16, latent_frames, 3, 4)
    names = {"norm.": ".norm_layer", "scale.": ".conv_y.conv", "shift.": ".conv_b.conv"}
    layer = part(SpatialNorm(4, 16, 4), weights, "decoder.norm_out", names)
    assert relative_error(layer(x, z), spatial_norm(x, z, weights, "decoder.norm_out")) < 1e-12


@pytest.mark.parametrize("frames", [1, 2, 5, 9])
def test_encoding_is_the_defined_one(ours: STVae, weights: Weights, frames: int) -> None:
    pixels = 3 * draw(2, 3, frames, 16, 24)
    moments, (mean, logvar) = ours.encode(pixels), encode(pixels, weights)
    assert mean.shape == (2, 16, 1 + (frames - 1) // 4, 2, 3)
    assert relative_error(moments.mean, mean) < 1e-10
    assert relative_error(moments.logvar, logvar) < 1e-10


def test_logvar_is_clamped_as_defined(ours: STVae, weights: Weights) -> None:
    scaled = {**weights, "encoder.conv_out.conv.weight": 100 * weights["encoder.conv_out.conv.weight"]}
    vae = STVae(SHAPE).double().requires_grad_(False)
    vae.load_state_dict(vae_from_authors(scaled), strict=True)
    pixels = draw(1, 3, 1, 16, 16)
    logvar, expected = vae.encode(pixels).logvar, encode(pixels, scaled)[1]
    assert (float(logvar.min()), float(logvar.max())) == (-30, 20)
    torch.testing.assert_close(logvar, expected)


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4])
def test_decoding_is_the_defined_one(ours: STVae, weights: Weights, latent_frames: int) -> None:
    z = draw(2, 16, latent_frames, 2, 3)
    pixels = decode(z, weights)
    assert pixels.shape == (2, 3, 4 * latent_frames - 3, 16, 24)
    assert relative_error(ours.decode(z), pixels) < 1e-10


def test_a_file_of_the_authors_gives_their_outputs_in_float32(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": {name: tensor.float() for name, tensor in weights.items()}}, tmp_path / "stvae.pt")
    vae = load_authors_vae(tmp_path / "stvae.pt", SHAPE)
    pixels, z = draw(1, 3, 5, 16, 24), draw(1, 16, 2, 2, 3)
    assert relative_error(vae.module.encode(pixels.float()).mean.double(), encode(pixels, weights)[0]) < 1e-5
    assert relative_error(vae.module.decode(z.float()).double(), decode(z, weights)) < 1e-5
    assert (vae.statistics.shift, vae.statistics.scale) == (0.032470703125, 1.08936170213)
    assert not vae.module.training


def test_our_weights_go_back_under_the_authors_names(ours: STVae, weights: Weights) -> None:
    theirs = vae_to_authors(ours.state_dict())
    assert theirs.keys() == weights.keys()
    assert all(torch.equal(theirs[name], weights[name]) for name in weights)
