from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rirf import conditioning
from rirf_training.bridge import SHORTEST, STEPS, bridge_loss, coarse, leap, update
from rirf_training.loop import Batch
from rirf_training.networks import Restorer, RestorerConfig
from tests.networks import tiny_restorer

# Time and step of every moment, spelled out a second time.
MOMENTS = [
    *[(0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25)] * 3,
    *[(0, 0.5), (0.5, 0.5)],
    *[(0, 1), (0, 1)],
]


def made(count: int = 3, side: int = 8, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    return {
        "degraded": uniform(count, 3, side, side),
        "clean": uniform(count, 3, side, side),
        "transmission": 0.2 + 0.8 * uniform(count, 1, side, side),
        "condition": uniform(count, conditioning.SIZE),
    }


def bridging(batch: Batch, moments: list[int], noise: float = 0.05) -> Batch:
    """The batch with what its first samples need to train these moments of the bridge."""
    shape = batch["clean"][: len(moments)].shape
    random = torch.Generator().manual_seed(7)
    noises = noise * torch.randn(shape, generator=random)
    return {**batch, "noise": noises, "moment": torch.tensor(moments)}


def asked(network: Restorer, batch: Batch, state: Tensor, time: float, step: float) -> Tensor:
    """What the network answers for the first sample, asked directly."""
    one = torch.ones(1)
    found: Tensor = network(
        batch["degraded"][:1],
        state,
        batch["transmission"][:1],
        batch["condition"][:1],
        time * one,
        step * one,
    )
    return found


def test_there_are_as_many_moments() -> None:
    assert len(MOMENTS) == STEPS
    assert min(step for _, step in MOMENTS) == SHORTEST
    # A bridge ends at 1, and a step starts where steps of its size lead to.
    assert all(time + step <= 1 and (time / step).is_integer() for time, step in MOMENTS)


def target(network: Restorer, batch: Batch, start: Tensor, moment: int) -> tuple[Tensor, Tensor]:
    """State and target of the first sample, the long steps in two halves."""
    time, step = MOMENTS[moment]
    clean = batch["clean"][:1]
    state = start + time * (clean - start)
    if step == 0.25:
        return state, clean - start
    half = step / 2
    first = asked(network, batch, state, time, half)
    second = asked(network, batch, state + half * first, time + half, half)
    return state, 0.5 * first + 0.5 * second


@pytest.mark.parametrize("moment", range(STEPS))
def test_the_target_of_a_moment(moment: int) -> None:
    network = tiny_restorer()
    batch = bridging(made(1), [moment])
    estimate = coarse(network, batch).detach()
    with torch.no_grad():
        state, wanted = target(network, batch, estimate + batch["noise"], moment)
    expected = (asked(network, batch, state, *MOMENTS[moment]) - wanted).abs().mean()
    loss = bridge_loss(network, batch, estimate)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    # The two half steps are what is aimed at and do not move themselves.
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss, parameters)
    for one, other in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_samples_of_several_moments_keep_their_own() -> None:
    network, batch = tiny_restorer(), made(STEPS)
    moments = [14, 0, 12, 3, 13, 2, 15, 1, 4, 5, 6, 7, 8, 9, 10, 11]
    given = bridging(batch, moments)
    estimate = coarse(network, batch).detach()
    single = []
    for row, moment in enumerate(moments):
        alone = {name: value[row : row + 1] for name, value in given.items()}
        alone["moment"] = torch.tensor([moment])
        single.append(bridge_loss(network, alone, estimate[row : row + 1]).detach())
    together = bridge_loss(network, given, estimate).detach()
    assert float(together) == pytest.approx(float(torch.stack(single).mean()), rel=1e-4)


def test_the_first_samples_of_a_batch_train_the_bridge() -> None:
    network, batch = tiny_restorer(), made(4)
    estimate = coarse(network, batch).detach()
    loss = bridge_loss(network, bridging(batch, [1, 14]), estimate).detach()
    other = made(4, seed=1)
    for row, same in ((2, True), (0, False)):
        mixed = {name: value.clone() for name, value in batch.items()}
        for name, value in mixed.items():
            value[row] = other[name][row]
        again = bridge_loss(network, bridging(mixed, [1, 14]), estimate).detach()
        assert torch.equal(again, loss) == same


def test_noise_moves_the_start() -> None:
    network, batch = tiny_restorer(), made(2)
    estimate = coarse(network, batch).detach()
    quiet = bridge_loss(network, bridging(batch, [0, 1], noise=0.0), estimate)
    loud = bridge_loss(network, bridging(batch, [0, 1], noise=0.5), estimate)
    assert float(loud.detach()) != pytest.approx(float(quiet.detach()), rel=1e-3)


def test_the_coarse_leap_is_one_update_from_the_degraded_frame() -> None:
    network, batch = tiny_restorer(), made(1)
    expected = batch["degraded"] + asked(network, batch, batch["degraded"], -1.0, 1.0)
    torch.testing.assert_close(coarse(network, batch), expected)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_leap_is_the_sum_of_its_steps(steps: int) -> None:
    network, batch = tiny_restorer(), made(1)
    with torch.no_grad():
        estimate = coarse(network, batch)
        state = estimate
        for number in range(steps):
            state = state + asked(network, batch, state, number / steps, 1 / steps) / steps
        found = leap(network, batch, estimate, steps)
    torch.testing.assert_close(found, state)
    assert not torch.allclose(found, estimate, atol=1e-3)


def test_updates_are_in_full_precision_under_autocast() -> None:
    network, batch = tiny_restorer(), made(2)
    one = torch.ones(2)
    with torch.autocast("cpu", torch.bfloat16):
        found = update(network, batch, batch["degraded"], -one, one)
        loss = bridge_loss(network, bridging(batch, [0, 14]), batch["degraded"])
    assert found.dtype == loss.dtype == torch.float32


def test_a_network_learns_to_cross_a_line() -> None:
    """Flat frames, clean their negatives: after training, 1, 2 and 4 steps arrive.

    With as many long steps as shortest ones the states run away to infinity here.
    """
    torch.manual_seed(0)
    config = RestorerConfig(
        channels=(16, 16), blocks=(1, 1), decoder_blocks=(1,), kernels=(3, 3), condition=16
    )
    network = Restorer(config)

    def flat(count: int, seed: int) -> Batch:
        random = torch.Generator().manual_seed(seed)
        degraded = torch.rand(count, 3, 1, 1, generator=random).expand(-1, -1, 4, 4)
        ones = torch.ones(count, 1, 4, 4)
        nothing = torch.zeros(count, conditioning.SIZE)
        return {
            "degraded": degraded,
            "clean": 1.0 - degraded,
            "transmission": ones,
            "condition": nothing,
        }

    def distances() -> list[float]:
        held = flat(32, 10_000)
        with torch.no_grad():
            ends = [leap(network, held, held["degraded"], steps) for steps in (1, 2, 4)]
        return [float((end - held["clean"]).abs().mean()) for end in ends]

    before = distances()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, betas=(0.9, 0.99))
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 150) * min(1.0, (step + 1) / 20)
        batch = bridging(flat(STEPS, step), list(range(STEPS)), noise=0.02)
        loss = bridge_loss(network, batch, batch["degraded"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    assert min(before) > 0.3
    assert max(distances()) < 0.05
