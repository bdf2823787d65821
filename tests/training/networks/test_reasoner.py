from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rirf.diagnosis import EFFECTS
from rirf.reasoner import decode
from rirf.views import CROP_SIZE, CROPS, THUMBNAIL_SIZE, extract
from rirf_training.networks.reasoner import OUTPUTS, Reasoner
from tests.networks import tiny_reasoner
from tests.sdk.pictures import photo

SHAPES = {
    "presence": (4,),
    "severity": (4,),
    "interval": (4,),
    "light": (3,),
    "transmission": (1, 32, 32),
    "shake": (4,),
    "rain": (5,),
    "noise": (2,),
    "street": (1,),
    "classes": (11, 4, 4),
    "colours": (3, 4, 4),
    "detail": (1, 4, 4),
}


def views(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    thumbnail = torch.rand(batch, 3, THUMBNAIL_SIZE, THUMBNAIL_SIZE, generator=random)
    return thumbnail, torch.rand(batch, CROPS, 3, CROP_SIZE, CROP_SIZE, generator=random)


def run(network: Reasoner, thumbnail: Tensor, crops: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(zip(OUTPUTS, network(thumbnail, crops), strict=True))


def test_outputs() -> None:
    found = run(tiny_reasoner(), *views(3))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (3, *shape) for name, shape in SHAPES.items()
    }
    assert all(torch.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_bounds_hold_whatever_the_weights(scale: float) -> None:
    network = tiny_reasoner()
    with torch.no_grad():
        for head in network.heads.values():
            head.weight.mul_(scale)  # type: ignore[operator]  # a Linear layer
        network.grid.weight.mul_(scale)
    found = run(network, *views())
    for name in ("presence", "light", "transmission", "street", "classes", "colours"):
        assert 0 <= found[name].min() <= found[name].max() <= 1, name
    assert 1 <= found["severity"].min() <= found["severity"].max() <= 100
    assert found["interval"].min() > 0
    assert found["detail"].min() >= 0
    assert found["classes"].sum(dim=1).max() <= 1 + 1e-5


def test_any_frame_becomes_a_valid_diagnosis() -> None:
    seen = extract(photo(90, 130))
    found = run(
        tiny_reasoner(), torch.from_numpy(seen.thumbnail[None]), torch.from_numpy(seen.crops[None])
    )
    reading = decode({name: value[0].numpy() for name, value in found.items()})
    assert reading.diagnosis is not None
    for position, name in enumerate(EFFECTS):
        expected = float(found["presence"][0, position])
        assert reading.diagnosis.effect(name).probability == pytest.approx(expected, abs=1e-4)


def test_frames_of_a_batch_do_not_mix() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(2)
    together = run(network, thumbnail, crops)
    alone = run(network, thumbnail[1:], crops[1:])
    for name in OUTPUTS:
        torch.testing.assert_close(together[name][1:], alone[name], atol=1e-4, rtol=1e-4)


def test_thumbnail_and_every_crop_count() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(1)
    before = run(network, thumbnail, crops)["presence"]
    assert not torch.equal(run(network, 0.5 * thumbnail, crops)["presence"], before)
    for place in range(CROPS):
        changed = crops.clone()
        changed[:, place] *= 0.5
        assert not torch.equal(run(network, thumbnail, changed)["presence"], before), place


def test_a_choice_of_crops() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(2)
    some = torch.tensor([1, 4, 6])
    with torch.no_grad():
        whole = network.raw(thumbnail, crops)
        named = network.raw(thumbnail, crops, torch.arange(CROPS))
        part = network.raw(thumbnail, crops, some)
        same = crops[:, :1].expand(-1, CROPS, -1, -1, -1)
        here, there = (network.raw(thumbnail, same, some + shift) for shift in (0, 1))
    for name, value in whole.items():
        torch.testing.assert_close(named[name], value)
        assert part[name].shape == value.shape
    # A crop is read with the place it comes from.
    assert not torch.equal(here["presence"], there["presence"])


def test_a_choice_of_crops_keeps_the_statistics_of_all() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(1)
    some = torch.tensor([1, 4, 6])

    def presence(changed: int | None) -> Tensor:
        given = crops.clone()
        if changed is not None:
            given[:, changed] = 0.5 * given[:, changed].roll(1, dims=-1) + 0.5 * given[:, changed]
        with torch.no_grad():
            return network.raw(thumbnail, given, some)["presence"]

    before = presence(None)
    assert all(not torch.equal(presence(place), before) for place in range(CROPS))
    last = network.statistics_token[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
    before = presence(None)
    deaf = {place for place in range(CROPS) if torch.equal(presence(place), before)}
    assert deaf == set(range(CROPS)) - set(some.tolist())


def statistics_seen(network: Reasoner, thumbnail: Tensor, crops: Tensor) -> Tensor:
    """What the layers after the statistics are given: standardised and bounded."""
    seen: list[Tensor] = []
    hook = network.statistics_token.register_forward_hook(
        lambda _module, given, _output: seen.append(given[0])
    )
    with torch.no_grad():
        network.raw(thumbnail, crops)
    hook.remove()
    (found,) = seen
    return found


def test_standardised_statistics_have_mean_0_and_spread_1() -> None:
    network = tiny_reasoner()
    # Frames of different contrast and sharpness; ten, so that none is an outlier.
    thumbnail, crops = views(10)
    weights = torch.linspace(0.1, 1.0, 10)[:, None, None, None, None]
    crops = weights * crops + (1 - weights) * crops.roll(1, dims=-1)
    network.standardise(network.statistics(crops))
    found = statistics_seen(network, thumbnail, crops)
    assert found.shape == (10, network.statistics.size)
    assert network.spread.min() > 1e-4
    torch.testing.assert_close(
        found.mean(dim=0), torch.zeros(network.statistics.size), atol=1e-3, rtol=0
    )
    # A little is added to the spread, so that a statistic that never moves is not divided by 0.
    expected = 1 - 1e-4 / network.spread
    torch.testing.assert_close(found.std(dim=0), expected, atol=1e-3, rtol=0)
    other = statistics_seen(network, thumbnail[:1], torch.zeros_like(crops[:1]))
    assert torch.isfinite(other).all()
    assert other.abs().max() == 8.0


def test_the_standardisation_is_stored_and_the_constants_are_not() -> None:
    network = tiny_reasoner()
    network.standardise(network.statistics(views(4)[1]))
    stored = network.state_dict()
    assert {"usual", "spread", "temperature", "quantile"} <= stored.keys()
    assert not [name for name in stored if name.startswith("statistics.")]
    loaded = tiny_reasoner(seed=1)
    assert not torch.equal(loaded.usual, network.usual)
    loaded.load_state_dict(stored)
    assert torch.equal(loaded.usual, network.usual)
    assert torch.equal(loaded.spread, network.spread)
    given = views()
    for name, value in run(network, *given).items():
        assert torch.equal(run(loaded, *given)[name], value), name


def test_statistics_stay_in_single_precision() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views()
    network.standardise(network.statistics(crops))
    plain = statistics_seen(network, thumbnail, crops)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mixed = statistics_seen(network, thumbnail, crops)
        careless = (network.statistics(crops) - network.usual) / network.spread
        raw = network.raw(thumbnail, crops)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
    assert (careless - plain).abs().max() > 0.1  # what it is that is avoided
    # The network around them is in half precision, but not the mean of colours.
    assert raw["presence"].dtype == torch.bfloat16
    assert raw["light"].dtype == torch.float32


def mute(network: Reasoner, head: str) -> None:
    layer = network.heads[head]
    assert isinstance(layer, torch.nn.Linear) and layer.bias is not None
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()


def test_light_before_the_correction_is_the_frames_colour() -> None:
    network = tiny_reasoner()
    mute(network, "light")
    thumbnail, crops = views(2)
    colours = torch.tensor([[0.9, 0.8, 0.7], [0.2, 0.5, 0.4]])
    plain = colours[..., None, None].expand_as(thumbnail).contiguous()
    torch.testing.assert_close(run(network, plain, crops)["light"], colours, atol=1e-6, rtol=0)


def test_light_is_a_weighted_mean_and_a_correction() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(2)
    maps: list[Tensor] = []
    hook = network.map.register_forward_hook(lambda _module, _given, output: maps.append(output))
    with torch.no_grad():
        whole = network.raw(thumbnail, crops)["light"].numpy()
        mute(network, "light")
        mean = network.raw(thumbnail, crops)["light"].numpy()
    hook.remove()
    attention = maps[0][:, 1].double().numpy()
    weights = np.exp(attention - attention.max(axis=(1, 2), keepdims=True))
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    assert weights.max() > 1.05 * weights.min()
    blocks = thumbnail.double().numpy().reshape(2, 3, 32, 8, 32, 8).mean(axis=(3, 5))
    np.testing.assert_allclose(mean, (weights[:, None] * blocks).sum(axis=(2, 3)), atol=1e-6)
    assert np.abs(whole - mean).max() > 1e-3


def test_the_map_hears_what_the_rest_made_of_the_frame() -> None:
    network = tiny_reasoner()
    thumbnail, crops = views(1)
    before = run(network, thumbnail, crops)["transmission"]
    assert not torch.equal(run(network, thumbnail, 0.5 * crops)["transmission"], before)
    with torch.no_grad():
        network.map_context.weight.zero_()
    before = run(network, thumbnail, crops)["transmission"]
    assert torch.equal(run(network, thumbnail, 0.5 * crops)["transmission"], before)


def test_temperature_softens_presence() -> None:
    network = tiny_reasoner()
    plain = run(network, *views())["presence"]
    network.temperature.fill_(2.0)
    softer = run(network, *views())["presence"]
    torch.testing.assert_close(torch.logit(softer), torch.logit(plain) / 2, atol=1e-4, rtol=1e-4)


def test_the_quantile_scales_the_interval() -> None:
    network = tiny_reasoner()
    network.quantile.fill_(1.0)
    plain = run(network, *views())
    network.quantile.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    wider = run(network, *views())
    ratio = (wider["interval"] / plain["interval"]).numpy()
    np.testing.assert_allclose(ratio, np.tile([1.0, 2.0, 3.0, 4.0], (2, 1)), rtol=1e-5)
    assert torch.equal(wider["severity"], plain["severity"])


def test_every_parameter_learns() -> None:
    network = tiny_reasoner()
    raw = network.raw(*views())
    total = torch.stack([value.square().mean() for value in raw.values()]).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
