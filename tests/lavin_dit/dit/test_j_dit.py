import pytest
import torch
from torch import Tensor

from lavin_dit.dit.j_dit import JDit, TimeTable, from_patches, to_patches
from lavin_dit.inference import assemble_prompt
from lavin_dit.presets import DIT_PRESETS


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def make_dit(*, trained: bool = True) -> JDit:
    dit = JDit(DIT_PRESETS["tiny"]).requires_grad_(False)
    dit.initialise(torch.Generator().manual_seed(0))
    if trained:
        for index, parameter in enumerate(dit.parameters()):
            parameter += 0.2 * draw(*parameter.shape, seed=index)
    return dit


@pytest.mark.parametrize(("name", "millions"), [("0.1B", 116.5), ("1.0B", 1081.1), ("3.4B", 3399.0)])
def test_presets_have_their_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        dit = JDit(DIT_PRESETS[name])
    assert round(sum(parameter.numel() for parameter in dit.parameters()) / 1e6, 1) == millions


def test_the_3_4_b_preset_holds_28_percent_of_its_weights_in_what_depends_on_time_alone() -> None:
    with torch.device("meta"):
        dit = JDit(DIT_PRESETS["3.4B"])
    tabled = sum(p.numel() for name, p in dit.named_parameters() if "modulation" in name or "time_embedding" in name)
    assert round(tabled / sum(parameter.numel() for parameter in dit.parameters()), 2) == 0.28


def test_patches_come_back() -> None:
    latents = draw(2, 16, 3, 4, 6)
    tokens = to_patches(latents)
    assert tokens.shape == (2, 3 * 2 * 3, 64)
    assert torch.equal(from_patches(tokens, 2, 3), latents)


def test_a_fresh_network_answers_zero() -> None:
    velocity = make_dit(trained=False)(draw(2, 16, 1, 4, 4), draw(2, 16, 3, 4, 4), torch.tensor([0.1, 0.9]))
    assert torch.equal(velocity, torch.zeros(2, 16, 1, 4, 4))


def test_one_row_of_a_time_table_serves_a_whole_batch() -> None:
    dit, answer, prompt = make_dit(), draw(3, 16, 1, 4, 4), draw(3, 16, 3, 4, 4, seed=1)
    table = dit.time_table(torch.tensor([0.2, 0.6]))
    assert table.blocks.shape == (2, 2, 8 * 48)
    for row, time in enumerate((0.2, 0.6)):
        one = TimeTable(table.blocks[row : row + 1], table.final[row : row + 1])
        expected = dit(answer, prompt, torch.full((3,), time))
        torch.testing.assert_close(dit.forward_tabled(answer, prompt, one), expected, rtol=1e-4, atol=1e-5)


def test_every_sample_of_a_batch_has_its_own_time_and_prompt() -> None:
    dit, answer, prompt, time = make_dit(), draw(3, 16, 1, 4, 4), draw(3, 16, 3, 4, 4, seed=1), torch.tensor([0.1, 0.5, 0.9])
    whole = dit(answer, prompt, time)
    for row in range(3):
        alone = dit(answer[row : row + 1], prompt[row : row + 1], time[row : row + 1])
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_swapping_context_pairs_is_felt_through_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    dit, answer, time = make_dit(), draw(1, 16, 1, 4, 4), torch.tensor([0.4])
    inputs, targets, query = draw(1, 2, 16, 1, 4, 4, seed=1), draw(1, 2, 16, 1, 4, 4, seed=2), draw(1, 16, 1, 4, 4, seed=3)
    prompts = [assemble_prompt(inputs, targets, query), assemble_prompt(inputs.flip(1), targets.flip(1), query)]
    first, second = (dit(answer, prompt, time) for prompt in prompts)
    assert not torch.allclose(first, second, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("lavin_dit.dit.blocks.rotate", lambda x, _rotation: x)
    first, second = (dit(answer, prompt, time) for prompt in prompts)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", ["answer", "first frame", "query", "time"])
def test_the_velocity_depends_on_all_that_it_is_given(changed: str) -> None:
    dit, answer, prompt, time = make_dit(), draw(1, 16, 1, 4, 4), draw(1, 16, 3, 4, 4, seed=1), torch.tensor([0.4])
    before = dit(answer, prompt, time)
    part = {"answer": answer, "first frame": prompt[:, :, :1], "query": prompt[:, :, -1:], "time": time}[changed]
    part += 0.3
    assert not torch.allclose(dit(answer, prompt, time), before, rtol=1e-3, atol=1e-4)


def test_initial_weights_depend_on_the_seed_alone_and_leave_nothing_unset() -> None:
    dits = [JDit(DIT_PRESETS["tiny"]) for _ in range(2)]
    for dit in dits:
        for parameter in dit.parameters():
            torch.nn.init.constant_(parameter, float("nan"))
    for norm in (module for dit in dits for module in dit.modules() if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm)):
        norm.reset_parameters()
    for dit in dits:
        dit.initialise(torch.Generator().manual_seed(3))
    first, second = (dit.state_dict() for dit in dits)
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)
