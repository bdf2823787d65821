"""Carries out an export plan: fp32 bundle, lower precisions behind gates, engines, signatures.

Everything is made in a working folder; only when every gate has passed do the bundles appear under
their names. A gate that fails ships nothing and leaves what was there alone. Knows the order of the
steps; each step lives in a module of its own.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rirf
from rirf.bundle import MANIFEST, Bundle, Graph, file_digest
from rirf.engine.tensorrt import find_gpu, find_library, load_or_build, profiles_for
from rirf.errors import OutputError
from rirf.files import write_atomic
from rirf.pipeline import Pipeline
from rirf.policy import FittedPolicy
from rirf.shapes import Shapes
from rirf.signing import sign_bundle
from rirf_export.bundling import CARD, export_bundle, put, workplace
from rirf_export.card import model_card
from rirf_export.gates import GATE_IMAGES, emulated, parity_gate, quality_gate
from rirf_export.plan import Lowered, Plan, PlanError
from rirf_export.precision import (
    CalibrationRanges,
    Recording,
    Sensitivity,
    calibrate,
    degraded_frames,
    record,
    sensitivity,
    to_fp16,
    to_int8,
)
from rirf_export.triton import write_repository
from rirf_training.networks.checkpoint import load_network

__all__ = ["CALIBRATION_FRAMES", "Product", "Request", "ranges_file", "ship"]

Kind = Literal["reasoner", "restorer"]
_KINDS: tuple[Kind, ...] = ("reasoner", "restorer")
# Degraded frames that INT8 ranges are measured on, and how many of them errors are measured on.
CALIBRATION_FRAMES = 32
_SAMPLED_FRAMES = 4
# These are cut to this side, in pixels, since every search runs them many times.
_SAMPLED_SIDE = 256
_TIMED_RUNS = 5


@dataclass(frozen=True)
class Request:
    """What is exported, and how.

    Attributes:
        reasoner, restorer: checkpoint folders.
        plan: what to make of them.
        data: data root of the evaluation protocol; its test images judge the lower precisions, its
            ``val`` folders choose and calibrate them.
        ranges: folder with calibration ranges of an earlier INT8 export of the same checkpoints,
            such as its bundle.
        fallback: this many of each graph's most sensitive layers stay fp32 in INT8.
        sensitivity: file for the report of every layer, or None.
        sign: private key file, or None.
        triton: folder for a model repository of the first precision asked for, or None.
        metrics, policy: see :func:`rirf_export.bundling.export_bundle`.
        force: replace bundles that are there.
        gate_images: images of the protocol that the quality gate looks at.
    """

    reasoner: Path
    restorer: Path
    plan: Plan
    data: Path | None = None
    ranges: Path | None = None
    fallback: int = 0
    sensitivity: Path | None = None
    sign: Path | None = None
    triton: Path | None = None
    metrics: dict[str, Any] | None = None
    policy: FittedPolicy | None = None
    force: bool = False
    gate_images: int = GATE_IMAGES


@dataclass(frozen=True)
class Product:
    """A line of the final table: one graph or engine.

    Attributes:
        target: ``onnx``, ``tensorrt`` or ``tensorrt-rtx``.
        graph: ``reasoner`` or ``restorer``.
        precision: of the graph.
        bundle: the bundle it lies in.
        size: bytes.
        parity_db: worst output's signal to error against torch; infinite when equal, None for
            engines, which were not run.
        loss_db: PSNR the pair loses against fp32 on the gate's images; None for fp32 and engines.
        latency_ms: median of some runs on ONNX Runtime's CPU provider at the plan's best shape;
            None for engines.
    """

    target: str
    graph: Kind
    precision: str
    bundle: Path
    size: int
    parity_db: float | None = None
    loss_db: float | None = None
    latency_ms: float | None = None


@dataclass
class _Made:
    """A bundle in the working folder and what is known of it."""

    folder: Path
    precision: Literal["fp32", "fp16", "int8"]
    parity: dict[Kind, dict[str, float]]
    loss_db: float | None = None
    engines: list[tuple[str, Kind, int]] = field(default_factory=list)


def ranges_file(folder: Path, kind: Kind) -> Path:
    """Where an INT8 bundle, or any folder of ranges, keeps those of a graph."""
    return folder / f"{kind}.ranges.json"


def ship(request: Request, *, progress: bool = True) -> list[Product]:
    """Export everything the request asks for.

    Raises:
        PlanError: the request contradicts itself.
        BundleError, EngineError, OutputError: as :func:`rirf_export.bundling.export_bundle`.
        GateError: a lower precision is too far from fp32; nothing is shipped.
        MissingExtraError: an engine is asked for and its library is not installed.
    """
    plan = request.plan
    _check(request)
    # Asked for before anything long begins.
    libraries = [find_library(name) for name in plan.libraries]
    gpus = {
        each.flavour: None if each.flavour == "tensorrt-rtx" else find_gpu() for each in libraries
    }
    with workplace(plan.out) as work, ExitStack() as stack:
        base = work / plan.out.name
        export_bundle(
            request.reasoner,
            request.restorer,
            base,
            metrics=request.metrics,
            policy=request.policy,
            progress=progress,
        )
        fp32 = stack.enter_context(rirf.load(base))
        made = [_Made(base, "fp32", _parity_of(fp32.bundle))]
        if plan.lower:
            source = _Source(request, fp32)
            made += [_lowered(request, source, work, each, progress) for each in plan.lower]
        for each in made:
            for library in libraries if each.precision in plan.precisions else ():
                _build(each, library, gpus[library.flavour], plan.shapes, progress)
        times = _latencies(made, plan.shapes, progress)
        for each in made:
            if request.sign is not None:
                sign_bundle(each.folder, request.sign)
        for each in made:
            put(each.folder, plan.bundles[each.precision])
    if request.triton is not None:
        write_repository(Bundle.open(plan.bundles[plan.precisions[0]]), request.triton)
    return [line for each in made for line in _products(each, plan, times)]


def _check(request: Request) -> None:
    plan = request.plan
    if plan.lower and request.data is None:
        raise PlanError(
            f"{', '.join(plan.lower)} must pass a quality gate on images of the evaluation "
            "protocol: give --data, its data root"
        )
    for option, given in (
        ("--ranges", request.ranges is not None),
        ("--fallback", request.fallback > 0),
        ("--sensitivity", request.sensitivity is not None),
    ):
        if given and "int8" not in plan.precisions:
            raise PlanError(f"{option} is of INT8; add int8 to --precision, or leave it out")
    there = [str(path) for path in plan.bundles.values() if path.exists()]
    if there and not request.force:
        raise OutputError(f"{', '.join(there)} exists; give another -o, or --force to replace it")


def _parity_of(bundle: Bundle) -> dict[Kind, dict[str, float]]:
    found = bundle.manifest.provenance["parity_db"]
    # Written as null where the outputs are equal to the last bit.
    return {
        kind: {name: float("inf") if db is None else db for name, db in found[kind].items()}
        for kind in _KINDS
    }


class _Source:
    """The fp32 pair, what it was seen to do on real frames, and its torch networks."""

    def __init__(self, request: Request, pipeline: Pipeline) -> None:
        if request.data is None:
            raise PlanError("a lower precision needs data")
        self.data = request.data
        self.pipeline = pipeline
        self.networks = {
            "reasoner": load_network(request.reasoner)[0],
            "restorer": load_network(request.restorer)[0],
        }
        self.samples: list[Recording] = list(
            record(pipeline, self.frames(_SAMPLED_FRAMES, side=_SAMPLED_SIDE))
        )

    def frames(self, count: int, side: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Degraded frames, from all sets alike; never those that are evaluated."""
        folders = sorted(path for path in self.data.glob("*/val") if path.is_dir())
        if not folders:
            raise PlanError(
                f"{self.data}: no folder SET/val; expected clean pictures there, which precisions "
                "are chosen and calibrated on"
            )
        each = -(-count // len(folders))
        return islice(
            chain(*(degraded_frames(folder, each, side=side) for folder in folders)), count
        )

    def feeds(self, kind: Kind) -> list[Any]:
        """The runs of one graph on the sampled frames."""
        return [feeds for recording in self.samples for feeds in recording.of(kind)]


def _lowered(
    request: Request, source: _Source, work: Path, precision: Lowered, progress: bool
) -> _Made:
    """A bundle of a lower precision that has passed its gates."""
    bundle = source.pipeline.bundle
    out = request.plan.bundles[precision]
    folder = work / out.name
    folder.mkdir()
    make = _fp16 if precision == "fp16" else _int8
    told = make(request, source, folder, progress)
    graphs: dict[str, Graph] = {
        kind: getattr(bundle.manifest, kind).model_copy(update={"precision": precision})
        for kind in _KINDS
    }
    _write_manifest(bundle, folder, out.stem, graphs, {precision: told})
    with emulated(folder) as candidate:
        parity = {
            kind: parity_gate(
                source.networks[kind],
                getattr(candidate, kind),
                source.feeds(kind),
                precision,
            )
            for kind in _KINDS
        }
        report = quality_gate(
            source.pipeline,
            candidate,
            source.data,
            precision=precision,
            rejects=out.with_suffix(".rejected"),
            images=request.gate_images,
            progress=progress,
        )
    rounded = {
        kind: {name: round(db, 1) if math.isfinite(db) else None for name, db in each.items()}
        for kind, each in parity.items()
    }
    told |= {"parity_db": rounded, "gate": report.to_dict()}
    _write_manifest(bundle, folder, out.stem, graphs, {precision: told})
    return _Made(folder, precision, parity, loss_db=report.loss_db)


def _fp16(request: Request, source: _Source, folder: Path, progress: bool) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind in _KINDS:
        file = source.pipeline.bundle.path(getattr(source.pipeline.bundle.manifest, kind))
        found = to_fp16(file, folder / file.name, source.feeds(kind), progress=progress)
        told[kind] = {
            "nodes": found.nodes,
            "fp32_islands": {island.node: island.reason for island in found.islands},
        }
    return told


def _int8(request: Request, source: _Source, folder: Path, progress: bool) -> dict[str, Any]:
    if request.ranges is not None:
        ranges = {
            kind: CalibrationRanges.read(ranges_file(request.ranges, kind)) for kind in _KINDS
        }
    else:
        frames = tqdm(
            source.frames(CALIBRATION_FRAMES),
            desc="int8 calibration",
            total=CALIBRATION_FRAMES,
            unit="frame",
            disable=None if progress else True,
        )
        found = calibrate(source.pipeline, frames)
        ranges = {kind: found[kind] for kind in _KINDS}
    told: dict[str, Any] = {}
    rows: dict[str, tuple[Sensitivity, ...]] = {}
    for kind in _KINDS:
        file = source.pipeline.bundle.path(getattr(source.pipeline.bundle.manifest, kind))
        feeds = source.feeds(kind)
        if request.fallback or request.sensitivity is not None:
            rows[kind] = sensitivity(file, ranges[kind], feeds[:2], progress=progress)
        keep = rows[kind][: request.fallback] if request.fallback else ()
        done = to_int8(file, folder / file.name, ranges[kind], feeds, keep=keep)
        ranges[kind].write(ranges_file(folder, kind))
        told[kind] = {
            "layers": len(done.layers),
            "kept_fp32": list(done.kept),
            "calibration_runs": ranges[kind].runs,
        }
    if request.sensitivity is not None:
        _write_sensitivity(request.sensitivity, rows)
    return told


def _write_sensitivity(file: Path, rows: dict[str, tuple[Sensitivity, ...]]) -> None:
    """One JSON object a graph, the most sensitive layers first."""
    record = {
        kind: [
            {"layer": row.layer, "operator": row.operator, "output": row.output}
            | {"decibels": round(row.decibels, 2)}
            for row in found
        ]
        for kind, found in rows.items()
    }
    write_atomic(file, (json.dumps(record, indent=2) + "\n").encode())


def _write_manifest(
    reference: Bundle, folder: Path, name: str, graphs: dict[str, Graph], told: dict[str, Any]
) -> None:
    """The reference's manifest and card, for other graphs."""
    manifest = reference.manifest
    written = manifest.model_copy(
        update={
            "name": name,
            "reasoner": graphs["reasoner"],
            "restorer": graphs["restorer"],
            "provenance": {**manifest.provenance, "precision": told},
        }
    )
    write_atomic(folder / CARD, model_card(written).encode())
    files = {
        path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST
    }
    written = written.model_copy(update={"files": files})
    write_atomic(folder / MANIFEST, (written.model_dump_json(indent=2) + "\n").encode())
    Bundle.open(folder)


def _build(made: _Made, library: Any, gpu: Any, shapes: Shapes, progress: bool) -> None:
    """Engines of both graphs, into the cache of the bundle."""
    bundle = Bundle.open(made.folder)
    for kind in _KINDS:
        graph: Graph = getattr(bundle.manifest, kind)
        built = load_or_build(
            bundle.path(graph),
            library,
            profiles_for(graph.inputs, shapes.axes),
            precision=graph.precision,
            gpu=gpu,
            multiple=bundle.manifest.restorer.multiple if kind == "restorer" else 1,
            progress=None if progress else _silent,
        )
        made.engines.append((library.flavour, kind, len(built.plan)))


def _silent(phase: str, done: int, steps: int) -> None:
    """No progress bars."""


def _latencies(made: list[_Made], shapes: Shapes, progress: bool) -> dict[tuple[str, Kind], float]:
    """Median milliseconds of every graph on ONNX Runtime's CPU provider, measured in turns."""
    width, height = shapes.optimum
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    times: dict[tuple[str, Kind], list[float]] = {}
    with ExitStack() as stack:
        pipelines = {each.precision: stack.enter_context(rirf.load(each.folder)) for each in made}
        first = pipelines["fp32"]
        (seen,) = record(first, [frame])
        turns = tqdm(
            range(_TIMED_RUNS + 1), desc="latency", unit="run", disable=None if progress else True
        )
        for turn in turns:
            for precision, pipeline in pipelines.items():
                for kind in _KINDS:
                    feeds = seen.of(kind)[0]
                    started = time.perf_counter()
                    getattr(pipeline, kind).run(feeds)
                    spent = 1e3 * (time.perf_counter() - started)
                    if turn:  # the first warms up
                        times.setdefault((precision, kind), []).append(spent)
    return {key: float(np.median(values)) for key, values in times.items()}


def _products(made: _Made, plan: Plan, times: dict[tuple[str, Kind], float]) -> Iterator[Product]:
    out = plan.bundles[made.precision]
    bundle = Bundle.open(out, verify=False)
    for kind in _KINDS:
        yield Product(
            target="onnx",
            graph=kind,
            precision=made.precision,
            bundle=out,
            size=bundle.path(getattr(bundle.manifest, kind)).stat().st_size,
            parity_db=min(made.parity[kind].values()),
            loss_db=made.loss_db,
            latency_ms=times[made.precision, kind],
        )
    for flavour, kind, size in made.engines:
        yield Product(flavour, kind, made.precision, out, size)
