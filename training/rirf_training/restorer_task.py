"""Phase 2 on the edge: the restorer learns the coarse leap and, if asked, the bridge after it.

Conditions are mixed: recorded truths, what the reasoner itself reads off the frame, and none at
all, so that the restorer is at home with the diagnoses it will really get.

Fresh draws are used more than once: each step makes a few, which give patches to the next steps
too. What is drawn stays a function of seed and step alone.
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
from rirf.diagnosis import Diagnosis
from rirf.images import to_float
from rirf.reasoner import Reading, flat_transmission
from rirf.views import Views, extract
from rirf_training.bridge import STEPS, bridge_loss, coarse, leap
from rirf_training.config import RestorerRun, TrainingError
from rirf_training.data.draw import MAP_SIZE, Draw
from rirf_training.data.draws import DrawSet
from rirf_training.data.fresh import FreshDraws, Order
from rirf_training.data.recorded import RecordedPairs
from rirf_training.loop import Batch, generator
from rirf_training.losses import PIXEL_LOSSES, frequency, ssim
from rirf_training.networks.checkpoint import save_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer
from rirf_training.reasoner_task import read_views

__all__ = ["Conditions", "Recorded", "RestorerTask"]

_Kind: TypeAlias = Literal["none", "true", "predicted"]
# Fresh draws stay in use for this many steps.
_MEMORY = 16
_SSIM_STRIDE = 3  # of the loss; validation takes every window
# Apart from all steps: the random numbers that choose the draws made at a step.
_DRAWING = 2**61
# Likewise: those that choose recorded pairs for a step.
_RECORDING = 2**60


class Conditions:
    """Condition vectors (N, 40) and transmission maps (N, 32, 32) of every frame of a set."""

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
    def given(cls, diagnoses: Sequence[Diagnosis]) -> Conditions:
        """Diagnoses that came without maps: the runtime too takes their mean transmission then."""
        return cls.read([Reading(given, flat_transmission(given)) for given in diagnoses])

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


@dataclass(frozen=True)
class Recorded:
    """Another restorer's outputs, with what it was told and what the reasoner reads off them."""

    pairs: RecordedPairs
    true: Conditions
    predicted: Conditions | None


