from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rirf import conditioning
from rirf.reasoner import Reading
from rirf.views import extract
from rirf_training.config import LoopConfig, RestorerRun, TrainingError
from rirf_training.data import DrawSet, FreshDraws
from rirf_training.loop import generator
from rirf_training.networks.restorer import Restorer
from rirf_training.reasoner_task import read_views
from rirf_training.restorer_task import Conditions, RestorerTask
from tests.networks import RESTORER, tiny_reasoner
from tests.training.conftest import SHARE

PATCH = 64


def settings(batch: int = 4, **changes: Any) -> RestorerRun:
    values: dict[str, Any] = {
        "network": RESTORER,
        "loop": LoopConfig(steps=10, batch=batch, learning_rate=3e-3, precision="fp32"),
        "draws": 4,
        "splits": ("test",),
        "validation_share": SHARE,
        "patch": PATCH,
        "predicted": 0.0,
        "dropped": 0.0,
        **changes,
    }
    return RestorerRun(**values)


@pytest.fixture(scope="module")
def true(draws: DrawSet) -> Conditions:
    return Conditions.true(draws)


@pytest.fixture(scope="module")
def predicted(true: Conditions) -> Conditions:
    """Conditions that can be told from the true ones."""
    return Conditions(true.vectors + 0.25, 0.5 * true.maps)


def task(draws: DrawSet, true: Conditions, **changes: Any) -> RestorerTask:
    return RestorerTask(settings(**changes), draws, true, None)


def test_a_batch_is_a_function_of_the_step_alone(draws: DrawSet, true: Conditions) -> None:
    first = task(draws, true)
    batch = first.batch(3)
    first.batch(8)
    for name, value in batch.items():
        assert torch.equal(first.batch(3)[name], value), name
        assert torch.equal(task(draws, true).batch(3)[name], value), name
    assert not torch.equal(first.batch(4)["degraded"], batch["degraded"])
    assert not torch.equal(task(draws, true, seed=1).batch(3)["degraded"], batch["degraded"])


def test_a_batch(draws: DrawSet, true: Conditions) -> None:
    batch = task(draws, true, batch=6).batch(0)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "degraded": (6, 3, PATCH, PATCH),
        "clean": (6, 3, PATCH, PATCH),
        "transmission": (6, 1, PATCH, PATCH),
        "condition": (6, conditioning.SIZE),
    }
    for name, value in batch.items():
        assert value.dtype == torch.float32, name
    assert 0 <= batch["clean"].min() <= batch["clean"].max() <= 1


