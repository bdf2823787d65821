"""Built engines on disk, each beside a JSON file that says what it is and where it runs.

An engine is read only after its description fits: the graph, shapes and precision wanted, this
library, this GPU, and a checksum. Whatever does not fit is built again or refused with the reason.
Engines belong to a machine; the folder may be deleted at any time. Knows no GPU memory and runs
nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from rirf.bundle import CACHE, file_digest
from rirf.engine.tensorrt.build import PORTABLE, TURING, Profile, Progress, build_engine
from rirf.engine.tensorrt.device import Gpu
from rirf.engine.tensorrt.library import Flavour, Library
from rirf.errors import EngineError, OutputError
from rirf.files import prepare_folder, write_atomic

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module that is not there

__all__ = ["CachedEngine", "EngineKey", "load_or_build"]

_LOG = logging.getLogger(__name__)
_ANY = "portable"


class EngineKey(BaseModel):
    """All that decides whether an engine can be used.

    Attributes:
        graph: name of the ONNX file, without suffix.
        library: version of TensorRT or TensorRT-RTX.
        cuda: of the driver, ``"12.6"``; ``"portable"`` for TensorRT-RTX, as is ``gpu``.
        architecture: ``"sm87"``; for TensorRT-RTX ``"sm80+"``, or ``"sm75"`` for Turing.
        gpu: model; TensorRT's choices hold for one model of GPU.
        profiles: (min, opt, max) shapes of each dynamic input.
        onnx_sha256: of the ONNX file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: str
    flavour: Flavour
    library: str
    cuda: str
    architecture: str
    gpu: str
    precision: Literal["fp32", "fp16", "int8"]
    profiles: dict[str, Profile]
    onnx_sha256: str

    @classmethod
    def of(
        cls,
        onnx_file: Path,
        library: Library,
        profiles: Mapping[str, Profile],
        precision: Literal["fp32", "fp16", "int8"],
        gpu: Gpu | None,
    ) -> EngineKey:
        """The key of the engine that would be built here.

        Raises:
            EngineError: the file cannot be read, or TensorRT is asked to build for no GPU.
        """
        if library.flavour == "tensorrt-rtx":
            turing = gpu is not None and gpu.architecture == TURING
            target = Gpu(name=_ANY, architecture=TURING if turing else PORTABLE, cuda=_ANY)
        elif gpu is not None:
            target = gpu
        else:
            raise EngineError(
                f"got no GPU; {library} builds for the GPU it finds, so build on the device, or "
                "use TensorRT-RTX, whose engines are portable"
            )
        try:
            digest = file_digest(onnx_file)
        except OSError as error:
            raise EngineError(
                f"{onnx_file}: cannot be read ({error.strerror}); expected an ONNX graph"
            ) from error
        return cls(
            graph=onnx_file.stem,
            flavour=library.flavour,
            library=library.version,
            cuda=target.cuda,
            architecture=target.architecture,
            gpu=target.name,
            precision=precision,
            profiles=dict(sorted(profiles.items())),
            onnx_sha256=digest,
        )

    @property
    def file_name(self) -> str:
        """Name of the engine's file: what people look for, then a digest of the whole key."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
        parts = (self.graph, self.precision, self.flavour, self.library, self.architecture, digest)
        return "-".join(parts) + ".engine"

    def _work(self) -> dict[str, object]:
        """What the engine computes, whatever it runs on."""
        return self.model_dump(include={"graph", "flavour", "precision", "profiles", "onnx_sha256"})

    def _differences(self, wanted: EngineKey) -> str:
        got, expected = self.model_dump(), wanted.model_dump()
        return ", ".join(
            f"{name} {got[name]!r} (expected {expected[name]!r})"
            for name in got
            if got[name] != expected[name]
        )


class CachedEngine(NamedTuple):
    """An engine's bytes, the file they are kept in, and whether they were built just now."""

    plan: bytes
    path: Path
    built: bool


