"""Phase 3 on the edge: a trained restorer with a bridge learns from what the reasoner says of it.

For each patch a group of restorations is drawn: the coarse estimate, and from it the bridge,
started with noise. The reward is what the frozen reasoner finds them better by. The objective is
GRPO or Flow-GRPO (:mod:`rirf_training.rl.objectives`), beside a share of the loss that the restorer
was trained with before, which :class:`rirf_training.restorer_task.RestorerTask` computes.

The bridge's time runs from the estimate (0) to the clean frame (1), a flow's from data (0) to
noise (1). In coordinates u = (state - estimate) / sigma the bridge starts at a unit Gaussian and is
a flow from noise to data (clean - estimate) / sigma: flow time is 1 - bridge time, and the velocity
is minus the network's update over sigma.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rirf.files import write_atomic
from rirf_training.bridge import coarse, leap, update
from rirf_training.config import RlRun
from rirf_training.loop import Batch, generator
from rirf_training.networks.checkpoint import load_network, save_network
from rirf_training.networks.restorer import Restorer
from rirf_training.restorer_task import RestorerTask
from rirf_training.rl.figure import plot_rewards
from rirf_training.rl.guard import RewardHacked, Validation, best, hacked
from rirf_training.rl.objectives import (
    SDE_LEVEL,
    SdeStep,
    advantages,
    clipped_loss,
    gaussian_kl,
    grpo_loss,
    log_probability,
    ratio,
    sde_step,
)
from rirf_training.rl.reward import Severity, severity_reward

__all__ = ["EdgeRlTask", "Kept"]

# Apart from all steps of the data: the random numbers that sample restorations.
_SAMPLING = 2**59
_BEST = "best"
_START = "start.json"
_METRICS = "metrics.jsonl"  # written by the loop before it asks to save
_PREFIX = "validation/"


@dataclass(frozen=True)
class Kept:
    """What is left of a run: which weights, their figures, and why it ended early, if it did."""

    step: int
    figures: dict[str, float]
    stopped: str | None


@dataclass(frozen=True)
class _Rollout:
    """A group's way over the bridge, for the updates that follow.

    Attributes:
        rows: the batch, each sample repeated as often as a group is large.
        estimate: (B N, 3, H, W).
        states: in the coordinates of the module's text, before each drawn step and after the last.
        log_probabilities: (B N,) of each drawn step, when it was drawn.
        advantage: (B, N).
        shown: figures.
    """

    rows: Batch
    estimate: Tensor
    states: list[Tensor]
    log_probabilities: list[Tensor]
    advantage: Tensor
    shown: dict[str, float]


class EdgeRlTask:
    """See the module's text, and :class:`rirf_training.loop.Task` for the methods."""

    def __init__(self, run: RlRun, base: RestorerTask, reward: Severity, judge: Severity) -> None:
        """``base`` has the weights to start from; ``judge`` is another reasoner than the reward's.

        The reward and the judge may be moved to another device, so nobody else uses them.
        """
        self.run = run
        self.base = base
        self.network = base.network
        self.reference = copy.deepcopy(base.network).eval().requires_grad_(False)
        self._severities = {"reward": reward, "judge": judge}
        self._before: dict[str, list[Tensor]] = {}
        self._last: tuple[int, Batch] | None = None
        self._rollout: _Rollout | None = None
        self._begun: dict[str, float] | None = None

    # What the loop asks for.

    def batch(self, step: int) -> Batch:
        """The restorer's batch, the same for all updates of a rollout, and the rollout's seed."""
        number, inner = divmod(step, self.run.inner)
        if self._last is None or self._last[0] != number:
            self._last = (number, self.base.batch(number))
        seed = generator(self.run.seed, _SAMPLING + number).integers(2**62)
        return {**self._last[1], "seed": torch.tensor(int(seed)), "inner": torch.tensor(inner)}

    def describe(self, step: int) -> dict[str, Any]:
        """Which draws a step's batch was cut from, for the record of a run that broke."""
        return self.base.describe(step // self.run.inner)

    def loss(self, network: Restorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The objective, and a share of the loss the restorer was trained with before."""
        # The latter first: autocast keeps each weight's cast from its first use, which must not be
        # one without gradient.
        supervised, shown = self.base.loss(network, batch)
        if self.run.objective == "grpo":
            reinforced, more = self._grpo(network, batch)
        else:
            reinforced, more = self._flow_grpo(network, batch)
        share = self.run.sft_share
        return share * supervised + (1.0 - share) * reinforced, {**shown, **more}

    def validate(self, network: Restorer) -> dict[str, float]:
        """The restorer's figures, and the mean reward of the held-out patches by both reasoners.

        Rewards are those of the mode of ``steps``, without noise, with the reasoner's diagnoses.
        """
        figures = self.base.validate(network)
        gained: dict[str, list[Tensor]] = {name: [] for name in self._severities}
        device = next(network.parameters()).device
        size = self.run.loop.batch
        for number, start in enumerate(range(0, len(self.base.held), size)):
            positions = self.base.held[start : start + size]
            batch = self.base.held_batch(positions, self.base.predicted, device)
            restored = leap(network, batch, coarse(network, batch), self.run.steps)
            for name, severity in self._severities.items():
                known = self._before.setdefault(name, [])
                if len(known) == number:  # the degraded patches are the same every time
                    known.append(severity(batch["degraded"]))
                gained[name].append(severity_reward(known[number], severity(restored)))
        return figures | {name: float(torch.cat(some).mean()) for name, some in gained.items()}

    def save(self, folder: Path, network: Restorer, provenance: dict[str, Any]) -> None:
        """Write the checkpoint; after a validation also the best one, and a figure.

        Raises:
            RewardHacked: see :func:`rirf_training.rl.guard.hacked`.
        """
        save_network(folder, network, provenance)
        rows = self._rows(folder)
        if rows[-1]["step"] != provenance["steps_done"]:
            return
        history = _history(rows)
        peak = best(history)
        if peak.step == history[-1].step:
            save_network(folder / _BEST, network, provenance)
        write_atomic(folder / _START, json.dumps(self._start(), indent=2).encode())
        plot_rewards(rows, peak.step, folder / "rewards.png")
        if hacked(history, self.run.margin, self.run.patience):
            last = history[-1]
            raise RewardHacked(
                f"after step {last.step}: the judge's reward is {last.judge:.3f}, for "
                f"{self.run.patience} validations more than {self.run.margin:g} below the "
                f"{peak.judge:.3f} of step {peak.step}, while the reward itself rose from "
                f"{peak.reward:.3f} to {last.reward:.3f}"
            )

    # What the run asks for.

    def finish(self, folder: Path, provenance: dict[str, Any], stopped: str | None) -> Kept:
        """Leave the weights that the judge liked best as the checkpoint of a run that has ended.

        Those may be the weights it started with: step 0.
        """
        rows = self._rows(folder)
        peak = best(_history(rows))
        figures = next(_figures(row) for row in rows if row["step"] == peak.step)
        network, stored = self.reference, {**provenance, "steps_done": 0}
        if peak.step > 0:
            loaded, stored = load_network(folder / _BEST)
            network.load_state_dict(loaded.state_dict())
        ended = {"validation": figures, "kept_step": peak.step, "stopped": stopped}
        save_network(folder, network, {**stored, **ended})
        return Kept(peak.step, figures, stopped)

    def _start(self) -> dict[str, float]:
        """Validation figures of the weights that the run started with."""
        if self._begun is None:
            device = next(self.network.parameters()).device
            with torch.no_grad():
                self._begun = self.validate(self.reference.to(device))
        return self._begun

    def _rows(self, folder: Path) -> list[dict[str, float]]:
        """The start as a row of step 0, and the rows that the loop has written."""
        begun = {f"{_PREFIX}{name}": figure for name, figure in self._start().items()}
        file = folder / _METRICS
        lines = file.read_text().splitlines() if file.exists() else []
        return [{"step": 0, **begun}, *(json.loads(line) for line in lines)]

    # The objectives.

    def _rewards(self, degraded: Tensor, restored: Tensor) -> Tensor:
        """Rewards (B, N) of restorations (B N, 3, H, W)."""
        severity = self._severities["reward"]
        after = severity(restored).reshape(len(degraded), self.run.group, -1)
        return severity_reward(severity(degraded)[:, None], after)

    def _group(self, network: Restorer, batch: Batch) -> tuple[Batch, Tensor, torch.Generator]:
        """The batch and its coarse estimates, repeated for a group, and a rollout's noise source.

        The estimate is common to a group and nothing is drawn before it: no gradient.
        """
        with torch.no_grad():
            estimate = coarse(network, batch)
        names = ("degraded", "clean", "transmission", "condition")
        rows = {name: batch[name].repeat_interleave(self.run.group, dim=0) for name in names}
        random = torch.Generator(device=estimate.device).manual_seed(int(batch["seed"]))
        return rows, estimate.repeat_interleave(self.run.group, dim=0), random

    def _grpo(self, network: Restorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        rows, estimate, random = self._group(network, batch)
        noise = _normal(estimate, random)
        restored = leap(network, rows, estimate + self.run.noise * noise, self.run.steps)
        rewards = self._rewards(batch["degraded"], restored)
        advantage = advantages(rewards)
        errors = ((restored - rows["clean"]) ** 2).mean(dim=(1, 2, 3)).reshape(rewards.shape)
        loss = grpo_loss(errors, advantage, self.run.tau)
        return loss, {**_shown(rewards, advantage), "reinforced": float(loss.detach())}

    def _flow_grpo(self, network: Restorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        if int(batch["inner"]) == 0:
            with torch.no_grad():
                self._rollout = self._sample(network, batch)
        rollout = self._rollout
        if rollout is None:
            raise RuntimeError("a rollout's later updates came before its first")
        shape = rollout.advantage.shape
        policy, divergence, ratios = [], [], []
        for number, sampled in enumerate(rollout.log_probabilities):
            state, following = rollout.states[number : number + 2]
            step = self._step(network, rollout.rows, rollout.estimate, state, number)
            found = ratio(log_probability(following, step), sampled).reshape(shape)
            policy.append(clipped_loss(found, rollout.advantage, self.run.clip))
            ratios.append(found.detach())
            if self.run.kl > 0:
                with torch.no_grad():
                    reference = self.reference.to(state.device)
                    usual = self._step(reference, rollout.rows, rollout.estimate, state, number)
                divergence.append(gaussian_kl(step, usual.mean).mean())
        loss = torch.stack(policy).mean()
        kl = torch.stack(divergence).mean() if divergence else torch.zeros_like(loss)
        off = (torch.stack(ratios) - 1.0).abs()
        return loss + self.run.kl * kl, {
            **rollout.shown,
            "reinforced": float(loss.detach()),
            "kl": float(kl.detach()),
            "off_policy": float(off.mean()),
            "clipped": float((off > self.run.clip).float().mean()),
        }

    def _sample(self, network: Restorer, batch: Batch) -> _Rollout:
        """Draw a group over the bridge, all steps but the last, which leaves no noise behind."""
        rows, estimate, random = self._group(network, batch)
        state = _normal(estimate, random)
        states, log_probabilities = [state], []
        for number in range(self.run.steps - 1):
            step = self._step(network, rows, estimate, state, number)
            state = step.mean + step.deviation * _normal(estimate, random)
            states.append(state)
            log_probabilities.append(log_probability(state, step))
        last = self._step(network, rows, estimate, state, self.run.steps - 1, level=0.0)
        rewards = self._rewards(batch["degraded"], estimate + self.run.noise * last.mean)
        advantage = advantages(rewards)
        shown = _shown(rewards, advantage)
        return _Rollout(rows, estimate, states, log_probabilities, advantage, shown)

    def _step(
        self,
        network: Restorer,
        rows: Batch,
        estimate: Tensor,
        state: Tensor,
        number: int,
        level: float = SDE_LEVEL,
    ) -> SdeStep:
        """A step of the flow that the module's text describes; ``number`` counts from the noise."""
        size = torch.full((len(state),), 1.0 / self.run.steps, device=state.device)
        along = number * size
        moved = update(network, rows, estimate + self.run.noise * state, along, size)
        time = 1.0 - along
        return sde_step(state, -moved / self.run.noise, time, time - size, level)


def _normal(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random, device=like.device)


def _shown(rewards: Tensor, advantage: Tensor) -> dict[str, float]:
    return {
        "reward": float(rewards.mean()),
        "spread": float(rewards.std(dim=1, correction=0).mean()),
        "groups": float(advantage.ne(0).any(dim=1).float().mean()),
    }


def _figures(row: dict[str, float]) -> dict[str, float]:
    return {
        key.removeprefix(_PREFIX): value for key, value in row.items() if key.startswith(_PREFIX)
    }


def _history(rows: list[dict[str, float]]) -> list[Validation]:
    found = [(int(row["step"]), _figures(row)) for row in rows]
    return [Validation(step, row["reward"], row["judge"]) for step, row in found]
