"""Speed of the degradation kernels against our NumPy code and other libraries, on CPU and GPU.

Prints a table and, last, one JSON line. Everything is timed in turn in one process, on the same
images with the same number of threads. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from degradation_peers import Library, Scene
    from degradation_timing import Candidate

CHAIN = "chain"
OPERATIONS = ("fog", "fog, map given", "shake", "rain", "noise")
# Ours must be at least this many times faster.
CHAIN_TARGETS = {"rirf NumPy": 4.0, "albumentations": 8.0}
OPERATION_TARGET = 1.0
OURS = ("rirf_kernels", "degrade(), native")
OWN = ("rirf NumPy", "rirf_kernels, new arrays")
GPU_BATCH = 64
PACKAGES = (
    "rirf",
    "rirf-kernels",
    "numpy",
    "opencv-python-headless",
    "albumentations",
    "imagecorruptions",
    "kornia",
    "torch",
)
ROUNDS_DEFAULT = 9
COLUMNS = (
    ("group", "group"),
    ("name", "candidate"),
    ("ms", "ms/image"),
    ("ratio", "ours faster"),
    ("target", "target"),
    ("ok", "ok"),
    ("size", "size"),
    ("batch", "batch"),
    ("threads", "threads"),
    ("rounds", "rounds"),
    ("provider", "provider"),
    ("device", "device"),
)


def set_threads(threads: int) -> None:
    """Give every library that is loaded the same number of threads."""
    import cv2

    cv2.setNumThreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def load(kind: type[Library]) -> Library | str:
    """The library, or why it is missing."""
    from degradation_peers import Missing

    try:
        return kind()
    except Missing as error:
        return str(error)


def candidate(
    kind: type[Library],
    library: Library | str,
    operation: str,
    scene: Scene,
    target: float | None,
) -> Candidate:
    """One library's candidate for an operation; without a call where it is missing."""
    from degradation_timing import Candidate

    count, note = len(scene.images), kind.lacks[operation]
    if isinstance(library, str):
        return Candidate(kind.name, "", note, None, count, target, library)
    try:
        call = library.prepare(operation, scene)
    except Exception as error:  # a peer that does not take what its release took before
        why = f"it refuses its arguments: {type(error).__name__}: {error}"
        return Candidate(kind.name, library.provider, note, None, count, target, why)
    return Candidate(kind.name, library.provider, note, call, count, target)


