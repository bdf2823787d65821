"""Which network and which loss: short runs of equal length, quality against milliseconds.

Every candidate is trained for the same number of steps on the same draws, exported, and timed with
ONNX Runtime on the CPU, all in one run and in turns. Quality is that of held-out patches, with the
diagnosis the reasoner makes. Short runs favour what learns fast: the table ranks candidates, it
does not tell how good they become.

Reads benchmarks/results/network_search.json; ``--rerun missing`` runs what is not in it. Prints a
table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, Table, add_arguments

from rirf.engine import OnnxEngine
from rirf.evaluation.environment import device_name
from rirf_export.graphs import example_inputs, export_onnx
from rirf_training.networks import Restorer

ROOT = Path(__file__).resolve().parent
CONFIG = ROOT.parent / "training" / "configs" / "ablation.yaml"
RECORD = ROOT / "results" / "network_search.json"
SIZE = 512


def _network(**settings: Any) -> tuple[str, ...]:
    return tuple(f"network.{key}={json.dumps(value)}" for key, value in settings.items())


# The shipped network is the configuration's; these are the others.
_DENSE = {
    "channels": [32, 64, 128, 160],
    "blocks": [1, 1, 2, 3],
    "decoder_blocks": [1, 1, 2],
    "kernels": [3, 3, 3, 3],
    "stem": 3,
    "growth": "transposed",
}
_MIXED = {"channels": [32, 64, 128, 192], "blocks": [0, 1, 3, 4], "decoder_blocks": [1, 1, 2]}

ROWS = (
    Row("shipped", "7x7 depthwise, 32 to 160 channels"),
    Row("dense", "dense, 32 to 160 channels", _network(**_DENSE)),
    Row(
        "dense-small",
        "dense, 24 to 160 channels",
        _network(
            **{
                **_DENSE,
                "channels": [24, 48, 96, 160],
                "blocks": [0, 1, 2, 3],
                "decoder_blocks": [1, 1, 1],
            }
        ),
    ),
    Row(
        "quarter",
        "7x7 depthwise, from quarter resolution, 64 to 160 channels",
        _network(
            scale=4,
            channels=[64, 128, 160],
            blocks=[2, 3, 5],
            decoder_blocks=[2, 3],
            kernels=[7, 7, 7],
        ),
    ),
    Row(
        "mixed",
        "dense at half resolution, 7x7 depthwise below, 32 to 192 channels",
        _network(**_MIXED, kernels=[3, 7, 7, 7]),
    ),
    Row("small-kernels", "shipped, 5x5", _network(kernels=[5, 5, 5, 5])),
    Row("shallow", "shipped, one block a level", _network(blocks=[1] * 4, decoder_blocks=[1] * 3)),
    Row("loss-l1", "shipped, with L1", ("loss.pixel=l1",)),
    Row("loss-frequency", "shipped, spectra beside it", ("loss.frequency=0.1",)),
    Row("loss-no-ssim", "shipped, without SSIM", ("loss.ssim=0.0",)),
)


def measure(row: Row, seed: int, checkpoint: Path, figures: dict[str, float]) -> dict[str, Any]:
    steps = json.loads((checkpoint / "config.json").read_text())["provenance"]["steps_done"]
    return {"steps": steps, "settings": list(row.settings), **figures}


def latencies(table: Table, seed: int, threads: int, runs: int) -> dict[str, dict[str, float]]:
    """Median milliseconds and millions of parameters of every network, untrained, in turns."""
    engines: dict[str, tuple[OnnxEngine, dict[str, Any]]] = {}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, row in table.rows.items():
            network = Restorer(table.settings(row, seed).network).eval()
            file = Path(folder) / f"{name}.onnx"
            export_onnx(network, file, {})
            engine = OnnxEngine(file, threads=threads)
            sample = example_inputs(network, SIZE, SIZE, seed=0)
            names = [tensor.name for tensor in engine.inputs]
            inputs = dict(zip(names, (value.numpy() for value in sample), strict=True))
            engines[name] = engine, inputs
            count = sum(parameter.numel() for parameter in network.parameters())
            found[name] = {"parameters_m": count / 1e6}
        times: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(runs + 2):
            for name, (engine, inputs) in engines.items():
                start = time.perf_counter()
                engine.run(inputs)
                if turn >= 2:
                    times[name].append(1e3 * (time.perf_counter() - start))
        for name, (engine, _) in engines.items():
            found[name]["ms"] = float(np.median(times[name]))
            engine.close()
    return found


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Quality against milliseconds, a point a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), constrained_layout=True)
    for row in rows:
        axes.plot(row["ms"], row["predicted_psnr"], "o", color="tab:blue")
        axes.annotate(
            row["name"], (row["ms"], row["predicted_psnr"]), (5, 4), textcoords="offset points"
        )
    axes.set_xlabel(f"ms, {SIZE} x {SIZE}, ONNX Runtime CPU")
    axes.set_ylabel("PSNR, dB, predicted diagnosis")
    axes.set_title("short runs of equal length")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, RECORD)
    parser.add_argument("--threads", type=int, default=2, help="of the timed engines")
    parser.add_argument("--times", type=int, default=9, help="timed runs of each (default: 9)")
    parser.add_argument("--plot", type=Path, help="write a picture of quality against time")
    arguments = parser.parse_args(argv)
    table = Table(ROWS, CONFIG, arguments, "search")
    table.run(measure)
    seed = arguments.seeds[0]
    speeds = latencies(table, seed, arguments.threads, arguments.times)
    shown = []
    for name, row in table.rows.items():
        figures = table.measured(row, seed)
        if figures is not None:
            shown.append({"name": name, "title": row.title, **speeds[name], **figures})
    if not shown:
        raise SystemExit(f"{arguments.record}: nothing recorded; run --rerun missing")
    if not arguments.json:
        keys = ("predicted_psnr", "predicted_ssim", "true_psnr", "none_psnr")
        print(f"{'':<16}{'M':>6}{'ms':>8}" + "".join(f"{key:>16}" for key in keys))
        for each in sorted(shown, key=lambda one: -one["predicted_psnr"]):
            print(
                f"{each['name']:<16}{each['parameters_m']:>6.2f}{each['ms']:>8.1f}"
                + "".join(f"{each[key]:>16.3f}" for key in keys)
            )
    if arguments.plot is not None:
        plot(shown, arguments.plot)
    print(
        json.dumps(
            {
                "benchmark": "network_search",
                "size": SIZE,
                "threads": arguments.threads,
                "device": device_name("CPUExecutionProvider"),
                "rows": shown,
            }
        )
    )


if __name__ == "__main__":
    main()