@dataclass(frozen=True)
class _Fresh:
    """A fresh draw, and what the reasoner reads off it."""

    order: Order
    draw: Draw
    true: tuple[NDArray[np.float32], NDArray[np.float32]]
    predicted: tuple[NDArray[np.float32], NDArray[np.float32]] | None


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
    """Batches in channels-last memory, which convolutions run fastest in."""
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
        teacher: Restorer | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        """``true`` and ``predicted`` are the conditions of ``draws``.

        ``fresh`` is trained on instead of their training share, when given, with the readings that
        ``reasoner`` makes of its frames. A ``teacher``'s outputs are targets beside the clean
        patches. A share of each batch comes from the pairs that are ``recorded``.
        """
        torch.manual_seed(run.seed)
        self.network = Restorer(run.network)
        if run.patch % self.network.multiple:
            raise TrainingError(
                f"patch is {run.patch}; expected a multiple of {self.network.multiple} for this "
                "network"
            )
        if teacher is not None and run.patch % teacher.multiple:
            raise TrainingError(
                f"patch is {run.patch}; expected a multiple of {teacher.multiple} for this teacher"
            )
        unread = recorded is not None and recorded.predicted is None
        if run.predicted > 0 and (predicted is None or (fresh and reasoner is None) or unread):
            raise TrainingError(
                f"predicted is {run.predicted}, which needs a reasoner: give --reasoner "
                "CHECKPOINT, or set predicted=0"
            )
        batch = run.loop.batch
        self._from_pairs = 0 if recorded is None else round(run.recorded * batch)
        if recorded is not None and self._from_pairs == 0:
            raise TrainingError(
                f"recorded is {run.recorded}, which is no patch in a batch of {batch}: set "
                f"recorded={1 / batch:.2g} or more"
            )
        self.run = run
        self.draws = draws
        self.true = true
        self.predicted = predicted
        self.fresh = fresh
        self.reasoner = reasoner
        # In the layout of the network it teaches, see the training loop.
        self.teacher = (
            teacher if teacher is None else teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        )
        self.recorded = recorded
        self.training, held = draws.split(run.validation_share)
        self.held = held[:: max(1, len(held) // run.loop.validation_samples)]
        self._pool: dict[int, list[_Fresh]] = {}

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

    def _positions(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The rendered draws of a step; the first that its random numbers decide."""
        return random.choice(self.training, self.run.loop.batch - self._from_pairs)

    def _rendered(self, random: np.random.Generator) -> list[_Patch]:
        patches = []
        for position in self._positions(random):
            kind = self._kind(random)
            conditions = {"none": None, "true": self.true, "predicted": self.predicted}[kind]
            patches.append(self._patch(int(position), random, conditions))
        return patches

    def _orders(self, fresh: FreshDraws, generation: int) -> list[Order]:
        """The draws made at a step; those from before the first step have numbers below 0."""
        count = -(-self.run.loop.batch // self.run.reuse)
        return fresh.orders(generator(self.run.seed, _DRAWING + generation), count)

    def _generation(self, fresh: FreshDraws, generation: int) -> list[_Fresh]:
        orders = self._orders(fresh, generation)

        def work(draw: Draw, _: int) -> tuple[Draw, Views | None]:
            return draw, extract(draw.degraded) if self.run.predicted > 0 else None

        made = fresh.map(work, orders)
        read: list[Any] = [None] * len(made)
        seen = [views for _, views in made if views is not None]
        if seen and self.reasoner is not None:
            mixed = self.run.loop.precision == "bf16"
            found = Conditions.read(read_views(self.reasoner, seen, mixed=mixed))
            read = list(zip(found.vectors, found.maps, strict=True))
        return [
            _Fresh(order, draw, (conditioning.encode(draw.diagnosis), draw.transmission), reading)
            for order, (draw, _), reading in zip(orders, made, read, strict=True)
        ]

    def _in_use(self, fresh: FreshDraws, step: int) -> list[_Fresh]:
        """The draws of the last steps; made where they are not there, as after a resume."""
        wanted = range(step - _MEMORY + 1, step + 1)
        self._pool = {key: self._pool[key] for key in wanted if key in self._pool}
        for key in wanted:
            if key not in self._pool:
                self._pool[key] = self._generation(fresh, key)
        return [draw for key in wanted for draw in self._pool[key]]

    def _places(self, random: np.random.Generator, size: int) -> list[int]:
        """The draws in use that give a step's patches; the first that its numbers decide."""
        count = self.run.loop.batch - self._from_pairs
        return [int(place) for place in random.choice(size, count, replace=False)]

    def _freshly(self, fresh: FreshDraws, random: np.random.Generator, step: int) -> list[_Patch]:
        pool = self._in_use(fresh, step)
        patches = []
        for place in self._places(random, len(pool)):
            chosen = pool[place]
            shape, name = chosen.draw.degraded.shape, fresh.names[chosen.order.image]
            window = self._window(random, shape, name)
            patch = _cut(chosen.draw.degraded, chosen.draw.clean, window)
            kind = self._kind(random)
            if kind == "true":
                patch.condition(*chosen.true)
            elif kind == "predicted" and chosen.predicted is not None:
                patch.condition(*chosen.predicted)
            patches.append(patch)
        return patches

    def _pairs(self, recorded: Recorded, random: np.random.Generator) -> list[int]:
        """The recorded pairs of a step; the first that their random numbers decide."""
        chosen = random.integers(0, len(recorded.pairs), self._from_pairs)
        return [int(place) for place in chosen]

    def _recorded(self, recorded: Recorded, random: np.random.Generator) -> list[_Patch]:
        patches = []
        for place in self._pairs(recorded, random):
            pair, name = recorded.pairs.pair(place), recorded.pairs.names[place]
            window = self._window(random, pair.degraded.shape, name)
            patch = _cut(pair.degraded, pair.restored, window)
            if pair.clean is not None:
                weight = np.float32(self.run.loss.teacher)
                truth = _cut(pair.degraded, pair.clean, window).clean
                patch.clean = weight * patch.clean + (1 - weight) * truth
            kind = self._kind(random)
            kinds = {"none": None, "true": recorded.true, "predicted": recorded.predicted}
            conditions = kinds[kind]
            if conditions is not None:
                patch.condition(conditions.vectors[place], conditions.maps[place])
            patches.append(patch)
        return patches

    def batch(self, step: int) -> Batch:
        """Patches, conditions and targets of a step; with a bridge, its random numbers too."""
        random = generator(self.run.seed, step)
        if self.fresh is not None:
            patches = self._freshly(self.fresh, random, step)
        else:
            patches = self._rendered(random)
        if self.recorded is not None:
            choice = generator(self.run.seed, _RECORDING + step)
            patches += self._recorded(self.recorded, choice)
            # Only the first samples of a batch train the bridge: let them be of both kinds.
            patches = [patches[place] for place in choice.permutation(len(patches))]
        batch = _stack(patches)
        count = round(self.run.bridge.share * self.run.loop.batch)
        if count:
            shape = tuple(batch["clean"][:count].shape)
            spread = self.run.bridge.noise * random.random((count, 1, 1, 1), dtype=np.float32)
            noise = spread * random.standard_normal(shape, dtype=np.float32)
            batch["noise"] = torch.from_numpy(noise)
            batch["moment"] = torch.from_numpy(random.integers(0, STEPS, count))
        return batch

    def describe(self, step: int) -> dict[str, Any]:
        """Which draws and pairs a step's batch was cut from, for the record of a run that broke."""
        random = generator(self.run.seed, step)
        found: dict[str, Any] = {}
        if self.fresh is None:
            found["positions"] = self._positions(random).tolist()
        else:
            orders = [
                order
                for generation in range(step - _MEMORY + 1, step + 1)
                for order in self._orders(self.fresh, generation)
            ]
            chosen = [orders[place] for place in self._places(random, len(orders))]
            found["draws"] = self.fresh.describe(chosen)
        if self.recorded is not None:
            places = self._pairs(self.recorded, generator(self.run.seed, _RECORDING + step))
            found["recorded"] = [self.recorded.pairs.names[place] for place in places]
        return found

    def loss(self, network: Restorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The coarse leap's loss, and the bridge's for the share of the batch that trains it."""
        settings, clean = self.run.loss, batch["clean"]
        pixel = PIXEL_LOSSES[settings.pixel]
        restored = coarse(network, batch)
        loss = pixel(restored, clean)
        shown = {"l1": float((restored.detach() - clean).abs().mean())}
        if self.teacher is not None:
            with torch.no_grad():
                taught = coarse(self.teacher.to(clean.device), batch)
            imitated = pixel(restored, taught)
            shown["teacher"] = float(imitated.detach())
            loss = settings.teacher * imitated + (1.0 - settings.teacher) * loss
        similarity = ssim(restored, clean, stride=_SSIM_STRIDE)
        loss = loss + settings.ssim * (1.0 - similarity)
        if settings.frequency > 0:
            loss = loss + settings.frequency * frequency(restored, clean)
        error = ((restored.detach().clamp(0, 1) - clean) ** 2).mean(dim=(1, 2, 3))
        shown["ssim"] = float(similarity.detach())
        shown["psnr"] = float(-10.0 * torch.log10(error.clamp(min=1e-10)).mean())
        if "moment" in batch:
            bridged = bridge_loss(network, batch, restored.detach())
            shown["bridge"] = float(bridged.detach())
            loss = loss + self.run.bridge.weight * bridged
        return loss, shown

    def _restored(self, network: Restorer, batch: Batch) -> dict[str, Tensor]:
        """The batch restored in every mode that is trained."""
        estimate = coarse(network, batch)
        found = {"": estimate}
        if self.run.bridge.share > 0:
            for steps in (1, 2, 4):
                found[f"_{steps}"] = leap(network, batch, estimate, steps)
        return found

    def held_batch(
        self, positions: NDArray[np.int64], conditions: Conditions | None, device: torch.device
    ) -> Batch:
        """Patches of held-out draws, the same ones whenever they are asked for."""
        patches = [
            self._patch(int(position), generator(self.run.seed, int(position)), conditions)
            for position in positions
        ]
        return {name: value.to(device) for name, value in _stack(patches).items()}

    def validate(self, network: Restorer) -> dict[str, float]:
        """PSNR and SSIM of fixed held-out patches, with true, predicted and no diagnosis."""
        figures: dict[str, float] = {}
        kinds = {"true": self.true, "predicted": self.predicted, "none": None}
        device = next(network.parameters()).device
        for name, conditions in kinds.items():
            if name == "predicted" and conditions is None:
                continue
            psnr: dict[str, list[float]] = {}
            similarity: dict[str, list[float]] = {}
            for start in range(0, len(self.held), self.run.loop.batch):
                chosen = self.held[start : start + self.run.loop.batch]
                batch = self.held_batch(chosen, conditions, device)
                for mode, found in self._restored(network, batch).items():
                    restored = found.clamp(0, 1)
                    error = ((restored - batch["clean"]) ** 2).mean(dim=(1, 2, 3))
                    decibels = -10.0 * torch.log10(error.clamp(min=1e-10))
                    psnr.setdefault(mode, []).extend(decibels.tolist())
                    same = float(ssim(restored, batch["clean"])) * len(chosen)
                    similarity.setdefault(mode, []).append(same)
            for mode, values in psnr.items():
                figures[f"{name}{mode}_psnr"] = float(np.mean(values))
                figures[f"{name}{mode}_ssim"] = sum(similarity[mode]) / len(self.held)
        return figures

    def save(self, folder: Path, network: Restorer, provenance: dict[str, Any]) -> None:
        """Write the checkpoint."""
        save_network(folder, network, provenance)
