from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rirf_training.loop as loop
from rirf_training.bridge import coarse, leap
from rirf_training.config import LoopConfig, RlRun, TrainingError, read_config
from rirf_training.data import DrawSet
from rirf_training.loop import train
from rirf_training.networks import load_network
from rirf_training.restorer_task import Conditions, RestorerTask
from rirf_training.rl.edge_task import EdgeRlTask
from rirf_training.rl.guard import RewardHacked
from rirf_training.rl.reward import NetworkSeverity, Severity
from tests.networks import RESTORER, tiny_reasoner, tiny_restorer
from tests.sdk.pictures import load
from tests.training.rl.conftest import SHARE

PROVENANCE = {"run": "a test's"}
# Settings with which a reward whose direction is known rises within a few steps.
PLEASING: dict[str, Any] = {
    "group": 6,
    "sft_share": 0.01,
    "kl": 0.0,
    "noise": 0.2,
    "loop": {
        "steps": 8,
        "batch": 1,
        "validate_every": 4,
        "checkpoint_every": 4,
        "ema": 0.0,
    },
}
CONFIGS = Path(__file__).parents[3] / "training" / "configs"


def settings(objective: str = "grpo", **changes: Any) -> RlRun:
    schedule = {
        "steps": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "warmup": 0,
        "precision": "fp32",
        "validate_every": 2,
        "checkpoint_every": 2,
        "validation_samples": 2,
        **changes.pop("loop", {}),
    }
    values: dict[str, Any] = {
        "objective": objective,
        "group": 2,
        "steps": 2,
        "draws": 2,
        "splits": ("test",),
        "validation_share": SHARE,
        "loop": LoopConfig(**schedule),
        **changes,
    }
    return RlRun(**values)


@pytest.fixture(scope="module")
def true(large_draws: DrawSet) -> Conditions:
    return Conditions.true(large_draws)


