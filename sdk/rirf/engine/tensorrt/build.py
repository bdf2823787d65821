"""ONNX file to engine, with TensorRT or TensorRT-RTX, on the device or offline.

The network is strongly typed: tensor types, and so precision, are the graph's own. What contradicts
itself is refused before the build, which on a small device takes minutes. Knows no engine cache.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tqdm import tqdm

from rirf.engine.base import TensorSpec
from rirf.engine.tensorrt.library import DTYPES, Library, listener, said, tidy
from rirf.errors import EngineError
from rirf.files import prepare_folder, write_atomic

__all__ = [
    "PORTABLE",
    "TURING",
    "Profile",
    "Progress",
    "Shape",
    "build_engine",
    "check_profiles",
    "profiles_for",
]

Shape: TypeAlias = tuple[int, ...]
# Told (phase, done steps, all steps): 0 done when a phase starts, all when it ends. Phases nest and
# names come back. Called from the library's threads, one at a time.
Progress: TypeAlias = Callable[[str, int, int], None]

# What a TensorRT-RTX engine without a target runs on: Ampere and newer. Turing must be asked for.
PORTABLE = "sm80+"
TURING = "sm75"
_LOG = logging.getLogger(__name__)
# The library's errors are told apart by time alone, see `said`.
_ONE_BUILD = threading.Lock()


class Profile(NamedTuple):
    """Smallest shape of an input, the one to be fastest at, and the largest."""

    minimum: Shape
    optimum: Shape
    maximum: Shape


def profiles_for(
    inputs: Sequence[TensorSpec], axes: Mapping[str, tuple[int, int, int]]
) -> dict[str, Profile]:
    """Profiles of a graph's dynamic inputs from (min, opt, max) of each named axis.

    Args:
        inputs: the graph's inputs, e.g. of a bundle's manifest.
        axes: e.g. ``{"height": (64, 512, 1024), "width": (64, 512, 1024)}``, in pixels.

    Raises:
        EngineError: a dynamic axis is not in ``axes``.
    """
    profiles = {}
    for spec in inputs:
        missing = [axis for axis in spec.shape if isinstance(axis, str) and axis not in axes]
        if missing:
            raise EngineError(
                f"input {spec.name} {spec.shape} has the dynamic axes {', '.join(missing)}, got "
                f"sizes of {', '.join(axes) or 'none'}; give (min, opt, max) of each"
            )
        if any(isinstance(axis, str) for axis in spec.shape):
            triples = (axes[a] if isinstance(a, str) else (a, a, a) for a in spec.shape)
            profiles[spec.name] = Profile(*zip(*triples, strict=True))
    return profiles


def check_profiles(
    inputs: Sequence[TensorSpec], profiles: Mapping[str, Profile], multiple: int
) -> None:
    """Refuse profiles that contradict the graph, each other or themselves.

    Args:
        inputs: the graph's inputs; a string or -1 is a dynamic axis.
        profiles: for each dynamic input, by name.
        multiple: what every dynamic axis must be a multiple of.

    Raises:
        EngineError: naming the input, the axis, what was got and what was expected.
    """
    if multiple < 1:
        raise EngineError(f"multiple is {multiple}; expected 1 or more")
    names = [spec.name for spec in inputs]
    unknown = sorted(set(profiles) - set(names))
    if unknown:
        raise EngineError(
            f"got profiles of {', '.join(unknown)}, the graph has the inputs {', '.join(names)}; "
            "leave out or rename them"
        )
    named: dict[str, tuple[str, tuple[int, ...]]] = {}
    for spec in inputs:
        if spec.name in profiles:
            _check_profile(spec, profiles[spec.name], multiple, named)
        elif any(_is_dynamic(axis) for axis in spec.shape):
            raise EngineError(
                f"input {spec.name} {spec.shape} is dynamic and has no profile; give its smallest, "
                "best and largest shape"
            )


def _is_dynamic(axis: int | str) -> bool:
    return isinstance(axis, str) or axis < 0


def _check_profile(
    spec: TensorSpec,
    profile: Profile,
    multiple: int,
    named: dict[str, tuple[str, tuple[int, ...]]],
) -> None:
    if any(len(shape) != len(spec.shape) for shape in profile):
        raise EngineError(
            f"input {spec.name}: got the shapes {', '.join(map(str, profile))}, expected "
            f"{len(spec.shape)} axes like {spec.shape}"
        )
    for position, (axis, *sizes) in enumerate(zip(spec.shape, *profile, strict=True)):
        where = f"input {spec.name}, axis {position}"
        if not _is_dynamic(axis):
            if any(size != axis for size in sizes):
                raise EngineError(f"{where}: got {sizes}, expected {axis}, which the graph fixes")
            continue
        smallest, best, largest = sizes
        if not 1 <= smallest <= best <= largest:
            raise EngineError(
                f"{where}: got min {smallest}, opt {best}, max {largest}; expected "
                "1 <= min <= opt <= max"
            )
        odd = [size for size in sizes if size % multiple]
        if odd:
            raise EngineError(
                f"{where}: got {odd[0]}, expected a multiple of {multiple}; "
                f"{odd[0] + -odd[0] % multiple} is the next"
            )
        if isinstance(axis, str) and axis != "?":
            other, expected = named.setdefault(axis, (spec.name, tuple(sizes)))
            if expected != tuple(sizes):
                raise EngineError(
                    f"{where}: got {sizes}, but input {other} has {list(expected)} on the same "
                    f"axis {axis!r}; give both the same sizes"
                )


def build_engine(
    onnx_file: Path,
    library: Library,
    profiles: Mapping[str, Profile],
    *,
    multiple: int = 1,
    architecture: str | None = None,
    workspace: int | None = None,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Build an engine; one at a time in a process.

    TensorRT builds for the GPU it finds and for no other; TensorRT-RTX needs none.

    Args:
        onnx_file: the graph, precision included.
        library: see :func:`rirf.engine.tensorrt.find_library`.
        profiles: shapes of each dynamic input, see :func:`profiles_for`; empty for a static graph.
        multiple: what dynamic axes must be multiples of (``RestorerGraph.multiple`` of a bundle).
        architecture: TensorRT-RTX alone: ``"sm75"`` for Turing; Ampere and newer when None.
        workspace: bytes of GPU memory an operator may use; the library's choice when None.
        timing_cache: TensorRT alone: measurements, read if there and written after the build; they
            make the next build shorter.
        progress: told of every step; None shows bars on a terminal. An exception it raises, or
            Ctrl-C, stops the build.

    Raises:
        EngineError: the file cannot be parsed (naming node and operator), the profiles contradict
            the graph, or the library cannot build it here.
        OutputError: the timing cache cannot be written.
    """
    _check_options(library, architecture, workspace, timing_cache)
    if not onnx_file.is_file():
        raise EngineError(f"{onnx_file}: no such file; expected an ONNX graph")
    with _ONE_BUILD, _bars(progress) as report:
        said(library)  # forget what earlier work has left
        builder = _start(library)
        # The parser owns the network's weights: it is kept until the engine is built.
        network, parser = _parse(onnx_file, library, builder)
        check_profiles(_inputs(onnx_file, network), profiles, multiple)
        config = _configure(library.module, builder, profiles, architecture, workspace)
        times = None if timing_cache is None else _Times(config, timing_cache)
        monitor = _monitor(library, report)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        del parser
        if monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise EngineError(
                f"{onnx_file}: {library} cannot build it: {said(library)}; raise the workspace "
                "limit or narrow the shapes if memory is short, else run the graph with ONNX "
                "Runtime"
            )
        if times is not None:
            times.save()
        return bytes(plan)