def test_patches_and_maps_are_cut_from_one_place(draws: DrawSet, true: Conditions) -> None:
    batch = task(draws, true).batch(1)
    for row in range(4):
        patch = batch["clean"][row].numpy().transpose(1, 2, 0)[..., ::-1] * 255
        clean = patch.round().astype(np.uint8)
        position = next(
            p
            for p in range(len(draws))
            if np.array_equal(batch["condition"][row].numpy(), true.vectors[p])
        )
        picture = np.ascontiguousarray(draws.clean(position))
        found = cv2.matchTemplate(picture, clean, cv2.TM_SQDIFF)
        top, left = (int(i) for i in np.unravel_index(int(found.argmin()), found.shape))
        window = np.s_[top : top + PATCH, left : left + PATCH]
        np.testing.assert_array_equal(picture[window], clean)
        degraded = batch["degraded"][row].numpy().transpose(1, 2, 0)[..., ::-1]
        np.testing.assert_allclose(degraded * 255, draws.degraded(position)[window], atol=1e-3)
        height, width = draws.clean(position).shape[:2]
        full = cv2.resize(true.maps[position], (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(batch["transmission"][row, 0].numpy(), full[window], atol=1e-6)


def test_the_mixture_of_conditions(draws: DrawSet, true: Conditions, predicted: Conditions) -> None:
    mixed = RestorerTask(settings(32, predicted=0.5, dropped=0.2), draws, true, predicted)
    kinds = {"none": 0, "true": 0, "predicted": 0}
    vectors = {"true": true.vectors, "predicted": predicted.vectors}
    count = 0
    for step in range(10):
        batch = mixed.batch(step)
        for condition, transmission in zip(batch["condition"], batch["transmission"], strict=True):
            count += 1
            vector = condition.numpy()
            if not vector.any():
                kinds["none"] += 1
                assert torch.equal(transmission, torch.ones_like(transmission))
                continue
            (kind,) = (k for k, known in vectors.items() if (known == vector).all(axis=1).any())
            kinds[kind] += 1
            assert transmission.max() <= (1.0 if kind == "true" else 0.5)
    shares = {kind: number / count for kind, number in kinds.items()}
    # Three standard deviations of a share of 320 samples are 0.08 at most.
    assert shares == pytest.approx({"none": 0.2, "true": 0.4, "predicted": 0.4}, abs=0.085)


def test_training_never_sees_the_held_out_draws(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true, batch=16)
    held = {true.vectors[p].tobytes() for p in training.held}
    assert len(held) == 8
    for step in range(4):
        for condition in training.batch(step)["condition"]:
            assert condition.numpy().tobytes() not in held


def test_fresh_batches(
    draws: DrawSet, true: Conditions, predicted: Conditions, fresh: FreshDraws
) -> None:
    reasoner = tiny_reasoner()
    run = settings(32, predicted=0.5, dropped=0.2)
    training = RestorerTask(run, draws, true, predicted, fresh, reasoner)
    batch = training.batch(3)
    training.batch(8)
    again = RestorerTask(run, draws, true, predicted, fresh, reasoner).batch(3)
    for name, value in batch.items():
        assert torch.equal(again[name], value), name
    assert not torch.equal(training.batch(4)["degraded"], batch["degraded"])

    kinds = {"none": 0, "true": 0, "predicted": 0}
    made = [fresh.make(order) for order in fresh.orders(generator(0, 3), 32)]
    read = Conditions.read(read_views(reasoner, [extract(draw.degraded) for draw in made]))
    for row, draw in enumerate(made):
        clean = batch["clean"][row].numpy().transpose(1, 2, 0)[..., ::-1] * 255
        found = cv2.matchTemplate(
            np.ascontiguousarray(draw.clean), clean.round().astype(np.uint8), cv2.TM_SQDIFF
        )
        top, left = (int(i) for i in np.unravel_index(int(found.argmin()), found.shape))
        window = np.s_[top : top + PATCH, left : left + PATCH]
        degraded = batch["degraded"][row].numpy().transpose(1, 2, 0)[..., ::-1] * 255
        np.testing.assert_allclose(degraded, draw.degraded[window], atol=1e-3)

        vector = batch["condition"][row].numpy()
        coarse = np.ones((32, 32), dtype=np.float32)
        if not vector.any():
            kinds["none"] += 1
        elif np.array_equal(vector, conditioning.encode(draw.diagnosis)):
            kinds["true"] += 1
            coarse = draw.transmission
        else:
            kinds["predicted"] += 1
            # Read alone or among others: equal to rounding.
            np.testing.assert_allclose(vector, read.vectors[row], atol=2e-3)
            coarse = read.maps[row]
        height, width = draw.clean.shape[:2]
        full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(batch["transmission"][row, 0].numpy(), full[window], atol=1e-4)
    assert min(kinds.values()) >= 3


def test_fresh_predictions_need_the_reasoner_itself(
    draws: DrawSet, true: Conditions, predicted: Conditions, fresh: FreshDraws
) -> None:
    with pytest.raises(TrainingError, match="needs a reasoner"):
        RestorerTask(settings(predicted=0.5), draws, true, predicted, fresh)


def test_a_patch_larger_than_a_fresh_picture(
    draws: DrawSet, true: Conditions, fresh: FreshDraws
) -> None:
    training = RestorerTask(settings(patch=128), draws, true, None, fresh)
    with pytest.raises(TrainingError, match=r"smaller than the patch of 128: set a smaller patch"):
        for step in range(5):
            training.batch(step)


def test_a_small_set_can_be_learnt(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true)
    batch = training.batch(0)
    network = training.network
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    first: dict[str, float] = {}
    for _ in range(60):
        loss, shown = training.loss(network, batch)
        first = first or {"total": float(loss.detach()), **shown}
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
    loss, last = training.loss(network, batch)
    assert float(loss.detach()) < 0.75 * first["total"]
    assert last["psnr"] > first["psnr"] + 2
    assert last["ssim"] > first["ssim"]


def test_the_loss_is_l1_and_ssim(draws: DrawSet, true: Conditions) -> None:
    for weight in (0.0, 0.3):
        training = task(draws, true, ssim_weight=weight)
        loss, shown = training.loss(training.network, training.batch(0))
        expected = shown["l1"] + weight * (1 - shown["ssim"])
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_validation_figures(draws: DrawSet, true: Conditions, predicted: Conditions) -> None:
    run = settings(predicted=0.5)
    training = RestorerTask(run, draws, true, predicted)
    with torch.no_grad():
        figures = training.validate(training.network)
        assert training.validate(training.network) == figures
    assert set(figures) == {
        f"{kind}_{figure}" for kind in ("true", "predicted", "none") for figure in ("psnr", "ssim")
    }
    # A new network goes half way to the inverted fog: the true condition helps, the wrong hurts.
    assert figures["true_psnr"] > figures["predicted_psnr"]
    assert all(0 < figures[f"{kind}_ssim"] < 1 for kind in ("true", "predicted", "none"))


def test_validation_without_a_reasoner(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true)
    with torch.no_grad():
        figures = training.validate(training.network)
    assert {name.split("_")[0] for name in figures} == {"true", "none"}


def test_true_conditions(draws: DrawSet, true: Conditions) -> None:
    assert true.vectors.shape == (len(draws), conditioning.SIZE)
    assert true.maps.shape == (len(draws), 32, 32)
    np.testing.assert_array_equal(true.vectors[9], conditioning.encode(draws.diagnosis(9)))
    np.testing.assert_array_equal(true.maps[9], draws.transmission(9))


def test_conditions_from_readings(draws: DrawSet) -> None:
    diagnosis = draws.diagnosis(3)
    coarse = draws.transmission(3)
    flat = np.full((1, 1), 0.5, dtype=np.float32)
    conditions = Conditions.read([Reading(diagnosis, coarse), Reading(diagnosis, flat), Reading()])
    np.testing.assert_array_equal(conditions.vectors[0], conditioning.encode(diagnosis))
    assert not conditions.vectors[2].any()
    np.testing.assert_array_equal(conditions.maps[0], coarse)
    np.testing.assert_array_equal(conditions.maps[1], np.full((32, 32), 0.5))
    np.testing.assert_array_equal(conditions.maps[2], np.ones((32, 32)))


def test_a_patch_off_the_networks_grid(draws: DrawSet, true: Conditions) -> None:
    with pytest.raises(TrainingError, match="patch is 66; expected a multiple of 4"):
        task(draws, true, patch=66)


def test_a_patch_larger_than_a_picture(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true, patch=128)
    with pytest.raises(TrainingError, match=r"smaller than the patch of 128: set a smaller patch"):
        for step in range(5):
            training.batch(step)


def test_predicted_diagnoses_need_a_reasoner(draws: DrawSet, true: Conditions) -> None:
    message = r"predicted is 0\.5, which needs a reasoner: give --reasoner CHECKPOINT, or set"
    with pytest.raises(TrainingError, match=message):
        task(draws, true, predicted=0.5)


def test_the_seed_fixes_the_first_weights(draws: DrawSet, true: Conditions) -> None:
    def weights(seed: int) -> torch.Tensor:
        network: Restorer = task(draws, true, seed=seed).network
        return network.stem.weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
