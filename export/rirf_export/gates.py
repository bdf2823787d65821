"""What an exported pair of lower precision must still do before it ships: parity and quality.

Parity holds each output of one graph against torch; the quality gate holds the whole pair against
the fp32 pair on images of the evaluation protocol. A pair that fails is an error: the worst images
are saved for a person to look at, and nothing else is written or deleted.
Knows no builder: it takes engines and pipelines as they are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rirf.bundle import Bundle
from rirf.diagnosis import EFFECTS, Diagnosis
from rirf.engine import Engine, OnnxEngine
from rirf.errors import EngineError
from rirf.evaluation import Case, Figures, Sample, load_protocol, measure
from rirf.evaluation.metrics import average
from rirf.evaluation.protocol import draw
from rirf.files import prepare_folder, write_atomic
from rirf.images import write_image
from rirf.pipeline import Pipeline, Result
from rirf_export.precision.feeds import Feeds
from rirf_export.precision.fp16 import rounding_twin
from rirf_export.precision.measure import Comparison

if TYPE_CHECKING:
    from rirf_training.networks.reasoner import Reasoner
    from rirf_training.networks.restorer import Restorer

__all__ = [
    "FP16_MAX_LOSS_DB",
    "FP16_MIN_AGREEMENT",
    "FP16_PARITY_MIN_DB",
    "GATE_IMAGES",
    "INT8_MAX_LOSS_DB",
    "INT8_MIN_AGREEMENT",
    "INT8_PARITY_MIN_DB",
    "LIMITS",
    "GateError",
    "GateReport",
    "GateRow",
    "Limits",
    "Lowered",
    "emulated",
    "parity_gate",
    "quality_gate",
]

Lowered: TypeAlias = Literal["fp16", "int8"]
Picture: TypeAlias = NDArray[np.uint8]

# Signal to error of every output against torch in fp32, in dB, pooled over the samples: islands are
# chosen for 50 dB of rounding, an engine's own summation may take 5 of them; for INT8, a relative
# error of a tenth.
FP16_PARITY_MIN_DB = 45.0
INT8_PARITY_MIN_DB = 20.0
# Mean PSNR on the slice that the pair may lose against the fp32 pair, in dB.
FP16_MAX_LOSS_DB = 0.05
INT8_MAX_LOSS_DB = 0.25
# Share of presence flags that must be the fp32 pair's.
FP16_MIN_AGREEMENT = 0.99
INT8_MIN_AGREEMENT = 0.97
# Images of protocol v1, evenly spaced over its sets.
GATE_IMAGES = 60
# Images saved when a pair fails.
_WORST = 6
_BAND = 30  # height in pixels of the line of text above a picture


@dataclass(frozen=True)
class Limits:
    """What a precision is held to; see the constants."""

    parity_db: float
    loss_db: float
    agreement: float


LIMITS: dict[Lowered, Limits] = {
    "fp16": Limits(FP16_PARITY_MIN_DB, FP16_MAX_LOSS_DB, FP16_MIN_AGREEMENT),
    "int8": Limits(INT8_PARITY_MIN_DB, INT8_MAX_LOSS_DB, INT8_MIN_AGREEMENT),
}


@dataclass(frozen=True)
class GateRow:
    """One image.

    Attributes:
        name: of the protocol's case.
        reference, candidate: figures of the frames restored by either pair, against the clean one,
            both in the mode that the reference chose.
        agreeing, flags: presence flags the two agree on, and all of them; the degraded frame's and
            the clean frame's count alike.
        same_mode: the candidate's step policy chose that mode too.
    """

    name: str
    reference: Figures
    candidate: Figures
    agreeing: int
    flags: int
    same_mode: bool

    @property
    def loss_db(self) -> float:
        """PSNR lost, in dB; negative where the candidate is better."""
        return self.reference.psnr - self.candidate.psnr


@dataclass(frozen=True)
class GateReport:
    """What a candidate pair loses against the reference pair.

    Attributes:
        precision: of the candidate.
        limits: what it is held to.
        rows: one an image, in the protocol's order.
    """

    precision: Lowered
    limits: Limits
    rows: tuple[GateRow, ...]

    @property
    def reference(self) -> Figures:
        """Mean figures of the reference pair."""
        return average(row.reference for row in self.rows)

    @property
    def candidate(self) -> Figures:
        """Mean figures of the candidate."""
        return average(row.candidate for row in self.rows)

    @property
    def loss_db(self) -> float:
        """Mean PSNR lost, in dB."""
        return self.reference.psnr - self.candidate.psnr

    @property
    def agreement(self) -> float:
        """Share of the presence flags that are the reference's."""
        return sum(row.agreeing for row in self.rows) / sum(row.flags for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether both limits hold; a figure that is no number holds none."""
        return self.loss_db <= self.limits.loss_db and self.agreement >= self.limits.agreement

    def to_dict(self) -> dict[str, Any]:
        """The means and the limits, for a manifest."""
        return {
            "precision": self.precision,
            "images": len(self.rows),
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "loss_db": round(self.loss_db, 4),
            "agreement": round(self.agreement, 4),
            "same_mode": sum(row.same_mode for row in self.rows),
            "limits": asdict(self.limits),
            "passed": self.passed,
        }


class GateError(EngineError):
    """A pair of lower precision is too far from the fp32 pair to be shipped.

    Attributes:
        report: what was measured, for the quality gate.
        folder: where the worst images lie, for the quality gate.
    """

    def __init__(
        self, message: str, report: GateReport | None = None, folder: Path | None = None
    ) -> None:
        super().__init__(message)
        self.report = report
        self.folder = folder


@contextmanager
def emulated(folder: Path, *, threads: int | None = None) -> Iterator[Pipeline]:
    """A bundle on the CPU, its fp16 graphs rounding as they do where fp16 is computed.

    ONNX Runtime's CPU provider runs fp16 graphs in fp32, and every gate would pass there.

    Raises:
        BundleError, EngineError: as :func:`rirf.load`.
    """
    bundle = Bundle.open(folder)
    engines: list[Engine] = []
    with tempfile.TemporaryDirectory() as work:
        for graph in (bundle.manifest.reasoner, bundle.manifest.restorer):
            file = bundle.path(graph)
            if graph.precision == "fp16":
                rounding_twin(file, Path(work) / graph.file)
                file = Path(work) / graph.file
            engines.append(OnnxEngine(file, threads=threads))
        with Pipeline(bundle, engines[0], engines[1]) as pipeline:
            yield pipeline


def parity_gate(
    network: Reasoner | Restorer, engine: Engine, samples: Iterable[Feeds], precision: Lowered
) -> dict[str, float]:
    """Signal to error of each output against torch in fp32, in dB, pooled over the samples.

    Args:
        network: the checkpoint's network.
        engine: the built graph; for fp16 on the CPU that of :func:`emulated`.
        samples: real inputs, see :func:`rirf_export.precision.feeds.record`; at least one.
        precision: which limit holds.

    Raises:
        GateError: an output lies below the precision's ``parity_db``.
        EngineError: no sample.
    """
    import torch

    from rirf_export.graphs import input_names, output_names

    network.eval()
    comparison = Comparison()
    for feeds in samples:
        given = [torch.from_numpy(feeds[name]) for name in input_names(network)]
        with torch.no_grad():
            values = network(*given)
        values = (values,) if isinstance(values, torch.Tensor) else values
        named = zip(output_names(network), values, strict=True)
        comparison.add({name: value.numpy() for name, value in named}, engine.run(feeds))
    found = comparison.decibels
    if not found:
        raise EngineError("got no sample; expected at least one recorded frame to compare on")
    floor = LIMITS[precision].parity_db
    low = {name: value for name, value in found.items() if not value >= floor}
    if low:
        figures = ", ".join(f"{name} {value:.1f} dB" for name, value in low.items())
        raise GateError(
            f"the {precision} {network.config.kind} differs from torch: {figures}; expected at "
            f"least {floor:.0f} dB; nothing was written"
        )
    return found


def quality_gate(
    reference: Pipeline,
    candidate: Pipeline,
    data: Path,
    *,
    precision: Lowered,
    rejects: Path,
    images: int = GATE_IMAGES,
    progress: bool = False,
) -> GateReport:
    """Hold a pair against the fp32 pair on images of protocol v1.

    Each frame goes through both pipelines as in use, each with its own diagnosis; the reference's
    figures are those ``rirf eval`` calls ``predicted``. The candidate restores in the mode the
    reference chose: where a probability lies next to the policy's threshold, the last digit decides
    between leaving a frame alone and restoring it, and one such frame outweighs all others.

    Args:
        reference: the fp32 bundle.
        candidate: the one to judge; for fp16 on the CPU from :func:`emulated`.
        data: the protocol's data root, see :func:`rirf.evaluation.load_protocol`.
        precision: which limits hold.
        rejects: folder for the worst images of a pair that fails; made then, and only then.
        images: size of the slice, at least 2.
        progress: show a progress bar.

    Raises:
        GateError: the pair fails; the worst images and ``report.json`` are in ``rejects``.
        RirfError: the data is not there, or the images cannot be written.
    """
    cases = load_protocol(data, limit=images).cases
    bar = tqdm(cases, desc=f"{precision} gate", unit="image", disable=None if progress else True)
    rows = tuple(_row(reference, candidate, draw(case)) for case in bar)
    report = GateReport(precision, LIMITS[precision], rows)
    if report.passed:
        return report
    _save_worst(report, reference, candidate, cases, prepare_folder(rejects))
    limits = report.limits
    raise GateError(
        f"the {precision} pair loses {report.loss_db:.3f} dB on {len(rows)} images (at most "
        f"{limits.loss_db:g} may be lost) and agrees on {report.agreement:.1%} of the diagnosis "
        f"flags (at least {limits.agreement:.0%} must); nothing was shipped; its worst images are "
        f"in {rejects}: calibrate on more frames, keep the most sensitive layers in fp32, or ship "
        "a higher precision",
        report,
        rejects,
    )


def _row(reference: Pipeline, candidate: Pipeline, sample: Sample) -> GateRow:
    ours, theirs = _both(reference, candidate, sample.frame)
    flags = [
        (*_flags(_diagnosed(result)), *_flags(pipeline.diagnose(sample.truth)))
        for pipeline, result in ((reference, ours), (candidate, theirs))
    ]
    return GateRow(
        name=sample.case.name,
        reference=measure(ours.image, sample.truth),
        candidate=measure(theirs.image, sample.truth),
        agreeing=sum(a == b for a, b in zip(*flags, strict=True)),
        flags=len(flags[0]),
        same_mode=candidate.bundle.manifest.policy.choose(theirs.diagnosis) == ours.steps,
    )


def _both(reference: Pipeline, candidate: Pipeline, frame: Picture) -> tuple[Result, Result]:
    """The frame restored by either pair, in the mode the reference chooses."""
    ours = reference(frame)
    return ours, candidate(frame, steps=ours.steps)


def _diagnosed(result: Result) -> Diagnosis:
    if result.diagnosis is None:
        raise EngineError("the pipeline gave no diagnosis; expected a bundle with a reasoner")
    return result.diagnosis


def _flags(diagnosis: Diagnosis) -> tuple[bool, ...]:
    return tuple(diagnosis.effect(name).present for name in EFFECTS)


def _save_worst(
    report: GateReport,
    reference: Pipeline,
    candidate: Pipeline,
    cases: Sequence[Case],
    folder: Path,
) -> None:
    """Save the rows with the most flags changed or the most PSNR lost, each as a picture."""
    by_name = {case.name: case for case in cases}
    lost = sorted(report.rows, key=lambda row: -row.loss_db)[:_WORST]
    flipped = sorted(
        (row for row in report.rows if row.agreeing < row.flags), key=lambda row: row.agreeing
    )
    for row in dict.fromkeys((*lost, *flipped[:_WORST])):
        sample = draw(by_name[row.name])
        ours, theirs = _both(reference, candidate, sample.frame)
        pictures = [
            (f"input {measure(sample.frame, sample.truth).psnr:.2f} dB", sample.frame),
            (f"fp32 {row.reference.psnr:.2f} dB", ours.image),
            (f"{report.precision} {row.candidate.psnr:.2f} dB", theirs.image),
        ]
        title = (
            f"{row.name}: {row.loss_db:+.2f} dB lost, {row.flags - row.agreeing} of {row.flags} "
            "flags changed"
        )
        write_image(folder / f"{row.name.replace('/', '-')}.png", _sheet(title, pictures))
    record = report.to_dict() | {"rows": [asdict(row) for row in report.rows]}
    write_atomic(folder / "report.json", (json.dumps(record, indent=2) + "\n").encode())


def _sheet(title: str, pictures: Sequence[tuple[str, Picture]]) -> Picture:
    """Pictures of one size side by side, each under its label, all under the title."""
    labelled = [np.vstack([_band(text, image.shape[1]), image]) for text, image in pictures]
    row = np.hstack(labelled)
    sheet: Picture = np.vstack([_band(title, row.shape[1]), row])
    return sheet


def _band(text: str, width: int) -> Picture:
    band = np.full((_BAND, width, 3), 255, dtype=np.uint8)
    at = (8, _BAND - 10)
    cv2.putText(band, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return band
