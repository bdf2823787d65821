"""Training configurations: typed, read from YAML, overridden by ``key=value`` pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rirf.errors import RirfError
from rirf.views import CROP_SIZE
from rirf_training.networks.reasoner import ReasonerConfig
from rirf_training.networks.restorer import RestorerConfig

__all__ = [
    "BridgeConfig",
    "LoopConfig",
    "LossConfig",
    "ReasonerRun",
    "RestorerRun",
    "RlRun",
    "TrainingError",
    "read_config",
]


class TrainingError(RirfError):
    """A training run cannot start or go on; the message says why and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoopConfig(_Strict):
    """What every run has.

    Attributes:
        steps: optimiser steps of the whole run.
        batch: samples a step.
        learning_rate: peak of AdamW's rate; linear warm-up, then cosine to 1 % of it.
        warmup: steps of warm-up.
        weight_decay: AdamW's decay of weight matrices.
        clip: largest gradient norm.
        ema: decay of the averaged weights that are validated and kept.
        precision: ``bf16`` (autocast) or ``fp32``.
        device: ``auto`` takes CUDA where there is some, else the CPU.
        explode: a loss this many times the largest of the last hundred stops the run.
        validate_every, checkpoint_every: in steps.
        validation_samples: validation samples used.
    """

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["bf16", "fp32"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    explode: float = Field(default=30.0, gt=1)
    validate_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=250, gt=0)
    validation_samples: int = Field(default=256, gt=0)


class _Run(_Strict):
    """What both runs have.

    Attributes:
        fresh: degrade clean images anew for every step. Else each step chooses from ``draws``
            rendered versions of each. Validation and calibration keep their rendered draws.
        tone: see :class:`rirf_training.data.fresh.FreshDraws`; rendered draws have none.
        draws: degraded versions of each clean image that are rendered.
        splits: folders of the data root that are read.
        validation_share: share of the images kept for validation and calibration.
    """

    seed: int = 0
    fresh: bool = True
    tone: float = Field(default=0.15, ge=0, le=1)
    draws: int = Field(default=12, gt=0)
    splits: tuple[str, ...] = ("train", "val")
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    loop: LoopConfig


class ReasonerRun(_Run):
    """A reasoner run: the convolutions see ``crops`` of the eight crops a step (random ones)."""

    network: ReasonerConfig = ReasonerConfig()
    crops: int = Field(default=4, gt=0, le=8)
    loop: LoopConfig = LoopConfig(steps=1500, batch=32, learning_rate=1e-3)


class BridgeConfig(_Strict):
    """Training of the bridge from the coarse estimate to the clean frame.

    Attributes:
        share: share of a batch that also trains the bridge; 0 trains the coarse leap alone.
        weight: of the bridge's loss beside the coarse leap's.
        noise: largest standard deviation of the noise that the bridge starts with.
    """

    share: float = Field(default=0.0, ge=0, le=1)
    weight: float = Field(default=0.5, ge=0)
    noise: float = Field(default=0.05, ge=0, le=1)


class LossConfig(_Strict):
    """What the coarse leap is trained for; losses are in :mod:`rirf_training.losses`.

    Attributes:
        pixel: ``l1``, ``charbonnier``, ``mse`` or ``log`` (of the squared error: PSNR itself).
        ssim: weight of 1 - SSIM beside it.
        frequency: weight of the spectra's difference beside it.
        teacher: weight of the pixel loss against a teacher's output, if there is a teacher; the
            loss against the clean frame then weighs one minus this.
    """

    pixel: Literal["l1", "charbonnier", "mse", "log"] = "l1"
    ssim: float = Field(default=0.15, ge=0)
    frequency: float = Field(default=0.0, ge=0)
    teacher: float = Field(default=0.5, ge=0, le=1)


class RestorerRun(_Run):
    """A restorer run.

    Attributes:
        patch: side of the square training patches, a multiple of the network's.
        reuse: patches that each fresh draw gives, spread over steps; more is faster.
        predicted: share of samples conditioned on the reasoner's diagnosis instead of the truth.
        dropped: share of samples without any diagnosis.
        recorded: share of each batch's patches that are cut from recorded outputs of another
            restorer, if there are any. Their target is what that one made, blended with the clean
            frame where it is known: ``loss.teacher`` of the one, the rest of the other.
    """

    network: RestorerConfig = RestorerConfig()
    patch: int = Field(default=192, gt=0)
    reuse: int = Field(default=4, gt=0, le=16)
    predicted: float = Field(default=0.5, ge=0, le=1)
    dropped: float = Field(default=0.1, ge=0, le=1)
    recorded: float = Field(default=0.25, ge=0, le=1)
    loss: LossConfig = LossConfig()
    bridge: BridgeConfig = BridgeConfig()
    loop: LoopConfig = LoopConfig(steps=20000, batch=8, learning_rate=1e-3)


