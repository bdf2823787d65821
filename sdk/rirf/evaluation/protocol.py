"""Evaluation protocol v1: which images, which draw for each, and in which order.

BSDS500-test and CamVid-test, one fixed draw an image: the seed comes from the image's name, so the
same file gets the same degradation on every machine and in every slice. Knows no pipeline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf.degradation import Degraded, LabelPrior, degrade, geometric, sample_recipe
from rirf.diagnosis import EFFECTS
from rirf.errors import ImageError, RirfError
from rirf.images import read_image, to_float, to_uint8

__all__ = [
    "CALIBRATION",
    "DATASETS",
    "NAMES",
    "TRUTH_SIZE",
    "Case",
    "Protocol",
    "Sample",
    "calibrated",
    "draw",
    "load_protocol",
    "seed_of",
    "shuffle_cycle",
    "truth_map",
]

NAMES = ("v1",)
DATASETS = ("bsds500", "camvid")
# Degraded inputs of the paper's outdoor table (PSNR in dB, SSIM), and how far ours may lie off.
CALIBRATION = ((13.46, 0.5), (0.326, 0.03))
# The true transmission is handed over at the resolution at which the reasoner estimates it, so that
# truth and prediction carry the same detail and their difference is accuracy alone.
TRUTH_SIZE = 32

_SUFFIXES = {"bsds500": (".jpg",), "camvid": (".jpg", ".png")}


@dataclass(frozen=True)
class Case:
    """One image of the protocol.

    Attributes:
        name: ``"<dataset>/<file name>"``, the same on every machine.
        dataset: ``bsds500`` or ``camvid``.
        path: the clean image.
        labels: its class map, for CamVid.
        seed: seed of its draw, with at least one effect present.
        clean: its name's own seed drew no effect at all; ``seed`` is the next one that draws some,
            and the image is evaluated undegraded as well.
    """

    name: str
    dataset: str
    path: Path
    labels: Path | None
    seed: int
    clean: bool


@dataclass(frozen=True)
class Sample:
    """A case, drawn.

    Attributes:
        case: where it comes from.
        truth: the clean frame, uint8 BGR (H, W, 3).
        frame: the degraded frame as the pipeline sees it, uint8 BGR (H, W, 3).
        degraded: every parameter and the true diagnosis.
    """

    case: Case
    truth: NDArray[np.uint8]
    frame: NDArray[np.uint8]
    degraded: Degraded


@dataclass(frozen=True)
class Protocol:
    """The cases of a run, in the protocol's order.

    Attributes:
        name: ``v1``.
        cases: the slice that is evaluated.
        available: number of images of the whole protocol.
    """

    name: str
    cases: tuple[Case, ...]
    available: int

    @property
    def clean(self) -> tuple[Case, ...]:
        """The cases that are evaluated undegraded as well."""
        return tuple(case for case in self.cases if case.clean)


def seed_of(name: str, version: str = "v1") -> int:
    """Seed of an image: the first 8 bytes, little-endian, of SHA-256 of ``"v1/<name>"``."""
    digest = hashlib.sha256(f"{version}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _draws_nothing(seed: int) -> bool:
    recipe = sample_recipe(seed)
    return all(getattr(recipe, name) is None for name in EFFECTS)


def _images(root: Path, dataset: str) -> list[Path]:
    folder = root / dataset / "test"
    suffixes = _SUFFIXES[dataset]
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        ]
    except OSError as error:
        raise RirfError(
            f"{folder}: cannot be listed ({error.strerror}); expected the protocol's images there: "
            f"DATA/bsds500/test/*.jpg, DATA/camvid/test/* and DATA/camvid/labels/test/*.png"
        ) from error
    if not found:
        raise RirfError(f"{folder}: holds no image; expected {' or '.join(suffixes)} files")
    # By the name's code points, not by the file system's or the locale's order.
    return sorted(found, key=lambda path: path.name)


def _files(root: Path) -> dict[str, list[Path]]:
    """The images of each set, in the protocol's order."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise RirfError(
            f"data root {root} {what}; expected a folder with bsds500/test/, camvid/test/ and "
            "camvid/labels/test/"
        )
    files = {dataset: _images(root, dataset) for dataset in DATASETS}
    for path in files["camvid"]:
        labels = _labels(path)
        if not labels.is_file():
            raise RirfError(
                f"{labels}: does not exist; every image of camvid/test needs its class map there, "
                "an 8-bit PNG of class indices 0..11"
            )
    return files


