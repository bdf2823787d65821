from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rirf import conditioning
from rirf.degradation import NoiseParameters, degrade, fog, noise
from rirf.diagnosis import EFFECTS
from rirf.images import to_float
from rirf_training.networks import Restorer, RestorerConfig
from rirf_training.networks.blocks import FilmBlock, WideBlock
from tests.networks import RESTORER, tiny_restorer
from tests.sdk.pictures import photo

Inputs = dict[str, Tensor]


def inputs(batch: int = 2, height: int = 32, width: int = 48) -> Inputs:
    random = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    return {
        "degraded": uniform(batch, 3, height, width),
        "state": uniform(batch, 3, height, width),
        "transmission": 0.2 + 0.8 * uniform(batch, 1, height, width),
        "condition": uniform(batch, conditioning.SIZE),
        "time": torch.full((batch,), -1.0),
        "step": torch.full((batch,), 1.0),
    }


def update(network: Restorer, given: Inputs) -> Tensor:
    with torch.no_grad():
        out: Tensor = network(**given)
    return out


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 20), (64, 48)])
def test_shapes(height: int, width: int) -> None:
    out = update(tiny_restorer(), inputs(3, height, width))
    assert out.shape == (3, 3, height, width)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("channels", "scale", "multiple"),
    [
        ((8,), 2, 2),
        ((8, 16), 2, 4),
        ((8, 8, 8), 2, 8),
        ((8, 8, 8, 8), 2, 16),
        ((8,), 4, 4),
        ((8, 16), 4, 8),
        ((8, 8, 8), 4, 16),
    ],
)
def test_the_multiple_is_what_the_levels_need(
    channels: tuple[int, ...], scale: Literal[2, 4], multiple: int
) -> None:
    levels = len(channels)
    config = RestorerConfig(
        scale=scale,
        channels=channels,
        blocks=(1,) * levels,
        decoder_blocks=(1,) * (levels - 1),
        kernels=(3,) * levels,
        condition=8,
    )
    network = tiny_restorer(config=config)
    assert network.multiple == multiple
    assert update(network, inputs(1, multiple, 3 * multiple)).shape == (
        1,
        3,
        multiple,
        3 * multiple,
    )
    with pytest.raises(RuntimeError):
        update(network, inputs(1, multiple + 1, multiple))


def test_the_default_keeps_sixteen() -> None:
    assert Restorer(RestorerConfig()).multiple == 16


def test_a_new_network_goes_half_way_to_the_inverted_fog() -> None:
    network = Restorer(RESTORER)
    given = inputs()
    clear, _ = network.physics(given["degraded"], given["transmission"], given["condition"])
    torch.testing.assert_close(update(network, given), 0.5 * (clear - given["state"]))


def test_a_new_network_leaves_the_bridge_as_it_is() -> None:
    network = Restorer(RESTORER)
    given = inputs() | {"time": torch.tensor([0.0, 0.5]), "step": torch.tensor([1.0, 0.5])}
    assert not update(network, given).any()


def test_physics_is_that_of_the_degradation() -> None:
    outcome = degrade(to_float(photo(32, 48)), seed=6)  # all four effects
    diagnosis = outcome.diagnosis
    vector = torch.from_numpy(conditioning.encode(diagnosis))[None]
    frame = torch.from_numpy(outcome.image.transpose(2, 0, 1).copy())[None]
    transmission = torch.from_numpy(outcome.transmission)[None, None]
    clear, sigma = tiny_restorer().physics(frame, transmission, vector)
    light = diagnosis.fog.atmospheric_light
    np.testing.assert_allclose(
        clear[0].numpy().transpose(1, 2, 0),
        fog.invert(outcome.image, outcome.transmission, light),
        atol=1e-5,
    )
    grain = NoiseParameters(diagnosis.noise.gain, diagnosis.noise.offset)
    np.testing.assert_allclose(
        sigma[0].numpy().transpose(1, 2, 0), noise.sigma(outcome.image, grain), atol=1e-6
    )


