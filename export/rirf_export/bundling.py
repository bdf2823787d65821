"""Two checkpoints to one bundle: export, parity, card, manifest; written whole or not at all."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnxruntime
import torch
from torch import Tensor
from tqdm import tqdm

from rirf import __version__, conditioning, views
from rirf.bundle import (
    MANIFEST,
    Bundle,
    Graph,
    Manifest,
    RestorerGraph,
    ViewSizes,
    file_digest,
)
from rirf.engine import OnnxEngine
from rirf.errors import BundleError, OutputError
from rirf.files import write_atomic
from rirf.policy import FittedPolicy, Mode, Policy
from rirf_export.card import model_card
from rirf_export.graphs import COARSE, OPSET, example_inputs, export_onnx
from rirf_export.parity import PARITY_MIN_DB, check_parity
from rirf_training.networks.checkpoint import load_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer

__all__ = ["BYPASS_BELOW", "CARD", "Schedules", "export_bundle", "put", "schedules_of", "workplace"]

# For each mode the (time, step) pairs to run.
Schedules: TypeAlias = dict[Mode, tuple[tuple[float, float], ...]]

CARD = "MODEL_CARD.md"
# Modes that go on from the coarse estimate over the bridge, with their numbers of equal steps.
_BRIDGE: dict[Mode, int] = {"1": 1, "2": 2, "4": 4}
# Sizes the restorer's parity is checked at: small, oblong, and larger than the export's sample.
_PARITY_SIZES = ((64, 96), (160, 112), (16, 16), (384, 512))
# Points of burden (probability times upper severity bound) under which a frame is left alone, where
# no policy was fitted.
BYPASS_BELOW = 6.0


def _bridge_share(provenance: Mapping[str, Any]) -> float:
    """Share of the training samples that trained the bridge; older checkpoints do not say: 0."""
    found: Any = provenance
    for key in ("run", "bridge", "share"):
        found = found.get(key) if isinstance(found, Mapping) else None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number else 0.0


def schedules_of(provenance: Mapping[str, Any]) -> Schedules:
    """The schedules a restorer was trained for, read off its checkpoint's provenance.

    The coarse leap always; from there the bridge in 1, 2 and 4 equal steps, where it was trained.
    """
    schedules: Schedules = {"coarse": (COARSE,)}
    if _bridge_share(provenance) > 0.0:
        for mode, steps in _BRIDGE.items():
            schedules[mode] = (COARSE, *((k / steps, 1.0 / steps) for k in range(steps)))
    return schedules


def _policy(fitted: FittedPolicy | None, schedules: Schedules) -> Policy:
    """The policy of the bundle, which may only name modes that the restorer can do.

    Raises:
        BundleError: it names another.
    """
    if fitted is None:
        return Policy.model_validate(
            {"bypass_below": BYPASS_BELOW, "ladder": [{"above": 0.0, "mode": "coarse"}]}
        )
    unknown = [rung.mode for rung in fitted.ladder if rung.mode not in schedules]
    if unknown:
        raise BundleError(
            f"the policy uses {', '.join(unknown)}, this restorer can do {', '.join(schedules)}: "
            "fit a policy to this restorer, or train its bridge (bridge.share above 0)"
        )
    return fitted.thresholds


def _samples(network: Reasoner | Restorer, schedules: Schedules) -> list[tuple[Tensor, ...]]:
    """What parity is checked on: for the restorer every size at every moment of its schedules."""
    if isinstance(network, Reasoner):
        return [example_inputs(network, 0, 0, seed=seed) for seed in range(2)]
    # In their order, each once.
    moments = dict.fromkeys(moment for pairs in schedules.values() for moment in pairs)
    return [
        example_inputs(network, *size, seed=seed, moment=moment)
        for seed, size in enumerate(_PARITY_SIZES)
        for moment in moments
    ]


def _graph(
    network: Reasoner | Restorer, file: Path, metadata: dict[str, str], schedules: Schedules
) -> tuple[Graph, dict[str, float]]:
    export_onnx(network, file, metadata)
    engine = OnnxEngine(file)
    samples = _samples(network, schedules)
    parity = check_parity(network, engine, samples)
    graph = Graph(
        file=file.name,
        inputs=engine.inputs,
        outputs=engine.outputs,
        precision="fp32",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    engine.close()
    return graph, parity


def export_bundle(
    reasoner: Path,
    restorer: Path,
    out: Path,
    *,
    metrics: dict[str, Any] | None = None,
    policy: FittedPolicy | None = None,
    force: bool = False,
    progress: bool = True,
) -> Bundle:
    """Export a reasoner and a restorer checkpoint as the bundle ``out``.

    Args:
        reasoner, restorer: checkpoint folders written by ``rirf train``.
        out: the bundle's folder, ``NAME.rirf``.
        metrics: results of ``rirf eval`` to record, none when None.
        policy: thresholds fitted by ``benchmarks/step_policy.py``; when None, a frame is left
            alone below ``BYPASS_BELOW`` points of burden and else given the coarse leap.
        force: replace a bundle that is there.
        progress: show a progress bar.

    Raises:
        BundleError: a checkpoint does not fit, or the policy names a mode the restorer cannot do.
        EngineError: parity lies below ``PARITY_MIN_DB``; nothing is written then.
        OutputError: ``out`` cannot be written, or exists and ``force`` is False.
    """
    if out.suffix != ".rirf":
        raise OutputError(f"{out}: a bundle's name ends in .rirf")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; give another -o, or --force to replace it")
    networks: dict[str, tuple[Reasoner | Restorer, dict[str, Any]]] = {}
    for kind, folder in (("reasoner", reasoner), ("restorer", restorer)):
        network, provenance = load_network(folder)
        if network.config.kind != kind:
            raise BundleError(f"{folder} holds a {network.config.kind}, expected a {kind}")
        networks[kind] = (network, provenance)
    schedules = schedules_of(networks["restorer"][1])
    chosen = _policy(policy, schedules)
    with workplace(out) as work:
        graphs: dict[str, Graph] = {}
        parity: dict[str, dict[str, float]] = {}
        bar = tqdm(networks.items(), desc="export", unit="graph", disable=not progress)
        for kind, (network, _) in bar:
            bar.set_postfix(graph=kind)
            metadata = {
                "rirf.network": network.config.model_dump_json(),
                "rirf.conditioning_version": str(conditioning.VERSION),
            }
            graphs[kind], parity[kind] = _graph(network, work / f"{kind}.onnx", metadata, schedules)
        restorer_graph = RestorerGraph(
            **graphs["restorer"].model_dump(),
            multiple=_multiple(networks["restorer"][0]),
            schedules=schedules,
        )
        provenance = _provenance(networks, parity)
        if policy is not None:
            digests = {graph.file: file_digest(work / graph.file) for graph in graphs.values()}
            # Thresholds are for these networks; on those of another export they may lie badly.
            same = policy.provenance.get("graphs") == digests
            provenance["policy"] = {**policy.provenance, "fitted_on_these_graphs": same}
        manifest = Manifest(
            schema_version=1,
            name=out.stem,
            conditioning_version=conditioning.VERSION,
            views=ViewSizes(
                thumbnail=views.THUMBNAIL_SIZE, crop=views.CROP_SIZE, crops=views.CROPS
            ),
            reasoner=graphs["reasoner"],
            restorer=restorer_graph,
            policy=chosen,
            provenance=provenance,
            metrics=metrics or {},
            # Replaced once every file is written; the graphs' names must be known already.
            files={graph.file: "" for graph in graphs.values()},
        )
        write_atomic(work / CARD, model_card(manifest).encode())
        files = {path.name: file_digest(path) for path in sorted(work.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        write_atomic(work / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
        Bundle.open(work)
        put(work, out)
    return Bundle.open(out)


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A folder beside ``out``, so that moving a bundle into place is one rename; gone afterwards.

    Raises:
        OutputError: it cannot be made, or anything in it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error
    try:
        yield work
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def put(work: Path, out: Path) -> None:
    """Move the finished folder into place; an older bundle leaves once the new one is whole."""
    old = None
    if out.exists():
        old = work.with_name(f"{work.name}.old")
        out.rename(old)
    try:
        work.chmod(0o755)
        work.rename(out)
    except OSError:
        if old is not None:
            old.rename(out)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _multiple(network: Reasoner | Restorer) -> int:
    if not isinstance(network, Restorer):
        raise BundleError(f"expected a restorer, got a {network.config.kind}")
    return network.multiple


def _provenance(
    networks: dict[str, tuple[Reasoner | Restorer, dict[str, Any]]],
    parity: dict[str, dict[str, float]],
) -> dict[str, Any]:
    return {
        "exported_by": {
            "rirf": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": OPSET,
        },
        "parity_min_db": PARITY_MIN_DB,
        # JSON has no infinity: equal to the last bit is written as null.
        "parity_db": {
            kind: {key: round(db, 1) if math.isfinite(db) else None for key, db in each.items()}
            for kind, each in parity.items()
        },
        **{kind: provenance for kind, (_, provenance) in networks.items()},
    }