def _labels(path: Path) -> Path:
    """Where the class map of an image of camvid/test lies."""
    return path.parents[1] / "labels" / "test" / f"{path.stem}.png"


def _case(dataset: str, path: Path) -> Case:
    name = f"{dataset}/{path.name}"
    seed = seed_of(name)
    clean = _draws_nothing(seed)
    while _draws_nothing(seed):
        seed = (seed + 1) % 2**64
    labels = _labels(path) if dataset == "camvid" else None
    return Case(name=name, dataset=dataset, path=path, labels=labels, seed=seed, clean=clean)


def _spaced(files: Sequence[Path], count: int) -> list[Path]:
    """``count`` files in the middle of as many equal stretches."""
    return [files[(2 * place + 1) * len(files) // (2 * count)] for place in range(count)]


def load_protocol(root: Path, *, name: str = "v1", limit: int | None = None) -> Protocol:
    """The cases of the protocol under a data root.

    Args:
        root: folder that holds ``bsds500/test``, ``camvid/test`` and ``camvid/labels/test``.
        name: the protocol; there is ``v1``.
        limit: take this many images, evenly spaced over both sets and in proportion to their
            sizes, with at least one of each; the same images for the same number. At least 2.

    Raises:
        RirfError: an unknown protocol, a limit below 2, a missing folder, image or class map.
    """
    if name not in NAMES:
        raise RirfError(f"got protocol {name!r}; there is {', '.join(NAMES)}")
    if limit is not None and limit < len(DATASETS):
        raise RirfError(
            f"got a limit of {limit}; expected at least {len(DATASETS)} images, one of each set"
        )
    files = _files(root)
    available = sum(map(len, files.values()))
    if limit is not None and limit < available:
        photographs = len(files["bsds500"])
        # Rounded to nearest in whole numbers; neither set can give more images than it has.
        share = (2 * limit * photographs + available) // (2 * available)
        share = min(max(share, 1, limit - len(files["camvid"])), limit - 1, photographs)
        shares = {"bsds500": share, "camvid": limit - share}
        files = {dataset: _spaced(files[dataset], shares[dataset]) for dataset in DATASETS}
    cases = (_case(dataset, path) for dataset in DATASETS for path in files[dataset])
    return Protocol(name, tuple(cases), available)


def shuffle_cycle(cases: Sequence[Case]) -> list[Case]:
    """The cases in the order of one cycle: each takes the diagnosis of the one before it.

    The first takes that of the last. Ordered by a hash of the names, so it mixes both sets and
    depends on nothing but which images are there; with two or more cases none takes its own.
    """
    return sorted(cases, key=lambda case: (seed_of(f"shuffle/{case.name}"), case.name))


def draw(case: Case) -> Sample:
    """Read a case's image and degrade it.

    Raises:
        ImageError: the image or its class map cannot be read, or they differ in size.
    """
    truth = read_image(case.path)
    labels = None
    prior: LabelPrior | None = None
    if case.labels is not None:
        prior = LabelPrior.from_file(case.labels)
        labels = prior.labels
        if labels.shape != truth.shape[:2]:
            raise ImageError(
                f"{case.labels}: got a class map of {labels.shape[1]} x {labels.shape[0]} pixels; "
                f"expected the image's {truth.shape[1]} x {truth.shape[0]}"
            )
    degraded = degrade(to_float(truth), case.seed, prior=prior or geometric, labels=labels)
    return Sample(case=case, truth=truth, frame=to_uint8(degraded.image), degraded=degraded)


def truth_map(transmission: NDArray[np.float32]) -> NDArray[np.float32]:
    """The true transmission (H, W) as it is given to a pipeline: area means, (32, 32)."""
    size = (TRUTH_SIZE, TRUTH_SIZE)
    means = cv2.resize(transmission, size, interpolation=cv2.INTER_AREA)
    # A mean of ones may round to just above 1, which is no transmission.
    return np.minimum(means, np.float32(1.0), dtype=np.float32)


def calibrated(psnr: float, ssim: float) -> bool:
    """Whether mean input figures lie within 0.5 dB and 0.03 of the paper's 13.46 dB and 0.326."""
    return all(
        abs(got - wanted) <= margin
        for got, (wanted, margin) in zip((psnr, ssim), CALIBRATION, strict=True)
    )
