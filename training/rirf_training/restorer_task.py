"""Phase 2 on the edge: the restorer learns the coarse leap from degraded frames and diagnoses.

Conditions are mixed: recorded truths, what the reasoner itself reads off the frame, and none at
all, so that the restorer is at home with the diagnoses it will really get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rirf import conditioning
from rirf.images import to_float
from rirf.reasoner import Reading
from rirf.views import Views, extract
from rirf_training.config import RestorerRun, TrainingError
from rirf_training.data.draw import MAP_SIZE, Draw
from rirf_training.data.draws import DrawSet
from rirf_training.data.fresh import FreshDraws
from rirf_training.loop import Batch, generator
from rirf_training.losses import ssim
from rirf_training.networks.checkpoint import save_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer
from rirf_training.reasoner_task import read_views

__all__ = ["Conditions", "RestorerTask"]

_COARSE_TIME = -1.0
_COARSE_STEP = 1.0
_Kind: TypeAlias = Literal["none", "true", "predicted"]


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


@dataclass
class _Patch:
    """A patch of a frame of ``shape``, cut at ``window``; without a condition at first."""

    degraded: NDArray[np.float32]
    clean: NDArray[np.float32]
    window: tuple[slice, slice]
    shape: tuple[int, ...]
    vector: NDArray[np.float32]
    transmission: NDArray[np.float32]

    def condition(self, vector: NDArray[np.float32], coarse: NDArray[np.float32]) -> None:
        """Take a diagnosis: its vector, and its (32, 32) map of the whole frame."""
        self.vector = vector
        if coarse.min() < 1.0:
            height, width = self.shape[:2]
            full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
            self.transmission = np.asarray(full, dtype=np.float32)[self.window]


def _cut(
    degraded: NDArray[np.uint8], clean: NDArray[np.uint8], window: tuple[slice, slice]
) -> _Patch:
    rows, columns = window
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return _Patch(
        degraded=to_float(np.ascontiguousarray(degraded[window])).transpose(2, 0, 1),
        clean=to_float(np.ascontiguousarray(clean[window])).transpose(2, 0, 1),
        window=window,
        shape=degraded.shape,
        vector=np.zeros(conditioning.SIZE, dtype=np.float32),
        transmission=np.ones(size, dtype=np.float32),
    )


def _stack(patches: Sequence[_Patch]) -> Batch:
    arrays = {
        "degraded": [patch.degraded for patch in patches],
        "clean": [patch.clean for patch in patches],
        "transmission": [patch.transmission[None] for patch in patches],
        "condition": [patch.vector for patch in patches],
    }
    return {name: torch.from_numpy(np.stack(values)) for name, values in arrays.items()}


class RestorerTask:
    """Random patches with a condition each; see :class:`rirf_training.loop.Task`."""

    def __init__(
        self,
        run: RestorerRun,
        draws: DrawSet,
        true: Conditions,
        predicted: Conditions | None,
        fresh: FreshDraws | None = None,
        reasoner: Reasoner | None = None,
    ) -> None:
        """``true`` and ``predicted`` are the conditions of ``draws``.

        ``fresh`` is trained on instead of their training share, when given, with the readings that
        ``reasoner`` makes of its frames.
        """
        torch.manual_seed(run.seed)
        self.network = Restorer(run.network)
        if run.patch % self.network.multiple:
            raise TrainingError(
                f"patch is {run.patch}; expected a multiple of {self.network.multiple} for this "
                "network"
            )
        if run.predicted > 0 and (predicted is None or (fresh and reasoner is None)):
            raise TrainingError(
                f"predicted is {run.predicted}, which needs a reasoner: give --reasoner "
                "CHECKPOINT, or set predicted=0"
            )
        self.run = run
        self.draws = draws
        self.true = true
        self.predicted = predicted
        self.fresh = fresh
        self.reasoner = reasoner
        self.training, held = draws.split(run.validation_share)
        self.held = held[:: max(1, len(held) // run.loop.validation_samples)]

    def _window(
        self, random: np.random.Generator, shape: tuple[int, ...], name: str
    ) -> tuple[slice, slice]:
        """A random place of a patch in a frame of this shape."""
        height, width = shape[:2]
        side = self.run.patch
        if height < side or width < side:
            raise TrainingError(
                f"{name} is {width}x{height}, smaller than the patch of {side}: set a smaller patch"
            )
        top = int(random.integers(0, height - side + 1))
        left = int(random.integers(0, width - side + 1))
        return np.s_[top : top + side, left : left + side]

    def _patch(
        self, position: int, random: np.random.Generator, conditions: Conditions | None
    ) -> _Patch:
        """A random patch of a rendered draw."""
        degraded, clean = self.draws.degraded(position), self.draws.clean(position)
        name = self.draws.names[position // self.draws.draws]
        window = self._window(random, degraded.shape, name)
        patch = _cut(degraded, clean, window)
        if conditions is not None:
            patch.condition(conditions.vectors[position], conditions.maps[position])
        return patch

    def _kind(self, random: np.random.Generator) -> _Kind:
        if random.random() < self.run.dropped:
            return "none"
        return "predicted" if random.random() < self.run.predicted else "true"

    def _rendered(self, random: np.random.Generator) -> list[_Patch]:
        patches = []
        for position in random.choice(self.training, self.run.loop.batch):
            kind = self._kind(random)
            conditions = {"none": None, "true": self.true, "predicted": self.predicted}[kind]
            patches.append(self._patch(int(position), random, conditions))
        return patches

    def _freshly(self, fresh: FreshDraws, random: np.random.Generator) -> list[_Patch]:
        orders = fresh.orders(random, self.run.loop.batch)
        kinds = [self._kind(random) for _ in orders]
        windows = [
            self._window(random, fresh.shape(order), fresh.names[order.image]) for order in orders
        ]

        def work(draw: Draw, place: int) -> tuple[_Patch, Views | None]:
            patch = _cut(draw.degraded, draw.clean, windows[place])
            if kinds[place] == "true":
                patch.condition(conditioning.encode(draw.diagnosis), draw.transmission)
            return patch, extract(draw.degraded) if kinds[place] == "predicted" else None

        made = fresh.map(work, orders)
        waiting = [(patch, views) for patch, views in made if views is not None]
        if waiting and self.reasoner is not None:
            mixed = self.run.loop.precision == "bf16"
            seen = [views for _, views in waiting]
            read = Conditions.read(read_views(self.reasoner, seen, mixed=mixed))
            for (patch, _), vector, coarse in zip(waiting, read.vectors, read.maps, strict=True):
                patch.condition(vector, coarse)
        return [patch for patch, _ in made]

    def batch(self, step: int) -> Batch:
        """Patches, conditions and targets of a step."""
        random = generator(self.run.seed, step)
        if self.fresh is not None:
            return _stack(self._freshly(self.fresh, random))
        return _stack(self._rendered(random))

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
                batch = _stack(
                    [
                        self._patch(int(p), generator(self.run.seed, int(p)), conditions)
                        for p in chosen
                    ]
                )
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
