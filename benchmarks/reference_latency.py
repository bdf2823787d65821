"""How fast is the edge pair beside a restoration network of the usual size, on the same machine?

The reference is built here from its published description: NAFNet of width 32 (Chen et al., "Simple
Baselines for Image Restoration", ECCV 2022). It has random weights: a dense network takes as long
whatever they are. Its ONNX file and the two graphs of a bundle run in turn in ONNX Runtime on the
CPU, with the same number of threads and the same frame size. Prints a table and, last, one JSON
line. See benchmarks/README.md.

Knows nothing of quality: the reference restores no frame, it only takes its time.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from degradation_timing import Candidate, compare, host_timer, ratio
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import rirf
from rirf.bundle import Graph
from rirf.engine import Engine, OnnxEngine
from rirf.errors import RirfError
from rirf.evaluation.environment import describe
from rirf_export.graphs import OPSET

# What the targets are for: one frame of this side, this many threads.
SIZE = 512
THREADS = 2
REASONER_MS_MAX = 12.0
RESTORER_MS_MAX = 75.0
# The restorer must take this many times fewer milliseconds than the reference.
TIMES_FASTER_MIN = 10.0

# NAFNet's published configuration for deblurring at width 32.
WIDTH = 32
ENCODER_BLOCKS = (1, 1, 1, 28)
MIDDLE_BLOCKS = 1
DECODER_BLOCKS = (1, 1, 1, 1)
REFERENCE = f"NAFNet width {WIDTH}"
# Four halvings.
REFERENCE_MULTIPLE = 2 ** len(ENCODER_BLOCKS)

SEED = 2022
ROUNDS_DEFAULT = 15
# Operators whose multiply-adds are counted; what is left (norms, gates, sums) is linear in the
# pixels and channels.
COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
COLUMNS = (
    ("name", "network"),
    ("ms", "median ms"),
    ("quartiles_ms", "quartiles"),
    ("target", "target"),
    ("ok", "ok"),
    ("times_faster", "times faster"),
    ("parameters", "parameters"),
    ("multiply_adds", "multiply-adds"),
    ("size", "size"),
    ("steps", "steps"),
    ("threads", "threads"),
    ("rounds", "rounds"),
    ("provider", "provider"),
    ("device", "device"),
)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: (B, C, H, W) in and out.

    Exported, this is one operator between two transpositions, which ONNX Runtime runs faster on a
    CPU than the same formula in elementary operators.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-6).permute(
            0, 3, 1, 2
        )


def gate(x: Tensor) -> Tensor:
    """SimpleGate: one half of the channels times the other, (B, 2C, H, W) to (B, C, H, W)."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Two gated residual branches, (B, C, H, W) in and out; ``beta``, ``gamma`` are 0 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.spatial_norm = ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.channel_norm = ChannelNorm(channels)
        self.feed = nn.Conv2d(channels, wide, 1)
        self.back = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = gate(self.depthwise(self.widen(self.spatial_norm(x))))
        # Simplified channel attention: no activation, one weight a channel.
        attended = gated * self.attention(gated.mean(dim=(2, 3), keepdim=True))
        y = x + self.beta * self.narrow(attended)
        z: Tensor = y + self.gamma * self.back(gate(self.feed(self.channel_norm(y))))
        return z


def _blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


