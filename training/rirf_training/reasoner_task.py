"""Phase 1 on the edge: the reasoner learns every part of the diagnosis from degraded frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rirf import conditioning
from rirf.diagnosis import EFFECTS
from rirf.images import to_float
from rirf.reasoner import Reading, decode
from rirf.scene import CLASSES
from rirf.views import CROPS, Views, extract
from rirf_training.config import ReasonerRun
from rirf_training.data.draw import MAP_SIZE, Draw
from rirf_training.data.draws import DrawSet
from rirf_training.data.fresh import FreshDraws
from rirf_training.loop import Batch, generator
from rirf_training.losses import laplace_nll, masked_l1
from rirf_training.networks.checkpoint import save_network
from rirf_training.networks.reasoner import OUTPUTS, Reasoner

__all__ = ["ReasonerTask", "calibrate", "read_draws", "read_views"]

# Coverage the severity intervals are calibrated to.
INTERVAL_COVERAGE = 0.9
_CHUNK = 32
# Not a step of any run: the random numbers of the draws that standardise the statistics.
_STANDARDISING = 2**62
_STANDARDISING_DRAWS = 512
_INVERSION_FLOOR = 0.1  # of the transmission, as in the restorer


def _columns(vector: NDArray[np.float32], names: Sequence[str]) -> list[float]:
    return [float(vector[conditioning.index(name)]) for name in names]


_TARGETS = {
    "presence": [f"{name}.probability" for name in EFFECTS],
    "severity": [f"{name}.severity" for name in EFFECTS],
    "light": ["fog.light_red", "fog.light_green", "fog.light_blue"],
    "shake": [
        "shake.cos_twice_direction",
        "shake.sin_twice_direction",
        "shake.length_px",
        "shake.energy",
    ],
    "rain": ["rain.density", "rain.slant_deg", "rain.length_px", "rain.width_px", "rain.opacity"],
    "noise": ["noise.gain", "noise.offset"],
}


def _small(clean: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB float32 (3, 32, 32) of a uint8 BGR frame, area-averaged."""
    size = (MAP_SIZE, MAP_SIZE)
    small = np.asarray(
        cv2.resize(np.ascontiguousarray(clean), size, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )
    return np.ascontiguousarray(to_float(small).transpose(2, 0, 1))


def _sample(draw: Draw) -> dict[str, NDArray[np.float32]]:
    """Views and targets of one draw."""
    views = extract(np.asarray(draw.degraded))
    vector = conditioning.encode(draw.diagnosis)
    shares = np.zeros((len(CLASSES) + 1, 4, 4), dtype=np.float32)
    if draw.layout.classes is not None:
        shares[:-1] = draw.layout.classes
        shares[-1] = np.clip(1.0 - draw.layout.classes.sum(axis=0), 0.0, 1.0)
    sample = {
        name: np.asarray(_columns(vector, columns), dtype=np.float32)
        for name, columns in _TARGETS.items()
    }
    return {
        **sample,
        "thumbnail": views.thumbnail,
        "crops": views.crops,
        "map": draw.transmission[None],
        "clean": _small(draw.clean),
        "street": np.asarray([draw.layout.classes is not None], dtype=np.float32),
        "classes": shares,
        "colours": draw.layout.colours,
        "detail": draw.layout.detail[None],
    }


class ReasonerTask:
    """Batches of views with the true diagnosis as targets; see :class:`rirf_training.loop.Task`."""

    def __init__(self, run: ReasonerRun, draws: DrawSet, fresh: FreshDraws | None = None) -> None:
        """``fresh`` is trained on instead of the training share of ``draws``, when given."""
        self.run = run
        self.draws = draws
        self.fresh = fresh
        self.training, held = draws.split(run.validation_share)
        self.held = held[:: max(1, len(held) // run.loop.validation_samples)]
        torch.manual_seed(run.seed)
        self.network = Reasoner(run.network)
        self._standardise()

    def _standardise(self) -> None:
        random = generator(self.run.seed, _STANDARDISING)
        found = []
        for done in range(0, _STANDARDISING_DRAWS, _CHUNK):
            count = min(_CHUNK, _STANDARDISING_DRAWS - done)
            if self.fresh is not None:
                orders = self.fresh.orders(random, count)
                seen = self.fresh.map(lambda draw, _: extract(draw.degraded).crops, orders)
            else:
                chosen = random.choice(self.training, count)
                frames = (np.asarray(self.draws.degraded(int(position))) for position in chosen)
                seen = [extract(frame).crops for frame in frames]
            # A few at a time: the crops of all draws take half a gigabyte.
            found.append(self.network.statistics(torch.from_numpy(np.stack(seen))))
        self.network.standardise(torch.cat(found))

    def batch(self, step: int) -> Batch:
        """Views and targets of a step's samples; ``places`` says which crops are in."""
        random = generator(self.run.seed, step)
        if self.fresh is not None:
            orders = self.fresh.orders(random, self.run.loop.batch)
            samples = self.fresh.map(lambda draw, _: _sample(draw), orders)
        else:
            chosen = random.choice(self.training, self.run.loop.batch)
            samples = [_sample(self.draws.draw(int(position))) for position in chosen]
        places = np.sort(random.permutation(CROPS)[: self.run.crops])
        arrays = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch["places"] = torch.from_numpy(places)
        return batch

    def describe(self, step: int) -> dict[str, Any]:
        """Which draws a step's batch was made of, for the record of a run that broke."""
        random = generator(self.run.seed, step)
        if self.fresh is None:
            return {"positions": random.choice(self.training, self.run.loop.batch).tolist()}
        return {"draws": self.fresh.describe(self.fresh.orders(random, self.run.loop.batch))}

    def loss(self, network: Reasoner, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum over all heads; parameters count only where their effect is present."""
        raw = network.raw(batch["thumbnail"], batch["crops"], batch["places"])
        raw = {name: value.float() for name, value in raw.items()}
        present = batch["presence"]
        fog, shake, rain, noise = present.unbind(dim=1)
        level = torch.linspace(0.0, 1.0, 5, device=present.device)
        # The noise that matters is sigma over the grey levels: compare the curves too.
        clear = _cleared(raw["light"], torch.sigmoid(raw["map"]), batch)
        curve = (0.3 * raw["noise"][:, :1] * level + raw["noise"][:, 1:] * 20 / 255).abs()
        truth = (0.3 * batch["noise"][:, :1] * level + batch["noise"][:, 1:] * 20 / 255).abs()
        classes = -(batch["classes"] * F.log_softmax(raw["grid"][:, :12], dim=1)).sum(dim=1)
        street = batch["street"][:, 0]
        parts = {
            "presence": F.binary_cross_entropy_with_logits(raw["presence"], present),
            "severity": laplace_nll(raw["severity"], raw["log_scale"], batch["severity"], present),
            "score": masked_mean(raw["severity"], batch["severity"], present),
            "light": masked_l1(raw["light"], batch["light"], torch.maximum(fog, rain)),
            "map": (torch.sigmoid(raw["map"]) - batch["map"]).abs().mean(),
            "clear": masked_l1(clear, batch["clean"], fog),
            "shake": masked_l1(raw["shake"], batch["shake"], shake),
            "rain": masked_l1(raw["rain"], batch["rain"], rain),
            "noise": masked_l1(raw["noise"], batch["noise"], noise),
            "curve": masked_l1(curve, truth, noise),
            "street": F.binary_cross_entropy_with_logits(raw["street"], batch["street"]),
            "classes": (classes.mean(dim=(1, 2)) * street).sum() / street.sum().clamp(min=1.0),
            "colours": (raw["grid"][:, 12:15] - batch["colours"]).abs().mean(),
            "detail": (raw["grid"][:, 15:] - batch["detail"]).abs().mean(),
        }
        total = torch.stack([_WEIGHTS[name] * part for name, part in parts.items()]).sum()
        return total, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, network: Reasoner) -> dict[str, float]:
        """Mean absolute errors in points, presence accuracy, map and light errors."""
        outputs = _run(network, self.draws, self.held)
        truth = _truth(self.draws, self.held)
        present = truth["presence"] > 0.5
        error = np.abs(outputs["severity"] - 100.0 * truth["severity"])
        right = (outputs["presence"] >= 0.5) == present
        lit = present[:, 0] | present[:, 2]
        figures = {}
        for column, name in enumerate(EFFECTS):
            # A small validation share may lack an effect: no figure rather than NaN.
            if present[:, column].any():
                figures[f"{name}_mae"] = float(error[present[:, column], column].mean())
            figures[f"{name}_accuracy"] = float(right[:, column].mean())
        maps = np.stack([self.draws.transmission(int(p)) for p in self.held])
        figures["map_mae"] = float(np.abs(outputs["transmission"][:, 0] - maps).mean())
        if lit.any():
            figures["light_mae"] = float(np.abs(outputs["light"] - truth["light"])[lit].mean())
        return figures

    def save(self, folder: Path, network: Reasoner, provenance: dict[str, Any]) -> None:
        """Write the checkpoint."""
        save_network(folder, network, provenance)


def _cleared(light: Tensor, transmission: Tensor, batch: Batch) -> Tensor:
    """What inverting the fog with these estimates makes of the true fog, (B, 3, 32, 32)."""
    true_light, true = batch["light"][..., None, None], batch["map"]
    foggy = batch["clean"] * true + true_light * (1.0 - true)
    inverted = foggy - light[..., None, None] * (1.0 - transmission)
    return (inverted / transmission.clamp(min=_INVERSION_FLOOR)).clamp(0.0, 1.0)


def masked_mean(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the entries (B, N) where mask is 1."""
    return ((prediction - target).abs() * mask).sum() / mask.sum().clamp(min=1.0)


# Chosen so that each part contributes in the same order of magnitude early in training.
_WEIGHTS = {
    "presence": 1.0,
    "severity": 0.3,
    "score": 3.0,
    "light": 3.0,
    "map": 5.0,
    "clear": 3.0,
    "shake": 0.7,
    "rain": 0.5,
    "noise": 0.5,
    "curve": 10.0,
    "street": 0.2,
    "classes": 0.2,
    "colours": 1.0,
    "detail": 5.0,
}


def _truth(draws: DrawSet, positions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    vectors = [conditioning.encode(draws.diagnosis(int(position))) for position in positions]
    return {
        name: np.asarray([_columns(vector, columns) for vector in vectors], dtype=np.float32)
        for name, columns in _TARGETS.items()
    }


def _run(
    network: Reasoner, draws: DrawSet, positions: NDArray[np.int64], progress: bool = False
) -> dict[str, NDArray[np.float32]]:
    """The calibrated outputs for many draws, stacked over the first axis."""
    collected = []
    starts = range(0, len(positions), _CHUNK)
    for start in tqdm(starts, desc="diagnose", unit="batch", disable=not progress):
        chosen = positions[start : start + _CHUNK]
        views = [extract(np.asarray(draws.degraded(int(position)))) for position in chosen]
        collected.append(_outputs(network, views))
    return {name: np.concatenate([some[name] for some in collected]) for name in OUTPUTS}


def _outputs(network: Reasoner, views: Sequence[Views]) -> dict[str, NDArray[np.float32]]:
    device = next(network.parameters()).device
    thumbnails = torch.from_numpy(np.stack([view.thumbnail for view in views])).to(device)
    crops = torch.from_numpy(np.stack([view.crops for view in views])).to(device)
    with torch.no_grad():
        results = network(thumbnails, crops)
    return {name: value.float().cpu().numpy() for name, value in zip(OUTPUTS, results, strict=True)}


def _decoded(outputs: dict[str, NDArray[np.float32]]) -> list[Reading]:
    count = len(next(iter(outputs.values())))
    return [decode({name: values[row] for name, values in outputs.items()}) for row in range(count)]


def read_draws(
    network: Reasoner, draws: DrawSet, positions: NDArray[np.int64], *, progress: bool = True
) -> list[Reading]:
    """What the runtime would read off each draw: the same views, the same decoding."""
    network.eval()
    return _decoded(_run(network, draws, positions, progress))


def read_views(network: Reasoner, views: Sequence[Views], *, mixed: bool = False) -> list[Reading]:
    """What the runtime would read off frames with these views.

    In mixed precision it takes half the time and scores differ by some tenths of a point.
    """
    network.eval()
    device = next(network.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, mixed):
        return _decoded(_outputs(network, views))


def calibrate(network: Reasoner, draws: DrawSet, held: NDArray[np.int64]) -> dict[str, float]:
    """Fit temperature and interval width on held-out draws, in place; returns the figures.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017) by a grid
    search of the log-likelihood; intervals by split-conformal prediction (Lei et al., 2018) on the
    score |s - mean| / b, so that 90 % of true severities fall inside.
    """
    network.eval()
    truth = _truth(draws, held)
    network.temperature.fill_(1.0)
    network.quantile.fill_(1.0)
    outputs = _run(network, draws, held)
    figures: dict[str, float] = {}
    probability = np.clip(outputs["presence"].astype(np.float64), 1e-7, 1 - 1e-7)
    logits = np.log(probability / (1 - probability))
    grid = np.geomspace(0.25, 8.0, 200)
    for column, name in enumerate(EFFECTS):
        sign = np.where(truth["presence"][:, column] > 0.5, 1.0, -1.0)
        loss = [float(np.logaddexp(0.0, -sign * logits[:, column] / t).mean()) for t in grid]
        network.temperature[column] = float(grid[int(np.argmin(loss))])
        present = truth["presence"][:, column] > 0.5
        error = np.abs(outputs["severity"] - 100.0 * truth["severity"])[present, column]
        score = error / np.maximum(outputs["interval"][present, column], 1e-6)
        # The finite-sample rank of split-conformal prediction.
        rank = min(1.0, np.ceil((len(score) + 1) * INTERVAL_COVERAGE) / max(1, len(score)))
        if len(score):
            network.quantile[column] = float(np.quantile(score, rank, method="higher"))
        figures[f"{name}_temperature"] = float(network.temperature[column])
        figures[f"{name}_quantile"] = float(network.quantile[column])
    return figures
