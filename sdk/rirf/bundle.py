"""Bundles: a folder ``NAME.rirf`` with a manifest, two graphs and a model card.

The manifest lists the SHA-256 of every file; a bundle that is incomplete, altered or of a newer
schema is refused with what was got, what was expected and what to do, never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rirf import conditioning, views
from rirf.engine.base import TensorSpec
from rirf.errors import BundleError
from rirf.policy import Mode, Policy

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "SHIPPED",
    "SIGNATURE",
    "Bundle",
    "Graph",
    "Manifest",
    "RestorerGraph",
    "ViewSizes",
    "file_digest",
    "shipped_names",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# Signs the manifest, which cannot list it in return; see rirf.signing.
SIGNATURE = "manifest.sig"
# Built engines live here; they belong to a machine, not to the bundle.
CACHE = "cache"
_BUNDLES = Path(__file__).parent / "bundles"
SHIPPED = _BUNDLES / "edge.rirf"
_TIME_END = 1.0


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Graph(_Strict):
    """One network: its file inside the bundle, tensor tables, numeric precision, parameters."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Literal["fp32", "fp16", "int8"]
    parameters: Annotated[int, Field(gt=0)]


class RestorerGraph(Graph):
    """The restorer: ``multiple`` that H and W must keep, and ``schedules`` of (time, step)."""

    multiple: Annotated[int, Field(gt=0)]
    schedules: dict[Mode, tuple[tuple[float, float], ...]]

    @field_validator("schedules")
    @classmethod
    def _whole(
        cls, value: dict[Mode, tuple[tuple[float, float], ...]]
    ) -> dict[Mode, tuple[tuple[float, float], ...]]:
        for mode, pairs in value.items():
            if mode == "bypass" or not pairs:
                raise ValueError(f"schedule {mode!r}: expected one or more (time, step) pairs")
            moment = -1.0
            for time, step in pairs:
                if not math.isclose(time, moment) or step <= 0 or time + step > _TIME_END:
                    raise ValueError(f"schedule {mode!r}: got time {time}, expected {moment}")
                moment = time + step
        return value


class ViewSizes(_Strict):
    """Sizes of the reasoner's views, in pixels and number."""

    thumbnail: int
    crop: int
    crops: int


class Manifest(_Strict):
    """What ``manifest.json`` holds.

    Attributes:
        provenance: how it was trained and exported (free form, for people and for audits).
        metrics: results on the evaluation protocol, as written by ``rirf eval``, or empty.
        files: SHA-256 of every other file of the bundle.
    """

    schema_version: Literal[1]
    name: str
    conditioning_version: int
    views: ViewSizes
    reasoner: Graph
    restorer: RestorerGraph
    policy: Policy
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    files: dict[str, str]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        for graph in (self.reasoner, self.restorer):
            if graph.file not in self.files:
                raise ValueError(f"files has no checksum of {graph.file}")
        for rung in self.policy.ladder:
            if rung.mode not in self.restorer.schedules:
                raise ValueError(f"the policy uses {rung.mode!r}, which has no schedule")
        return self


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST, SIGNATURE) and name.split("/")[0] != CACHE:
            yield name


def shipped_names() -> tuple[str, ...]:
    """Names of the bundles that come with the package; the first is the default."""
    found = (path.stem for path in _BUNDLES.glob("*.rirf"))
    return tuple(sorted(found, key=lambda name: (name != SHIPPED.stem, name)))


def _located(bundle: str | Path) -> Path:
    """The folder of a bundle that is given by its path, or by the name of a shipped one."""
    folder = Path(bundle)
    if not folder.exists() and str(folder) in shipped_names():
        return _BUNDLES / f"{folder}.rirf"
    return folder


