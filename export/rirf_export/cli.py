"""``rirf export REASONER RESTORER -o NAME.rirf``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rirf.cli.command import Command
from rirf.errors import BundleError, OutputError, require
from rirf.policy import FittedPolicy

__all__ = ["command"]

_EPILOG = """\
example:
  rirf export runs/reasoner runs/restorer -o edge.rirf
  rirf eval --data DATA --bundle edge.rirf --json v1.json
  rirf export runs/reasoner runs/restorer -o edge.rirf --metrics v1.json --force
  python benchmarks/step_policy.py --bundle edge.rirf --draws runs/draws/held-out -o policy.json
  rirf export runs/reasoner runs/restorer -o edge.rirf --policy policy.json --force
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
    "per_dataset",
    "per_degradation",
    "reasoner",
    "clean",
    "steps",
)
# Written by newer versions of rirf eval alone.
_NEWER_METRIC_KEYS = ("undegraded",)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reasoner", type=Path, help="reasoner checkpoint folder")
    parser.add_argument("restorer", type=Path, help="restorer checkpoint folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="bundle folder, NAME.rirf")
    parser.add_argument("--metrics", type=Path, help="JSON of rirf eval, kept in the manifest")
    parser.add_argument(
        "--policy",
        type=Path,
        help="JSON of benchmarks/step_policy.py: the fitted step policy (default: leave a frame "
        "alone below 6 points of burden, else the coarse leap)",
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _metrics(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        found = {key: data[key] for key in _METRIC_KEYS}
        return found | {key: data[key] for key in _NEWER_METRIC_KEYS if key in data}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file}: expected the JSON written by rirf eval --json, got {error!r}"
        ) from error


def _policy(file: Path) -> FittedPolicy:
    try:
        return FittedPolicy.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{file}: expected the JSON written by benchmarks/step_policy.py (bypass_below, "
            f"ladder, provenance), got {error}"
        ) from error


def _run(args: Namespace) -> int:
    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        require(module, "export", "export checkpoints")
    from rirf_export.bundling import export_bundle

    metrics = _metrics(args.metrics) if args.metrics is not None else None
    policy = _policy(args.policy) if args.policy is not None else None
    bundle = export_bundle(
        args.reasoner,
        args.restorer,
        args.out,
        metrics=metrics,
        policy=policy,
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
    print(f"modes: bypass, {', '.join(manifest.restorer.schedules)}")
    ladder = ", ".join(f"{rung.mode} from {rung.above:g}" for rung in manifest.policy.ladder)
    by = manifest.policy.bypass_by.replace("_", " ")
    print(f"policy: bypass below {manifest.policy.bypass_below:g} of {by}, {ladder}")
    print(f"bundle: {bundle.folder}")
    return 0


command = Command(
    name="export",
    help="turn checkpoints into a bundle",
    add_arguments=_add_arguments,
    run=_run,
    epilog=_EPILOG,
)
