"""``rirf export REASONER RESTORER -o NAME.rirf``: checkpoints to bundles and engines."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rirf.bundle import Bundle
from rirf.cli.command import Command
from rirf.errors import BundleError, OutputError, require
from rirf.policy import FittedPolicy
from rirf.shapes import DEFAULT_SHAPES

if TYPE_CHECKING:
    from rirf_export.shipping import Product

__all__ = ["command"]

_EPILOG = """\
example:
  rirf export runs/reasoner runs/restorer -o edge.rirf
  rirf eval --data DATA --bundle edge.rirf --json v1.json
  rirf export runs/reasoner runs/restorer -o edge.rirf --metrics v1.json --force
  python benchmarks/step_policy.py --bundle edge.rirf --draws runs/draws/held-out -o policy.json
  rirf export runs/reasoner runs/restorer -o edge.rirf --policy policy.json --force
  rirf export runs/reasoner runs/restorer -o edge.rirf --precision fp32,fp16,int8 \\
      --targets onnx,tensorrt-rtx --data DATA

fp16 and int8 must pass a quality gate against fp32; where one fails, nothing is written but its
worst pictures, in NAME-PRECISION.rejected. Engines for TensorRT are built for the GPU that is
there; those of TensorRT-RTX are portable and need none.
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
    parser.add_argument(
        "--targets",
        metavar="LIST",
        default="onnx",
        help="onnx,tensorrt,tensorrt-rtx: engines to build into the bundles' caches beside ONNX "
        "(default: onnx)",
    )
    parser.add_argument(
        "--precision",
        metavar="LIST",
        default="fp32",
        help="fp32,fp16,int8: a bundle each, NAME.rirf, NAME-fp16.rirf, NAME-int8.rirf "
        "(default: fp32)",
    )
    parser.add_argument(
        "--shapes",
        metavar="MIN:OPT:MAX",
        help=f"frame sizes of the engines, each WIDTHxHEIGHT (default: {DEFAULT_SHAPES})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="data root of the evaluation protocol; fp16 and int8 are chosen and calibrated on its "
        "val pictures and judged on its test pictures",
    )
    parser.add_argument(
        "--ranges",
        metavar="DIR",
        type=Path,
        help="INT8 bundle of the same checkpoints whose calibration is used again",
    )
    parser.add_argument(
        "--fallback",
        metavar="N",
        type=int,
        default=0,
        help="keep each graph's N most sensitive layers in fp32 in INT8 (default: 0)",
    )
    parser.add_argument(
        "--sensitivity", metavar="FILE", type=Path, help="write what each layer costs in INT8"
    )
    parser.add_argument(
        "--sign", metavar="KEY", type=Path, help="sign the bundles, see rirf bundle keygen"
    )
    parser.add_argument(
        "--triton",
        metavar="DIR",
        type=Path,
        help="also write a model repository for NVIDIA Triton, of the first precision asked for",
    )
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
    from rirf_export.plan import Plan
    from rirf_export.shipping import Request, ship

    plan = Plan.of(args.out, args.precision, args.targets, args.shapes)
    request = Request(
        reasoner=args.reasoner,
        restorer=args.restorer,
        plan=plan,
        data=args.data,
        ranges=args.ranges,
        fallback=args.fallback,
        sensitivity=args.sensitivity,
        sign=args.sign,
        triton=args.triton,
        metrics=_metrics(args.metrics) if args.metrics is not None else None,
        policy=_policy(args.policy) if args.policy is not None else None,
        force=args.force,
    )
    if not args.quiet:
        print(f"plan:\n{plan.describe()}", flush=True)
    products = ship(request, progress=not args.quiet)
    print(_table(products))
    manifest = Bundle.open(plan.out, verify=False).manifest
    print(f"modes: bypass, {', '.join(manifest.restorer.schedules)}")
    ladder = ", ".join(f"{rung.mode} from {rung.above:g}" for rung in manifest.policy.ladder)
    by = manifest.policy.bypass_by.replace("_", " ")
    print(f"policy: bypass below {manifest.policy.bypass_below:g} of {by}, {ladder}")
    for bundle in plan.bundles.values():
        print(f"bundle: {bundle}")
    if args.triton is not None:
        print(f"Triton model repository: {args.triton}")
    return 0


def _table(products: Sequence[Product]) -> str:
    """One line a graph or engine."""
    lines = [
        f"{'target':12s} {'graph':8s} {'precision':9s} {'size':>9s} {'parity (worst)':>14s} "
        f"{'lost':>9s} {'latency':>10s}"
    ]
    for each in products:
        if each.parity_db is None:
            parity = "not run"
        else:
            parity = f"{each.parity_db:.1f} dB" if math.isfinite(each.parity_db) else "equal"
        lost = "–" if each.loss_db is None else f"{each.loss_db:.3f} dB"
        latency = "–" if each.latency_ms is None else f"{each.latency_ms:.1f} ms"
        lines.append(
            f"{each.target:12s} {each.graph:8s} {each.precision:9s} {each.size / 1e6:6.1f} MB "
            f"{parity:>14s} {lost:>9s} {latency:>10s}"
        )
    return "\n".join(lines)


command = Command(
    name="export",
    help="turn checkpoints into a bundle",
    add_arguments=_add_arguments,
    run=_run,
    epilog=_EPILOG,
)
