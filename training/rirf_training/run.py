"""The two edge runs from start to end: draws, training, calibration, checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from rirf import __version__
from rirf_training.config import ReasonerRun, RestorerRun, TrainingError
from rirf_training.data.catalog import find_clean, held_out
from rirf_training.data.draws import DrawSet, render
from rirf_training.data.fresh import FreshDraws
from rirf_training.loop import train
from rirf_training.networks.checkpoint import load_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.reasoner_task import ReasonerTask, calibrate, read_draws
from rirf_training.restorer_task import Conditions, RestorerTask

__all__ = ["train_reasoner", "train_restorer"]


@dataclass(frozen=True)
class _Data:
    """What a run draws from: rendered draws, fresh ones if it wants them, names of all images."""

    draws: DrawSet
    fresh: FreshDraws | None
    names: tuple[str, ...]
    folder: Path  # of the rendered draws


def _data(
    run: ReasonerRun | RestorerRun, data: Path, cache: Path, workers: int, progress: bool
) -> _Data:
    images = find_clean(data, run.splits)
    held = [clean for clean in images if held_out(clean.name, run.validation_share)]
    if len(held) in (0, len(images)):
        raise TrainingError(
            f"validation_share {run.validation_share} puts {len(held)} of {len(images)} images "
            "into the validation share, which needs some, as training does: change it or give "
            "more images"
        )
    names = tuple(clean.name for clean in images)
    if not run.fresh:
        draws = render(cache, images, run.draws, workers=workers, progress=progress)
        return _Data(draws, None, names, cache)
    # Only what is validated is rendered; a folder of its own, since a set's images are fixed.
    folder = cache / "held-out"
    draws = render(folder, held, run.draws, workers=workers, progress=progress)
    kept = set(draws.names)
    training = [clean for clean in images if clean.name not in kept]
    fresh = FreshDraws(cache / "decoded", training, workers=workers, progress=progress)
    return _Data(draws, fresh, names, folder)


def _provenance(run: BaseModel, names: Sequence[str], **more: str) -> dict[str, Any]:
    return {
        "rirf": __version__,
        "run": run.model_dump(mode="json"),
        "images": len(names),
        "images_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        **more,
    }


def train_reasoner(
    run: ReasonerRun,
    data: Path,
    out: Path,
    cache: Path,
    *,
    resume: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> dict[str, float]:
    """Prepare draws, train the reasoner, calibrate it; the checkpoint lies in ``out``.

    Returns the validation figures and the calibration's.

    Raises:
        TrainingError: see :func:`rirf_training.loop.train`.
    """
    found = _data(run, data, cache, workers, progress)
    draws = found.draws
    task = ReasonerTask(run, draws, found.fresh)
    provenance = _provenance(run, found.names)
    figures = train(task, run.loop, out, provenance=provenance, resume=resume, progress=progress)
    network, stored = load_network(out)
    if not isinstance(network, Reasoner):
        raise TrainingError(f"{out} holds a {network.config.kind}, expected a reasoner")
    _, held = draws.split(run.validation_share)
    figures.update(calibrate(network, draws, held))
    task.save(out, network, {**stored, "validation": figures})
    return figures


def train_restorer(
    run: RestorerRun,
    data: Path,
    out: Path,
    cache: Path,
    *,
    reasoner: Path | None = None,
    resume: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> dict[str, float]:
    """Prepare draws, read them with the reasoner, train the restorer; checkpoint in ``out``.

    Raises:
        TrainingError: see :func:`rirf_training.loop.train`; or the reasoner is none.
    """
    found = _data(run, data, cache, workers, progress)
    draws = found.draws
    predicted, digest, reader = None, "", None
    if reasoner is not None:
        try:
            digest = hashlib.sha256((reasoner / "model.safetensors").read_bytes()).hexdigest()
        except OSError as error:
            raise TrainingError(
                f"{reasoner}: no reasoner checkpoint here ({error}); give the --out folder of "
                "rirf train reasoner"
            ) from error
        reader = _reader(reasoner)
        predicted = _predicted(reader, digest, draws, found.folder, progress)
    true = Conditions.true(draws)
    task = RestorerTask(run, draws, true, predicted, found.fresh, reader)
    provenance = _provenance(run, found.names, reasoner_sha256=digest)
    figures = train(task, run.loop, out, provenance=provenance, resume=resume, progress=progress)
    network, stored = load_network(out)
    task.save(out, network, {**stored, "validation": figures})  # type: ignore[arg-type]  # own kind
    return figures


def _reader(folder: Path) -> Reasoner:
    network, _ = load_network(folder)
    if not isinstance(network, Reasoner):
        raise TrainingError(f"{folder} holds a {network.config.kind}, expected a reasoner")
    return network


def _predicted(
    reader: Reasoner, digest: str, draws: DrawSet, cache: Path, progress: bool
) -> Conditions:
    """The reasoner's readings of all draws, kept in the cache under the reasoner's digest."""
    file = cache / f"read-{digest[:16]}.npz"
    if file.exists():
        with np.load(file) as arrays:
            # Another number of draws an image means other positions: read them again.
            if len(arrays["vectors"]) == len(draws):
                return Conditions(arrays["vectors"], arrays["maps"])
    readings = read_draws(reader, draws, np.arange(len(draws)), progress=progress)
    conditions = Conditions.read(readings)
    part = file.with_suffix(".part.npz")
    np.savez(part, vectors=conditions.vectors, maps=conditions.maps)
    part.replace(file)
    return conditions