class NAFNet(nn.Module):
    """The reference: RGB (B, 3, H, W) in and out, H and W multiples of 2 ** encoder levels."""

    def __init__(
        self,
        width: int = WIDTH,
        encoder: Sequence[int] = ENCODER_BLOCKS,
        middle: int = MIDDLE_BLOCKS,
        decoder: Sequence[int] = DECODER_BLOCKS,
    ) -> None:
        super().__init__()
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for count in encoder:
            self.encoders.append(_blocks(count, channels))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle = _blocks(middle, channels)
        for count in decoder:
            expand = nn.Conv2d(channels, 2 * channels, 1, bias=False)
            self.ups.append(nn.Sequential(expand, nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(_blocks(count, channels))

    def forward(self, image: Tensor) -> Tensor:
        x = self.intro(image)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        restored: Tensor = self.ending(x) + image
        return restored


def reference(seed: int = SEED, **sizes: Any) -> NAFNet:
    """The reference with random weights; ``sizes`` are :class:`NAFNet`'s.

    The residual scales are drawn too: left at zero, as they start, they would let a graph optimiser
    leave whole blocks out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NAFNet(**sizes)
        with torch.no_grad():
            for block in network.modules():
                if isinstance(block, NAFBlock):
                    block.beta.normal_(std=0.1)
                    block.gamma.normal_(std=0.1)
    return network.eval()


def export_reference(network: NAFNet, file: Path, size: int) -> None:
    """Write the reference for one frame size: ``image`` (1, 3, size, size) in, ``restored`` out.

    The size is fixed in the graph, which lets the runtime plan more than for our graphs, whose
    height and width are free.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter reports its passes in three ways
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(1, 3, size, size),),
                input_names=["image"],
                output_names=["restored"],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logging.disable(level)
    if program is None:
        raise RirfError("torch.onnx.export returned nothing")
    onnx.save_model(program.model_proto, file)


def multiply_adds(file: Path, feeds: Mapping[str, NDArray[Any]]) -> int:
    """Multiply-adds of one run of an ONNX graph on these inputs: convolutions, matrix products.

    Every counted operator reports the shapes it really works on, so that free axes cost no guess.
    """
    model = onnx.load(file)
    counted = [node for node in model.graph.node if node.op_type in COUNTED]
    sought = {name for node in counted for name in (*node.input[:2], node.output[0])}
    for number, name in enumerate(sorted(sought)):
        told = f"shape_{number}"
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [told]))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(told, onnx.TensorProto.INT64, None)
        )
    wanted = [f"shape_{number}" for number in range(len(sought))]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(wanted, dict(feeds)) if wanted else []
    shapes = {name: shape.tolist() for name, shape in zip(sorted(sought), found, strict=True)}
    total = 0
    for node in counted:
        left, right = (shapes[name] for name in node.input[:2])
        out = math.prod(shapes[node.output[0]])
        if node.op_type == "Conv":
            total += out * math.prod(right[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(left) * math.prod(right[1:])
        elif node.op_type == "Gemm":
            swapped = any(each.name == "transA" and each.i for each in node.attribute)
            total += out * int(left[0 if swapped else 1])
        else:
            total += out * int(left[-1])
    return total


def feeds_of(
    graph: Graph, size: int, constants: Mapping[str, float], random: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Inputs of a bundle's graph: ``constants`` by name, else uniform in [0, 1); free axes size."""
    feeds: dict[str, NDArray[Any]] = {}
    for spec in graph.inputs:
        shape = [size if isinstance(axis, str) else axis for axis in spec.shape]
        if spec.name in constants:
            values = np.full(shape, constants[spec.name])
        else:
            values = random.random(shape)
        feeds[spec.name] = values.astype(spec.dtype)
    return feeds


@dataclass(frozen=True)
class Subject:
    """What is timed: an engine and its inputs; ``file`` holds its graph of ``parameters``."""

    name: str
    engine: Engine
    file: Path
    feeds: dict[str, NDArray[Any]]
    parameters: int
    note: str
    steps: str = "-"


def subjects(pipeline: rirf.Pipeline, folder: Path, size: int, threads: int) -> list[Subject]:
    """The bundle's two networks and, exported into the folder, the reference."""
    random = np.random.default_rng(SEED)
    bundle, manifest = pipeline.bundle, pipeline.bundle.manifest
    whole = math.lcm(REFERENCE_MULTIPLE, manifest.restorer.multiple)
    if size % whole:
        raise SystemExit(
            f"--size {size}: expected a multiple of {whole}, which restorer and reference work on"
        )
    mode, schedule = next(iter(manifest.restorer.schedules.items()))
    time, step = schedule[0]
    network = reference(encoder=ENCODER_BLOCKS)
    file = folder / "reference.onnx"
    export_reference(network, file, size)
    return [
        Subject(
            "restorer",
            pipeline.restorer,
            bundle.path(manifest.restorer),
            feeds_of(manifest.restorer, size, {"time": time, "step": step}, random),
            manifest.restorer.parameters,
            "one run of its graph, which is one step",
            mode if len(schedule) == 1 else f"1 of {len(schedule)}",
        ),
        Subject(
            "reasoner",
            pipeline.reasoner,
            bundle.path(manifest.reasoner),
            feeds_of(manifest.reasoner, size, {}, random),
            manifest.reasoner.parameters,
            "its views have one size, whatever the frame's",
        ),
        Subject(
            REFERENCE,
            OnnxEngine(file, threads=threads),
            file,
            {"image": random.random((1, 3, size, size), dtype=np.float32)},
            sum(each.numel() for each in network.parameters()),
            "random weights; its graph is made for this size alone",
        ),
    ]


def measure(
    arguments: argparse.Namespace, progress: Callable[[str], object]
) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, Any]]:
    """Rows, times faster than the reference, and where it was measured."""
    size, threads = arguments.size, arguments.threads
    with (
        tempfile.TemporaryDirectory() as folder,
        rirf.load(arguments.bundle, threads=threads) as pipeline,
    ):
        timed = subjects(pipeline, Path(folder), size, threads)
        candidates = [
            Candidate(
                each.name, each.engine.device, each.note, partial(each.engine.run, each.feeds), 1
            )
            for each in timed
        ]
        rows = compare(candidates, arguments.rounds, host_timer, progress)
        failed = [f"{row['name']}: {row['note']}" for row in rows if not row["measured"]]
        if failed:
            raise SystemExit("; ".join(failed))
        for row, each in zip(rows, timed, strict=True):
            row |= {
                "steps": each.steps,
                "parameters": each.parameters,
                "multiply_adds": multiply_adds(each.file, each.feeds),
            }
        where = describe(pipeline, threads)
        timed[-1].engine.close()
    for package in ("torch", "onnx"):
        where["packages"][package] = metadata.version(package)
    ours, reading, theirs = (row["seconds"] for row in rows)
    together = [a + b for a, b in zip(ours, reading, strict=True)]
    faster = {
        "restorer": ratio(theirs, ours),
        "reasoner": ratio(theirs, reading),
        "pair": ratio(theirs, together),
    }
    for row in rows:
        quartiles = np.percentile(row["seconds"], (25, 75)) * 1e3
        row |= {
            "quartiles_ms": [round(float(each), 3) for each in quartiles],
            "times_faster": faster.get(row["name"]),
            "size": f"{size}x{size}",
            "threads": threads,
            "device": where["device"],
        }
        # Said otherwise by the fields above.
        del row["ratio"], row["batch"]
    return rows, faster, where


def hold(rows: Sequence[dict[str, Any]], faster: Mapping[str, float], holds: bool) -> bool | None:
    """Write targets into the rows; whether all are met, None where they do not apply."""
    limits = {"restorer": RESTORER_MS_MAX, "reasoner": REASONER_MS_MAX}
    for row in rows:
        limit = limits.get(row["name"]) if holds else None
        row |= {"target": limit, "ok": None if limit is None else row["ms"] <= limit}
    if not holds:
        return None
    met = faster["restorer"] >= TIMES_FASTER_MIN
    return met and all(row["ok"] is not False for row in rows)


def shown(row: Mapping[str, Any], key: str) -> str:
    """A cell of the table."""
    value = row[key]
    if value is None:
        return "-"
    if key == "ok":
        return "yes" if value else "NO"
    if key == "ms":
        return f"{value:.1f}"
    if key == "quartiles_ms":
        return f"{value[0]:.1f} to {value[1]:.1f}"
    if key == "target":
        return f"<= {value:g}"
    if key == "times_faster":
        return f"{value:.1f} x"
    if key == "parameters":
        return f"{value / 1e6:.2f} M"
    if key == "multiply_adds":
        return f"{value / 1e9:.2f} G"
    return str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[title for _, title in COLUMNS]]
    lines += [[shown(row, key) for key, _ in COLUMNS] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    text += ["", *(f"{row['name']}: {row['note']}" for row in rows)]
    return "\n".join(line.rstrip() for line in text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the edge pair's speed with NAFNet's.")
    parser.add_argument("--bundle", type=Path, help="a .rirf bundle (default: the one shipped)")
    parser.add_argument(
        "--size", type=int, default=SIZE, help=f"side of the frame, in pixels (default: {SIZE})"
    )
    parser.add_argument(
        "--threads", type=int, default=THREADS, help=f"threads for each (default: {THREADS})"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS_DEFAULT, help=f"default: {ROUNDS_DEFAULT}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the JSON there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    arguments = parser.parse_args(argv)
    if min(arguments.size, arguments.threads, arguments.rounds) < 1:
        parser.error("--size, --threads and --rounds take a whole number of at least 1")
    holds = (arguments.size, arguments.threads) == (SIZE, THREADS)
    if arguments.check and not holds:
        parser.error(
            f"--check: the targets are for {SIZE}x{SIZE} and {THREADS} threads; leave out --size "
            "and --threads, or --check"
        )
    with tqdm(desc="timing", unit=" timings", file=sys.stderr, leave=False, disable=None) as bar:
        rows, faster, where = measure(arguments, lambda _: bar.update())
    good = hold(rows, faster, holds)
    print(table(rows))
    held = f" (target >= {TIMES_FASTER_MIN:g} x)" if holds else " (targets do not apply here)"
    print(
        f"\nthan {REFERENCE}, the restorer is {faster['restorer']:.1f} times faster{held}, "
        f"reasoner and restorer together {faster['pair']:.1f} times"
    )
    record = {
        "benchmark": "reference_latency",
        "ok": good,
        "reference": REFERENCE,
        "times_faster": faster,
        "targets": {
            "reasoner_ms": REASONER_MS_MAX,
            "restorer_ms": RESTORER_MS_MAX,
            "times_faster": TIMES_FASTER_MIN,
        },
        "cores": os.cpu_count(),
        "environment": where,
        "rows": rows,
    }
    line = json.dumps(record)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 1 if arguments.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
