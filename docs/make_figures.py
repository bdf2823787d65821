"""Makes what the documentation shows of the code: the degradation picture, a table, the schema.

``python docs/make_figures.py`` writes ``images/degradation.png``, ``images/restored.png`` (what
``make demo`` shows) and ``images/failures.png`` (the worst restorations; all three need
scikit-image for the photos), ``diagnosis.schema.json`` and the conditioning table inside
``diagnosis.md``; ``--text`` leaves the pictures alone, ``--failures`` draws the last one alone, for
any bundle. A test compares the text parts with the code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import rirf
from rirf import conditioning, demo
from rirf.degradation import (
    Degraded,
    FilePrior,
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    geometric,
)
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import require
from rirf.evaluation.metrics import Figures, measure
from rirf.files import write_atomic
from rirf.images import to_float, to_uint8

__all__ = [
    "TABLE_BEGIN",
    "TABLE_END",
    "Failure",
    "conditioning_table",
    "degradation_picture",
    "failures_picture",
    "schema",
    "with_table",
    "worst_restorations",
]

DOCS = Path(__file__).resolve().parent
TABLE_BEGIN = "<!-- conditioning table, written by make_figures.py: begin -->"
TABLE_END = "<!-- conditioning table: end -->"

SEED = 1786
RECIPE = Recipe(
    atmospheric_light=(0.82, 0.85, 0.9),
    fog=FogParameters(beta=1.0),
    shake=ShakeParameters(steps=20, step_px=1.1),
    rain=RainParameters(density=1.5e-3, slant_deg=14.0, length_px=34.0, width_px=1.2, opacity=0.55),
    noise=NoiseParameters(gain=0.08, offset=6.0),
)
# The photo's own depth, roughly: the higher in the frame, the farther.
DEPTH = FilePrior(np.linspace(1.0, 0.1, 64, dtype=np.float32)[:, None].repeat(64, axis=1))
GEOMETRY_SEEDS = (1, 2, 3)
PANEL = (420, 280)  # width, height
TITLE_HEIGHT = 26

# Colour photographs that come with scikit-image; the pair has seen none of them.
FAILURE_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
FAILURE_SEEDS = range(12)
FAILURES = 3


def conditioning_table() -> str:
    """The conditioning vector as a Markdown table."""
    lines = ["| index | name | unit | scale |", "|---:|---|---|---:|"]
    lines += [
        f"| {entry.index} | `{entry.name}` | {entry.unit} | {entry.scale:g} |"
        for entry in conditioning.TABLE
    ]
    return "\n".join(lines)


def with_table(document: str) -> str:
    """The document with the table between its two markers replaced by the current one."""
    head, begin, rest = document.partition(TABLE_BEGIN)
    _, end, tail = rest.partition(TABLE_END)
    if not begin or not end:
        raise ValueError(f"expected the lines {TABLE_BEGIN!r} and {TABLE_END!r} in diagnosis.md")
    return f"{head}{begin}\n{conditioning_table()}\n{end}{tail}"


def schema() -> str:
    """The JSON schema of a diagnosis, as text."""
    standard = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(standard | Diagnosis.model_json_schema(), indent=2) + "\n"


def _line(text: str, width: int) -> NDArray[np.uint8]:
    """A line of text on white, uint8 BGR."""
    bar = np.full((TITLE_HEIGHT, width, 3), 255, dtype=np.uint8)
    cv2.putText(bar, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def _titled(image: NDArray[np.float32], title: str) -> NDArray[np.uint8]:
    """A float RGB image in [0, 1] as a uint8 BGR panel below its title."""
    pixels = (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)[..., ::-1]
    return np.vstack([_line(title, pixels.shape[1]), pixels])


def _resized(image: NDArray[np.float32], size: tuple[int, int], method: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.float32)


def _parts(result: Degraded) -> NDArray[np.float32]:
    """Transmission map above the streak mask, the kernel enlarged beside them."""
    if result.psf is None or result.streaks is None:
        raise ValueError("expected a recipe with shake and rain")
    width, height = PANEL
    half = height // 2
    maps = [
        _resized(part, (width - height, half), cv2.INTER_AREA)
        for part in (result.transmission, result.streaks)
    ]
    kernel = _resized(result.psf / result.psf.max(), (height, height), cv2.INTER_NEAREST)
    grey = np.hstack([np.vstack(maps), kernel])
    return np.repeat(grey[..., None], 3, axis=2)


def degradation_picture() -> NDArray[np.uint8]:
    """Clean frame, the four stages, their ingredients, three sampled priors; uint8 BGR."""
    data = require("skimage.data", "eval", "draw the documentation's pictures")
    photo = np.asarray(data.rocket(), dtype=np.float32) / np.float32(255.0)
    clean = np.clip(_resized(photo, PANEL, cv2.INTER_AREA), 0.0, 1.0)
    result = degrade(clean, SEED, recipe=RECIPE, prior=DEPTH)
    truth = result.diagnosis
    titles = {
        "fog": f"fog: t_mean {truth.fog.transmission_mean:.2f}, severity {truth.fog.severity:.0f}",
        "shake": f"+ shake: {truth.shake.direction_deg:.0f} deg, {truth.shake.length_px:.1f} px, "
        f"severity {truth.shake.severity:.0f}",
        "rain": f"+ rain: {truth.rain.slant_deg:.0f} deg, coverage {truth.rain.coverage:.2f}, "
        f"severity {truth.rain.severity:.0f}",
        "noise": f"+ noise: k {truth.noise.gain:g}, b {truth.noise.offset:g}, "
        f"severity {truth.noise.severity:.0f}",
    }
    panels = [_titled(clean, "clean")]
    panels += [_titled(stage, titles[name]) for name, stage in result.stages.items()]
    panels.append(_titled(_parts(result), "transmission, streaks; kernel (31 x 31)"))
    for seed in GEOMETRY_SEEDS:
        prior = geometric(seed, PANEL[1], PANEL[0])
        grey = np.repeat(prior[..., None], 3, axis=2)
        panels.append(_titled(grey, f"sampled geometry: t0 of seed {seed}"))
    gap = np.full((panels[0].shape[0], 6, 3), 255, dtype=np.uint8)
    rows = [
        np.hstack([panels[i], gap, panels[i + 1], gap, panels[i + 2]])
        for i in range(0, len(panels), 3)
    ]
    return np.vstack(rows)


@dataclass(frozen=True)
class Failure:
    """A restoration: what it was made of (``photo``, ``seed``) and what came of it; uint8 BGR."""

    photo: str
    seed: int
    frame: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    clean: NDArray[np.uint8]
    truth: Diagnosis
    prediction: Diagnosis
    mode: str
    before: Figures
    after: Figures


def worst_restorations(
    pipeline: rirf.Pipeline,
    photos: Mapping[str, NDArray[np.uint8]],
    seeds: Iterable[int],
    count: int,
) -> list[Failure]:
    """The ``count`` photos (uint8 BGR) that come back worst, the worst first.

    Each is degraded with every seed that draws an effect, as for training, and restored by the
    pipeline's own diagnosis and policy. Of each the restoration with the lowest PSNR counts.
    """
    worst: dict[str, Failure] = {}
    tried = [(name, seed) for name in photos for seed in seeds]
    for name, seed in tqdm(tried, desc="restore", unit="draw", disable=None):
        clean = np.ascontiguousarray(photos[name])
        degraded = degrade(to_float(clean), seed, keep_stages=False)
        truth = degraded.diagnosis
        if not any(truth.effect(effect).present for effect in EFFECTS):
            continue
        frame = to_uint8(degraded.image)
        result = pipeline(frame)
        if result.diagnosis is None:
            raise ValueError("expected a pipeline that diagnoses")
        after = measure(result.image, clean)
        if name in worst and worst[name].after.psnr <= after.psnr:
            continue
        worst[name] = Failure(
            photo=name,
            seed=seed,
            frame=frame,
            restored=result.image,
            clean=clean,
            truth=truth,
            prediction=result.diagnosis,
            mode=result.steps,
            before=measure(frame, clean),
            after=after,
        )
    return sorted(worst.values(), key=lambda each: each.after.psnr)[:count]


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A uint8 BGR image as float RGB at the largest size that fits a panel, on white."""
    width, height = PANEL
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    panel = np.ones((height, width, 3), dtype=np.float32)
    left = (width - size[0]) // 2
    panel[: size[1], left : left + size[0]] = _resized(to_float(image), size, cv2.INTER_AREA)
    return panel


