"""Pictures large enough for a reasoner to read patches of them, and their draws, made once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rirf_training.data import DrawSet

# Puts three of the six pictures into the validation share.
SHARE = 0.6


@pytest.fixture(scope="session")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs of 208 x 200 pixels in a split called ``test``."""
    import numpy as np
    from skimage import data

    from tests.sdk.pictures import save

    root = tmp_path_factory.mktemp("large")
    photos = (data.astronaut(), data.coffee(), data.chelsea())
    for number in range(6):
        photo = photos[number % 3]
        top, left = 20 + 60 * (number // 3), 30 + 90 * (number // 3)
        window = np.ascontiguousarray(photo[top : top + 200, left : left + 208, ::-1])
        save(root / "photos" / "test" / f"picture-{number}.png", window)
    return root


@pytest.fixture(scope="session")
def large_draws(large_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> DrawSet:
    """Two draws of each."""
    from rirf_training.data import find_clean, render

    root = tmp_path_factory.mktemp("large-draws")
    return render(root, find_clean(large_pictures, ("test",)), 2, workers=1, progress=False)
