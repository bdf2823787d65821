"""``rirf degrade``: clean pictures in, degraded pictures with a record of every parameter out."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf._version import __version__
from rirf.cli.batch import Work, add_ray, conclude, forbid_overwriting, run_batch
from rirf.cli.command import Command
from rirf.cli.restore import summary_of
from rirf.degradation import (
    Backend,
    Degraded,
    FilePrior,
    FogParameters,
    LabelPrior,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    fog,
    geometric,
    noise,
    rain,
    sample_recipe,
    select_backend,
    shake,
)
from rirf.degradation.depth import DepthPrior
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError
from rirf.files import Found, find_images, prepare_folder, write_atomic
from rirf.images import encode_image, read_image, to_float, to_uint8

if TYPE_CHECKING:
    from rirf.distributed import Job

__all__ = ["command", "file_seed"]

Drawn: TypeAlias = Literal["auto"]
Values: TypeAlias = tuple[float, ...]

_EPILOG = """\
Without an effect option, the seed decides which effects are there and with which parameters. With
any, exactly those effects are applied; "auto" as the value draws the parameters from the seed.

For each picture NAME it writes into DIR
  NAME.png               the degraded picture
  NAME.degradation.json  seed, backend, every parameter, the true diagnosis, the files' names
  NAME.1-fog.png ...     the picture after each stage, with --save-stages, and
  NAME.transmission.png  the fog's transmission, 16 bits, 65535 = clear

Each picture has a seed of its own: the first 8 bytes, little-endian, of the SHA-256 of "N:NAME.EXT"
(UTF-8, NFC), so neither the order of the pictures nor what else is degraded changes anything.

examples:
  rirf degrade photos/ -o degraded --seed 1
  rirf degrade photo.png -o degraded --seed 1 --fog 1.5,0.9 --noise auto --save-stages
