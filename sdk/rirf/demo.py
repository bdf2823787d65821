"""``python -m rirf.demo [SRC] -o DIR``: the whole way on one photograph.

Without SRC, a photograph from scikit-image is degraded by our own model and restored, so that the
truth is known and figures can be given. With SRC, the photograph is restored as it is. Knows
nothing that the public interface does not offer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rirf
from rirf.compare import comparison
from rirf.degradation import (
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    degrade,
    prior_from_depth,
)
from rirf.errors import EngineError, OutputError, RirfError, require
from rirf.evaluation.metrics import measure
from rirf.files import prepare_folder, write_atomic
from rirf.images import read_image, to_float, to_uint8, write_image

__all__ = ["RECIPE", "SEED", "Demonstration", "degraded_photo", "main", "run"]

SEED = 2026
RECIPE = Recipe(
    atmospheric_light=(0.9, 0.91, 0.93),
    fog=FogParameters(beta=1.0),
    rain=RainParameters(density=0.002, slant_deg=14.0, length_px=32.0, width_px=1.5, opacity=0.55),
    noise=NoiseParameters(gain=0.06, offset=3.0),
)


@dataclass(frozen=True)
class Demonstration:
    """What was written (path by what it shows) and what is printed."""

    files: dict[str, Path]
    text: str


def _open_country(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """A depth prior for a view over open ground: near below, farther up, the sky farthest."""
    up = np.linspace(1.0, 0.0, height, dtype=np.float32)
    depth = np.float32(0.85) * up * up * (np.float32(3.0) - np.float32(2.0) * up)
    return np.repeat(prior_from_depth(depth)[:, None], width, axis=1)


def degraded_photo() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A clean photograph and the same one with fog, rain and noise, both uint8 BGR (427, 640, 3).

    Raises:
        MissingExtraError: scikit-image, which brings the photograph, is not installed.
    """
    data = require("skimage.data", "eval", "get a photograph for the demonstration")
    clean = np.ascontiguousarray(data.rocket()[..., ::-1])
    degraded = degrade(to_float(clean), SEED, recipe=RECIPE, prior=_open_country)
    return clean, to_uint8(degraded.image)


def run(source: Path | None, folder: Path, *, bundle: Path | None = None) -> Demonstration:
    """Restore a photograph, or our own example, and write the results into ``folder``.

    Raises:
        RirfError: the photograph cannot be read, the results cannot be written, or the bundle
            cannot be used.
    """
    prepare_folder(folder)
    stem = "rocket" if source is None else source.stem
    names = {"restored": ".restored.png", "comparison": ".compare.png"}
    if source is None:
        names = {"input": ".input.png", **names}
    files = {what: folder / (stem + ending) for what, ending in names.items()}
    files["diagnosis"] = folder / f"{stem}.diagnosis.json"
    clean = None
    if source is None:
        clean, frame = degraded_photo()
    else:
        for path in files.values():
            if path.resolve() == source.resolve():
                raise OutputError(f"{path}: is the input, which is never overwritten; move it")
        frame = read_image(source)

    with rirf.load(bundle) as pipeline:
        result = pipeline(frame, consistency=True)
    diagnosis = result.diagnosis
    if diagnosis is None:
        raise EngineError("the reasoner gave no diagnosis; export the bundle again")

    height, width = frame.shape[:2]
    milliseconds = 1000 * result.timings["total"]
    how = f"steps: {result.steps}, {milliseconds:.0f} ms for {width} x {height} pixels"
    lines = [diagnosis.to_text(), f"Restored with {how}."]
    if result.consistency is not None:
        lines.append(f"Degraded again, against the input: {result.consistency.to_text()}.")
    if clean is not None:
        before, after = measure(frame, clean), measure(result.image, clean)
        figures = (
            f"PSNR {before.psnr:.2f} dB before, {after.psnr:.2f} dB after; "
            f"SSIM {before.ssim:.3f} before, {after.ssim:.3f} after"
        )
        lines.append(f"Against the original: {figures}.")
        how = f"{figures}   ({how})"
        write_image(files["input"], frame)
    write_image(files["restored"], result.image)
    write_atomic(files["diagnosis"], (diagnosis.to_json(indent=2) + "\n").encode())
    picture = comparison(frame, result.image, diagnosis, clean=clean, caption=how)
    write_image(files["comparison"], picture)
    lines += ["", *(f"{what + ':':<12}{path}" for what, path in files.items())]
    return Demonstration(files=files, text="\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rirf.demo",
        description="Restore a photograph; without SRC, one from scikit-image that is degraded "
        "first, so that the truth is known.",
    )
    parser.add_argument("source", metavar="SRC", nargs="?", type=Path, help="a photograph")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("demo"), help="default: demo"
    )
    parser.add_argument(
        "--bundle",
        metavar="BUNDLE",
        type=Path,
        help="a .rirf folder, or a shipped bundle's name (default: edge)",
    )
    arguments = parser.parse_args(argv)
    try:
        done = run(arguments.source, arguments.output, bundle=arguments.bundle)
    except RirfError as error:
        print("rirf.demo: error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(done.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
