"""Training configurations: typed, read from YAML, overridden by ``key=value`` pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rirf.errors import RirfError
from rirf_training.networks.reasoner import ReasonerConfig
from rirf_training.networks.restorer import RestorerConfig

__all__ = ["LoopConfig", "ReasonerRun", "RestorerRun", "TrainingError", "read_config"]


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
    validate_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=250, gt=0)
    validation_samples: int = Field(default=256, gt=0)


class _Run(_Strict):
    """What both runs have.

    Attributes:
        fresh: degrade clean images anew for every step. Else each step chooses from ``draws``
            rendered versions of each. Validation and calibration keep their rendered draws.
        draws: degraded versions of each clean image that are rendered.
        splits: folders of the data root that are read.
        validation_share: share of the images kept for validation and calibration.
    """

    seed: int = 0
    fresh: bool = True
    draws: int = Field(default=12, gt=0)
    splits: tuple[str, ...] = ("train", "val")
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    loop: LoopConfig


class ReasonerRun(_Run):
    """A reasoner run: ``crops`` of the eight native crops are seen a step (a random choice)."""

    network: ReasonerConfig = ReasonerConfig()
    crops: int = Field(default=4, gt=0, le=8)
    loop: LoopConfig = LoopConfig(steps=1500, batch=32, learning_rate=1e-3)


class RestorerRun(_Run):
    """A restorer run.

    Attributes:
        patch: side of the square training patches, a multiple of the network's.
        predicted: share of samples conditioned on the reasoner's diagnosis instead of the truth.
        dropped: share of samples without any diagnosis.
        ssim_weight: weight of 1 - SSIM beside the L1 loss.
    """

    network: RestorerConfig = RestorerConfig()
    patch: int = Field(default=128, gt=0)
    predicted: float = Field(default=0.5, ge=0, le=1)
    dropped: float = Field(default=0.1, ge=0, lt=1)
    ssim_weight: float = Field(default=0.15, ge=0)
    loop: LoopConfig = LoopConfig(steps=12000, batch=16, learning_rate=1e-3)


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