"""


@dataclass(frozen=True)
class _Range:
    """One value of an effect option: its name and the bounds, both included."""

    name: str
    low: float
    high: float
    whole: bool = False

    def check(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        whole = not self.whole or value.is_integer()
        if not (self.low <= value <= self.high and whole):
            kind = "a whole number" if self.whole else "a number"
            raise ArgumentTypeError(
                f"{self.name} is {text!r}, expected {kind} from {self.low:g} to {self.high:g}"
            )
        return value


# Wider than what is drawn, as wide as the models make sense.
_BETA = _Range("BETA", 0.01, 10)
_LIGHT = {"A": _Range("A", 0, 1)} | {name: _Range(name, 0, 1) for name in "RGB"}
_SHAKE = (_Range("STEPS", 1, 256, whole=True), _Range("STEP_PX", 0.01, 15))
_RAIN = (
    _Range("DENSITY", 1e-6, 0.1),
    _Range("SLANT", -80, 80),
    _Range("LENGTH", 1, 300),
    _Range("WIDTH", 0.5, 20),
    _Range("OPACITY", 0.01, 1),
)
_NOISE = (_Range("GAIN", 0, 1), _Range("OFFSET", -255, 255))


def _effect(*forms: Sequence[_Range]) -> Callable[[str], Values | Drawn]:
    """An argparse type: "auto", or as many numbers as one of the forms has."""

    def parse(text: str) -> Values | Drawn:
        if text == "auto":
            return "auto"
        parts = text.split(",")
        for form in forms:
            if len(form) == len(parts):
                return tuple(item.check(part) for item, part in zip(form, parts, strict=True))
        expected = " or ".join(",".join(item.name for item in form) for form in forms)
        raise ArgumentTypeError(f"got {text!r}, expected {expected} or auto")

    return parse


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**64:
        raise ArgumentTypeError(f"got {text!r}, expected a whole number from 0 to 2^64 - 1")
    return value


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of ``rirf degrade``."""
    parser.add_argument(
        "sources", metavar="SRC", nargs="+", type=Path, help="clean pictures or folders"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results"
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, required=True, help="fixes every random number"
    )
    parser.add_argument(
        "--fog",
        metavar="BETA[,A|,R,G,B]",
        type=_effect((_BETA,), (_BETA, _LIGHT["A"]), (_BETA, *(_LIGHT[name] for name in "RGB"))),
        help="density exponent and atmospheric light, grey A or R,G,B in 0..1",
    )
    parser.add_argument(
        "--shake",
        metavar="STEPS,STEP_PX",
        type=_effect(_SHAKE),
        help="steps of the camera's random walk and their size in pixels",
    )
    parser.add_argument(
        "--rain",
        metavar="DENSITY,SLANT,LENGTH,WIDTH,OPACITY",
        type=_effect(_RAIN),
        help="streaks a pixel, degrees from the vertical, pixels, pixels, 0..1",
    )
    parser.add_argument(
        "--noise",
        metavar="GAIN,OFFSET",
        type=_effect(_NOISE),
        help="standard deviation |GAIN x + OFFSET| in grey levels at the grey level x",
    )
    parser.add_argument(
        "--labels",
        metavar="DIR",
        type=Path,
        help="class maps NAME.png (8 bits, CamVid's classes) for the fog's depth and the scene",
    )
    parser.add_argument(
        "--depth",
        metavar="DIR|FILE",
        type=Path,
        help="depth maps NAME.png or NAME.npy (larger is farther), or one for all pictures",
    )
    parser.add_argument(
        "--save-stages", action="store_true", help="also write the picture after each stage"
    )
    parser.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="auto",
        help="what does the arithmetic (default: the native kernels where they are installed)",
    )
    add_ray(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def file_seed(seed: int, name: str) -> int:
    """The seed of one picture: a function of the run's seed and the file's name alone.

    The first 8 bytes, little-endian, of the SHA-256 of ``"{seed}:{name}"`` in UTF-8, with the name
    (no folders, with its suffix) in Unicode's normal form C.
    """
    text = f"{seed}:{unicodedata.normalize('NFC', name)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _recipe(arguments: Namespace, seed: int) -> Recipe:
    given = {name: getattr(arguments, name) for name in EFFECTS}
    if all(value is None for value in given.values()):
        return sample_recipe(seed)
    recipe = Recipe(atmospheric_light=fog.sample_atmospheric_light(seed))
    if given["fog"] == "auto":
        recipe = replace(recipe, fog=fog.sample(seed))
    elif given["fog"] is not None:
        beta, *light = given["fog"]
        recipe = replace(recipe, fog=FogParameters(beta))
        if light:
            red, green, blue = light if len(light) == 3 else light * 3
            recipe = replace(recipe, atmospheric_light=(red, green, blue))
    if given["shake"] == "auto":
        recipe = replace(recipe, shake=shake.sample(seed))
    elif given["shake"] is not None:
        steps, step_px = given["shake"]
        recipe = replace(recipe, shake=ShakeParameters(int(steps), step_px))
    if given["rain"] == "auto":
        recipe = replace(recipe, rain=rain.sample(seed))
    elif given["rain"] is not None:
        recipe = replace(recipe, rain=RainParameters(*given["rain"]))
    if given["noise"] == "auto":
        recipe = replace(recipe, noise=noise.sample(seed))
    elif given["noise"] is not None:
        recipe = replace(recipe, noise=NoiseParameters(*given["noise"]))
    return recipe


def _companion(folder: Path, relative: Path, suffixes: Sequence[str], what: str) -> Path:
    """The map of a picture: its stem in ``folder``, in the picture's subfolder first."""
    tried = [
        base / (relative.stem + suffix)
        for base in dict.fromkeys((folder / relative.parent, folder))
        for suffix in suffixes
    ]
    for path in tried:
        if path.is_file():
            return path
    raise ImageError(f"no {what} for this picture; expected {' or '.join(map(str, tried))}")


def _labels(folder: Path, relative: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    path = _companion(folder, relative, (".png",), "class map")
    labels = LabelPrior.from_file(path).labels
    height, width = shape
    resized = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.uint8)


def _targets(relative: Path) -> tuple[Path, Path]:
    """The degraded picture and its record."""
    return relative.with_name(f"{relative.stem}.png"), relative.with_name(
        f"{relative.stem}.degradation.json"
    )


def _stage_target(relative: Path, number: int, effect: str) -> Path:
    return relative.with_name(f"{relative.stem}.{number}-{effect}.png")


def _transmission_target(relative: Path) -> Path:
    return relative.with_name(f"{relative.stem}.transmission.png")


def _outputs(save_stages: bool) -> Callable[[Path], list[Path]]:
    """Every file that a picture may write: which effects it gets is not known beforehand."""

    def outputs(relative: Path) -> list[Path]:
        paths = list(_targets(relative))
        if save_stages:
            paths.append(_transmission_target(relative))
            paths += [
                _stage_target(relative, number, effect)
                for last, effect in enumerate(EFFECTS, start=1)
                for number in range(1, last + 1)
            ]
        return paths

    return outputs


def _record(
    item: Found,
    arguments: Namespace,
    seed: int,
    backend: str,
    degraded: Degraded,
    files: dict[str, Any],
) -> str:
    record = {
        "rirf": __version__,
        "source": item.path.name,
        "seed": arguments.seed,
        "file_seed": seed,
        "backend": backend,
        "recipe": degraded.recipe.to_dict(),
        "diagnosis": degraded.diagnosis.model_dump(mode="json"),
        "files": files,
    }
    return json.dumps(record, indent=2) + "\n"


def run(arguments: Namespace) -> int:
    """Run ``rirf degrade``."""
    folder: Path = arguments.output
    outputs = _outputs(arguments.save_stages)
    found = find_images(arguments.sources, skip=folder, outputs=outputs)
    forbid_overwriting(found, folder, outputs)
    if arguments.labels is not None and not arguments.labels.is_dir():
        raise ImageError(f"--labels {arguments.labels}: no such folder; expected one of class maps")
    if arguments.depth is not None and not arguments.depth.exists():
        raise ImageError(f"--depth {arguments.depth}: no such file or folder of depth maps")
    backend = select_backend(arguments.backend)
    if arguments.ray is None:
        # Within: one depth map for all pictures is read, and refused, before DIR is made.
        with _opened(arguments, backend) as work:
            prepare_folder(folder)
            failed = run_batch(found, work, label="degrade", quiet=arguments.quiet)
    else:
        from rirf.distributed import run_on_ray

        job = _job(arguments, backend)
        prepare_folder(folder)
        failed = run_on_ray(arguments.ray, found, job, quiet=arguments.quiet)
    return conclude("degraded", len(found), failed, folder, quiet=arguments.quiet)


@contextmanager
def _opened(arguments: Namespace, backend: Backend, threads: int = 0) -> Iterator[Work]:
    """What degrades one picture."""
    # One map for all pictures is read, and refused, once.
    shared = (
        FilePrior.from_file(arguments.depth)
        if arguments.depth is not None and arguments.depth.is_file()
        else None
    )
    # The caller has chosen; on another machine this finds out whether it has that one.
    select_backend(backend)
    yield lambda item: _degrade(item, arguments, backend, shared, threads)


def _degrade(
    item: Found,
    arguments: Namespace,
    backend: Backend,
    shared: FilePrior | None,
    threads: int,
) -> str:
    """Degrade one picture, write its files and return the line that says so."""
    folder: Path = arguments.output
    frame = read_image(item.path)
    seed = file_seed(arguments.seed, item.path.name)
    labels = None
    prior: DepthPrior = geometric
    if arguments.labels is not None:
        labels = _labels(arguments.labels, item.relative, frame.shape[:2])
        prior = LabelPrior(labels)
    if shared is not None:
        prior = shared
    elif arguments.depth is not None:
        suffixes = (".npy", ".png")
        prior = FilePrior.from_file(
            _companion(arguments.depth, item.relative, suffixes, "depth map")
        )
    recipe = _recipe(arguments, seed)
    degraded = degrade(
        to_float(frame),
        seed,
        recipe=recipe,
        prior=prior,
        labels=labels,
        backend=backend,
        keep_stages=arguments.save_stages,
        threads=threads,
    )

    picture, record = (folder / path for path in _targets(item.relative))
    files: dict[str, Any] = {"image": picture.name}
    written = [(picture, encode_image(to_uint8(degraded.image), ".png"))]
    if arguments.save_stages:
        files["stages"] = {}
        for number, (effect, image) in enumerate(degraded.stages.items(), start=1):
            stage = folder / _stage_target(item.relative, number, effect)
            files["stages"][effect] = stage.name
            written.append((stage, encode_image(to_uint8(image), ".png")))
        transmission = folder / _transmission_target(item.relative)
        files["transmission"] = transmission.name
        levels = np.rint(degraded.transmission * np.float32(65535)).astype(np.uint16)
        written.append((transmission, encode_image(levels, ".png")))
    # The record comes last: where it is, the pictures it names are there too.
    written.append((record, _record(item, arguments, seed, backend, degraded, files).encode()))
    if not picture.parent.is_dir():
        prepare_folder(picture.parent)
    for path, data in written:
        write_atomic(path, data)
    return f"{item.path} -> {picture}  ({summary_of(degraded.diagnosis)})"


def _job(arguments: Namespace, backend: Backend) -> Job:
    """The same work for many machines."""
    from rirf.distributed import Job

    if arguments.depth is not None and arguments.depth.is_file():
        FilePrior.from_file(arguments.depth)  # refused here rather than by every worker
    given = ("seed", *EFFECTS, "labels", "depth", "save_stages")
    return Job(
        label="degrade",
        folder=arguments.output,
        opened=partial(_opened, arguments, backend),
        complete=lambda relative: _complete(arguments.output, relative),
        settings={"backend": backend} | {name: getattr(arguments, name) for name in given},
        inputs=(
            *arguments.sources,
            *(path for path in (arguments.labels, arguments.depth) if path is not None),
        ),
        threads=1,
        gpu=backend == "cuda",
    )


def _complete(folder: Path, relative: Path) -> bool:
    """Whether a picture's record is there, and every file that it names."""
    picture, record = (folder / path for path in _targets(relative))
    try:
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        named = [*files.get("stages", {}).values(), *filter(None, [files.get("transmission")])]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False
    return picture.is_file() and all(record.with_name(name).is_file() for name in named)


command = Command(
    name="degrade",
    help="add fog, shake, rain and noise to clean pictures, with a record",
    add_arguments=add_arguments,
    run=run,
    epilog=_EPILOG,
)
