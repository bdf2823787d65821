"""The runtime: a frame in, a diagnosis and a restored frame out.

``Pipeline(frame)``: views, reasoner, step policy, tiles, restorer, blend. Nothing flows back, and
nothing here knows how the networks were trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from rirf import restorer, views
from rirf.bundle import SHIPPED, Bundle, Graph
from rirf.consistency import Consistency, assess
from rirf.diagnosis import Diagnosis
from rirf.engine import Engine, OnnxEngine
from rirf.errors import BundleError, EngineError, ImageError
from rirf.images import check_frame
from rirf.policy import MODES, Mode
from rirf.reasoner import Reading, decode
from rirf.shapes import DEFAULT_SHAPES, Shapes

__all__ = ["Backend", "Pipeline", "Result", "Steps", "load"]

Steps: TypeAlias = Literal["auto", "bypass", "coarse", "1", "2", "4", 1, 2, 4]
Backend: TypeAlias = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Result:
    """A restored frame.

    Attributes:
        image: uint8 (H, W, 3), size and colour order of the input.
        diagnosis: what it was restored with, None if without.
        steps: the mode that was used: bypass, coarse, or a number of bridge steps.
        timings: seconds of each part (views, reasoner, restorer, consistency) and in total.
        transmission: float32 (H, W), the transmission the restorer was given.
        consistency: how well the image, degraded again with the diagnosis, gives the input; None
            unless it was asked for.
    """

    image: NDArray[np.uint8]
    diagnosis: Diagnosis | None
    steps: Mode
    timings: dict[str, float] = field(default_factory=dict)
    transmission: NDArray[np.float32] | None = None
    consistency: Consistency | None = None


class Pipeline:
    """A loaded bundle; make it with :func:`load`. Usable from several threads, and as a context."""

    def __init__(self, bundle: Bundle, reasoner: Engine, restorer: Engine) -> None:
        self.bundle = bundle
        self.reasoner = reasoner
        self.restorer = restorer
        for graph, engine in (
            (bundle.manifest.reasoner, reasoner),
            (bundle.manifest.restorer, restorer),
        ):
            _check_tables(bundle, graph, engine)

    def __call__(
        self,
        frame: NDArray[np.uint8],
        *,
        color: Literal["bgr", "rgb"] = "bgr",
        diagnosis: Diagnosis | None = None,
        transmission: NDArray[np.float32] | None = None,
        steps: Steps = "auto",
        consistency: bool = False,
    ) -> Result:
        """Diagnose (unless a diagnosis is given) and restore a frame.

        Args:
            frame: uint8 (H, W, 3), H and W >= 16.
            color: its channel order; the result has the same.
            diagnosis: restore with this instead of the reasoner's.
            transmission: with a given diagnosis, float32 (h, w) in (0, 1] at any resolution; the
                diagnosis's mean everywhere when None.
            steps: ``auto`` lets the bundle's policy choose.
            consistency: also check the result against the frame (:mod:`rirf.consistency`).

        Raises:
            ImageError: the frame or the map breaks the contract above.
            EngineError: the bundle has no such steps, or an engine failed.
        """
        started = time.perf_counter()
        bgr = _to_bgr(frame, color)
        if diagnosis is None:
            if transmission is not None:
                raise ImageError("a transmission map comes with a diagnosis: give both or neither")
            reading, timings = self._read(bgr)
        else:
            reading, timings = Reading(diagnosis, _checked_map(transmission)), {}
        return self._finish(bgr, reading, steps, color, timings, started, consistency)

    def diagnose(
        self, frame: NDArray[np.uint8], *, color: Literal["bgr", "rgb"] = "bgr"
    ) -> Diagnosis:
        """The reasoner's diagnosis of a frame.

        Raises:
            ImageError: the frame breaks the contract.
        """
        diagnosis = self.read(frame, color=color).diagnosis
        if diagnosis is None:
            raise EngineError("the reasoner gave no diagnosis")
        return diagnosis

    def read(self, frame: NDArray[np.uint8], *, color: Literal["bgr", "rgb"] = "bgr") -> Reading:
        """The reasoner's diagnosis of a frame together with its coarse transmission map.

        Raises:
            ImageError: the frame breaks the contract.
        """
        return self._read(_to_bgr(frame, color))[0]

    def restore(
        self,
        frame: NDArray[np.uint8],
        reading: Reading,
        *,
        color: Literal["bgr", "rgb"] = "bgr",
        steps: Steps = "auto",
        consistency: bool = False,
    ) -> Result:
        """Restore with a given reading; ``Reading()`` restores without any diagnosis.

        Raises:
            ImageError, EngineError: as :meth:`__call__`.
        """
        started = time.perf_counter()
        checked = Reading(reading.diagnosis, _checked_map(reading.transmission))
        bgr = _to_bgr(frame, color)
        return self._finish(bgr, checked, steps, color, {}, started, consistency)

    def _read(self, bgr: NDArray[np.uint8]) -> tuple[Reading, dict[str, float]]:
        started = time.perf_counter()
        seen = views.extract(bgr)
        viewed = time.perf_counter()
        outputs = self.reasoner.run({"thumbnail": seen.thumbnail[None], "crops": seen.crops[None]})
        reading = decode({name: value[0] for name, value in outputs.items()})
        read = time.perf_counter()
        return reading, {"views": viewed - started, "reasoner": read - viewed}

    def _finish(
        self,
        bgr: NDArray[np.uint8],
        reading: Reading,
        steps: Steps,
        color: str,
        timings: dict[str, float],
        started: float,
        consistency: bool = False,
    ) -> Result:
        mode = self._mode(steps, reading.diagnosis)
        begun = time.perf_counter()
        transmission = restorer.full_transmission(reading, *bgr.shape[:2])
        if mode == "bypass":
            image = bgr.copy()
        else:
            graph = self.bundle.manifest.restorer
            image = restorer.restore(
                self.restorer,
                bgr,
                reading.diagnosis,
                transmission,
                graph.schedules[mode],
                multiple=graph.multiple,
            )
        timings = {**timings, "restorer": time.perf_counter() - begun}
        agreement = None
        if consistency:
            begun = time.perf_counter()
            agreement = assess(bgr, image, Reading(reading.diagnosis, transmission))
            timings["consistency"] = time.perf_counter() - begun
        if color == "rgb":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        return Result(
            image=image,
            diagnosis=reading.diagnosis,
            steps=mode,
            timings={**timings, "total": time.perf_counter() - started},
            transmission=transmission,
            consistency=agreement,
        )

    def _mode(self, steps: Steps, diagnosis: Diagnosis | None) -> Mode:
        if steps == "auto":
            return self.bundle.manifest.policy.choose(diagnosis)
        schedules = self.bundle.manifest.restorer.schedules
        mode = next((mode for mode in MODES if mode == str(steps)), None)
        if mode is None or (mode != "bypass" and mode not in schedules):
            raise EngineError(
                f"steps={steps!r} is not in this bundle; expected auto, bypass, "
                f"{', '.join(schedules)}"
            )
        return mode

    def warm_up(self, height: int = 512, width: int = 512) -> None:
        """Run both networks once at a frame size, so that the first real frame is not slow."""
        frame = np.full((height, width, 3), 127, dtype=np.uint8)
        schedules = self.bundle.manifest.restorer.schedules
        self._finish(frame, self._read(frame)[0], next(iter(schedules)), "bgr", {}, 0.0)

    def close(self) -> None:
        """Release the engines."""
        self.reasoner.close()
        self.restorer.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _to_bgr(frame: Any, color: str) -> NDArray[np.uint8]:
    checked = check_frame(frame)
    if color == "bgr":
        return checked
    if color == "rgb":
        return np.asarray(cv2.cvtColor(checked, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    raise ImageError(f"color is {color!r}; expected 'bgr' or 'rgb'")


def _checked_map(transmission: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    if transmission is None:
        return None
    array = np.asarray(transmission)
    good = (
        array.dtype == np.float32
        and array.ndim == 2
        and array.size > 0
        and bool(np.isfinite(array).all())
        and float(array.min()) > 0.0
        and float(array.max()) <= 1.0
    )
    if not good:
        raise ImageError(
            f"transmission is {array.dtype} {array.shape}; expected float32 (h, w) with finite "
            "values in (0, 1]"
        )
    return array


def _check_tables(bundle: Bundle, graph: Graph, engine: Engine) -> None:
    def table(specs: Sequence[Any]) -> list[tuple[str, int, str]]:
        # Names of dynamic axes differ between backends; rank, dtype and order may not.
        return [(spec.name, len(spec.shape), spec.dtype) for spec in specs]

    got = (table(engine.inputs), table(engine.outputs))
    expected = (table(graph.inputs), table(graph.outputs))
    if got != expected:
        raise BundleError(
            f"{bundle.path(graph)}: its tensors are {got}, the manifest says {expected}; export "
            "the bundle again"
        )


def load(
    bundle: str | Path | None = None,
    *,
    backend: Backend = "onnxruntime",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    strict: bool = False,
    trusted: str | Path | None = None,
    shapes: Shapes = DEFAULT_SHAPES,
    cache: Path | None = None,
) -> Pipeline:
    """Load a bundle for inference.

    Args:
        bundle: the ``.rirf`` folder, or the name of a bundle that ships with the package;
            ``"edge"`` when None.
        backend: what runs the graphs. ``tensorrt`` and ``tensorrt-rtx`` need a GPU, and build the
            engines first where ``cache`` holds none that fit.
        threads: ONNX Runtime's threads inside an operator; its choice when None.
        providers: ONNX Runtime's execution providers by preference; the CPU when None.
        strict: a provider that does not work is an error instead of a logged fallback.
        trusted: a public key file; only a bundle signed by its owner is loaded then.
        shapes: frame sizes TensorRT's engines are built for.
        cache: folder of TensorRT's engines; the bundle's own when None.

    Raises:
        BundleError: the bundle is missing, damaged, of another schema, or not signed by
            ``trusted``.
        EngineError: an engine cannot be loaded, or an option is of another backend.
        OutputError: an engine was built and cannot be stored.
        MissingExtraError: what the backend needs is not installed.
    """
    if backend not in get_args(Backend):
        raise EngineError(f"backend is {backend!r}; expected one of {', '.join(get_args(Backend))}")
    opened = Bundle.open(SHIPPED if bundle is None else bundle, trusted=trusted)
    manifest = opened.manifest
    if backend == "onnxruntime":
        reasoner, net = (
            OnnxEngine(opened.path(graph), providers=providers, threads=threads, strict=strict)
            for graph in (manifest.reasoner, manifest.restorer)
        )
        return Pipeline(opened, reasoner, net)
    if threads is not None or providers is not None:
        raise EngineError(
            f"threads and providers are ONNX Runtime's; leave them out with backend={backend!r}"
        )
    from rirf.engine.tensorrt import TensorRTEngine, find_library, profiles_for

    library = find_library(backend)
    built = [
        TensorRTEngine.from_onnx(
            opened.path(graph),
            profiles_for(graph.inputs, shapes.axes),
            precision=graph.precision,
            library=library,
            cache=cache,
            multiple=multiple,
        )
        for graph, multiple in (
            (manifest.reasoner, 1),
            (manifest.restorer, manifest.restorer.multiple),
        )
    ]
    return Pipeline(opened, *built)
