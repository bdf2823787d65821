"""The reward: by how much a reasoner finds a frame less degraded after its restoration.

A reasoner is read as the runtime reads it: an image becomes a uint8 frame, the frame its views. So
nothing is rewarded that the rounding takes away again. Knows no restorer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import rirf
from rirf.diagnosis import EFFECTS
from rirf.images import to_uint8
from rirf.views import extract
from rirf_training.config import TrainingError
from rirf_training.networks.checkpoint import load_network
from rirf_training.networks.reasoner import OUTPUTS, Reasoner

__all__ = [
    "BundleSeverity",
    "NetworkSeverity",
    "Severity",
    "frames",
    "open_severity",
    "severity_reward",
]


class Severity(Protocol):
    """Reads the expected severity of each effect off images."""

    def __call__(self, images: Tensor) -> Tensor:
        """From RGB (M, 3, H, W), clipped to [0, 1], to probability times severity / 100, (M, 4)."""


def frames(images: Tensor) -> list[NDArray[np.uint8]]:
    """RGB (M, 3, H, W) as uint8 BGR frames (H, W, 3), clipped and rounded."""
    arrays = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    return [to_uint8(np.ascontiguousarray(array)) for array in arrays]


def severity_reward(before: Tensor, after: Tensor) -> Tensor:
    """Sum over effects of severity before minus severity after; from (..., 4) to (...)."""
    return (before - after).sum(dim=-1)


class NetworkSeverity:
    """A frozen reasoner, in full precision: samples of a group differ by fractions of a point.

    Args:
        network: the reasoner; nobody else may be using it, it moves to where the images are.
        workers: threads that cut views.
    """

    def __init__(self, network: Reasoner, workers: int = 1) -> None:
        self._network = network.eval().requires_grad_(False)
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="views")

    def __call__(self, images: Tensor) -> Tensor:
        """See :class:`Severity`."""
        views = list(self._pool.map(extract, frames(images)))
        thumbnails = torch.from_numpy(np.stack([view.thumbnail for view in views]))
        crops = torch.from_numpy(np.stack([view.crops for view in views]))
        device = images.device
        self._network.to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            outputs = self._network(thumbnails.to(device), crops.to(device))
        found = dict(zip(OUTPUTS, outputs, strict=True))
        severity: Tensor = found["presence"] * found["severity"] / 100.0
        return severity


class BundleSeverity:
    """A bundle's reasoner through the runtime, which calls an effect of probability < 1/2 absent.

    Raises:
        BundleError, EngineError: see :func:`rirf.load`.
    """

    def __init__(self, bundle: Path) -> None:
        self._pipeline = rirf.load(bundle, threads=torch.get_num_threads())

    @property
    def provenance(self) -> object:
        """How the bundle's reasoner was trained."""
        return self._pipeline.bundle.manifest.provenance.get("reasoner")

    def __call__(self, images: Tensor) -> Tensor:
        """See :class:`Severity`."""
        found = [self._read(frame) for frame in frames(images)]
        return torch.tensor(found, dtype=torch.float32, device=images.device)

    def _read(self, frame: NDArray[np.uint8]) -> Sequence[float]:
        diagnosis = self._pipeline.diagnose(frame)
        effects = [diagnosis.effect(name) for name in EFFECTS]
        return [effect.probability * effect.severity / 100.0 for effect in effects]


def open_severity(judge: Path, reward: Path, workers: int = 1) -> tuple[Severity, str]:
    """The held-out reasoner in ``judge``, a bundle or a checkpoint, and the SHA-256 of its file.

    Raises:
        TrainingError: it is the reward's own (checkpoint ``reward``), or no reasoner.
        BundleError: there is neither a bundle nor a checkpoint that can be read.
    """
    network, provenance = load_network(reward)
    manifest, weights = judge / "manifest.json", judge / "model.safetensors"
    found: Severity
    if manifest.is_file():
        found = BundleSeverity(judge)
        same = found.provenance == provenance
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    else:
        held, _ = load_network(judge)
        if not isinstance(held, Reasoner):
            raise TrainingError(
                f"{judge} holds a {held.config.kind}; --judge takes a bundle or a reasoner"
            )
        same = _equal(held, network)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        found = NetworkSeverity(held, workers)
    if same:
        raise TrainingError(
            f"{judge} is the reasoner that gives the reward ({reward}), so it would not notice "
            "when that is fooled: give another bundle or another reasoner's checkpoint as --judge"
        )
    return found, digest


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