def _severities(diagnosis: Diagnosis) -> str:
    """The four effects' severities as text; an absent one is "no"."""
    effects = ((name, diagnosis.effect(name)) for name in EFFECTS)
    return ", ".join(
        f"{name} {effect.severity:.0f}" if effect.present else f"no {name}"
        for name, effect in effects
    )


def failures_picture(failures: Sequence[Failure], rule: str) -> NDArray[np.uint8]:
    """One row a failure: input, restored, clean, with figures, truth and diagnosis; uint8 BGR."""
    rows: list[NDArray[np.uint8]] = []
    for each in failures:
        titles = (
            (each.frame, f"input: {each.before.psnr:.2f} dB, SSIM {each.before.ssim:.3f}"),
            (
                each.restored,
                f"restored ({each.mode}): {each.after.psnr:.2f} dB, SSIM {each.after.ssim:.3f}",
            ),
            (each.clean, f"clean: {each.photo}, degraded with seed {each.seed}"),
        )
        panels = [_titled(_fitted(image), title) for image, title in titles]
        gap = np.full((panels[0].shape[0], 6, 3), 255, dtype=np.uint8)
        rows.append(np.hstack([panels[0], gap, panels[1], gap, panels[2]]))
        text = f"true: {_severities(each.truth)}    diagnosed: {_severities(each.prediction)}"
        rows.append(_line(text, rows[-1].shape[1]))
    return np.vstack([_line(rule, rows[0].shape[1]), *rows])


