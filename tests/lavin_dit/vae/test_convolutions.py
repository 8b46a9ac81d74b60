from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lavin_dit.vae.convolutions import CausalConv3d, FrameConv2d, PointwiseConv3d, double_time, halve_time


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def gradients(layer: torch.nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad((forward(x) * weight).sum(), [x, *layer.parameters()]))


def test_one_frame_folded_in_time_equals_the_definition_and_so_do_its_gradients() -> None:
    layer, x, weight = CausalConv3d(6, 5), draw(2, 6, 1, 8, 7), draw(2, 5, 1, 8, 7, seed=1)
    torch.testing.assert_close(layer(x), layer.forward_unfolded(x), rtol=1e-5, atol=1e-6)
    folded, unfolded = (gradients(layer, forward, x, weight) for forward in (layer, layer.forward_unfolded))
    for ours, expected in zip(folded, unfolded, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layer", [PointwiseConv3d(6, 5), FrameConv2d(6, 5, kernel_size=3, padding=1)])
def test_one_frame_alone_equals_the_same_frame_among_others(layer: torch.nn.Module) -> None:
    clip = draw(2, 6, 3, 8, 7)
    torch.testing.assert_close(layer(clip[:, :, 1:2]), layer(clip)[:, :, 1:2], rtol=1e-5, atol=1e-6)


def test_a_causal_convolution_never_sees_a_later_frame() -> None:
    layer, clip = CausalConv3d(4, 4), draw(1, 4, 5, 6, 6)
    for changed in range(1, 5):
        other = clip.clone()
        other[:, :, changed] += 1.0
        before, after = layer(clip), layer(other)
        torch.testing.assert_close(after[:, :, :changed], before[:, :, :changed], rtol=0, atol=0)
        assert not torch.allclose(after[:, :, changed], before[:, :, changed])


def test_a_still_clip_stays_still() -> None:
    layer, frame = CausalConv3d(4, 3), draw(1, 4, 1, 6, 6)
    moving = layer(frame.repeat(1, 1, 5, 1, 1))
    torch.testing.assert_close(moving, layer(frame).expand_as(moving), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("frames", "halved"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (9, 5)])
def test_time_is_halved_by_averaging_pairs(frames: int, halved: int) -> None:
    x = torch.arange(frames, dtype=torch.float32).view(1, 1, frames, 1, 1)
    result = halve_time(x).flatten()
    assert len(result) == halved
    assert float(result[0]) == (0.0 if frames % 2 else 0.5)
    assert float(result[-1]) == (frames - 1.5 if frames > 1 else 0.0)


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_doubling_time_undoes_halving_it_for_frames_that_repeat(frames: int) -> None:
    x = double_time(draw(1, 2, frames, 3, 3))
    torch.testing.assert_close(double_time(halve_time(x)), x)
