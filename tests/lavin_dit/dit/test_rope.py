import torch

from lavin_dit.dit.rope import Rotation, rotate

CPU = torch.device("cpu")


def draw(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(frames: int, rows: int, columns: int) -> torch.Tensor:
    """Scores of one query and one key placed at every pair of positions. Shapes: `(l, l)`."""
    rotation = Rotation.of_grid(frames, rows, columns, 24, device=CPU)
    tokens = frames * rows * columns
    query, key = (rotate(draw(1, 1, 1, 24, seed=seed).expand(1, 1, tokens, 24), rotation) for seed in (1, 2))
    return (query @ key.mT)[0, 0]


def test_attention_sees_only_relative_positions() -> None:
    table = scores(3, 4, 5).view(3, 4, 5, 3, 4, 5)
    expected = table[0, 0, 0, 1, 2, 3]
    for f, y, x in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]:
        torch.testing.assert_close(table[f, y, x, f + 1, y + 2, x + 3], expected, rtol=1e-5, atol=1e-5)


def test_every_axis_matters() -> None:
    table = scores(3, 3, 3).view(3, 3, 3, 3, 3, 3)[0, 0, 0]
    values = [table[0, 0, 0], table[1, 0, 0], table[0, 1, 0], table[0, 0, 1]]
    assert len({round(float(value), 4) for value in values}) == 4


def test_the_first_token_is_not_turned_and_no_token_changes_its_length() -> None:
    x = draw(2, 3, 2 * 3 * 4, 12)
    turned = rotate(x, Rotation.of_grid(2, 3, 4, 12, device=CPU))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(turned[:, :, 1:], x[:, :, 1:])