def _start(library: Library) -> Any:
    try:
        return library.module.Builder(listener(library))
    except Exception as error:  # the library raises many undocumented types here
        raise EngineError(
            f"{library} does not start here: {said(library)}; TensorRT builds on a machine with an "
            "NVIDIA GPU and its driver, TensorRT-RTX on any"
        ) from error


def _parse(onnx_file: Path, library: Library, builder: Any) -> tuple[Any, Any]:
    trt = library.module
    # TensorRT 11 knows no other kind of network and may drop the flag; 10 has to be asked.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, listener(library))
    if not parser.parse_from_file(str(onnx_file)) or network.num_outputs == 0:
        raise EngineError(_parse_failure(onnx_file, library, parser))
    return network, parser


def _configure(
    trt: Any,
    builder: Any,
    profiles: Mapping[str, Profile],
    architecture: str | None,
    workspace: int | None,
) -> Any:
    config = builder.create_builder_config()
    if profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in profiles.items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if architecture == TURING:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM75, 0)
    return config


def _check_options(
    library: Library, architecture: str | None, workspace: int | None, timing_cache: Path | None
) -> None:
    portable = library.flavour == "tensorrt-rtx"
    if architecture not in ((None, PORTABLE, TURING) if portable else (None,)):
        expected = f"{PORTABLE} or {TURING}" if portable else "None: it builds for the GPU it finds"
        raise EngineError(f"architecture is {architecture!r}; {library} expects {expected}")
    if timing_cache is not None and portable:
        raise EngineError(
            f"got the timing cache {timing_cache}; {library} measures nothing while it builds, "
            "leave it out"
        )
    if workspace is not None and workspace < 1:
        raise EngineError(f"workspace is {workspace} bytes; expected 1 or more, or None")


