from __future__ import annotations

from pathlib import Path

import pytest

from rirf.errors import OutputError
from rirf_training.curves import plot_curves
from tests.sdk.pictures import files_below, load


def rows(count: int, names: int = 6) -> list[dict[str, float]]:
    figures = {f"train/{n}" if n % 2 else f"validation/{n}": 1.0 / (n + 1) for n in range(names)}
    return [{"step": step, "seconds": step / 2, **figures} for step in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_whole_picture(tmp_path: Path, count: int) -> None:
    plot_curves(rows(count), tmp_path / "curves.png")
    picture = load(tmp_path / "curves.png")
    # Two lines of four panels, something drawn on white.
    assert picture.shape[1] > 2 * picture.shape[0] > 400
    assert picture[..., :3].min() < 100
    assert files_below(tmp_path) == ["curves.png"]


def test_more_figures_need_more_lines(tmp_path: Path) -> None:
    plot_curves(rows(3, names=4), tmp_path / "one.png")
    plot_curves(rows(3, names=9), tmp_path / "three.png")
    one, three = load(tmp_path / "one.png"), load(tmp_path / "three.png")
    assert one.shape[1] == three.shape[1]
    assert three.shape[0] == pytest.approx(3 * one.shape[0], abs=3)


def test_rows_may_lack_a_figure(tmp_path: Path) -> None:
    early, late = rows(2)
    del early["train/1"]
    plot_curves([early, late], tmp_path / "curves.png")
    assert load(tmp_path / "curves.png").size > 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="none"):
        plot_curves(rows(2), tmp_path / "none" / "curves.png")
