"""``rirf bundle``: show a bundle, check it, compare two, make keys, sign.

Reads bundles through :class:`rirf.Bundle` and says what is in them; makes and changes none, but for
the signature beside the manifest.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rirf
from rirf.bundle import SHIPPED, SIGNATURE, Bundle, Graph
from rirf.cli.command import Command
from rirf.engine.base import Engine
from rirf.errors import EngineError, MissingExtraError, require
from rirf.signing import generate_keys, sign_bundle

__all__ = ["command", "describe", "differences", "exercise", "weight_changes"]

_EPILOG = """\
examples:
  rirf bundle info edge.rirf
  rirf bundle verify edge.rirf --key maker.key.pub
  rirf bundle diff old.rirf new.rirf
  rirf bundle keygen maker.key
  rirf bundle sign edge.rirf --key maker.key
"""
_GRAPHS = ("reasoner", "restorer")
# Conditions of an evaluation, in the order of its table.
_CONDITIONS = ("input", "predicted", "true", "none", "shuffled")
# In multiples of the restorer's, the sides of the picture that verify runs.
_TRIAL = 4
# Characters of one value in the table of differences.
_WIDEST = 40


def _section(tree: Any, *keys: str) -> Mapping[str, Any]:
    """A section of nested mappings, empty where there is none: provenance has no fixed form."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, two spaces in."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return [f"  {line.rstrip()}" for line in lines]


def describe(bundle: Bundle) -> dict[str, Any]:
    """What ``rirf bundle info --json`` prints: the manifest without its tables, and the sizes."""
    manifest = bundle.manifest
    graphs = {}
    for kind in _GRAPHS:
        graph: Graph = getattr(manifest, kind)
        graphs[kind] = {
            "file": graph.file,
            "precision": graph.precision,
            "parameters": graph.parameters,
            "bytes": bundle.path(graph).stat().st_size,
            "sha256": manifest.files[graph.file],
            "parity_db": dict(_section(manifest.provenance, "parity_db", kind)),
        }
    return {
        "name": manifest.name,
        "path": str(bundle.folder),
        "digest": bundle.digest,
        "signed": (bundle.folder / SIGNATURE).is_file(),
        "graphs": graphs,
        "schedules": manifest.restorer.model_dump(mode="json")["schedules"],
        "policy": manifest.policy.model_dump(mode="json"),
        "metrics": manifest.metrics,
        "provenance": manifest.provenance,
    }


def _worst_parity(parity: Mapping[str, Any]) -> str:
    measured = [value for value in parity.values() if isinstance(value, int | float)]
    if measured:
        return f"{min(measured):.1f} dB"
    # Equal to the last bit is recorded as null.
    return "equal" if parity and all(value is None for value in parity.values()) else "-"


def _graph_lines(record: Mapping[str, Any]) -> list[str]:
    rows = [["graph", "precision", "parameters", "size", "parity (worst output)"]]
    for kind, graph in record["graphs"].items():
        rows.append(
            [
                kind,
                graph["precision"],
                f"{graph['parameters'] / 1e6:.2f} M",
                f"{graph['bytes'] / 1e6:.1f} MB",
                _worst_parity(graph["parity_db"]),
            ]
        )
    return _columns(rows)


def _metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["  not evaluated; rirf eval does"]
    rows = [[f"protocol {metrics.get('protocol', '?')}", "PSNR dB", "SSIM"]]
    for name in _CONDITIONS:
        found = _section(metrics, name)
        if all(isinstance(found.get(key), int | float) for key in ("psnr", "ssim")):
            rows.append([name, f"{found['psnr']:.2f}", f"{found['ssim']:.3f}"])
    return _columns(rows)


def _provenance_lines(provenance: Mapping[str, Any]) -> list[str]:
    versions = _section(provenance, "exported_by")
    rows = [["exported by", ", ".join(f"{key} {value}" for key, value in versions.items()) or "-"]]
    for kind in _GRAPHS:
        found = _section(provenance, kind)
        facts = [
            f"{found[key]} {key.split('_')[0]}" for key in ("images", "steps_done") if key in found
        ]
        rows.append([kind, f"trained on {', '.join(facts)}" if facts else "-"])
    others = [key for key in provenance if key not in ("exported_by", *_GRAPHS)]
    rows.append(["also recorded", ", ".join(others) or "-"])
    return _columns(rows)