def _inputs(onnx_file: Path, network: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.dtype.name not in DTYPES:
            raise EngineError(
                f"{onnx_file}: input {tensor.name} has type {tensor.dtype.name}, expected one of "
                f"{', '.join(DTYPES.values())}; export the graph with such inputs"
            )
        shape = tuple(
            size if size >= 0 else tensor.get_dimension_name(axis) or "?"
            for axis, size in enumerate(tensor.shape)
        )
        specs.append(TensorSpec(name=tensor.name, shape=shape, dtype=DTYPES[tensor.dtype.name]))
    return tuple(specs)


def _parse_failure(onnx_file: Path, library: Library, parser: Any) -> str:
    """What the parser found, node by node, and what to do about it."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    found, lacking, whole = [], False, bool(errors)
    for error in errors:
        place = error.node_name() or (f"number {error.node()}" if error.node() >= 0 else "")
        # Reasons are C++ conditions that came out false; some are just that word.
        reason = "" if error.desc() == "false" else f" ({tidy(error.desc())})"
        node = f"node {place} ({error.node_operator()}): " if place else ""
        code = error.code().name
        found.append(f"{node}{code}{reason}")
        lacking |= code.startswith("UNSUPPORTED") or "Plugin not found" in reason
        whole &= code != "MODEL_DESERIALIZE_FAILED"
    if not whole:
        return f"{onnx_file}: not a whole ONNX graph; copy the file or export it again"
    mend = (
        "the library has no such operator or type, export the graph without it"
        if lacking
        else "the inputs of the node do not fit it (types must be equal, a Cast makes them so), "
        "export the graph again"
    )
    return (
        f"{onnx_file}: {library} cannot parse {'; '.join(found)}: {mend}, or run the file with "
        "ONNX Runtime"
    )


class _Times:
    """The timing cache of one build: read when made, written by :meth:`save`."""

    def __init__(self, config: Any, file: Path) -> None:
        self._file = file
        try:
            stored = file.read_bytes()
        except FileNotFoundError:
            stored = b""
        except OSError as error:
            raise EngineError(
                f"{file}: the timing cache cannot be read ({error.strerror}); give a file that can"
            ) from error
        prepare_folder(file.parent)  # before minutes of building, not after
        with _no_deprecations():
            # Kept: it must live until the engine is built.
            self._cache = config.create_timing_cache(stored)
            if self._cache is None or not config.set_timing_cache(self._cache, False):
                _LOG.warning("%s: of another version or GPU, starting an empty one", file)
                self._cache = config.create_timing_cache(b"")
                config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        with _no_deprecations():
            measured = bytes(self._cache.serialize())
        write_atomic(self._file, measured)


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Timing caches are on their way out in some versions; they are TensorRT 10's way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _monitor(library: Library, report: Progress) -> Any:
    base: Any = library.module.IProgressMonitor

    # The base is a compiled class without stubs.
    class Monitor(base):  # type: ignore[misc]
        """Passes progress on. An exception must not cross the library: the build ends instead."""

        def __init__(self) -> None:
            super().__init__()
            self.failure: BaseException | None = None
            self._phases: dict[str, tuple[int, int]] = {}
            self._lock = threading.Lock()

        def _tell(self, phase: str, done: int, steps: int) -> None:
            try:
                if self.failure is None and self._phases.get(phase) != (done, steps):
                    self._phases[phase] = (done, steps)
                    report(phase, done, steps)
            # Ctrl-C too arrives here: the build is all that runs.
            except BaseException as error:
                self.failure = error

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._tell(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            with self._lock:
                # The end of a phase is told once, by phase_finish.
                steps = self._phases.get(phase, (0, step + 2))[1]
                if step + 1 < steps:
                    self._tell(phase, step + 1, steps)
                return self.failure is None

        def phase_finish(self, phase: str) -> None:
            with self._lock:
                steps = self._phases.get(phase, (0, 1))[1]
                self._tell(phase, steps, steps)
                self._phases.pop(phase, None)

    return Monitor()


@contextmanager
def _bars(progress: Progress | None) -> Iterator[Progress]:
    """The caller's progress, else one tqdm bar a phase on a terminal, else nothing."""
    if progress is not None:
        yield progress
        return
    bars: dict[str, tqdm[Any]] = {}
    off = not sys.stderr.isatty()

    def show(phase: str, done: int, steps: int) -> None:
        if phase not in bars:
            bars[phase] = tqdm(
                desc=phase, total=steps, position=len(bars), leave=not bars, disable=off
            )
        bars[phase].update(done - bars[phase].n)
        if done == steps:
            bars.pop(phase).close()

    try:
        yield show
    finally:
        for bar in reversed(bars.values()):
            bar.close()
