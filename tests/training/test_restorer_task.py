from __future__ import annotations

from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rirf import conditioning
from rirf.reasoner import Reading
from rirf.views import extract
from rirf_training.bridge import STEPS, coarse
from rirf_training.config import BridgeConfig, LoopConfig, LossConfig, RestorerRun, TrainingError
from rirf_training.data import Draw, DrawSet, FreshDraws, Order, RecordedPairs
from rirf_training.loop import Batch
from rirf_training.losses import PIXEL_LOSSES, frequency, ssim
from rirf_training.networks.restorer import Restorer, RestorerConfig
from rirf_training.reasoner_task import read_views
from rirf_training.restorer_task import Conditions, Recorded, RestorerTask
from tests.networks import RESTORER, stir, tiny_reasoner, tiny_restorer
from tests.training.conftest import SHARE
from tests.training.recording import recorded_draws

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
        position = next(
            p
            for p in range(len(draws))
            if np.array_equal(batch["condition"][row].numpy(), true.vectors[p])
        )
        window = located(np.asarray(draws.clean(position)), batch["clean"][row])
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


def located(picture: np.ndarray, patch: torch.Tensor) -> tuple[slice, slice]:
    """Where in a uint8 BGR picture a float RGB patch (3, H, W) was cut."""
    wanted = (patch.numpy().transpose(1, 2, 0)[..., ::-1] * 255).round().astype(np.uint8)
    found = cv2.matchTemplate(np.ascontiguousarray(picture), wanted, cv2.TM_SQDIFF)
    top, left = (int(i) for i in np.unravel_index(int(found.argmin()), found.shape))
    window = np.s_[top : top + PATCH, left : left + PATCH]
    np.testing.assert_array_equal(picture[window], wanted)
    return window