class RlRun(_Run):
    """A reinforcement run of a restorer that has a bridge; its network is that of ``--start``.

    Attributes:
        objective: ``grpo`` (Algorithm 1 of R&R) or ``flow_grpo``; see
            :mod:`rirf_training.rl.objectives`.
        group: restorations of each patch.
        steps: of the way over the bridge: 1, 2 or 4; Flow-GRPO needs at least 2.
        noise: standard deviation of the noise the bridge starts with.
        sft_share: weight of the loss that the restorer was trained with before; the objective's is
            one minus this.
        tau: GRPO's temperature.
        clip: how far Flow-GRPO's ratios may leave 1.
        kl: weight of Flow-GRPO's divergence from the weights it started with.
        inner: Flow-GRPO's updates for each rollout.
        margin: of reward (1 is 100 points of severity), by which the judge's may fall below its
            best; see :func:`rirf_training.rl.guard.hacked`.
        patience: validations for which it may do so.
        patch: as a restorer run's, but no smaller than two of a reasoner's crops.
        reuse, predicted, dropped, loss, bridge: as a restorer run's; the bridge has a share.
    """

    objective: Literal["grpo", "flow_grpo"] = "grpo"
    group: int = Field(default=4, ge=2)
    steps: Literal[1, 2, 4] = 2
    noise: float = Field(default=0.05, gt=0, le=1)
    sft_share: float = Field(default=0.5, gt=0, lt=1)
    tau: float = Field(default=0.1, gt=0)
    clip: float = Field(default=1e-3, gt=0, lt=1)
    kl: float = Field(default=0.04, ge=0)
    inner: int = Field(default=1, gt=0)
    margin: float = Field(default=0.02, ge=0)
    patience: int = Field(default=3, gt=0)
    patch: int = Field(default=192, ge=2 * CROP_SIZE)
    reuse: int = Field(default=4, gt=0, le=16)
    predicted: float = Field(default=0.75, ge=0, le=1)
    dropped: float = Field(default=0.1, ge=0, le=1)
    loss: LossConfig = LossConfig()
    bridge: BridgeConfig = BridgeConfig(share=0.5)
    loop: LoopConfig = LoopConfig(
        steps=1000,
        batch=4,
        learning_rate=2e-5,
        warmup=50,
        ema=0.99,
        validate_every=100,
        checkpoint_every=50,
    )

    @model_validator(mode="after")
    def _fits(self) -> RlRun:
        if self.objective == "flow_grpo" and self.steps < 2:
            raise ValueError("steps is 1: flow_grpo draws all steps but the last; set 2 or 4")
        if self.objective == "grpo" and self.inner > 1:
            raise ValueError(f"inner is {self.inner}: grpo updates once for each rollout; set 1")
        if self.bridge.share == 0:
            raise ValueError("bridge.share is 0: the bridge would be forgotten; set more, e.g. 0.5")
        # A rollout lives in memory only, and what is judged best must be stored at that moment.
        for name, shorter, longer in (
            ("inner", self.inner, "checkpoint_every"),
            ("loop.checkpoint_every", self.loop.checkpoint_every, "validate_every"),
        ):
            if getattr(self.loop, longer) % shorter:
                raise ValueError(
                    f"loop.{longer} is {getattr(self.loop, longer)}; expected a multiple of "
                    f"{name}, {shorter}"
                )
        return self

    def restorer(self, network: RestorerConfig) -> RestorerRun:
        """The run of a restorer with this network whose batches, loss and figures it takes."""
        shared = type(self).model_fields.keys() & RestorerRun.model_fields.keys()
        return RestorerRun(network=network, **{name: getattr(self, name) for name in shared})


Run = TypeVar("Run", bound=_Run)


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise TrainingError(f"--set {key}: {parent} is a value, not a section")
        tree = branch
    tree[leaf] = value


def _merge(tree: dict[str, Any], more: dict[str, Any]) -> None:
    """Put ``more`` over ``tree``, section by section."""
    for key, value in more.items():
        inner = tree.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            _merge(inner, value)
        else:
            tree[key] = value


def read_config(kind: type[Run], file: Path | None, overrides: Sequence[str]) -> Run:
    """The run's configuration: defaults, then the YAML file, then ``section.key=value`` pairs.

    Raises:
        TrainingError: unreadable file, unknown key, or a value out of range.
    """
    tree: dict[str, Any] = kind.model_validate({}).model_dump()
    if file is not None:
        try:
            given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TrainingError(f"{file}: cannot be read as YAML ({error})") from error
        if not isinstance(given, dict):
            raise TrainingError(f"{file}: expected a mapping of keys, got {type(given).__name__}")
        _merge(tree, given)
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise TrainingError(f"--set {pair!r}: expected key=value, e.g. loop.steps=2000")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TrainingError(f"--set {pair!r}: the value is not YAML ({error})") from error
        _assign(tree, key, value)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise TrainingError(f"configuration {file or 'from --set'}: {error}") from error