def _write_failures(bundle: Path | None, file: Path) -> None:
    data = require("skimage.data", "eval", "draw the documentation's pictures")
    photos = {name: getattr(data, name)()[..., ::-1] for name in FAILURE_PHOTOS}
    with rirf.load(bundle) as pipeline:
        failures = worst_restorations(pipeline, photos, FAILURE_SEEDS, FAILURES)
        name = pipeline.bundle.manifest.name
    rule = (
        f"{name}: lowest PSNR of {len(photos)} photographs x {len(FAILURE_SEEDS)} seeds, "
        "the worst seed of a photograph; severities 0 to 100"
    )
    _, png = cv2.imencode(
        ".png", failures_picture(failures, rule), (cv2.IMWRITE_PNG_COMPRESSION, 9)
    )
    write_atomic(file, png.tobytes())


def main() -> None:
    """Write everything, or what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", action="store_true", help="write the table and the schema only")
    parser.add_argument(
        "--failures", type=Path, metavar="FILE.png", help="draw the worst restorations alone, here"
    )
    parser.add_argument(
        "--bundle", type=Path, help="whose restorations are drawn (default: the bundle shipped)"
    )
    arguments = parser.parse_args()
    if arguments.failures is not None:
        _write_failures(arguments.bundle, arguments.failures)
        return
    page = DOCS / "diagnosis.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "diagnosis.schema.json").write_text(schema(), encoding="utf-8")
    if not arguments.text:
        _, png = cv2.imencode(".png", degradation_picture(), (cv2.IMWRITE_PNG_COMPRESSION, 9))
        (DOCS / "images").mkdir(exist_ok=True)
        (DOCS / "images" / "degradation.png").write_bytes(png.tobytes())
        with tempfile.TemporaryDirectory() as folder:
            done = demo.run(None, Path(folder), bundle=arguments.bundle)
            shutil.copyfile(done.files["comparison"], DOCS / "images" / "restored.png")
        _write_failures(arguments.bundle, DOCS / "images" / "failures.png")


if __name__ == "__main__":
    main()
