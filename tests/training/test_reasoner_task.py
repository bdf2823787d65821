from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rirf import conditioning
from rirf.diagnosis import EFFECTS
from rirf.images import to_float
from rirf.reasoner import decode
from rirf.views import CROP_SIZE, CROPS, THUMBNAIL_SIZE, extract
from rirf_training import reasoner_task
from rirf_training.config import LoopConfig, ReasonerRun
from rirf_training.data import DrawSet, FreshDraws, Order
from rirf_training.loop import Batch, generator, train
from rirf_training.networks.reasoner import OUTPUTS, Reasoner
from rirf_training.reasoner_task import ReasonerTask, calibrate, read_draws, read_views
from tests.networks import REASONER, tiny_reasoner
from tests.training.conftest import SHARE

STANDARDISING = 24


@pytest.fixture(autouse=True)
def few_standardising_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task looks at as many draws before it begins; 512 would take most of the tests' time."""
    monkeypatch.setattr(reasoner_task, "_STANDARDISING_DRAWS", STANDARDISING)


def settings(**changes: Any) -> ReasonerRun:
    loop = LoopConfig(steps=10, batch=4, learning_rate=3e-3, precision="fp32")
    values: dict[str, Any] = {
        "network": REASONER,
        "loop": loop,
        "draws": 4,
        "splits": ("test",),
        "validation_share": SHARE,
        **changes,
    }
    return ReasonerRun(**values)


def outputs(network: Reasoner, draws: DrawSet, position: int) -> dict[str, np.ndarray]:
    """What the network says of a draw, by the shortest way."""
    seen = extract(np.asarray(draws.degraded(position)))
    with torch.no_grad():
        values = network(*(torch.from_numpy(view[None]) for view in (seen.thumbnail, seen.crops)))
    return {name: value[0].numpy() for name, value in zip(OUTPUTS, values, strict=True)}


def test_a_batch_is_a_function_of_the_step_alone(draws: DrawSet) -> None:
    task = ReasonerTask(settings(), draws)
    first = task.batch(3)
    task.batch(8)
    again, fresh = task.batch(3), ReasonerTask(settings(), draws).batch(3)
    for name, value in first.items():
        assert torch.equal(again[name], value), name
        assert torch.equal(fresh[name], value), name
    assert not torch.equal(task.batch(4)["thumbnail"], first["thumbnail"])
    other = ReasonerTask(settings(seed=1), draws).batch(3)
    assert not torch.equal(other["thumbnail"], first["thumbnail"])


def test_a_batch(draws: DrawSet) -> None:
    batch = ReasonerTask(settings(crops=3), draws).batch(0)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    side = THUMBNAIL_SIZE
    assert shapes.pop("places") == (3,)
    assert shapes == {
        "thumbnail": (4, 3, side, side),
        "crops": (4, CROPS, 3, CROP_SIZE, CROP_SIZE),
        "presence": (4, 4),
        "severity": (4, 4),
        "light": (4, 3),
        "map": (4, 1, 32, 32),
        "clean": (4, 3, 32, 32),
        "shake": (4, 4),
        "rain": (4, 5),
        "noise": (4, 2),
        "street": (4, 1),
        "classes": (4, 12, 4, 4),
        "colours": (4, 3, 4, 4),
        "detail": (4, 1, 4, 4),
    }
    places = batch["places"].tolist()
    assert places == sorted(set(places))
    assert set(places) <= set(range(CROPS))
    street = batch["street"][:, 0].bool()
    shares = batch["classes"].sum(dim=1)
    torch.testing.assert_close(shares[street], torch.ones_like(shares[street]))
    assert not shares[~street].any()


def test_targets_are_the_true_diagnosis(draws: DrawSet) -> None:
    task = ReasonerTask(settings(crops=CROPS), draws)
    batch = task.batch(0)
    assert batch["places"].tolist() == list(range(CROPS))
    for row in range(4):
        # Which draw it is follows from its picture.
        position = next(
            p
            for p in task.training
            if np.array_equal(
                extract(np.asarray(draws.degraded(int(p)))).crops, batch["crops"][row].numpy()
            )
        )
        truth = draws.diagnosis(int(position))
        presence = [float(truth.effect(name).present) for name in EFFECTS]
        assert batch["presence"][row].tolist() == presence
        vector = conditioning.encode(truth)
        severity = [vector[conditioning.index(f"{name}.severity")] for name in EFFECTS]
        np.testing.assert_array_equal(batch["severity"][row].numpy(), severity)
        np.testing.assert_array_equal(
            batch["map"][row, 0].numpy(), draws.transmission(int(position))
        )
        clean = to_float(np.asarray(draws.clean(int(position)))).transpose(2, 0, 1)
        # Rounded to a grey level on the way.
        np.testing.assert_allclose(batch["clean"][row], area_means(clean, 32), atol=0.51 / 255)


