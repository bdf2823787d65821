"""Writes the repository: three models, whole or not at all. Knows folders, not their contents."""

from __future__ import annotations

import shutil
import tempfile
from importlib import resources
from pathlib import Path

from rirf.bundle import MANIFEST, Bundle
from rirf.errors import EngineError, OutputError
from rirf_export.triton.config import (
    PIPELINE,
    REASONER,
    RESTORER,
    graph_config,
    pipeline_config,
)

__all__ = ["write_repository"]

_CONFIG = "config.pbtxt"
# Triton serves the highest version of a model; ours come one at a time.
_VERSION = "1"


def write_repository(bundle: Bundle, folder: str | Path, *, instances: int = 1) -> Path:
    """Write a bundle as a model repository of NVIDIA's Triton Inference Server.

    The models are ``rirf_reasoner`` and ``rirf_restorer``, the graphs as they are, and ``rirf``,
    which takes ``frame``, uint8 BGR (H, W, 3) with H and W >= 16, and gives ``restored``, the same
    size, and ``diagnosis``, one JSON text. The server needs ``rirf`` installed for the third.

    Args:
        bundle: an opened bundle; its files are compared with their checksums first.
        folder: the repository's folder, new or empty.
        instances: instances of every model: frames that are worked on at a time.

    Returns:
        The folder.

    Raises:
        BundleError: the bundle was altered.
        EngineError: ``instances`` is below 1, or a tensor has a type that Triton has no name for.
        OutputError: the folder holds something, or cannot be written.
        MissingExtraError: tritonclient is not installed.
    """
    folder = Path(folder)
    if instances < 1:
        raise EngineError(f"instances is {instances}; expected 1 or more")
    bundle.verify()
    configs = {
        REASONER: graph_config(REASONER, bundle.manifest.reasoner, instances),
        RESTORER: graph_config(RESTORER, bundle.manifest.restorer, instances),
        PIPELINE: pipeline_config(instances),
    }
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise OutputError(
                f"{folder} is there and no empty folder; a server may be reading it: name a new "
                "folder and give the server that one"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(work, bundle, configs)
            work.chmod(0o755)
            # Takes the place of an empty folder too.
            work.replace(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror or error}; choose a folder on a disk "
            "that is writable and has room for the graphs"
        ) from error
    return folder


def _fill(work: Path, bundle: Bundle, configs: dict[str, str]) -> None:
    for name, config in configs.items():
        (work / name / _VERSION).mkdir(parents=True)
        (work / name / _CONFIG).write_text(config, encoding="utf-8")
    for name, graph in (
        (REASONER, bundle.manifest.reasoner),
        (RESTORER, bundle.manifest.restorer),
    ):
        shutil.copyfile(bundle.path(graph), work / name / _VERSION / "model.onnx")
    pipeline = work / PIPELINE / _VERSION
    # Tensor tables, schedules and policy, which the graphs alone do not say.
    shutil.copyfile(bundle.folder / MANIFEST, pipeline / MANIFEST)
    # Copied, never imported: it runs inside the server.
    source = resources.files("rirf_export.triton").joinpath("model.py")
    (pipeline / "model.py").write_bytes(source.read_bytes())
