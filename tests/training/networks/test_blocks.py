from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rirf_training.networks.blocks import FilmBlock, ResidualBlock, WideBlock
from tests.networks import stir

CHANNELS, CONDITION, KERNEL = 6, 5, 7


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wide(seed: int = 0) -> WideBlock:
    torch.manual_seed(seed)
    block = WideBlock(CHANNELS, CONDITION, KERNEL)
    stir(block, scale=0.3)
    return block.eval()


def film(seed: int = 0) -> FilmBlock:
    torch.manual_seed(seed)
    block = FilmBlock(CHANNELS, CONDITION)
    stir(block, scale=0.3)
    return block.eval()


def test_blocks_start_as_the_identity() -> None:
    x, condition = random(2, CHANNELS, 9, 8), random(2, CONDITION)
    assert torch.equal(WideBlock(CHANNELS, CONDITION, KERNEL)(x, condition), x)
    assert torch.equal(FilmBlock(CHANNELS, CONDITION)(x, condition), x)
    assert torch.equal(ResidualBlock(CHANNELS)(x), x)


def test_a_new_wide_block_can_learn() -> None:
    """Its last layer starts at zero, and has a gradient there."""
    block = WideBlock(CHANNELS, CONDITION, KERNEL)
    block(random(2, CHANNELS, 9, 8), random(2, CONDITION)).square().mean().backward()
    assert block.second.weight.grad is not None
    assert block.second.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kernel", [5, 7, 9])
def test_a_wide_block_written_out(kernel: int) -> None:
    block = WideBlock(CHANNELS, CONDITION, kernel)
    stir(block, scale=0.3)
    x, condition = random(2, CHANNELS, 12, 11), random(2, CONDITION)
    # Depthwise: each channel by a kernel of its own.
    padded = F.pad(x, [kernel // 2] * 4)
    windows = padded.unfold(2, kernel, 1).unfold(3, kernel, 1)
    spread = torch.einsum("bchwij,cij->bchw", windows, block.spread.weight[:, 0])
    spread = spread + block.spread.bias[:, None, None]  # type: ignore[index]  # there is one
    scale, shift = block.film(condition).split(CHANNELS, dim=1)
    hidden = spread * (1 + scale[..., None, None]) + shift[..., None, None]
    # Pointwise: each pixel on its own.
    pixels = hidden.permute(0, 2, 3, 1)
    first = F.linear(pixels, block.first.weight[..., 0, 0], block.first.bias).relu()
    second = F.linear(first, block.second.weight[..., 0, 0], block.second.bias)
    expected = x + second.permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x, condition), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [wide, film])
def test_a_condition_scales_and_shifts(make: type) -> None:
    block = make()
    x = random(1, CHANNELS, 9, 8).expand(2, -1, -1, -1)
    condition = random(2, CONDITION)
    one, other = block(x, condition)
    assert not torch.allclose(one, other, atol=1e-3)
    with torch.no_grad():
        block.film.weight.zero_()
        block.film.bias.zero_()
    one, other = block(x, condition)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("make", "reach"), [(wide, KERNEL // 2), (film, 2)])
def test_a_part_of_a_frame_comes_out_as_in_the_whole(make: type, reach: int) -> None:
    """No statistics over the frame: tiles agree wherever their border is out of reach."""
    block = make()
    x, condition = random(1, CHANNELS, 24, 30), random(1, CONDITION)
    whole = block(x, condition)
    part = block(x[..., 4:20, 6:26], condition)
    inner = part[..., reach:-reach, reach:-reach]
    expected = whole[..., 4 + reach : 20 - reach, 6 + reach : 26 - reach]
    torch.testing.assert_close(inner, expected, atol=1e-5, rtol=1e-5)
    # Its border is in reach, and differs.
    assert not torch.allclose(part, whole[..., 4:20, 6:26], atol=1e-3)
    # Far away nothing changes, however bright it gets.
    bright = x.clone()
    bright[..., 0, 0] = 1e6
    assert torch.equal(block(bright, condition)[..., 12:, 12:], whole[..., 12:, 12:])


def test_a_film_block_without_a_condition_is_a_residual_block() -> None:
    block = film()
    x = random(2, CHANNELS, 9, 8)
    expected = x + block.second(F.relu(block.first(x)))
    torch.testing.assert_close(block(x), expected)