def area_means(image: np.ndarray, side: int) -> np.ndarray:
    """(C, H, W) on a grid of cells of equal area, pixels on a border shared."""
    means = image.astype(np.float64)
    for axis in (1, 2):
        length = means.shape[axis]
        edges = np.linspace(0, length, side + 1)
        pixels = np.arange(length)
        ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        shares = np.clip(ends, 0, None) * side / length
        means = np.moveaxis(np.tensordot(shares, means, (1, axis)), 0, axis)
    return means


def test_the_statistics_are_standardised_on_training_draws(
    draws: DrawSet, fresh: FreshDraws
) -> None:
    task = ReasonerTask(settings(), draws)
    again = ReasonerTask(settings(), draws)
    assert torch.equal(again.network.usual, task.network.usual)
    assert torch.equal(again.network.spread, task.network.spread)
    orders = fresh.orders(generator(0, 2**62), STANDARDISING)
    crops = np.stack([extract(fresh.make(order).degraded).crops for order in orders])
    with torch.no_grad():
        found = task.network.statistics(torch.from_numpy(crops)).double().numpy()
    freshly = ReasonerTask(settings(), draws, fresh).network
    np.testing.assert_allclose(freshly.usual, found.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(freshly.spread, found.std(axis=0, ddof=1), atol=2e-4)


def test_a_broken_batch_can_be_made_again(draws: DrawSet, fresh: FreshDraws) -> None:
    rendered = ReasonerTask(settings(), draws)
    record = json.loads(json.dumps(rendered.describe(5)))
    assert set(record["positions"]) <= set(rendered.training.tolist())
    crops = [
        extract(np.asarray(draws.degraded(position))).crops for position in record["positions"]
    ]
    np.testing.assert_array_equal(rendered.batch(5)["crops"], np.stack(crops))

    task = ReasonerTask(settings(), draws, fresh)
    record = json.loads(json.dumps(task.describe(5)))
    orders = [
        Order(fresh.names.index(draw["image"]), draw["mirrored"], draw["seed"])
        for draw in record["draws"]
    ]
    crops = [extract(fresh.make(order).degraded).crops for order in orders]
    np.testing.assert_array_equal(task.batch(5)["crops"], np.stack(crops))
    assert task.describe(6) != task.describe(5)


class Stopped(ReasonerTask):
    """Somebody presses Ctrl+C before the third step."""

    def loss(self, network: Reasoner, batch: Batch) -> Any:
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 3:
            raise KeyboardInterrupt
        return super().loss(network, batch)


def test_a_stopped_run_ends_the_same(draws: DrawSet, tmp_path: Path) -> None:
    loop = settings().loop.model_copy(
        update={"steps": 4, "checkpoint_every": 1, "validate_every": 4, "warmup": 1}
    )
    run = settings(loop=loop)

    def go(kind: type[ReasonerTask], name: str, resume: bool = False) -> bytes:
        task = kind(run, draws)
        train(task, loop, tmp_path / name, provenance={}, resume=resume, progress=False)
        return (tmp_path / name / "model.safetensors").read_bytes()

    straight = go(ReasonerTask, "straight")
    with pytest.raises(KeyboardInterrupt):
        go(Stopped, "stopped")
    torch.rand(7)  # as whatever else runs in the process might
    # What dropout drops belongs to the step.
    assert go(ReasonerTask, "stopped", resume=True) == straight


def test_held_out_draws_are_never_trained_on(draws: DrawSet) -> None:
    task = ReasonerTask(settings(), draws)
    held = {extract(np.asarray(draws.degraded(int(p)))).thumbnail.tobytes() for p in task.held}
    assert len(held) == 8
    for step in range(6):
        for thumbnail in task.batch(step)["thumbnail"]:
            assert thumbnail.numpy().tobytes() not in held


def test_fresh_batches_are_a_function_of_the_step_alone(draws: DrawSet, fresh: FreshDraws) -> None:
    task = ReasonerTask(settings(), draws, fresh)
    first = task.batch(3)
    task.batch(8)
    again = ReasonerTask(settings(), draws, fresh).batch(3)
    for name, value in first.items():
        assert torch.equal(again[name], value), name
    assert not torch.equal(task.batch(4)["thumbnail"], first["thumbnail"])
    rendered = ReasonerTask(settings(), draws).batch(3)
    assert {n: v.shape for n, v in first.items()} == {n: v.shape for n, v in rendered.items()}
    assert not torch.equal(rendered["thumbnail"], first["thumbnail"])
    # Targets belong to their views.
    order = fresh.orders(generator(0, 3), 4)[2]
    draw = fresh.make(order)
    np.testing.assert_array_equal(first["thumbnail"][2], extract(draw.degraded).thumbnail)
    present = [float(draw.diagnosis.effect(name).present) for name in EFFECTS]
    assert first["presence"][2].tolist() == present
    np.testing.assert_array_equal(first["map"][2, 0], draw.transmission)


def test_a_small_set_can_be_learnt(draws: DrawSet) -> None:
    task = ReasonerTask(settings(), draws)
    batch = task.batch(0)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=5e-3)
    first: dict[str, float] = {}
    for _ in range(40):
        loss, shown = task.loss(task.network, batch)
        first = first or {"total": float(loss.detach()), **shown}
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
    loss, last = task.loss(task.network, batch)
    assert float(loss.detach()) < 0.5 * first["total"]
    for name in ("presence", "score", "map", "light", "clear", "colours"):
        assert last[name] < 0.7 * first[name], name