class Whiteness:
    """Calls bright images degraded, or dark ones: a reward whose direction is known."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def __call__(self, images: Tensor) -> Tensor:
        return self.sign * images.detach().clamp(0, 1).mean(dim=(1, 2, 3))[:, None].expand(-1, 4)


class Making:
    """Makes tasks on the same draws, with a random start that does something."""

    def __init__(self, draws: DrawSet, true: Conditions) -> None:
        self.draws, self.true = draws, true

    def __call__(
        self, run: RlRun, reward: Severity | None = None, judge: Severity | None = None
    ) -> EdgeRlTask:
        base = RestorerTask(run.restorer(RESTORER), self.draws, self.true, self.true)
        base.network.load_state_dict(tiny_restorer().state_dict())
        reward = reward or NetworkSeverity(tiny_reasoner())
        return EdgeRlTask(run, base, reward, judge or NetworkSeverity(tiny_reasoner(seed=1)))


@pytest.fixture(scope="module")
def make(large_draws: DrawSet, true: Conditions) -> Making:
    return Making(large_draws, true)


def weights(task: EdgeRlTask) -> Tensor:
    return torch.cat([value.flatten() for value in task.network.state_dict().values()])


# Batches.


def test_a_batch_is_a_function_of_the_step_alone(make: Making) -> None:
    task = make(settings())
    batch = task.batch(3)
    task.batch(8)
    other = make(settings())
    for name, value in batch.items():
        assert torch.equal(task.batch(3)[name], value), name
        assert torch.equal(other.batch(3)[name], value), name
    following = task.batch(4)
    assert not torch.equal(following["degraded"], batch["degraded"])
    assert following["seed"] != batch["seed"]
    assert make(settings(seed=1)).batch(3)["seed"] != batch["seed"]


def test_updates_of_a_rollout_share_its_batch(make: Making) -> None:
    task = make(settings("flow_grpo", inner=2))
    first, second, third = (task.batch(step) for step in (4, 5, 6))
    assert [int(batch["inner"]) for batch in (first, second, third)] == [0, 1, 0]
    assert first["seed"] == second["seed"] != third["seed"]
    assert torch.equal(first["degraded"], second["degraded"])
    assert not torch.equal(first["degraded"], third["degraded"])
    assert task.describe(4) == task.describe(5) != task.describe(6)


# Sampling.


@pytest.mark.parametrize("steps", [2, 4])
def test_without_noise_the_flow_is_the_bridge(make: Making, steps: int) -> None:
    """The coordinates of the module's text: u runs backwards in time from a unit Gaussian."""
    task = make(settings("flow_grpo", steps=steps))
    batch = task.batch(0)
    with torch.no_grad():
        rows, estimate, random = task._group(task.network, batch)
        noise = torch.randn(estimate.shape, generator=random)
        state = noise
        for number in range(steps):
            step = task._step(task.network, rows, estimate, state, number, level=0.0)
            state = step.mean
        expected = leap(task.network, rows, estimate + task.run.noise * noise, steps)
    torch.testing.assert_close(estimate + task.run.noise * state, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(estimate[::2], coarse(task.network, batch))
    assert torch.equal(rows["clean"][1], batch["clean"][0])


def test_a_rollout_is_a_function_of_its_batch(make: Making) -> None:
    task = make(settings("flow_grpo", steps=4))
    with torch.no_grad():
        one, same = (task._sample(task.network, task.batch(1)) for _ in range(2))
        other = task._sample(task.network, task.batch(2))
    assert len(one.states) == 4
    assert len(one.log_probabilities) == 3
    for a, b, c in zip(one.states, same.states, other.states, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    # Members of a group differ, and start as far from the estimate as noise says.
    assert not torch.equal(one.states[0][0], one.states[0][1])
    assert float(one.states[0].std()) == pytest.approx(1.0, abs=0.02)


# Losses.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", ["grpo", "flow_grpo"])
def test_the_loss_has_both_shares(make: Making, objective: str, precision: str) -> None:
    task = make(settings(objective, sft_share=0.25, noise=0.3))
    batch = task.batch(0)
    with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        loss, shown = task.loss(task.network, batch)
        supervised, known = task.base.loss(task.network, batch)
    expected = 0.25 * float(supervised.detach()) + 0.75 * shown["reinforced"]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert known.items() <= shown.items()
    assert shown["groups"] > 0
    assert shown["spread"] > 0
    (found,) = torch.autograd.grad(loss, [task.network.stem.weight])
    assert torch.isfinite(found).all()
    assert found.any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_update_of_a_rollout_is_on_its_policy(make: Making, precision: str) -> None:
    task = make(settings("flow_grpo", inner=2))
    with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        _, shown = task.loss(task.network, task.batch(0))
        assert shown["off_policy"] < 1e-5
        assert shown["kl"] < 1e-6
        assert shown["clipped"] == 0
    with torch.no_grad():
        task.network.head.weight.add_(0.3 * torch.randn(task.network.head.weight.shape))
    _, later = task.loss(task.network, task.batch(1))
    assert later["reward"] == shown["reward"]
    assert later["off_policy"] > 10 * shown["off_policy"]
    assert later["kl"] > 1e-4
    assert later["clipped"] > 0


def test_flow_grpo_pulls_towards_the_reward(make: Making) -> None:
    """Where dark pictures are rewarded, descent darkens: flow and bridge agree on their signs.

    Asked of the gradient of the last layer's colours, over many small rollouts: one alone is mostly
    chance. The opposite reward on the same rollouts takes the supervised share out.
    """
    pulls = []
    tasks = [
        make(settings("flow_grpo", **PLEASING), Whiteness(sign), Whiteness(-sign))
        for sign in (1.0, -1.0)
    ]
    batch = tasks[0].batch(0)
    colours = 3 * RESTORER.scale**2
    for seed in range(16):
        found = []
        for task in tasks:
            loss, _ = task.loss(task.network, {**batch, "seed": torch.tensor(seed)})
            (gradient,) = torch.autograd.grad(loss, [task.network.head.bias])
            found.append(float(gradient[:colours].sum()))
        pulls.append(found[0] - found[1])
    error = np.std(pulls, ddof=1) / len(pulls) ** 0.5
    assert np.mean(pulls) > 2.0 * error


# Validation and what is kept.


def test_validation_figures(make: Making) -> None:
    task = make(settings())
    with torch.no_grad():
        figures = task.validate(task.network)
        assert task.validate(task.network) == figures
    modes = ("", "_1", "_2", "_4")
    for mode in modes:
        assert {f"predicted{mode}_psnr", f"predicted{mode}_ssim"} <= set(figures)
    assert {"reward", "judge"} <= set(figures)
    assert figures["reward"] != figures["judge"]
    # The reward of what validation restores, read again.
    with torch.no_grad():
        batch = task.base.held_batch(task.base.held, task.base.predicted, torch.device("cpu"))
        restored = leap(task.network, batch, coarse(task.network, batch), task.run.steps)
        severity = NetworkSeverity(tiny_reasoner())
        gained = (severity(batch["degraded"]) - severity(restored)).sum(dim=1)
    assert figures["reward"] == pytest.approx(float(gained.mean()), abs=1e-5)


def rows(folder: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in found:
        del row["seconds"]
    return found


def run(task: EdgeRlTask, out: Path, *, resume: bool = False) -> dict[str, float]:
    return train(task, task.run.loop, out, provenance=PROVENANCE, resume=resume, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "grpo", "noise": 0.3},
        {"objective": "flow_grpo", "noise": 0.3, "inner": 2, "loop": {"batch": 1}},
    ],
    ids=["grpo", "flow_grpo"],
)
def test_a_stopped_run_goes_on_to_the_same_end(
    make: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    task = make(settings(**changes))
    before = weights(task).clone()
    figures = run(task, whole)
    assert not torch.equal(weights(task), before)
    kept = task.finish(whole, PROVENANCE, None)

    done = 0
    average = loop._average

    def counted(*arguments: Any) -> None:
        nonlocal done
        if done == 3:
            raise KeyboardInterrupt
        done += 1
        average(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_average", counted)
        with pytest.raises(KeyboardInterrupt):
            run(make(settings(**changes)), halves)
    assert [row["step"] for row in rows(halves)] == [2]
    resumed = make(settings(**changes))
    assert run(resumed, halves, resume=True) == figures
    assert torch.equal(weights(resumed), weights(task))
    assert rows(halves) == rows(whole)
    assert resumed.finish(halves, PROVENANCE, None) == kept
    for name in ("model.safetensors", "config.json"):
        assert (halves / name).read_bytes() == (whole / name).read_bytes()
    assert load(whole / "rewards.png").size > 0
    assert json.loads((whole / "start.json").read_text())["reward"] != 0


def judged(folder: Path) -> dict[int, float]:
    """What the judge said at the start and at each validation, by step."""
    start = json.loads((folder / "start.json").read_text())
    return {0: start["judge"], **{row["step"]: row["validation/judge"] for row in rows(folder)}}


def test_it_stops_when_only_the_reward_rises(make: Making, tmp_path: Path) -> None:
    """The judge wants the opposite of the reward, so its favourite is an early one."""
    changes = {**PLEASING, "margin": 0.001, "patience": 2}
    changes["loop"] = {**PLEASING["loop"], "steps": 60}
    task = make(settings("flow_grpo", **changes), Whiteness(1.0), Whiteness(-1.0))
    start = copy.deepcopy(task.network.state_dict())
    with pytest.raises(RewardHacked, match=r"judge's reward is .* of step \d+, while the reward"):
        run(task, tmp_path)
    found, said = rows(tmp_path), judged(tmp_path)
    assert found[-1]["step"] < 60
    assert found[-1]["validation/reward"] > found[-1]["validation/judge"]
    favourite = max(said, key=said.__getitem__)
    assert favourite < found[-1]["step"]
    kept = task.finish(tmp_path, PROVENANCE, "it was fooled")
    assert (kept.step, kept.stopped) == (favourite, "it was fooled")
    network, provenance = load_network(tmp_path)
    is_start = all(torch.equal(network.state_dict()[name], start[name]) for name in start)
    assert is_start == (favourite == 0)
    assert provenance["steps_done"] == provenance["kept_step"] == favourite
    assert provenance["stopped"] == "it was fooled"
    assert provenance["validation"] == kept.figures
    assert provenance["run"] == PROVENANCE["run"]


def test_the_judges_favourite_is_kept(make: Making, tmp_path: Path) -> None:
    task = make(settings("flow_grpo", **PLEASING), Whiteness(1.0), Whiteness(1.0))
    run(task, tmp_path)
    said = judged(tmp_path)
    kept = task.finish(tmp_path, PROVENANCE, None)
    assert kept.step == max(said, key=said.__getitem__)
    assert kept.figures["judge"] == max(said.values())
    stored, provenance = load_network(tmp_path)
    assert provenance["steps_done"] == kept.step
    with torch.no_grad():
        again = task.validate(stored)  # type: ignore[arg-type]  # a restorer, as was saved
    assert again["judge"] == pytest.approx(kept.figures["judge"], abs=1e-6)


# Settings.


def test_the_configuration_in_the_repository() -> None:
    given = read_config(RlRun, CONFIGS / "restorer-rl.yaml", [])
    assert given.bridge.share > 0
    restorer = given.restorer(RESTORER)
    assert restorer.network == RESTORER
    assert (restorer.loop, restorer.loss, restorer.seed) == (given.loop, given.loss, given.seed)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["objective=ppo"], "objective"),
        (["group=1"], "group"),
        (["objective=flow_grpo", "steps=1"], "flow_grpo draws all steps but the last; set 2 or 4"),
        (["steps=3"], "steps"),
        (["inner=2"], "grpo updates once for each rollout; set 1"),
        (["objective=flow_grpo", "inner=3"], r"checkpoint_every is 50; expected a multiple of inn"),
        (["loop.validate_every=75"], r"validate_every is 75; expected a multiple of loop\.checkpo"),
        (["sft_share=0"], "sft_share"),
        (["bridge.share=0"], "the bridge would be forgotten"),
        (["patch=128"], "patch"),
        (["noise=0"], "noise"),
        (["network.scale=2"], "network"),
    ],
)
def test_bad_settings(pairs: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_config(RlRun, None, pairs)
