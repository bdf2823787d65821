"""Which clean images there are: BSDS500 and CamVid folders, or any folder of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rirf.errors import ImageError

__all__ = ["Clean", "find_clean", "held_out"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class Clean:
    """A clean image: its name (stable across machines), its file, its class labels if any."""

    name: str
    path: Path
    labels: Path | None


def find_clean(root: Path, splits: Sequence[str]) -> list[Clean]:
    """Clean images below a data root, sorted by name.

    ``root/<set>/<split>/*`` are taken, with ``root/<set>/labels/<split>/<stem>.png`` as class
    labels where they exist (the layout of the BSDS500 and CamVid folders). A root without any such
    folder is taken as one flat folder of pictures.

    Raises:
        ImageError: no image is found.
    """
    folders = [folder for split in splits for folder in sorted(root.glob(f"*/{split}"))]
    folders = [folder for folder in folders if folder.parent.name != "labels"] or [root]
    found = []
    for folder in folders:
        for path in sorted(folder.glob("*")):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            labels = folder.parent / "labels" / folder.name / f"{path.stem}.png"
            name = path.relative_to(root).as_posix()
            found.append(Clean(name, path, labels if labels.is_file() else None))
    if not found:
        raise ImageError(
            f"{root}: no images found; expected {root}/<set>/<split>/*.jpg for a split of "
            f"{', '.join(splits)}, or pictures directly inside"
        )
    return sorted(found, key=lambda clean: clean.name)


def held_out(name: str, share: float) -> bool:
    """Whether an image belongs to the validation share: a function of its name alone."""
    digest = hashlib.sha256(f"held-out/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") / 2**32 < share