def test_an_absent_effects_parameters_do_not_count(draws: DrawSet) -> None:
    task = ReasonerTask(settings(), draws)
    batch = task.batch(0)
    batch["presence"] = torch.zeros(4, 4)
    _, shown = task.loss(task.network, batch)
    for name in ("severity", "score", "light", "clear", "shake", "rain", "noise", "curve"):
        assert shown[name] == 0.0, name
    assert shown["presence"] > 0


def fog_batch(clean: float, transmission: float, light: float) -> Batch:
    return {
        "clean": torch.full((1, 3, 32, 32), clean),
        "map": torch.full((1, 1, 32, 32), transmission),
        "light": torch.full((1, 3), light),
    }


@pytest.mark.parametrize(
    ("light", "transmission", "expected"),
    [
        (0.8, 0.5, 0.5),  # the truth: the clean frame
        (0.7, 0.5, 0.6),  # (0.65 - 0.35) / 0.5
        (0.7, 0.25, 0.5),  # (0.65 - 0.525) / 0.25: light and map can be wrong together
        (0.7, 1.0, 0.65),  # no fog: what is seen
        (0.65, 0.02, 0.13),  # 0.65 - 0.637, over 0.1 instead of 0.02
        (0.9, 0.4, 0.275),  # (0.65 - 0.54) / 0.4
        (0.9, 0.2, 0.0),
        (0.3, 0.2, 1.0),
    ],
)
def test_what_is_cleared(light: float, transmission: float, expected: float) -> None:
    """Seen through the true fog, a clean 0.5 is 0.5 x 0.5 + 0.8 x (1 - 0.5) = 0.65."""
    found = reasoner_task._cleared(
        torch.full((1, 3), light),
        torch.full((1, 1, 32, 32), transmission),
        fog_batch(0.5, 0.5, 0.8),
    )
    assert found.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_clearing_with_the_truth_gives_the_clean_frame(draws: DrawSet) -> None:
    batch = ReasonerTask(settings(), draws).batch(1)
    found = reasoner_task._cleared(batch["light"], batch["map"], batch)
    thick = batch["map"] < 0.1
    np.testing.assert_allclose(torch.where(thick, batch["clean"], found), batch["clean"], atol=1e-4)
    # Colours do not mix: red light moves red.
    red = batch["light"] + torch.tensor([0.1, 0.0, 0.0])
    other = reasoner_task._cleared(red, batch["map"], batch)
    assert not torch.equal(other[:, 0], found[:, 0])
    assert torch.equal(other[:, 1:], found[:, 1:])