def made(fresh: FreshDraws, described: list[dict[str, Any]]) -> list[Draw]:
    """The draws that a description names."""
    return [
        fresh.make(Order(fresh.names.index(one["image"]), one["mirrored"], one["seed"]))
        for one in described
    ]


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_fresh_batches(
    draws: DrawSet, true: Conditions, predicted: Conditions, fresh: FreshDraws
) -> None:
    reasoner = tiny_reasoner()
    run = settings(16, predicted=0.5, dropped=0.2)
    training = RestorerTask(run, draws, true, predicted, fresh, reasoner)
    batch = training.batch(3)

    kinds = {"none": 0, "true": 0, "predicted": 0}
    # The record of a step names the draws that its patches were cut from, in order.
    used = made(fresh, training.describe(3)["draws"])
    assert len(used) == 16
    read = Conditions.read(read_views(reasoner, [extract(draw.degraded) for draw in used]))
    for row, draw in enumerate(used):
        window = located(draw.clean, batch["clean"][row])
        degraded = batch["degraded"][row].numpy().transpose(1, 2, 0)[..., ::-1] * 255
        np.testing.assert_allclose(degraded, draw.degraded[window], atol=1e-3)

        vector = batch["condition"][row].numpy()
        coarse_map = np.ones((32, 32), dtype=np.float32)
        if not vector.any():
            kinds["none"] += 1
        elif np.array_equal(vector, conditioning.encode(draw.diagnosis)):
            kinds["true"] += 1
            coarse_map = draw.transmission
        else:
            kinds["predicted"] += 1
            # Read alone or among others: equal to rounding.
            np.testing.assert_allclose(vector, read.vectors[row], atol=2e-3)
            coarse_map = read.maps[row]
        height, width = draw.clean.shape[:2]
        full = cv2.resize(coarse_map, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(batch["transmission"][row, 0].numpy(), full[window], atol=1e-4)
    assert min(kinds.values()) >= 1


def test_a_fresh_batch_is_a_function_of_the_step_alone(
    draws: DrawSet, true: Conditions, predicted: Conditions, fresh: FreshDraws
) -> None:
    """Reached from the first step, asked for at once, or after a stop: the same batch."""

    def training() -> RestorerTask:
        run = settings(4, predicted=0.5, reuse=2)
        return RestorerTask(run, draws, true, predicted, fresh, tiny_reasoner())

    first = training()
    batches = [first.batch(step) for step in range(6)]
    assert same(training().batch(5), batches[5])
    resumed = training()
    assert all(same(resumed.batch(step), batches[step]) for step in (3, 4, 5))
    # Far ahead and back again.
    resumed.batch(40)
    assert same(resumed.batch(2), batches[2])
    assert not same(batches[4], batches[5])


def test_draws_are_made_once_and_stay_in_use(
    draws: DrawSet,
    true: Conditions,
    fresh: FreshDraws,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[Order] = []
    make = fresh.make

    def counted(order: Order) -> Draw:
        orders.append(order)
        return make(order)

    monkeypatch.setattr(fresh, "make", counted)
    training = RestorerTask(settings(4, reuse=2), draws, true, None, fresh)
    counts = []
    for step in range(4):
        training.batch(step)
        counts.append(len(orders))
    # Two a step, and those of the fifteen steps before the first.
    assert counts == [32, 34, 36, 38]
    assert len(set(orders)) == 38
    used = made(fresh, [one for step in range(4) for one in training.describe(step)["draws"]])
    assert len(used) == 16


@pytest.mark.parametrize(("batch", "reuse"), [(4, 4), (4, 1), (6, 3), (5, 4), (4, 16)])
def test_each_draw_gives_as_many_patches(
    draws: DrawSet, true: Conditions, fresh: FreshDraws, batch: int, reuse: int
) -> None:
    training = RestorerTask(settings(batch, reuse=reuse), draws, true, None, fresh)
    uses: Counter[int] = Counter()
    steps: dict[int, list[int]] = {}
    for step in range(200):
        seeds = [one["seed"] for one in training.describe(step)["draws"]]
        assert len(set(seeds)) == len(seeds) == batch
        uses.update(seeds)
        for seed in seeds:
            steps.setdefault(seed, []).append(step)
    assert max(seen[-1] - seen[0] for seen in steps.values()) < 16
    # Draws are whole: so many a step, and all of a batch is cut from them.
    a_step = -(-batch // reuse)
    assert sum(uses.values()) / (a_step * 200) == pytest.approx(batch / a_step)
    assert len(uses) <= a_step * (200 + 15)
    if reuse > 1:
        assert len(uses) > 0.7 * a_step * 200


def test_the_record_of_a_rendered_batch(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true, batch=6)
    positions = training.describe(3)["positions"]
    vectors = training.batch(3)["condition"].numpy()
    np.testing.assert_array_equal(vectors, true.vectors[positions])
    assert training.describe(4) != training.describe(3)


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


@pytest.mark.parametrize("pixel", PIXEL_LOSSES)
def test_the_loss_is_the_sum_of_its_parts(draws: DrawSet, true: Conditions, pixel: Any) -> None:
    for weights in ({"ssim": 0.0}, {"ssim": 0.3}, {"ssim": 0.3, "frequency": 0.2}):
        training = task(draws, true, loss=LossConfig(pixel=pixel, **weights))
        batch = training.batch(0)
        with torch.no_grad():
            loss, shown = training.loss(training.network, batch)
            restored, clean = coarse(training.network, batch), batch["clean"]
            expected = PIXEL_LOSSES[pixel](restored, clean)
            # Every third window in each direction is enough for a gradient.
            expected += weights["ssim"] * (1 - ssim(restored, clean, stride=3))
            expected += weights.get("frequency", 0.0) * frequency(restored, clean)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        errors = ((restored.clamp(0, 1) - clean) ** 2).mean(dim=(1, 2, 3))
        assert shown["l1"] == pytest.approx(float((restored - clean).abs().mean()), rel=1e-5)
        assert shown["psnr"] == pytest.approx(float((-10 * torch.log10(errors)).mean()), rel=1e-5)


BRIDGE = BridgeConfig(share=0.5, weight=0.4, noise=0.2)


def test_a_batch_that_trains_the_bridge(draws: DrawSet, true: Conditions) -> None:
    plain, training = (task(draws, true, batch=6, bridge=b) for b in (BridgeConfig(), BRIDGE))
    moments, spreads = [], []
    for step in range(30):
        batch = training.batch(step)
        noise, moment = batch.pop("noise"), batch.pop("moment")
        # All else is as it is without a bridge.
        assert same(batch, plain.batch(step))
        assert noise.shape == (3, 3, PATCH, PATCH)
        assert noise.dtype == torch.float32
        moments += moment.tolist()
        spreads += noise.flatten(1).std(dim=1).tolist()
        assert abs(float(noise.mean())) < 0.02
    assert set(moments) == set(range(STEPS))
    # The deviation of each sample's noise is uniform up to the largest.
    assert max(spreads) < 0.2 * 1.05
    assert np.mean(spreads) == pytest.approx(0.1, abs=0.02)
    again = task(draws, true, batch=6, bridge=BRIDGE)
    assert same(again.batch(3), training.batch(3))


def test_the_bridge_is_a_part_of_the_loss(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true, batch=6, bridge=BRIDGE)
    batch = training.batch(0)
    loss, shown = training.loss(training.network, batch)
    without = {name: value for name, value in batch.items() if name not in ("noise", "moment")}
    alone, _ = training.loss(training.network, without)
    assert shown["bridge"] > 0
    assert float((loss - alone).detach()) == pytest.approx(0.4 * shown["bridge"], rel=1e-4)


def test_the_bridge_does_not_move_the_coarse_leap(draws: DrawSet, true: Conditions) -> None:
    """It starts at the coarse estimate, and no gradient goes there."""
    training = task(draws, true, batch=4, bridge=BRIDGE.model_copy(update={"share": 1.0}))
    batch = training.batch(0)
    estimates: list[torch.Tensor] = []
    forward = training.network.forward

    def watched(degraded: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        out = forward(degraded, *rest)
        if float(rest[3][0]) == -1.0:
            out.retain_grad()
            estimates.append(out)
        return out

    training.network.forward = watched  # type: ignore[assignment,method-assign]  # watches it
    loss, shown = training.loss(training.network, batch)
    plain = {name: value for name, value in batch.items() if name not in ("noise", "moment")}
    alone, _ = training.loss(training.network, plain)
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
    alone.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
    with_bridge, without = (estimate.grad for estimate in estimates)
    assert with_bridge is not None
    assert without is not None
    assert shown["bridge"] > 0
    torch.testing.assert_close(with_bridge, without, rtol=1e-4, atol=0.0)


def test_validation_of_every_mode(draws: DrawSet, true: Conditions) -> None:
    training = task(draws, true, bridge=BRIDGE)
    # A new network's bridge leads nowhere.
    stir(training.network)
    with torch.no_grad():
        figures = training.validate(training.network)
    modes = ("", "_1", "_2", "_4")
    assert set(figures) == {
        f"{kind}{mode}_{figure}"
        for kind in ("true", "none")
        for mode in modes
        for figure in ("psnr", "ssim")
    }
    assert len({figures[f"true{mode}_psnr"] for mode in modes}) == 4


def test_a_teacher(draws: DrawSet, true: Conditions, predicted: Conditions) -> None:
    """Its output for the same patch, with the same diagnosis, is a target."""
    teacher = tiny_restorer(seed=5)
    loss = LossConfig(ssim=0.0, teacher=0.3)
    run = settings(6, loss=loss, predicted=0.5, dropped=0.2)
    training = RestorerTask(run, draws, true, predicted, teacher=teacher)
    network = training.network
    batch = training.batch(0)
    found, shown = training.loss(network, batch)
    one = torch.ones(6)
    frame, others = batch["degraded"], (batch["transmission"], batch["condition"], -one, one)
    with torch.no_grad():
        taught = frame + teacher(frame, frame, *others)
        restored = frame + network(frame, frame, *others)
        imitated = (restored - taught).abs().mean()
        expected = 0.3 * imitated + 0.7 * (restored - batch["clean"]).abs().mean()
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert shown["teacher"] == pytest.approx(float(imitated), rel=1e-5)
    found.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert network.head.weight.grad is not None


def test_a_teacher_alone(draws: DrawSet, true: Conditions) -> None:
    """With all weight on its side the clean patch does not matter, and it can be learnt from."""
    teacher = tiny_restorer(seed=5)
    run = settings(4, loss=LossConfig(ssim=0.0, teacher=1.0))
    training = RestorerTask(run, draws, true, None, teacher=teacher)
    batch = training.batch(0)
    first, _ = training.loss(training.network, batch)
    other, _ = training.loss(training.network, {**batch, "clean": 1.0 - batch["clean"]})
    assert float(other.detach()) == float(first.detach())
    optimizer = torch.optim.Adam(training.network.parameters(), lr=5e-3)
    loss = first
    for _ in range(30):
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
        loss, _ = training.loss(training.network, batch)
    assert float(loss.detach()) < 0.7 * float(first.detach())


def test_a_teacher_of_another_grid(draws: DrawSet, true: Conditions) -> None:
    five = RestorerConfig(
        channels=(8,) * 5, blocks=(1,) * 5, decoder_blocks=(1,) * 4, kernels=(3,) * 5, condition=8
    )
    with pytest.raises(
        TrainingError, match="patch is 68; expected a multiple of 32 for this teacher"
    ):
        RestorerTask(settings(patch=68), draws, true, None, teacher=Restorer(five))


COUNT = 6


@pytest.fixture(scope="module")
def pairs(draws: DrawSet, tmp_path_factory: pytest.TempPathFactory) -> RecordedPairs:
    folder = recorded_draws(tmp_path_factory.mktemp("recorded"), draws, COUNT)
    decoded = tmp_path_factory.mktemp("recorded-decoded")
    return RecordedPairs(folder, decoded, progress=False)


@pytest.fixture(scope="module")
def recorded(pairs: RecordedPairs) -> Recorded:
    """With conditions that can be told from those of the draws, and from each other."""
    given = Conditions.given(pairs.diagnoses)
    return Recorded(
        pairs,
        Conditions(given.vectors + 0.5, given.maps),
        Conditions(given.vectors + 0.75, 0.5 * given.maps),
    )


def origin(recorded: Recorded, vector: torch.Tensor) -> tuple[str, int] | None:
    """Which kind of condition of which pair a vector is."""
    kinds = {"true": recorded.true, "predicted": recorded.predicted}
    for kind, conditions in kinds.items():
        assert conditions is not None
        for place, known in enumerate(conditions.vectors):
            if np.array_equal(known, vector.numpy()):
                return kind, place
    return None


def test_recorded_patches(draws: DrawSet, true: Conditions, recorded: Recorded) -> None:
    run = settings(8, recorded=1.0, loss=LossConfig(teacher=0.25))
    training = RestorerTask(run, draws, true, None, recorded=recorded)
    with_truth = set()
    for step in range(3):
        batch = training.batch(step)
        names = []
        for row in range(8):
            found = origin(recorded, batch["condition"][row])
            assert found is not None
            place = found[1]
            names.append(recorded.pairs.names[place])
            pair = recorded.pairs.pair(place)
            window = located(pair.degraded, batch["degraded"][row])
            target = pair.restored[window].astype(np.float64)
            with_truth.add(pair.clean is not None)
            if pair.clean is not None:
                target = 0.25 * target + 0.75 * pair.clean[window]
            clean = batch["clean"][row].numpy().transpose(1, 2, 0)[..., ::-1] * 255
            np.testing.assert_allclose(clean, target, atol=1e-3)
            flat = recorded.true.maps[place, 0, 0]
            np.testing.assert_allclose(batch["transmission"][row].numpy(), flat, atol=1e-6)
        described = training.describe(step)
        assert described["positions"] == []
        assert Counter(described["recorded"]) == Counter(names)
    assert with_truth == {True, False}


def test_the_share_of_recorded_patches(
    draws: DrawSet, true: Conditions, recorded: Recorded
) -> None:
    def training() -> RestorerTask:
        return RestorerTask(settings(8, recorded=0.375), draws, true, None, recorded=recorded)

    first = training()
    places: Counter[int] = Counter()
    batches = [first.batch(step) for step in range(12)]
    for step, batch in enumerate(batches):
        rows = [r for r in range(8) if origin(recorded, batch["condition"][r]) is not None]
        assert len(rows) == 3
        places.update(rows)
        described = first.describe(step)
        assert len(described["recorded"]) == 3
        assert len(described["positions"]) == 5
        known = {true.vectors[position].tobytes() for position in described["positions"]}
        rest = {batch["condition"][r].numpy().tobytes() for r in range(8) if r not in rows}
        assert rest == known
    # At any place, so that each can train the bridge.
    assert set(places) == set(range(8))
    assert same(training().batch(7), batches[7])
    assert not same(batches[6], batches[7])


def test_recorded_patches_beside_fresh_ones(
    draws: DrawSet, true: Conditions, recorded: Recorded, fresh: FreshDraws
) -> None:
    def training() -> RestorerTask:
        run = settings(4, recorded=0.5, reuse=4)
        return RestorerTask(run, draws, true, None, fresh, recorded=recorded)

    first = training()
    batches = [first.batch(step) for step in range(3)]
    assert same(training().batch(2), batches[2])
    described = first.describe(2)
    assert len(described["recorded"]) == len(described["draws"]) == 2
    known = {conditioning.encode(d.diagnosis).tobytes() for d in made(fresh, described["draws"])}
    found = {vector.numpy().tobytes() for vector in batches[2]["condition"]}
    assert known < found


def test_the_mixture_of_conditions_of_recorded_patches(
    draws: DrawSet, true: Conditions, predicted: Conditions, recorded: Recorded
) -> None:
    run = settings(32, recorded=1.0, predicted=0.5, dropped=0.2)
    training = RestorerTask(run, draws, true, predicted, recorded=recorded)
    kinds: Counter[str] = Counter()
    for step in range(10):
        batch = training.batch(step)
        for vector, transmission in zip(batch["condition"], batch["transmission"], strict=True):
            found = origin(recorded, vector)
            kind = "none" if found is None else found[0]
            kinds[kind] += 1
            if found is None:
                assert not vector.any()
                assert torch.equal(transmission, torch.ones_like(transmission))
            elif kind == "predicted":
                assert transmission.max() <= 0.5
    shares = {kind: number / kinds.total() for kind, number in kinds.items()}
    assert shares == pytest.approx({"none": 0.2, "true": 0.4, "predicted": 0.4}, abs=0.085)


def test_recorded_patches_change_nothing_else(
    draws: DrawSet, true: Conditions, recorded: Recorded
) -> None:
    """Without pairs the share does not matter: a batch is what it was."""
    plain = task(draws, true, recorded=0.0).batch(3)
    assert same(task(draws, true, recorded=0.75).batch(3), plain)
    mixed = RestorerTask(settings(recorded=0.75), draws, true, None, recorded=recorded)
    assert not same(mixed.batch(3), plain)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_share_that_is_no_patch(
    draws: DrawSet, true: Conditions, recorded: Recorded, share: float
) -> None:
    message = rf"recorded is {share}, which is no patch in a batch of 4: set recorded=0\.25 or more"
    with pytest.raises(TrainingError, match=message):
        RestorerTask(settings(recorded=share), draws, true, None, recorded=recorded)


def test_recorded_predictions_need_the_reasoner_too(
    draws: DrawSet, true: Conditions, predicted: Conditions, recorded: Recorded
) -> None:
    unread = Recorded(recorded.pairs, recorded.true, None)
    with pytest.raises(TrainingError, match="needs a reasoner"):
        RestorerTask(settings(predicted=0.5), draws, true, predicted, recorded=unread)


def test_diagnoses_without_maps(pairs: RecordedPairs) -> None:
    given = Conditions.given(pairs.diagnoses)
    foggy = 0
    for place, diagnosis in enumerate(pairs.diagnoses):
        np.testing.assert_array_equal(given.vectors[place], conditioning.encode(diagnosis))
        mean = diagnosis.fog.transmission_mean if diagnosis.fog.present else 1.0
        foggy += diagnosis.fog.present
        np.testing.assert_array_equal(given.maps[place], np.full((32, 32), np.float32(mean)))
    assert 0 < foggy < COUNT


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
