"""``rirf export REASONER RESTORER -o NAME.rirf``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rirf.cli.command import Command
from rirf.errors import OutputError, require

__all__ = ["command"]

_EPILOG = """\
example:
  rirf export runs/reasoner runs/restorer -o edge.rirf
  rirf eval --data DATA --bundle edge.rirf --json v1.json
  rirf export runs/reasoner runs/restorer -o edge.rirf --metrics v1.json --force
"""
# What of an evaluation's JSON belongs into a manifest: the tables, not the rows of every image.
_METRIC_KEYS = (
    "protocol",
    "images",
    "input",
    "predicted",
    "true",
    "none",
    "shuffled",
    "per_degradation",
)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reasoner", type=Path, help="reasoner checkpoint folder")
    parser.add_argument("restorer", type=Path, help="restorer checkpoint folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="bundle folder, NAME.rirf")
    parser.add_argument("--metrics", type=Path, help="JSON of rirf eval, kept in the manifest")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _metrics(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return {key: data[key] for key in _METRIC_KEYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file}: expected the JSON written by rirf eval --json, got {error!r}"
        ) from error


def _run(args: Namespace) -> int:
    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        require(module, "export", "export checkpoints")
    from rirf_export.bundling import export_bundle

    metrics = _metrics(args.metrics) if args.metrics is not None else None
    bundle = export_bundle(
        args.reasoner,
        args.restorer,
        args.out,
        metrics=metrics,
        force=args.force,
        progress=not args.quiet,
    )
    manifest = bundle.manifest
    print(f"{'graph':10s} {'precision':9s} {'size':>9s} {'parity (worst output)':>22s}")
    for kind in ("reasoner", "restorer"):
        graph = getattr(manifest, kind)
        size = bundle.path(graph).stat().st_size / 1e6
        worst = [db for db in manifest.provenance["parity_db"][kind].values() if db is not None]
        shown = f"{min(worst):.1f} dB" if worst else "equal"
        print(f"{kind:10s} {graph.precision:9s} {size:6.1f} MB {shown:>22s}")
    print(f"bundle: {bundle.folder}")
    return 0


command = Command(
    name="export",
    help="turn checkpoints into a bundle",
    add_arguments=_add_arguments,
    run=_run,
    epilog=_EPILOG,
)