def test_validation_figures(draws: DrawSet) -> None:
    task = ReasonerTask(settings(), draws)
    network = tiny_reasoner()
    figures = task.validate(network)
    errors: dict[str, list[float]] = {name: [] for name in EFFECTS}
    right: dict[str, list[bool]] = {name: [] for name in EFFECTS}
    for position in task.held:
        found = outputs(network, draws, int(position))
        truth = draws.diagnosis(int(position))
        for column, name in enumerate(EFFECTS):
            effect = truth.effect(name)
            right[name].append((found["presence"][column] >= 0.5) == effect.present)
            if effect.present:
                errors[name].append(abs(float(found["severity"][column]) - effect.severity))
    for name in EFFECTS:
        assert figures[f"{name}_accuracy"] == pytest.approx(np.mean(right[name]))
        assert (f"{name}_mae" in figures) == bool(errors[name])
        if errors[name]:
            assert figures[f"{name}_mae"] == pytest.approx(np.mean(errors[name]), rel=1e-4)
    assert all(np.isfinite(value) for value in figures.values())


def test_calibrated_intervals_hold_the_truth(draws: DrawSet) -> None:
    network = tiny_reasoner()
    positions = np.arange(len(draws))
    figures = calibrate(network, draws, positions)
    inside: dict[str, list[bool]] = {name: [] for name in EFFECTS}
    for position in positions:
        found = outputs(network, draws, int(position))
        for column, name in enumerate(EFFECTS):
            effect = draws.diagnosis(int(position)).effect(name)
            if effect.present:
                error = abs(float(found["severity"][column]) - effect.severity)
                inside[name].append(error <= 1.0001 * float(found["interval"][column]))
    for column, name in enumerate(EFFECTS):
        assert len(inside[name]) > 5
        # The quantile of these very draws: at least 90 %, and no more than that needs.
        assert np.mean(inside[name]) >= 0.9
        assert figures[f"{name}_quantile"] == pytest.approx(float(network.quantile[column]))


def test_calibrated_probabilities_are_likelier(draws: DrawSet) -> None:
    network = tiny_reasoner()
    with torch.no_grad():  # far too sure of itself
        network.heads["presence"].weight.mul_(30)  # type: ignore[operator]  # a Linear layer
    positions = np.arange(len(draws))
    truth = np.array(
        [[draws.diagnosis(int(p)).effect(name).present for name in EFFECTS] for p in positions]
    )

    def surprise() -> np.ndarray:
        found = [outputs(network, draws, int(p))["presence"] for p in positions]
        probability = np.clip(np.array(found, dtype=np.float64), 1e-7, 1 - 1e-7)
        mean: np.ndarray = -np.log(np.where(truth, probability, 1 - probability)).mean(axis=0)
        return mean

    before = surprise()
    figures = calibrate(network, draws, positions)
    assert np.all(surprise() < before)
    assert all(figures[f"{name}_temperature"] > 1 for name in EFFECTS)


def test_calibrating_again_changes_nothing(draws: DrawSet) -> None:
    network = tiny_reasoner()
    positions = np.arange(8)
    first = calibrate(network, draws, positions)
    assert calibrate(network, draws, positions) == first


def test_readings_are_those_of_the_runtime(draws: DrawSet) -> None:
    network = tiny_reasoner()
    positions = np.array([5, 0, 17])
    readings = read_draws(network, draws, positions, progress=False)
    views = [extract(np.asarray(draws.degraded(int(position)))) for position in positions]
    for reading, same in zip(readings, read_views(network, views), strict=True):
        assert reading.diagnosis == same.diagnosis
    for position, reading in zip(positions, readings, strict=True):
        expected = decode(outputs(network, draws, int(position)))
        assert reading.diagnosis is not None
        assert expected.diagnosis is not None
        np.testing.assert_allclose(
            conditioning.encode(reading.diagnosis),
            conditioning.encode(expected.diagnosis),
            atol=2e-3,
        )
        assert reading.transmission is not None
        assert expected.transmission is not None
        np.testing.assert_allclose(reading.transmission, expected.transmission, atol=1e-4)