def test_physics_without_a_diagnosis_is_the_frame() -> None:
    given = inputs()
    nothing = torch.from_numpy(np.stack([conditioning.encode(None)] * 2))
    clear, sigma = tiny_restorer().physics(
        given["degraded"], torch.ones_like(given["transmission"]), nothing
    )
    torch.testing.assert_close(clear, given["degraded"])
    assert not sigma.any()


def test_thick_fog_is_inverted_with_a_floor() -> None:
    given = inputs()
    thick = torch.full_like(given["transmission"], 0.05)
    clear, _ = tiny_restorer().physics(given["degraded"], thick, given["condition"])
    assert 0 <= clear.min() <= clear.max() <= 1


@pytest.mark.parametrize("name", list(inputs()))
def test_every_input_has_a_part_in_the_output(name: str) -> None:
    network = tiny_restorer()
    given = inputs()
    changed = {**given, name: 0.5 * given[name]}
    assert (update(network, given) - update(network, changed)).abs().max() > 1e-5


def test_frames_of_a_batch_do_not_mix() -> None:
    network = tiny_restorer()
    given = inputs(2)
    together = update(network, given)
    for row in range(2):
        alone = update(network, {name: value[row : row + 1] for name, value in given.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns() -> None:
    network = tiny_restorer()
    network(**inputs()).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def deep(**changes: Any) -> dict[str, Any]:
    """Settings of three levels that fit each other."""
    settings: dict[str, Any] = {
        "channels": (8, 8, 8),
        "blocks": (1, 1, 1),
        "decoder_blocks": (1, 1),
        "kernels": (3, 5, 7),
        "condition": 8,
    }
    return {**settings, **changes}


def test_kernels_choose_the_blocks() -> None:
    network = Restorer(RestorerConfig(**deep(blocks=(1, 2, 3), decoder_blocks=(2, 1))))
    kinds = [[type(block) for block in level] for level in network.down]  # type: ignore[attr-defined]  # ModuleLists
    assert kinds == [[FilmBlock], [WideBlock] * 2, [WideBlock] * 3]
    assert [len(level) for level in network.up] == [2, 1]  # type: ignore[arg-type]  # ModuleLists
    sizes = [network.down[n][0].spread.kernel_size for n in (1, 2)]  # type: ignore[index]  # ModuleLists
    assert sizes == [(5, 5), (7, 7)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (1, 1)}, "3 levels of channels need as many blocks.*got 2, 3 and 2"),
        ({"kernels": (3, 3)}, "3 levels of channels need as many blocks.*got 3, 2 and 2"),
        ({"decoder_blocks": (1, 1, 1)}, "one fewer decoder_blocks; got 3, 3 and 3"),
        ({"kernels": (3, 4, 3)}, r"kernels must be odd and 3 or more, got \(3, 4, 3\)"),
        ({"kernels": (3, 3, 1)}, r"kernels must be odd and 3 or more, got \(3, 3, 1\)"),
        ({"scale": 3}, "scale"),
        ({"without": ("scenes",)}, "without"),
        ({"depth": 3}, "depth"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    RestorerConfig(**deep())
    with pytest.raises(ValidationError, match=message):
        RestorerConfig(**deep(**changes))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("stem", [2, 3])
@pytest.mark.parametrize("growth", ["transposed", "nearest"])
def test_every_stem_and_growth_keeps_the_size(
    scale: Literal[2, 4], stem: Literal[2, 3], growth: Literal["transposed", "nearest"]
) -> None:
    network = tiny_restorer(config=RestorerConfig(**deep(scale=scale, stem=stem, growth=growth)))
    multiple = network.multiple
    assert network.stem.kernel_size == (stem * scale, stem * scale)
    assert update(network, inputs(1, multiple, 2 * multiple)).shape == (
        1,
        3,
        multiple,
        2 * multiple,
    )


def test_a_stem_looks_evenly_to_all_sides() -> None:
    for stem in (2, 3):
        network = tiny_restorer(config=RestorerConfig(**deep(scale=2, stem=stem)))
        seen = torch.zeros(1, 13, 16, 16, requires_grad=True)
        network.stem(seen)[0, :, 4, 4].sum().backward()
        assert seen.grad is not None
        rows = seen.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
        # The output's pixel 4 lies on rows 8 and 9: as many are seen above as below.
        assert 8 - rows[0] == rows[-1] - 9 == stem - 1


def test_nearest_growth_repeats_what_a_pointwise_convolution_makes() -> None:
    network = tiny_restorer(config=RestorerConfig(**deep(growth="nearest")))
    grow = network.grow[0]
    x = torch.rand(1, grow.in_channels, 3, 5)
    out = grow(x)
    assert out.shape == (1, grow.out_channels, 6, 10)
    weight = grow.weight[:, :, 0, 0]
    expected = torch.einsum("oc,bchw->bohw", weight, x) + grow.bias[:, None, None]
    for down in (0, 1):
        for right in (0, 1):
            torch.testing.assert_close(out[:, :, down::2, right::2], expected)


PARTS: tuple[conditioning.Part, ...] = ("scores", "parameters", "semantics")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_withheld(part: conditioning.Part) -> None:
    """The network does not look at the entries of the part, and at all others still."""
    config = RESTORER.model_copy(update={"without": (part,)})
    network = tiny_restorer(config=config)
    full = tiny_restorer()
    # The same weights: what is withheld is no weight and not stored.
    assert full.state_dict().keys() == network.state_dict().keys()
    given = inputs()
    before = update(network, given)
    withheld = conditioning.entries(part)
    for position in range(conditioning.SIZE):
        condition = given["condition"].clone()
        condition[:, position] += 0.5
        changed = {**given, "condition": condition}
        same = torch.equal(update(network, changed), before)
        assert same == (position in withheld), conditioning.TABLE[position].name
        assert not torch.equal(update(full, changed), update(full, given))
    # What is withheld is as if it were zero.
    condition = given["condition"].clone()
    condition[:, list(withheld)] = 0.0
    blank = {**given, "condition": condition}
    if part == "parameters":
        blank["transmission"] = torch.ones_like(given["transmission"])
    torch.testing.assert_close(before, update(full, blank))


@pytest.mark.parametrize("part", PARTS)
def test_the_transmission_map_belongs_to_the_parameters(part: conditioning.Part) -> None:
    network = tiny_restorer(config=RESTORER.model_copy(update={"without": (part,)}))
    given = inputs()
    thin = {**given, "transmission": 0.5 * given["transmission"]}
    assert torch.equal(update(network, given), update(network, thin)) == (part == "parameters")


def test_several_parts_are_withheld() -> None:
    network = tiny_restorer(config=RESTORER.model_copy(update={"without": PARTS}))
    given = inputs()
    known = [conditioning.index("known")]
    known += [conditioning.index(f"{name}.probability") for name in EFFECTS]
    rest = [position for position in range(conditioning.SIZE) if position not in known]
    condition = given["condition"].clone()
    condition[:, rest] = 9.0
    assert torch.equal(update(network, {**given, "condition": condition}), update(network, given))


def test_a_tile_comes_out_as_in_the_whole_frame() -> None:
    """Nothing is normalised over the frame: far from a tile's border there is no difference."""
    network = tiny_restorer()
    given = inputs(1, 96, 128)
    tile = {
        name: value[..., 16:80, 24:120] if value.ndim == 4 else value
        for name, value in given.items()
    }
    whole, part = update(network, given)[..., 16:80, 24:120], update(network, tile)
    torch.testing.assert_close(
        part[..., 24:-24, 24:-24], whole[..., 24:-24, 24:-24], atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(part, whole, atol=1e-3)


def test_another_conditioning_vector_is_refused() -> None:
    with pytest.raises(ValidationError):
        RestorerConfig.model_validate({"conditioning_version": conditioning.VERSION + 1})