class Bundle:
    """An opened bundle: its folder and its manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(
        cls, folder: str | Path, *, verify: bool = True, trusted: str | Path | None = None
    ) -> Bundle:
        """Read and check a bundle.

        Args:
            folder: the ``.rirf`` folder, or the name of a shipped bundle (:func:`shipped_names`).
            verify: compare every file with its checksum.
            trusted: a public key file (see :mod:`rirf.signing`); only a bundle signed by its owner
                is opened then, and every file is compared whatever ``verify`` says. Engines built
                into ``cache/`` are made on the machine and signed by nobody.

        Raises:
            BundleError: missing, incomplete, altered, of another schema, or not signed by
                ``trusted``.
            MissingExtraError: ``trusted`` is given and cryptography is not installed.
        """
        folder = _located(folder)
        if not folder.is_dir():
            raise BundleError(
                f"{folder}: no such bundle; expected a folder NAME.rirf, or one that is shipped: "
                f"{', '.join(shipped_names())}"
            )
        data = cls._read(folder)
        if trusted is not None:
            from rirf.signing import check_signature

            # The very bytes that are read below, before anything in them is believed.
            check_signature(folder, data, trusted)
        manifest = cls._parse(folder / MANIFEST, data)
        if manifest.conditioning_version != conditioning.VERSION:
            raise BundleError(
                f"{folder}: conditioning vector version {manifest.conditioning_version}, this rirf "
                f"has {conditioning.VERSION}: export the bundle again, or install its version"
            )
        sizes = ViewSizes(thumbnail=views.THUMBNAIL_SIZE, crop=views.CROP_SIZE, crops=views.CROPS)
        if manifest.views != sizes:
            raise BundleError(
                f"{folder}: made for views {manifest.views}, this rirf has {sizes}: export it again"
            )
        bundle = cls(folder, manifest)
        if verify or trusted is not None:
            bundle.verify()
        return bundle

    @staticmethod
    def _read(folder: Path) -> bytes:
        try:
            return (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(
                f"{folder}: {MANIFEST} cannot be read ({error}); the bundle is incomplete, copy or "
                "export it again"
            ) from error

    @staticmethod
    def _parse(path: Path, content: bytes) -> Manifest:
        try:
            data = json.loads(content.decode("utf-8"))
        except ValueError as error:
            raise BundleError(
                f"{path}: not JSON ({error}); the bundle is damaged, copy or export it again"
            ) from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema_version {version!r}, this rirf reads {SCHEMA_VERSION}; "
                "install the rirf that wrote it, or export it again"
            )
        try:
            # Through JSON again, so that lists become tuples and numbers keep JSON's rules.
            return Manifest.model_validate_json(json.dumps(data))
        except ValidationError as error:
            raise BundleError(
                f"{path}: not a manifest of schema {SCHEMA_VERSION}: {error}"
            ) from error

    def verify(self) -> None:
        """Compare the folder with the manifest.

        Raises:
            BundleError: a file is missing, not listed, or altered.
        """
        listed = self.manifest.files
        there = set(_files(self.folder))
        missing, extra = sorted(set(listed) - there), sorted(there - set(listed))
        if missing or extra:
            parts = [f"missing {', '.join(missing)}"] if missing else []
            parts += [f"not listed {', '.join(extra)}"] if extra else []
            raise BundleError(f"{self.folder}: {'; '.join(parts)}; copy or export the bundle again")
        for name, expected in listed.items():
            try:
                got = file_digest(self.folder / name)
            except OSError as error:
                raise BundleError(
                    f"{self.folder / name}: cannot be read ({error}); give yourself the right to "
                    "read it, or copy the bundle again"
                ) from error
            if got != expected:
                raise BundleError(
                    f"{self.folder / name}: SHA-256 {got[:16]}..., the manifest says "
                    f"{expected[:16]}...: the file was altered, copy or export the bundle again"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which pins every file of the bundle."""
        return file_digest(self.folder / MANIFEST)

    def path(self, graph: Graph) -> Path:
        """The file of one of the bundle's graphs."""
        return self.folder / graph.file
