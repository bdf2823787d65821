"""Run a pipeline over the protocol's cases under every condition and keep one row a case.

Conditions: ``predicted`` (the pipeline's own reasoner and step policy), ``predicted_coarse`` (the
same diagnosis, one coarse pass), and with one coarse pass each, so that they differ in the
diagnosis alone: ``true`` (the oracle), ``none`` (no diagnosis), ``shuffled`` (another case's
oracle). Every case is also run undegraded, to see that it comes back untouched.
Knows no files but the protocol's, and averages nothing; see :mod:`rirf.evaluation.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.errors import RirfError
from rirf.evaluation.metrics import Figures, measure, scikit_image
from rirf.evaluation.protocol import Case, Protocol, Sample, draw, shuffle_cycle, truth_map
from rirf.pipeline import Pipeline
from rirf.reasoner import Reading, flat_transmission

__all__ = ["CONDITIONS", "CleanRow", "Evaluation", "Row", "evaluate"]

CONDITIONS = ("predicted", "predicted_coarse", "true", "none", "shuffled")
# Figures of one case are independent of each other, and SciPy's filters release the interpreter.
_FIGURE_WORKERS = 2


@dataclass(frozen=True)
class Row:
    """One degraded case.

    Attributes:
        case: the image and its seed.
        figures: ``input`` and every condition.
        truth, prediction: the two diagnoses.
        donor: name of the case whose diagnosis ``shuffled`` was given.
        steps: what the step policy chose for ``predicted``: ``bypass``, ``coarse`` or a number.
        map_error: mean absolute error of the transmission map, at 32 x 32.
        read_ms, restore_ms: wall time of the diagnosis and of the restoration, ``predicted``.
    """

    case: Case
    figures: dict[str, Figures]
    truth: Diagnosis
    prediction: Diagnosis
    donor: str
    steps: str
    map_error: float
    read_ms: float
    restore_ms: float

    @property
    def gain(self) -> float:
        """PSNR of ``predicted`` over the input, in dB."""
        return self.figures["predicted"].psnr - self.figures["input"].psnr

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects that are present."""
        return tuple(name for name in EFFECTS if self.truth.effect(name).present)


@dataclass(frozen=True)
class CleanRow:
    """One undegraded case: what the pipeline made of it, against the frame it was given."""

    case: Case
    figures: Figures
    untouched: bool
    steps: str
    prediction: Diagnosis


@dataclass(frozen=True)
class Evaluation:
    """Everything a run measured, in the protocol's order.

    Attributes:
        protocol: what was run.
        rows: one a degraded case.
        undegraded: one a case, its clean image as it is.
    """

    protocol: Protocol
    rows: tuple[Row, ...]
    undegraded: tuple[CleanRow, ...]

    @property
    def clean(self) -> tuple[CleanRow, ...]:
        """The undegraded rows of the cases whose own draw has no effect."""
        return tuple(row for row in self.undegraded if row.case.clean)


def _oracle(sample: Sample) -> Reading:
    return Reading(sample.degraded.diagnosis, truth_map(sample.degraded.transmission))


def _map_error(prediction: Reading, truth: NDArray[np.float32]) -> float:
    ours = prediction.transmission
    if ours is None:
        ours = flat_transmission(prediction.diagnosis)
    height, width = truth.shape
    resized = cv2.resize(ours, (width, height), interpolation=cv2.INTER_AREA)
    return float(np.abs(np.asarray(resized) - truth).mean())


def _diagnosed(reading: Reading) -> Diagnosis:
    if reading.diagnosis is None:
        raise RirfError(
            "the pipeline's reasoner gave no diagnosis; expected a bundle with a reasoner engine"
        )
    return reading.diagnosis


def _row(pipeline: Pipeline, sample: Sample, donor: tuple[Case, Reading], pool: Executor) -> Row:
    frame, truth = sample.frame, _oracle(sample)
    start = perf_counter()
    prediction = pipeline.read(frame)
    middle = perf_counter()
    restored = pipeline.restore(frame, prediction, steps="auto")
    end = perf_counter()
    readings = {
        "predicted_coarse": prediction,
        "true": truth,
        "none": Reading(None, None),
        "shuffled": donor[1],
    }
    frames: dict[str, NDArray[np.uint8]] = {"input": frame, "predicted": restored.image}
    if restored.steps == "coarse":  # the policy's choice was the same pass
        del readings["predicted_coarse"]
    for condition, reading in readings.items():
        frames[condition] = pipeline.restore(frame, reading, steps="coarse").image
    measured = pool.map(lambda each: measure(each, sample.truth), frames.values())
    figures = dict(zip(frames, measured, strict=True))
    figures.setdefault("predicted_coarse", figures["predicted"])
    return Row(
        case=sample.case,
        figures=figures,
        truth=sample.degraded.diagnosis,
        prediction=_diagnosed(prediction),
        donor=donor[0].name,
        steps=str(restored.steps),
        map_error=_map_error(prediction, truth_map(sample.degraded.transmission)),
        read_ms=(middle - start) * 1e3,
        restore_ms=(end - middle) * 1e3,
    )


def _clean_row(pipeline: Pipeline, sample: Sample) -> CleanRow:
    reading = pipeline.read(sample.truth)
    restored = pipeline.restore(sample.truth, reading, steps="auto")
    return CleanRow(
        case=sample.case,
        figures=measure(restored.image, sample.truth),
        untouched=bool(np.array_equal(restored.image, sample.truth)),
        steps=str(restored.steps),
        prediction=_diagnosed(reading),
    )


def _run(
    pipeline: Pipeline, cases: Sequence[Case], advance: Callable[[], object]
) -> Iterator[Row | CleanRow]:
    # Along the cycle the donor of a case has just been drawn: only the first needs an extra draw.
    cycle = shuffle_cycle(cases)
    donor = cycle[-1], _oracle(draw(cycle[-1]))
    with ThreadPoolExecutor(_FIGURE_WORKERS) as pool:
        for case in cycle:
            sample = draw(case)
            yield _row(pipeline, sample, donor, pool)
            yield _clean_row(pipeline, sample)
            donor = case, _oracle(sample)
            advance()


def evaluate(pipeline: Pipeline, cases: Protocol, *, progress: bool = False) -> Evaluation:
    """Run every case under every condition.

    Args:
        pipeline: a loaded pipeline; its figures are those of this bundle on this machine.
        cases: from :func:`rirf.evaluation.protocol.load_protocol`, at least two.
        progress: draw a progress bar on standard error, if that is a terminal.

    Raises:
        ImageError: an image or a class map cannot be read.
        MissingExtraError: scikit-image is not installed.
        RirfError: fewer than two cases, or a pipeline without a reasoner.
    """
    scikit_image()
    if len(cases.cases) < 2:
        raise RirfError(
            f"got {len(cases.cases)} case(s); expected at least 2, because the shuffled condition "
            "takes each diagnosis from another image"
        )
    first = draw(cases.cases[0])
    pipeline.restore(first.frame, pipeline.read(first.frame), steps="auto")  # not timed: warm-up
    place = {case.name: index for index, case in enumerate(cases.cases)}
    rows: list[Row] = []
    clean: list[CleanRow] = []
    with tqdm(total=len(cases.cases), unit="image", disable=None if progress else True) as bar:
        for row in _run(pipeline, cases.cases, bar.update):
            if isinstance(row, Row):
                rows.append(row)
            else:
                clean.append(row)
    return Evaluation(
        protocol=cases,
        rows=tuple(sorted(rows, key=lambda row: place[row.case.name])),
        undegraded=tuple(sorted(clean, key=lambda row: place[row.case.name])),
    )
