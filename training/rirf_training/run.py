"""The edge runs from start to end: draws, training, calibration, checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from rirf import __version__
from rirf.views import extract
from rirf_training.config import ReasonerRun, RestorerRun, RlRun, TrainingError
from rirf_training.data.catalog import find_clean, held_out
from rirf_training.data.draws import DrawSet, render
from rirf_training.data.fresh import FreshDraws
from rirf_training.data.recorded import RecordedPairs
from rirf_training.loop import train
from rirf_training.networks.checkpoint import load_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer
from rirf_training.reasoner_task import ReasonerTask, calibrate, read_draws, read_views
from rirf_training.restorer_task import Conditions, Recorded, RestorerTask
from rirf_training.rl.edge_task import EdgeRlTask, Kept
from rirf_training.rl.guard import RewardHacked
from rirf_training.rl.reward import NetworkSeverity, open_severity

__all__ = ["train_reasoner", "train_restorer", "train_rl"]


@dataclass(frozen=True)
class _Data:
    """What a run draws from: rendered draws, fresh ones if it wants them, names of all images."""

    draws: DrawSet
    fresh: FreshDraws | None
    names: tuple[str, ...]
    folder: Path  # of the rendered draws


def _data(
    run: ReasonerRun | RestorerRun | RlRun,
    data: Path,
    cache: Path,
    workers: int,
    progress: bool,
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
    fresh = FreshDraws(
        cache / "decoded", training, workers=workers, progress=progress, tone=run.tone
    )
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
    teacher: Path | None = None,
    start: Path | None = None,
    recorded: Path | None = None,
    resume: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> dict[str, float]:
    """Prepare draws, read them with the reasoner, train the restorer; checkpoint in ``out``.

    Args:
        run: settings of the run.
        data: folder of clean pictures.
        out: folder of the run.
        cache: folder of draws and decoded pictures.
        reasoner: checkpoint whose diagnoses are mixed in.
        teacher: restorer checkpoint whose outputs are targets too.
        start: restorer checkpoint of the same network whose weights the run begins with.
        recorded: folder of another restorer's outputs, see :mod:`rirf_training.data.recorded`.
        resume: continue the run in ``out``.
        workers: threads or processes that make draws.
        progress: show progress.

    Raises:
        TrainingError: see :func:`rirf_training.loop.train`; or a checkpoint is of another kind.
        ImageError, DiagnosisError: see :class:`rirf_training.data.recorded.RecordedPairs`.
    """
    pairs = None
    if recorded is not None:
        pairs = RecordedPairs(recorded, cache / "recorded", workers=workers, progress=progress)
    found = _data(run, data, cache, workers, progress)
    draws = found.draws
    predicted, reader, digests = None, None, {}
    for name, folder in (("reasoner", reasoner), ("teacher", teacher), ("start", start)):
        digests[f"{name}_sha256"] = "" if folder is None else _digest(folder, name)
    digests["recorded_sha256"] = "" if pairs is None else pairs.sha256
    if reasoner is not None:
        digest = digests["reasoner_sha256"]
        reader = _reader(reasoner)
        predicted = _predicted(reader, digest, draws, found.folder, progress)
    true = Conditions.true(draws)
    guide = None if teacher is None else _restorer(teacher)
    others = None if pairs is None else _recorded(pairs, reader)
    task = RestorerTask(run, draws, true, predicted, found.fresh, reader, guide, others)
    if start is not None:
        _begin_with(task.network, start)
    provenance = _provenance(run, found.names, **digests)
    figures = train(task, run.loop, out, provenance=provenance, resume=resume, progress=progress)
    network, stored = load_network(out)
    task.save(out, network, {**stored, "validation": figures})  # type: ignore[arg-type]  # own kind
    return figures


def train_rl(
    run: RlRun,
    data: Path,
    out: Path,
    cache: Path,
    *,
    start: Path,
    reasoner: Path,
    judge: Path,
    resume: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> Kept:
    """Train a restorer for what a reasoner says of its work; the best checkpoint is in ``out``.

    Args:
        run: settings of the run.
        data: folder of clean pictures.
        out: folder of the run.
        cache: folder of draws and decoded pictures.
        start: restorer checkpoint with a bridge.
        reasoner: checkpoint that gives the reward, and the diagnoses that are mixed in.
        judge: bundle or reasoner checkpoint, another than ``reasoner``: what it says of held-out
            patches chooses the weights that are kept, and ends the run when it is fooled.
        resume: continue the run in ``out``.
        workers: threads or processes that make draws and cut views.
        progress: show progress.

    Raises:
        TrainingError: see :func:`rirf_training.loop.train`; or a checkpoint is of another kind, or
            lacks the bridge, or the judge is the reward.
    """
    digests = {"reasoner_sha256": _digest(reasoner, "reasoner")}
    digests["start_sha256"] = _digest(start, "start")
    held_out_reasoner, digests["judge_sha256"] = open_severity(judge, reasoner, workers)
    _, trained = load_network(start)
    if not trained.get("run", {}).get("bridge", {}).get("share"):
        raise TrainingError(
            f"{start} was trained without a bridge, and restorations are drawn on it: train one "
            "with bridge.share above 0 first"
        )
    found = _data(run, data, cache, workers, progress)
    reader = _reader(reasoner)
    predicted = _predicted(reader, digests["reasoner_sha256"], found.draws, found.folder, progress)
    supervised = run.restorer(_restorer(start).config)
    true = Conditions.true(found.draws)
    base = RestorerTask(supervised, found.draws, true, predicted, found.fresh, reader)
    _begin_with(base.network, start)
    # Two of the same reasoner: one reads fresh draws on another thread, one moves to the device.
    task = EdgeRlTask(run, base, NetworkSeverity(_reader(reasoner), workers), held_out_reasoner)
    provenance = _provenance(run, found.names, **digests)
    stopped = None
    try:
        train(task, run.loop, out, provenance=provenance, resume=resume, progress=progress)
    except RewardHacked as why:
        stopped = str(why)
    return task.finish(out, provenance, stopped)


def _reader(folder: Path) -> Reasoner:
    network, _ = load_network(folder)
    if not isinstance(network, Reasoner):
        raise TrainingError(f"{folder} holds a {network.config.kind}, expected a reasoner")
    return network


def _restorer(folder: Path) -> Restorer:
    network, _ = load_network(folder)
    if not isinstance(network, Restorer):
        raise TrainingError(f"{folder} holds a {network.config.kind}, expected a restorer")
    return network


def _recorded(pairs: RecordedPairs, reader: Reasoner | None) -> Recorded:
    """Recorded pairs with their conditions, read one by one: there are few."""
    predicted = None
    if reader is not None:
        readings = []
        for position in range(len(pairs)):
            views = extract(np.ascontiguousarray(pairs.pair(position).degraded))
            readings += read_views(reader, [views])
        predicted = Conditions.read(readings)
    return Recorded(pairs, Conditions.given(pairs.diagnoses), predicted)


def _begin_with(network: Restorer, folder: Path) -> None:
    """Give a network the weights of a checkpoint."""
    stored = _restorer(folder)
    if stored.config != network.config:
        raise TrainingError(
            f"{folder} holds another network ({stored.config!r}) than this run's "
            f"({network.config!r}): set network to the stored one"
        )
    network.load_state_dict(stored.state_dict())


def _digest(folder: Path, name: str) -> str:
    """SHA-256 of a checkpoint's weights."""
    try:
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    except OSError as error:
        kind = "reasoner" if name == "reasoner" else "restorer"
        raise TrainingError(
            f"{folder}: no {kind} checkpoint here ({error}); give the --out folder of "
            f"rirf train {kind}"
        ) from error


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
