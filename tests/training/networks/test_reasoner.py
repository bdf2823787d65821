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
    every = torch.arange(CROPS)
    with torch.no_grad():
        whole = network.raw(thumbnail, crops)
        named = network.raw(thumbnail, crops, every)
        some = torch.tensor([1, 4, 6])
        part = network.raw(thumbnail, crops[:, some], some)
        wrong = network.raw(thumbnail, crops[:, some], some + 1)
    for name, value in whole.items():
        torch.testing.assert_close(named[name], value)
        assert part[name].shape == value.shape
    # A crop is read with the place it comes from.
    assert not torch.equal(part["presence"], wrong["presence"])


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
