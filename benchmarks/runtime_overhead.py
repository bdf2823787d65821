"""What the runtime costs beyond its networks: time, import, memory, installed size.

Prints a table and, last, one JSON line. Every figure is taken in an interpreter of its own, which
this script starts; it imports nothing heavy itself, so that no child begins with its memory. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"overhead": 1.25, "import": 0.3, "memory": 1500.0, "install": 450.0}
WARM_UP = 3
IMPORTS = 5

IMPORT_PROBE = """
import sys, time
start = time.perf_counter()
import rirf
print(time.perf_counter() - start, "torch" in sys.modules)
"""


def degraded_photograph(width: int, height: int) -> Any:
    """A packaged photograph, mirrored out to the size, with all four effects of our own model."""
    import numpy as np
    from skimage import data

    from rirf.degradation import (
        FogParameters,
        NoiseParameters,
        RainParameters,
        Recipe,
        ShakeParameters,
        degrade,
    )
    from rirf.images import to_float, to_uint8

    photo = data.astronaut()[..., ::-1]
    missing = max(0, height - photo.shape[0]), max(0, width - photo.shape[1])
    grown = np.pad(photo, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
    clean = np.ascontiguousarray(grown[:height, :width])
    recipe = Recipe(
        atmospheric_light=(0.88, 0.9, 0.93),
        fog=FogParameters(beta=1.2),
        shake=ShakeParameters(steps=20, step_px=1.0),
        rain=RainParameters(
            density=1e-3, slant_deg=12.0, length_px=30.0, width_px=1.5, opacity=0.6
        ),
        noise=NoiseParameters(gain=0.06, offset=4.0),
    )
    return to_uint8(degrade(to_float(clean), 2026, recipe=recipe).image)


def load(arguments: argparse.Namespace) -> Any:
    import rirf

    return rirf.load(arguments.bundle, threads=arguments.threads)


def where(pipeline: Any) -> dict[str, Any]:
    from rirf.evaluation.environment import device_name

    provider = pipeline.restorer.device
    return {
        "device": device_name(provider),
        "provider": provider,
        "bundle": pipeline.bundle.manifest.name,
    }


class Recorder:
    """An engine that remembers the tensors it was given."""

    def __init__(self, engine: Any, session: Any, calls: list[tuple[Any, dict[str, Any]]]) -> None:
        self._engine, self._session, self._calls = engine, session, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self._calls.append((self._session, {name: each.copy() for name, each in inputs.items()}))
        outputs: dict[str, Any] = self._engine.run(inputs)
        return outputs

    def run_into(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._calls.append((self._session, {name: each.copy() for name, each in inputs.items()}))
        self._engine.run_into(inputs, outputs)


def part_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pipeline against bare ONNX Runtime on the very tensors the pipeline prepares."""
    import onnxruntime

    from rirf.pipeline import Pipeline

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    frame = degraded_photograph(512, 512)
    with load(arguments) as pipeline:
        bundle = pipeline.bundle
        bare = [
            onnxruntime.InferenceSession(
                str(bundle.path(graph)), options, providers=["CPUExecutionProvider"]
            )
            for graph in (bundle.manifest.reasoner, bundle.manifest.restorer)
        ]
        calls: list[tuple[Any, dict[str, Any]]] = []
        recorded = Pipeline(
            bundle,
            Recorder(pipeline.reasoner, bare[0], calls),
            Recorder(pipeline.restorer, bare[1], calls),
        )(frame, steps=arguments.steps)

        def run_pipeline() -> float:
            start = perf_counter()
            pipeline(frame, steps=arguments.steps)
            return perf_counter() - start

        def run_bare() -> float:
            start = perf_counter()
            for session, tensors in calls:
                session.run(None, tensors)
            return perf_counter() - start

        for _ in range(WARM_UP):
            run_pipeline()
            run_bare()
        # Alternating who goes first keeps a drift of the clock or the load out of the ratio.
        ours, theirs = [], []
        for number in range(arguments.rounds):
            if number % 2:
                theirs.append(run_bare())
                ours.append(run_pipeline())
            else:
                ours.append(run_pipeline())
                theirs.append(run_bare())
        return {
            **where(pipeline),
            "steps": str(recorded.steps),
            "size": "512x512",
            "ratio": median(a / b for a, b in zip(ours, theirs, strict=True)),
            "pipeline_ms": median(ours) * 1e3,
            "bare_ms": median(theirs) * 1e3,
            "engine_calls": len(calls),
        }


