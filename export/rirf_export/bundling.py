"""Two checkpoints to one bundle: export, parity, card, manifest; written whole or not at all."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
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
from rirf.policy import Policy
from rirf_export.card import model_card
from rirf_export.graphs import OPSET, example_inputs, export_onnx
from rirf_export.parity import PARITY_MIN_DB, check_parity
from rirf_training.networks.checkpoint import load_network
from rirf_training.networks.reasoner import Reasoner
from rirf_training.networks.restorer import Restorer

__all__ = ["COARSE", "export_bundle"]

CARD = "MODEL_CARD.md"
# The coarse leap: one evaluation from time -1 to 0.
COARSE = ((-1.0, 1.0),)
# Sizes the restorer's parity is checked at: small, oblong, and larger than the export's sample.
_PARITY_SIZES = ((64, 96), (160, 112), (16, 16), (384, 512))
# Points of burden (probability times upper severity bound) under which a frame is left alone.
BYPASS_BELOW = 6.0


def _graph(
    network: Reasoner | Restorer, file: Path, metadata: dict[str, str]
) -> tuple[Graph, dict[str, float]]:
    export_onnx(network, file, metadata)
    engine = OnnxEngine(file)
    sizes = _PARITY_SIZES if isinstance(network, Restorer) else ((0, 0), (0, 0))
    samples = [example_inputs(network, *size, seed=seed) for seed, size in enumerate(sizes)]
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
    force: bool = False,
    progress: bool = True,
) -> Bundle:
    """Export a reasoner and a restorer checkpoint as the bundle ``out``.

    Args:
        reasoner, restorer: checkpoint folders written by ``rirf train``.
        out: the bundle's folder, ``NAME.rirf``.
        metrics: results of ``rirf eval`` to record, none when None.
        force: replace a bundle that is there.
        progress: show a progress bar.

    Raises:
        BundleError: a checkpoint does not fit.
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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error
    try:
        graphs: dict[str, Graph] = {}
        parity: dict[str, dict[str, float]] = {}
        bar = tqdm(networks.items(), desc="export", unit="graph", disable=not progress)
        for kind, (network, _) in bar:
            bar.set_postfix(graph=kind)
            metadata = {
                "rirf.network": network.config.model_dump_json(),
                "rirf.conditioning_version": str(conditioning.VERSION),
            }
            graphs[kind], parity[kind] = _graph(network, work / f"{kind}.onnx", metadata)
        manifest = _manifest(out.stem, networks, graphs, parity, metrics or {})
        write_atomic(work / CARD, model_card(manifest).encode())
        files = {path.name: file_digest(path) for path in sorted(work.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        write_atomic(work / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
        Bundle.open(work)
        _put(work, out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Bundle.open(out)


def _put(work: Path, out: Path) -> None:
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


def _manifest(
    name: str,
    networks: dict[str, tuple[Reasoner | Restorer, dict[str, Any]]],
    graphs: dict[str, Graph],
    parity: dict[str, dict[str, float]],
    metrics: dict[str, Any],
) -> Manifest:
    net = networks["restorer"][0]
    if not isinstance(net, Restorer):
        raise BundleError(f"expected a restorer, got a {net.config.kind}")
    return Manifest(
        schema_version=1,
        name=name,
        conditioning_version=conditioning.VERSION,
        views=ViewSizes(thumbnail=views.THUMBNAIL_SIZE, crop=views.CROP_SIZE, crops=views.CROPS),
        reasoner=graphs["reasoner"],
        restorer=RestorerGraph(
            **graphs["restorer"].model_dump(),
            multiple=net.multiple,
            schedules={"coarse": COARSE},
        ),
        policy=Policy.model_validate(
            {"bypass_below": BYPASS_BELOW, "ladder": [{"above": 0.0, "mode": "coarse"}]}
        ),
        provenance={
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
        },
        metrics=metrics,
        # Replaced once every file is written; the graphs' names must be known already.
        files={graph.file: "" for graph in graphs.values()},
    )
