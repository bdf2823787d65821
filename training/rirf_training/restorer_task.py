"""Phase 2 on the edge: the restorer learns the coarse leap from degraded frames and diagnoses.

Conditions are mixed: recorded truths, what the reasoner itself reads off the frame, and none at
all, so that the restorer is at home with the diagnoses it will really get.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rirf import conditioning
from rirf.images import to_float
from rirf.reasoner import Reading
from rirf_training.config import RestorerRun, TrainingError
from rirf_training.data.draws import MAP_SIZE, DrawSet
from rirf_training.loop import Batch, generator
from rirf_training.losses import ssim
from rirf_training.networks.checkpoint import save_network
from rirf_training.networks.restorer import Restorer

__all__ = ["Conditions", "RestorerTask"]

_COARSE_TIME = -1.0
_COARSE_STEP = 1.0


class Conditions:
    """Condition vectors (N, 40) and transmission maps (N, 32, 32) of every draw of a set."""

    def __init__(self, vectors: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        self.vectors = vectors
        self.maps = maps

    @classmethod
    def true(cls, draws: DrawSet) -> Conditions:
        """The recorded truths."""
        vectors = [conditioning.encode(draws.diagnosis(p)) for p in range(len(draws))]
        maps = [draws.transmission(p) for p in range(len(draws))]
        return cls(np.stack(vectors), np.stack(maps))

    @classmethod
    def read(cls, readings: list[Reading]) -> Conditions:
        """What a reasoner read, one reading a draw."""
        size = (MAP_SIZE, MAP_SIZE)
        maps = [
            np.broadcast_to(reading.transmission, size)
            if reading.transmission is not None
            else np.ones(size, dtype=np.float32)
            for reading in readings
        ]
        vectors = [conditioning.encode(reading.diagnosis) for reading in readings]
        return cls(np.stack(vectors), np.stack(maps).astype(np.float32))


class RestorerTask:
    """Random patches with a condition each; see :class:`rirf_training.loop.Task`."""

    def __init__(
        self, run: RestorerRun, draws: DrawSet, true: Conditions, predicted: Conditions | None
    ) -> None:
        torch.manual_seed(run.seed)
        self.network = Restorer(run.network)
        if run.patch % self.network.multiple:
            raise TrainingError(
                f"patch is {run.patch}; expected a multiple of {self.network.multiple} for this "
                "network"
            )
        if run.predicted > 0 and predicted is None:
            raise TrainingError(
                f"predicted is {run.predicted}, which needs a reasoner: give --reasoner "
                "CHECKPOINT, or set predicted=0"
            )
        self.run = run
        self.draws = draws
        self.true = true
        self.predicted = predicted
        self.training, held = draws.split(run.validation_share)
        self.held = held[:: max(1, len(held) // run.loop.validation_samples)]

    def _patch(
        self, position: int, random: np.random.Generator, conditions: Conditions | None
    ) -> dict[str, NDArray[np.float32]]:
        degraded, clean = self.draws.degraded(position), self.draws.clean(position)
        height, width = degraded.shape[:2]
        side = self.run.patch
        if height < side or width < side:
            raise TrainingError(
                f"{self.draws.names[position // self.draws.draws]} is {width}x{height}, smaller "
                f"than the patch of {side}: set a smaller patch"
            )
        top = int(random.integers(0, height - side + 1))
        left = int(random.integers(0, width - side + 1))
        window = np.s_[top : top + side, left : left + side]
        vector = np.zeros(conditioning.SIZE, dtype=np.float32)
        transmission = np.ones((side, side), dtype=np.float32)
        if conditions is not None:
            vector = conditions.vectors[position]
            coarse = conditions.maps[position]
            if coarse.min() < 1.0:
                full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
                transmission = np.asarray(full, dtype=np.float32)[window]
        return {
            "degraded": to_float(np.ascontiguousarray(degraded[window])).transpose(2, 0, 1),
            "clean": to_float(np.ascontiguousarray(clean[window])).transpose(2, 0, 1),
            "transmission": transmission[None],
            "condition": vector,
        }

    def batch(self, step: int) -> Batch:
        """Patches, conditions and targets of a step."""
        random = generator(self.run.seed, step)
        samples = []
        for position in random.choice(self.training, self.run.loop.batch):
            kind = random.random()
            conditions: Conditions | None = self.true
            if kind < self.run.dropped:
                conditions = None
            elif random.random() < self.run.predicted:
                conditions = self.predicted
            samples.append(self._patch(int(position), random, conditions))
        return {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
            for name in samples[0]
        }

    def _restore(self, network: Restorer, batch: Batch) -> Tensor:
        count = batch["degraded"].shape[0]
        time = torch.full((count,), _COARSE_TIME)
        step = torch.full((count,), _COARSE_STEP)
        degraded = batch["degraded"].contiguous(memory_format=torch.channels_last)
        update = network(degraded, degraded, batch["transmission"], batch["condition"], time, step)
        restored: Tensor = degraded + update.float()
        return restored

    def loss(self, network: Restorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """L1 + weight * (1 - SSIM)."""
        restored, clean = self._restore(network, batch), batch["clean"]
        absolute = (restored - clean).abs().mean()
        similarity = ssim(restored, clean)
        loss = absolute + self.run.ssim_weight * (1.0 - similarity)
        error = ((restored.detach().clamp(0, 1) - clean) ** 2).mean(dim=(1, 2, 3))
        psnr = -10.0 * torch.log10(error.clamp(min=1e-10)).mean()
        return loss, {
            "l1": float(absolute.detach()),
            "ssim": float(similarity.detach()),
            "psnr": float(psnr),
        }

    def validate(self, network: Restorer) -> dict[str, float]:
        """PSNR and SSIM of fixed held-out patches, with true, predicted and no diagnosis."""
        figures: dict[str, float] = {}
        kinds = {"true": self.true, "predicted": self.predicted, "none": None}
        for name, conditions in kinds.items():
            if name == "predicted" and conditions is None:
                continue
            psnr, similarity = [], []
            for start in range(0, len(self.held), self.run.loop.batch):
                chosen = self.held[start : start + self.run.loop.batch]
                samples = [
                    self._patch(int(p), generator(self.run.seed, int(p)), conditions)
                    for p in chosen
                ]
                batch = {
                    key: torch.from_numpy(np.stack([sample[key] for sample in samples]))
                    for key in samples[0]
                }
                restored = self._restore(network, batch).clamp(0, 1)
                error = ((restored - batch["clean"]) ** 2).mean(dim=(1, 2, 3))
                psnr += (-10.0 * torch.log10(error.clamp(min=1e-10))).tolist()
                similarity.append(float(ssim(restored, batch["clean"])) * len(chosen))
            figures[f"{name}_psnr"] = float(np.mean(psnr))
            figures[f"{name}_ssim"] = float(np.sum(similarity) / len(self.held))
        return figures

    def save(self, folder: Path, network: Restorer, provenance: dict[str, Any]) -> None:
        """Write the checkpoint."""
        save_network(folder, network, provenance)