def operation_rows(
    group: str,
    operation: str,
    scene: Scene,
    libraries: dict[type[Library], Library | str],
    rounds: int,
    progress: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Rows of one group: ours first, then every library that has the operation."""
    from degradation_timing import compare, host_timer

    found: list[Candidate] = []
    for kind, library in libraries.items():
        if operation not in kind.lacks:
            continue
        target: float | None = None
        if operation == CHAIN:
            target = CHAIN_TARGETS.get(kind.name)
        elif operation in OPERATIONS and found and kind.name not in OWN:
            target = OPERATION_TARGET
        found.append(candidate(kind, library, operation, scene, target))
    rows = compare(found, rounds, host_timer, progress)
    return [{"group": group, **row} for row in rows]


def cpu_rows(
    arguments: argparse.Namespace, progress: Callable[[str], object]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Every CPU row, and the severities that the fixed parameters come to."""
    from degradation_peers import PEERS, Native, RuntimeNative, RuntimeNumpy, Scene

    from rirf.degradation import degrade
    from rirf.evaluation.environment import device_name

    scene = Scene.make(arguments.size, 1, arguments.threads)
    batch = Scene.make(arguments.size, arguments.batch, arguments.threads)
    kinds: tuple[type[Library], ...] = (Native, *PEERS)
    libraries = {kind: load(kind) for kind in kinds}
    both: tuple[type[Library], ...] = (RuntimeNative, RuntimeNumpy)
    runtimes = {kind: load(kind) for kind in both}
    # After loading: an import may set a library's threads.
    set_threads(arguments.threads)
    groups = [(f"{CHAIN}, 1 image", CHAIN, scene, libraries)]
    if arguments.batch > 1:
        groups.append((f"{CHAIN}, batch of {arguments.batch}", CHAIN, batch, libraries))
    groups += [(name, name, scene, libraries) for name in OPERATIONS]
    groups.append(("degrade()", "degrade()", scene, runtimes))
    rows = []
    for group, operation, given, kind_of in groups:
        progress(group)
        rows += operation_rows(group, operation, given, kind_of, arguments.rounds, progress)
    device = device_name("CPUExecutionProvider")
    for row in rows:
        row |= {"device": device, "threads": arguments.threads}
    truth = degrade(scene.images[0], scene.seeds[0], recipe=scene.recipe).diagnosis
    severities = {
        "fog": truth.fog.severity,
        "shake": truth.shake.severity,
        "rain": truth.rain.severity,
        "noise": truth.noise.severity,
    }
    return rows, severities


def shown(row: dict[str, Any], key: str) -> str:
    """A cell of the table."""
    value = row[key]
    if key == "ok":
        return "-" if value is None else "yes" if value else "NO"
    if value is None:
        return "-"
    if key == "ms":
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    if key == "ratio":
        return f"{value:.2f} x"
    if key == "target":
        return f">= {value:g} x"
    return str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned columns, then what each row's call does otherwise than ours."""
    lines = [[title for _, title in COLUMNS]]
    lines += [[shown(row, key) for key, _ in COLUMNS] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    text = []
    for number, line in enumerate(lines):
        cells = zip(line, widths, strict=True)
        if number == 1 or (number > 1 and line[0] != lines[number - 1][0]):
            text.append("  ".join("-" * width for width in widths))
        text.append("  ".join(cell.ljust(width) for cell, width in cells))
    notes = [
        f"  {row['group'].partition(', 1 ')[0]}: {row['name']}: {row['note']}"
        for row in rows
        if row["measured"] and row["note"] and "batch of" not in row["group"]
    ]
    text += ["", "what a call does otherwise than ours:", *notes] if notes else []
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row["measured"]:
            reasons.setdefault(row["note"], []).append(f"{row['group']}: {row['name']}")
    for reason, names in reasons.items():
        text += ["", reason, *(f"  {name}" for name in names)]
    return "\n".join(line.rstrip() for line in text)


def bar_label(row: dict[str, Any]) -> str:
    """The candidate's name and, where a whole effect is left out, which."""
    missing = row["note"].partition(";")[0]
    return f"{row['name']} ({missing.lower()})" if missing.startswith("NO ") else str(row["name"])


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Milliseconds an image, one panel a CPU group, shortest bar first, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    strong, mild, plain, ink = "#0f766e", "#7dbdb5", "#cbd5e1", "#334155"
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["measured"] and row["provider"] != "-" and row["name"] not in OWN[1:]:
            groups.setdefault(row["group"], []).append(row)
    panels = [sorted(found, key=lambda row: float(row["ms"])) for found in groups.values() if found]
    columns = 2
    rows_of = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    tall = [max(len(found) for found in line) for line in rows_of]
    figure = Figure(
        figsize=(11.0, 0.29 * sum(tall) + 0.75 * len(tall) + 0.6), layout="constrained", dpi=130
    )
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    grid = figure.add_gridspec(len(tall), columns, height_ratios=[number + 0.8 for number in tall])
    for place, found in enumerate(panels):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        longest = max(row["ms"] for row in found)
        for at, row in enumerate(found):
            best = row["name"] in OURS
            ours = best or row["name"] in (*OWN, "degrade(), NumPy")
            colour = strong if best else mild if ours else plain
            weight = "bold" if best else "normal"
            axes.barh(at, row["ms"], color=colour, height=0.66)
            times = "" if row["ratio"] is None else f"   {row['ratio']:.1f}×"
            text = f"{row['ms']:.1f} ms" if row["ms"] >= 10 else f"{row['ms']:.2f} ms"
            axes.text(
                row["ms"] + 0.012 * longest,
                at,
                text + times,
                va="center",
                fontsize=8,
                fontweight=weight,
                color=strong if best else ink,
            )
        axes.set_yticks(range(len(found)), [bar_label(row) for row in found], fontsize=8.5)
        for label in axes.get_yticklabels():
            label.set_color(strong if label.get_text() in OURS else ink)
        # As many places as the fullest panel beside it has, so that all bars are as thick.
        axes.set_ylim(tall[place // columns] - 0.5, -0.5)
        axes.set_xlim(0, longest * 1.3)
        axes.set_title(found[0]["group"], fontsize=10, fontweight="bold", loc="left", color=ink)
        axes.tick_params(axis="x", labelsize=7, colors="#64748b", length=0)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.spines["left"].set_color("#94a3b8")
        axes.grid(axis="x", color="#e2e8f0", linewidth=0.7)
        axes.set_axisbelow(True)
    row = rows[0]
    figure.suptitle(
        f"Milliseconds an image, shorter is better; ×: how many times faster our kernels are\n"
        f"{row['size']} float32, {row['threads']} threads, {row['device']}",
        fontsize=9.5,
        color=ink,
    )
    figure.savefig(file, format="png")


def versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the degradation kernels' speed.")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default: 512)")
    parser.add_argument("--batch", type=int, default=16, help="images in the batch (default: 16)")
    parser.add_argument("--threads", type=int, default=2, help="threads for each (default: 2)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS_DEFAULT, help=f"default: {ROUNDS_DEFAULT}"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: CPU rows, and GPU rows where there is one; cuda: GPU rows alone",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the JSON there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw bars, as a PNG")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    arguments = parser.parse_args()
    if arguments.size < 32:
        parser.error("--size takes at least 32 pixels (imagecorruptions takes no less)")
    if min(arguments.batch, arguments.threads, arguments.rounds) < 1:
        parser.error("--batch, --threads and --rounds take a whole number of at least 1")
    # Read by OpenMP and BLAS when they are loaded.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer release
    warnings.filterwarnings(
        "ignore", category=Warning, module=r"albu.*|imagecorruptions.*|kornia.*"
    )

    from degradation_gpu import gpu_rows
    from tqdm import tqdm

    rows: list[dict[str, Any]] = []
    severities: dict[str, float] = {}
    with tqdm(desc="timing", unit=" timings", file=sys.stderr, leave=False) as bar:

        def progress(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        if arguments.device != "cuda":
            measured, severities = cpu_rows(arguments, progress)
            rows += measured
        rows += gpu_rows(arguments.size, GPU_BATCH, arguments.rounds, arguments.device, progress)
    for row in rows:
        row["size"] = f"{arguments.size}x{arguments.size}"
    print(table(rows))
    if severities:
        parts = ", ".join(f"{name} {score:.0f}" for name, score in severities.items())
        print(f"\nseverities of the fixed parameters (0 to 100): {parts}")
    held = [row["ok"] for row in rows if row["ok"] is not None]
    # Without one figure to hold a target against, nothing was shown.
    good = bool(held) and all(held)
    record = {
        "benchmark": "degradation",
        "ok": good,
        "targets_measured": len(held),
        "cores": os.cpu_count(),
        "severities": severities,
        "versions": versions(),
        "rows": rows,
    }
    line = json.dumps(record)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.check and not held:
        print("no target was measured", file=sys.stderr)
    print(line)
    return 1 if arguments.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