def _table(record: Mapping[str, Any]) -> str:
    policy = record["policy"]
    by = policy.get("bypass_by", "worst_burden").replace("_", " ")
    ladder = ", ".join(f"{rung['mode']} from {rung['above']:g}" for rung in policy["ladder"])
    schedules = {mode: len(pairs) for mode, pairs in record["schedules"].items()}
    modes = ", ".join(f"{mode} ({n} run{'s' * (n > 1)})" for mode, n in schedules.items())
    signed = "signed, see rirf bundle verify --key" if record["signed"] else "unsigned"
    lines = [
        f"{record['name']}: {record['path']}",
        *_columns([["digest", record["digest"]], ["signature", signed]]),
        "",
        *_graph_lines(record),
        "",
        *_columns(
            [
                ["modes", f"bypass, {modes}"],
                ["policy", f"bypass below {policy['bypass_below']:g} of {by}, {ladder}"],
            ]
        ),
        "",
        *_metric_lines(record["metrics"]),
        "",
        *_provenance_lines(record["provenance"]),
    ]
    return "\n".join(lines)


def _info(arguments: Namespace) -> int:
    record = describe(Bundle.open(arguments.bundle))
    print(json.dumps(record, indent=2) if arguments.json else _table(record))
    return 0


def exercise(engine: Engine, graph: Graph, side: int) -> None:
    """Run a graph once on random numbers in [0, 1], every dynamic axis ``side`` long.

    Raises:
        EngineError: it cannot run, or an output has another shape than the manifest says or holds
            what is no finite number.
    """
    random = np.random.default_rng(0)

    def shape(axes: Sequence[int | str]) -> tuple[int, ...]:
        return tuple(side if isinstance(axis, str) else axis for axis in axes)

    inputs: dict[str, NDArray[Any]] = {
        spec.name: random.random(shape(spec.shape)).astype(spec.dtype) for spec in graph.inputs
    }
    outputs = engine.run(inputs)
    for spec in graph.outputs:
        value = outputs[spec.name]
        if value.shape != shape(spec.shape):
            raise EngineError(
                f"{graph.file}: {spec.name} came out as {value.shape}, the manifest says "
                f"{spec.shape}; export the bundle again"
            )
        if not np.isfinite(value).all():
            raise EngineError(
                f"{graph.file}: {spec.name} holds values that are no finite numbers; the weights "
                "are damaged, export the bundle again from a good checkpoint"
            )


def _verify(arguments: Namespace) -> int:
    bundle = Bundle.open(arguments.bundle, trusted=arguments.key)
    manifest = bundle.manifest
    print(f"checksums  {len(manifest.files)} files as the manifest lists them")
    if arguments.key is not None:
        print(f"signature  by the owner of {arguments.key}")
    elif (bundle.folder / SIGNATURE).is_file():
        print("signature  present, not checked: give --key PUBLIC")
    else:
        print("signature  none")
    with rirf.load(bundle.folder) as pipeline:
        side = _TRIAL * manifest.restorer.multiple
        for kind in _GRAPHS:
            engine: Engine = getattr(pipeline, kind)
            exercise(engine, getattr(manifest, kind), side)
            print(f"inference  {kind} ran on {engine.device}")
    print(f"{bundle.folder} is good")
    return 0


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in nested mappings; lists are values."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two trees differ: dotted path to both values, None where there is none."""
    left, right = dict(_leaves(one)), dict(_leaves(other))
    return {
        key: (left.get(key), right.get(key))
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    }


