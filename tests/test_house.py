"""The README's map and the folders agree, and no tracked text names one machine's paths."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = ("sdk", "export", "kernels", "benchmarks", "tests", "training", "docs")

# A table row whose first cell starts with a folder in backticks: | `sdk/rirf/` | ... |
MAP_ROW = re.compile(r"^\|\s*`([^`\s]+/)`", re.MULTILINE)
# Not a relative path such as ../work/, nor the tail of a longer one.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home)/")


def mapped_folders() -> list[str]:
    return MAP_ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def tracked_texts() -> list[tuple[str, str]]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout: the tracked files are what is checked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    texts = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_symlink() or not path.is_file():  # deleted here, still in the index
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            texts.append((name, content.decode("utf-8", errors="replace")))
    return texts


def test_every_folder_in_the_map_exists() -> None:
    folders = mapped_folders()
    assert folders, "README.md has no map: rows that start with | `folder/` |"
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_top_level_folder_is_in_the_map() -> None:
    mapped = {folder.split("/")[0] for folder in mapped_folders()}
    assert [name for name in TOP_LEVEL if (ROOT / name).is_dir() and name not in mapped] == []


@pytest.mark.parametrize(
    ("text", "is_machine_path"),
    [
        (f"see /{'home'}/somebody/pictures", True),
        (f'"/{"work"}/data"', True),
        (f"a=/{'root'}/x", True),
        ("../work/data", False),
        ("frame/work/data", False),
        ("~/projects/data", False),
    ],
)
def test_machine_path_pattern(text: str, is_machine_path: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is is_machine_path


def test_no_tracked_text_names_a_machine_path() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []
