"""GPU execution providers of ONNX Runtime give the CPU's results on the shipped bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rirf
from rirf.conditioning import encode
from rirf.degradation import degrade
from rirf.engine import probe_provider
from rirf.images import to_uint8

pytestmark = [pytest.mark.gpu, pytest.mark.lean]

# Convolutions on a GPU may run in TF32, whose relative error is about 1e-3.
GREY_LEVELS = 3


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_gpu_restores_like_the_cpu(provider: str, shipped: Path) -> None:
    reason = probe_provider(provider)
    if reason is not None:
        pytest.skip(f"{provider} does not work here: {reason}")
    rows, columns = np.mgrid[0:240, 0:320].astype(np.float32)
    clean = np.stack([rows / 240, columns / 320, (rows + columns) / 560], axis=2)
    frame = to_uint8(degrade(clean, 7).image)
    with rirf.load(shipped) as slow, rirf.load(shipped, providers=[provider], strict=True) as fast:
        assert fast.restorer.device == provider
        reading = slow.read(frame)
        found = encode(fast.read(frame).diagnosis)
        np.testing.assert_allclose(found, encode(reading.diagnosis), atol=0.02)
        expected = slow.restore(frame, reading, steps="coarse").image.astype(int)
        restored = fast.restore(frame, reading, steps="coarse").image.astype(int)
    assert np.abs(restored - expected).max() <= GREY_LEVELS
