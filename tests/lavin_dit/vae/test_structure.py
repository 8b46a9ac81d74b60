import pytest
import torch
from torch import Tensor

from lavin_dit.vae.structure import SCALE_WEIGHTS, StructuralDissimilarity, scale_weights

unlike = StructuralDissimilarity()


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("side", "num_scales"), [(16, 1), (32, 2), (48, 3), (64, 3), (112, 4), (128, 4), (176, 5), (256, 5), (512, 5)])
def test_larger_pictures_are_compared_at_more_scales(side: int, num_scales: int) -> None:
    weights = scale_weights(side)
    assert len(weights) == num_scales
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] / weights[-1] == pytest.approx(SCALE_WEIGHTS[0] / SCALE_WEIGHTS[num_scales - 1])
    pixels = draw(1, 3, 1, side, side)
    torch.testing.assert_close(unlike(pixels, pixels), torch.zeros(1), rtol=0, atol=1e-6)


def test_plain_pictures_differ_by_their_brightness_alone() -> None:
    """Both have the same structure at every scale; the coarsest one compares the means. Values in [0, 1], C1 = 0.01 squared."""
    pixels, brighter = torch.full((1, 3, 1, 64, 64), -0.2), torch.full((1, 3, 1, 64, 64), 0.6)
    brightness = (2 * 0.4 * 0.8 + 1e-4) / (0.4**2 + 0.8**2 + 1e-4)
    expected = 1 - ((1 + brightness) / 2) ** scale_weights(64)[-1]
    torch.testing.assert_close(unlike(brighter, pixels), torch.tensor([expected]), rtol=0, atol=2e-4)


def test_the_more_a_picture_is_blurred_the_more_it_is_unlike() -> None:
    pixels = draw(1, 3, 1, 64, 64)
    blurred = [torch.nn.functional.avg_pool3d(pixels, (1, k, k), 1, (0, k // 2, k // 2)) for k in (1, 3, 5)]
    values = [float(unlike(picture, pixels)) for picture in blurred]
    assert 0.0 <= values[0] + 1e-6 < values[1] < values[2] < 1.0


def test_a_clip_is_as_unlike_as_its_frames_on_average_and_a_batch_does_not_mix() -> None:
    clips, restored = draw(2, 3, 5, 32, 32), draw(2, 3, 5, 32, 32, seed=1)
    frames = torch.stack([unlike(restored[:, :, [t]], clips[:, :, [t]]) for t in range(5)])
    torch.testing.assert_close(unlike(restored, clips), frames.mean(dim=0))


def test_the_gradient_is_finite_even_where_structures_are_opposite() -> None:
    pixels = draw(2, 3, 1, 64, 64)
    restored = (-pixels).requires_grad_()
    unlike(restored, pixels).sum().backward()
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
    assert restored.grad.abs().max() > 0


def test_half_precision_around_it_changes_nothing() -> None:
    pixels, restored = draw(1, 3, 1, 64, 64), draw(1, 3, 1, 64, 64, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = unlike(restored, pixels)
    torch.testing.assert_close(inside, unlike(restored, pixels))