def part_frame(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the large frame, whose making takes more memory than its restoration."""
    import numpy as np

    np.save(arguments.frame, degraded_photograph(3840, 2160))
    return {}


def part_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of one fresh process that restores one large frame."""
    import resource

    import numpy as np

    frame = np.load(arguments.frame)
    with load(arguments) as pipeline:
        start = perf_counter()
        result = pipeline(frame, steps=arguments.steps)
        seconds = perf_counter() - start
        details = where(pipeline)
    if result.image.shape != frame.shape:
        raise SystemExit(f"restored {result.image.shape} from {frame.shape}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **details,
        "steps": str(result.steps),
        "size": f"{frame.shape[1]}x{frame.shape[0]}",
        # Kilobytes on Linux, bytes on macOS.
        "megabytes": peak * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "seconds": seconds,
        "torch": "torch" in sys.modules,
    }


def child(arguments: argparse.Namespace, part: str, frame: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part]
    command += ["--threads", str(arguments.threads), "--steps", arguments.steps]
    command += ["--rounds", str(arguments.rounds)]
    command += ["--bundle", str(arguments.bundle)] if arguments.bundle else []
    command += ["--frame", str(frame)] if frame else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the {part} measurement failed with status {done.returncode}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def row(kind: str, value: float, text: str, details: dict[str, Any], note: str) -> dict[str, Any]:
    target = TARGETS[kind]
    return {
        "name": kind,
        "value": round(value, 4),
        "shown": text,
        "target": target,
        "ok": value <= target,
        "device": details.get("device", "-"),
        "provider": details.get("provider", "-"),
        "threads": details.get("threads", "-"),
        "size": details.get("size", "-"),
        "steps": details.get("steps", "-"),
        "note": note,
    }


def measure_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    got = child(arguments, "speed")
    got["threads"] = arguments.threads
    note = (
        f"pipeline {got['pipeline_ms']:.1f} ms, bare ONNX Runtime {got['bare_ms']:.1f} ms, "
        f"{got['engine_calls']} engine runs, {arguments.rounds} rounds, bundle {got['bundle']}"
    )
    return {**row("overhead", got["ratio"], f"{got['ratio']:.3f} x", got, note), "details": got}


def measure_import() -> dict[str, Any]:
    times, torch = [], False
    with tempfile.TemporaryDirectory() as empty:  # `python -c` puts its folder on the path
        for _ in range(IMPORTS):
            done = subprocess.run(
                [sys.executable, "-c", IMPORT_PROBE],
                cwd=empty,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            elapsed, imported = done.stdout.split()
            times.append(float(elapsed))
            torch = torch or imported == "True"
    seconds = median(times)
    note = f"import rirf, {'IMPORTS TORCH' if torch else 'imports no torch'}, median of {IMPORTS}"
    made = row("import", seconds, f"{seconds * 1e3:.1f} ms", {}, note)
    return {**made, "ok": made["ok"] and not torch, "details": {"torch": torch, "seconds": times}}


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        child(arguments, "frame", frame)
        got = child(arguments, "memory", frame)
    got["threads"] = arguments.threads
    torch = ", TORCH WAS IMPORTED" if got["torch"] else ""
    note = f"peak resident, restored in {got['seconds']:.1f} s, bundle {got['bundle']}{torch}"
    made = row("memory", got["megabytes"], f"{got['megabytes']:.0f} MB", got, note)
    return {**made, "ok": made["ok"] and not got["torch"], "details": got}


def folder_megabytes(folder: Path) -> float:
    sizes = (path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    return sum(sizes) / 1e6


def measure_install() -> dict[str, Any]:
    """What ``pip install '.[cpu]'`` adds to the site-packages of a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        where_to = "import sysconfig; print(sysconfig.get_path('purelib'))"
        done = subprocess.run(
            [python, "-c", where_to], stdout=subprocess.PIPE, text=True, check=True
        )
        packages = Path(done.stdout.strip())
        before = folder_megabytes(packages)
        install = [str(python), "-m", "pip", "install", "--quiet", f"{ROOT}[cpu]"]
        subprocess.run(install, check=True, stdout=sys.stderr)
        names = sorted(path.name for path in packages.glob("*.dist-info"))
        largest = sorted(
            ((folder_megabytes(path), path.name) for path in packages.iterdir() if path.is_dir()),
            reverse=True,
        )[:5]
        size = folder_megabytes(packages) - before
    parts = ", ".join(f"{name} {megabytes:.0f}" for megabytes, name in largest)
    made = row("install", size, f"{size:.0f} MB", {}, f"pip install '.[cpu]'; largest: {parts}")
    return {**made, "details": {"packages": names}}


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("name", "shown", "target", "ok", "size", "steps", "threads", "provider", "device")
    titles = {"shown": "measured"}
    lines = [[titles.get(column, column) for column in columns]]
    for each in rows:
        values = {**each, "target": f"<= {each['target']:g}", "ok": "yes" if each["ok"] else "NO"}
        lines.append([str(values[column]) for column in columns])
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    text += ["", *(f"{each['name']}: {each['note']}" for each in rows)]
    return "\n".join(line.rstrip() for line in text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the runtime costs.")
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument("--threads", type=int, default=2, help="threads for inference (default: 2)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the timing (default: 15)")
    parser.add_argument("--steps", default="coarse", help="restoration steps (default: coarse)")
    parser.add_argument(
        "--install-size", action="store_true", help="also install base + cpu into a new environment"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    # The measurements this script runs in interpreters of their own.
    parser.add_argument("--part", choices=("speed", "frame", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--frame", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads < 1 or arguments.rounds < 1:
        parser.error("--threads and --rounds take a whole number of at least 1")
    if arguments.part:
        parts = {"speed": part_speed, "frame": part_frame, "memory": part_memory}
        print(json.dumps(parts[arguments.part](arguments)))
        return 0
    rows = [measure_speed(arguments), measure_import(), measure_memory(arguments)]
    if arguments.install_size:
        rows.append(measure_install())
    good = all(each["ok"] for each in rows)
    print(table(rows))
    record = {"benchmark": "runtime_overhead", "ok": good, "cores": os.cpu_count(), "rows": rows}
    print(json.dumps(record))
    return 1 if arguments.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
