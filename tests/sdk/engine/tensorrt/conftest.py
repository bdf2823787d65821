"""TensorRT-RTX, whose builder needs no GPU."""

from __future__ import annotations

import pytest

from rirf.engine.tensorrt import Library, find_library
from rirf.errors import MissingExtraError


@pytest.fixture(scope="session")
def rtx() -> Library:
    try:
        return find_library("tensorrt-rtx")
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def as_tensorrt(rtx: Library) -> Library:
    """TensorRT-RTX in the place of TensorRT: the same API, so that branch builds here too."""
    return Library("tensorrt", "10.3.0", rtx.module)