def weight_changes(one: Path, other: Path) -> str:
    """How the weights of two ONNX graphs differ, in one line.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    left, right = _weights(one), _weights(other)
    shared = [name for name in left if name in right and left[name].shape == right[name].shape]
    changed = [name for name in shared if not np.array_equal(left[name], right[name])]
    parts = [f"{len(changed)} of {len(shared)} tensors differ"]
    # Over all of them: single tensors that start at zero would make any ratio of their own. Of
    # whole numbers, some are no weights but the exporter's "to the end", near 2^63.
    reals = [name for name in shared if np.issubdtype(left[name].dtype, np.floating)]
    error = sum(float(np.sum(np.square(right[name] - left[name], dtype=float))) for name in reals)
    size = sum(float(np.sum(np.square(left[name], dtype=float))) for name in reals)
    if changed and size > 0:
        parts.append(f"relative change {np.sqrt(error / size):.2g}")
    if len(left) > len(shared):
        parts.append(f"{len(left) - len(shared)} in the first alone")
    if len(right) > len(shared):
        parts.append(f"{len(right) - len(shared)} in the second alone")
    return ", ".join(parts)


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    onnx = require("onnx", "export", "compare weights")
    helper = require("onnx.numpy_helper", "export", "compare weights")
    return {tensor.name: helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def _weight_line(one: Bundle, other: Bundle, kind: str) -> str:
    graphs = [getattr(bundle.manifest, kind) for bundle in (one, other)]
    left, right = (
        bundle.manifest.files[graph.file]
        for bundle, graph in zip((one, other), graphs, strict=True)
    )
    if left == right:
        return "same file"
    try:
        return weight_changes(one.path(graphs[0]), other.path(graphs[1]))
    except MissingExtraError:
        return "files differ (pip install 'rirf[export]' to see how)"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _change(before: Any, after: Any) -> str:
    numbers = [v for v in (before, after) if isinstance(v, int | float) and not isinstance(v, bool)]
    return f"{after - before:+.4g}" if len(numbers) == 2 else ""


def _difference_lines(title: str, found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    if not found:
        return [title, "  same"]
    rows = [
        [key, _shown(before), _shown(after), _change(before, after)]
        for key, (before, after) in found.items()
    ]
    return [title, *_columns(rows)]


def _diff(arguments: Namespace) -> int:
    one, other = Bundle.open(arguments.first), Bundle.open(arguments.second)
    if one.digest == other.digest:
        print("the two bundles are the same")
        return 0
    trees = [bundle.manifest.model_dump(mode="json") for bundle in (one, other)]
    for tree in trees:
        del tree["files"]
        tree["schedules"] = tree["restorer"].pop("schedules")
    found = differences(*trees)
    print("weights")
    print("\n".join(_columns([[kind, _weight_line(one, other, kind)] for kind in _GRAPHS])))
    for title in ("schedules", "policy", "metrics", "provenance"):
        part = {key: found.pop(key) for key in list(found) if key.split(".")[0] == title}
        shown = {key.partition(".")[2] or key: pair for key, pair in part.items()}
        print("\n".join(["", *_difference_lines(title, shown)]))
    if found:
        print("\n".join(["", *_difference_lines("the rest of the manifest", found)]))
    return 0


def _keygen(arguments: Namespace) -> int:
    public = generate_keys(arguments.key)
    print(f"private key: {arguments.key} (keep it secret; it has no password)")
    print(f"public key:  {public} (give it to those who check)")
    return 0


def _sign(arguments: Namespace) -> int:
    print(f"signature: {sign_bundle(arguments.bundle, arguments.key)}")
    return 0


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of ``rirf bundle``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, run: Any, text: str) -> ArgumentParser:
        action = actions.add_parser(
            name, help=text, description=f"{text[:1].upper()}{text[1:]}.", allow_abbrev=False
        )
        action.set_defaults(run=run)
        return action

    def add_bundle(action: ArgumentParser) -> None:
        action.add_argument(
            "bundle",
            metavar="NAME.rirf",
            nargs="?",
            type=Path,
            default=SHIPPED,
            help="the bundle (default: the one shipped)",
        )

    info = add("info", _info, "show what is in a bundle and where it comes from")
    add_bundle(info)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    verify = add("verify", _verify, "check a bundle's files and signature, and run each graph once")
    add_bundle(verify)
    verify.add_argument(
        "--key", metavar="PUBLIC", type=Path, help="the public key that must have signed it"
    )
    diff = add("diff", _diff, "say what differs between two bundles")
    diff.add_argument("first", metavar="A.rirf", type=Path, help="a bundle")
    diff.add_argument("second", metavar="B.rirf", type=Path, help="another one")
    keygen = add("keygen", _keygen, "make a pair of ed25519 keys to sign bundles with")
    keygen.add_argument(
        "key", metavar="KEY", type=Path, help="new private key file; KEY.pub is the public one"
    )
    sign = add("sign", _sign, "sign a bundle")
    sign.add_argument("bundle", metavar="NAME.rirf", type=Path, help="the bundle")
    sign.add_argument("--key", metavar="KEY", type=Path, required=True, help="private key file")


def run(arguments: Namespace) -> int:
    """Run ``rirf bundle``."""
    status: int = arguments.run(arguments)
    return status


command = Command(
    name="bundle",
    help="show, check, compare and sign bundles",
    add_arguments=add_arguments,
    run=run,
    epilog=_EPILOG,
)