class _Description(BaseModel):
    """The JSON file beside an engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    key: EngineKey
    size: int
    sha256: str


def _beside(engine: Path) -> Path:
    # Not with_suffix: versions have dots of their own.
    return engine.with_name(engine.name + ".json")


def load_or_build(
    onnx_file: Path,
    library: Library,
    profiles: Mapping[str, Profile],
    *,
    precision: Literal["fp32", "fp16", "int8"],
    gpu: Gpu | None = None,
    cache: Path | None = None,
    rebuild: bool = True,
    multiple: int = 1,
    workspace: int | None = None,
    progress: Progress | None = None,
) -> CachedEngine:
    """The stored engine of this graph, library and GPU, else a new one, which is stored.

    Of several processes that want the same engine at once, one builds and the others wait for it
    (where the system has ``flock``; elsewhere each builds, and what one spoils of another's is
    found by its checksum and built again).

    Args:
        onnx_file, library, profiles, multiple, workspace, progress: see :func:`build_engine`. The
            workspace limit is not part of the key: a stored engine is taken whatever its limit was.
        precision: of the graph; it names the engine.
        gpu: from :func:`find_gpu`; needed by TensorRT, and by TensorRT-RTX to notice a Turing GPU.
        cache: folder; ``cache`` beside the ONNX file when None. TensorRT's timing cache lives there
            too.
        rebuild: False refuses instead of building, as a device in the field may have to.

    Raises:
        EngineError: nothing fits and ``rebuild`` is False, or the build fails.
        OutputError: the folder cannot be written, or its disk is full; nothing half-written stays.
    """
    key = EngineKey.of(onnx_file, library, profiles, precision, gpu)
    folder = onnx_file.parent / CACHE if cache is None else cache
    path = folder / key.file_name
    found = _read(path, key)
    if isinstance(found, bytes):
        return CachedEngine(found, path, built=False)
    if not rebuild:
        raise EngineError(
            f"{path}: {found}. Allow the build (rebuild=True), or copy an engine built by "
            f"{library} for {key.gpu} ({key.architecture}) and its .json file there"
        )
    prepare_folder(folder)  # before minutes of building, not after
    with _alone(path):
        again = _read(path, key)
        if isinstance(again, bytes):
            return CachedEngine(again, path, built=False)
        _LOG.warning("%s: %s: building it", path.name, again)
        times = folder / f"timing-{library.version}-{key.architecture}.bin"
        plan = build_engine(
            onnx_file,
            library,
            profiles,
            multiple=multiple,
            architecture=key.architecture if library.flavour == "tensorrt-rtx" else None,
            workspace=workspace,
            timing_cache=times if library.flavour == "tensorrt" else None,
            progress=progress,
        )
        _write(path, key, plan)
    return CachedEngine(plan, path, built=True)


def _write(path: Path, key: EngineKey, plan: bytes) -> None:
    digest = hashlib.sha256(plan).hexdigest()
    description = _Description(schema_version=1, key=key, size=len(plan), sha256=digest)
    write_atomic(path, plan)
    try:
        write_atomic(_beside(path), (description.model_dump_json(indent=2) + "\n").encode())
    except OutputError:
        with suppress(OSError):
            path.unlink()
        raise


def _read(path: Path, key: EngineKey) -> bytes | str:
    """The engine, or why it cannot be used."""
    description = _describe(_beside(path))
    if description is None:
        return _nothing(path.parent, key)
    if isinstance(description, str):
        return description
    if description.key != key:
        return f"its description is of another engine: {description.key._differences(key)}"
    try:
        plan = path.read_bytes()
    except FileNotFoundError:
        return "the description is there, the engine is not"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(plan) != description.size:
        return f"torn: {len(plan)} bytes, expected {description.size}"
    digest = hashlib.sha256(plan).hexdigest()
    if digest != description.sha256:
        return f"altered: SHA-256 {digest[:16]}..., expected {description.sha256[:16]}..."
    return plan


def _describe(file: Path) -> _Description | str | None:
    """What the JSON file says, why it cannot be understood, or None where there is none."""
    try:
        return _Description.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"
    except ValidationError as error:
        return f"{file.name} is no description of an engine ({error.error_count()} errors)"


def _nothing(folder: Path, key: EngineKey) -> str:
    """Why there is no engine: none at all, or only ones of another library version or GPU."""
    others = [
        description.key._differences(key)
        for file in sorted(folder.glob(f"{key.graph}-{key.precision}-*.engine.json"))
        if isinstance(description := _describe(file), _Description)
        and description.key._work() == key._work()
    ]
    if not others:
        return "no engine of this graph, precision and shapes is stored"
    return "stored engines are of another library or GPU: " + "; ".join(others)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of one engine; the system drops it when the process dies."""
    if fcntl is None:
        yield
        return
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"{lock}: cannot be made: {error.strerror}; choose a cache folder that is writable"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("%s: another process is building it: waiting", path.name)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
