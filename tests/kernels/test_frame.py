"""Frame operations against their NumPy twins in the runtime: equal to the bit where float32."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rirf import consistency, restorer
from rirf.degradation import fog
from tests.sdk.pictures import photo
from tests.strategies import SEEDS

kernels: Any = pytest.importorskip("rirf_kernels", reason="make kernels builds it")
if not hasattr(kernels, "frame_to_planes"):
    pytest.skip("rirf_kernels is an older build: make kernels", allow_module_level=True)

SIDES = st.integers(1, 70)
STEPS = st.sampled_from([1, 1, -1, 2, -3])
DTYPES = st.sampled_from([np.float32, np.float16])
THREADS = st.sampled_from([1, 2, 3, 8])


def inside(array: NDArray[Any], steps: tuple[int, ...], order: tuple[int, ...]) -> NDArray[Any]:
    """The same values as a view of larger memory: axes stored in ``order``, with steps between."""
    stored = tuple(array.shape[axis] * abs(steps[axis]) + 3 for axis in order)
    back = np.argsort(order)
    large = np.zeros(stored, dtype=array.dtype).transpose(tuple(back))
    window = tuple(
        slice(1, 1 + size * abs(step), abs(step))
        for size, step in zip(array.shape, steps, strict=True)
    )
    view = large[window][tuple(slice(None, None, 1 if step > 0 else -1) for step in steps)]
    view[...] = array
    return view


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps along three axes, and the order in which the axes lie in memory."""
    if draw(st.booleans()):
        return (1, 1, 1), (0, 1, 2)
    return draw(st.tuples(STEPS, STEPS, STEPS)), tuple(draw(st.permutations(range(3))))


def levels(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def wild(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """Planes with values inside, beyond and on the borders, many of them next to a tie."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.5, 1.5, (3, height, width)).astype(np.float32)
    ties = ((rng.integers(0, 256, values.shape) + 0.5) / 255).astype(np.float32)
    ties = np.nextafter(ties, rng.choice([0.0, 1.0, 2.0], values.shape).astype(np.float32))
    values = np.where(rng.random(values.shape) < 0.5, ties, values)
    special = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, 1e-40, 0.5], dtype=np.float32)
    chosen = rng.choice(special, values.shape)
    return np.where(rng.random(values.shape) < 0.1, chosen, values)


def twin_planes(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    padded = cv2.copyMakeBorder(
        np.ascontiguousarray(frame),
        0,
        height - frame.shape[0],
        0,
        width - frame.shape[1],
        cv2.BORDER_REFLECT_101,
    )
    return restorer._blob_numpy(np.asarray(padded, dtype=np.uint8))


@settings(max_examples=200)
@given(
    seed=SEEDS,
    height=SIDES,
    width=st.integers(1, 300),
    pad=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    dtype=DTYPES,
    given_in=layouts(),
    given_out=layouts(),
    threads=THREADS,
)
def test_frame_to_planes_is_its_twin(
    seed: int,
    height: int,
    width: int,
    pad: tuple[int, int],
    dtype: type,
    given_in: Any,
    given_out: Any,
    threads: int,
) -> None:
    frame = levels(seed, height, width)
    size = (height + pad[0], width + pad[1])
    expected = twin_planes(frame, *size).astype(dtype)[0]
    out = inside(np.zeros((3, *size), dtype=dtype), *given_out)
    result = kernels.frame_to_planes(inside(frame, *given_in), out=out, threads=threads)
    assert result is out
    np.testing.assert_array_equal(out, expected)
    made = kernels.frame_to_planes(frame, height=size[0], width=size[1], dtype=dtype)
    assert made.shape == (1, 3, *size) and made.dtype == dtype
    np.testing.assert_array_equal(made[0], expected)


@settings(max_examples=200)
@given(
    seed=SEEDS,
    height=SIDES,
    width=st.integers(1, 300),
    crop=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    dtype=DTYPES,
    given_in=layouts(),
    given_out=layouts(),
    threads=THREADS,
)
def test_planes_to_frame_is_its_twin(
    seed: int,
    height: int,
    width: int,
    crop: tuple[int, int],
    dtype: type,
    given_in: Any,
    given_out: Any,
    threads: int,
) -> None:
    planes: NDArray[Any] = wild(seed, height + crop[0], width + crop[1]).astype(dtype)
    expected = restorer._frame_numpy(planes[:, :height, :width].astype(np.float32))
    out = inside(np.zeros((height, width, 3), dtype=np.uint8), *given_out)
    result = kernels.planes_to_frame(inside(planes, *given_in), out=out, threads=threads)
    assert result is out
    np.testing.assert_array_equal(out, expected)
    made = kernels.planes_to_frame(planes[None], height=height, width=width)
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, expected)


@settings(max_examples=200)
@given(
    seed=SEEDS,
    height=SIDES,
    width=st.integers(1, 300),
    dtype=DTYPES,
    given_in=layouts(),
    given_out=layouts(),
    threads=THREADS,
)
def test_blend_tile_is_its_twin(
    seed: int, height: int, width: int, dtype: type, given_in: Any, given_out: Any, threads: int
) -> None:
    tile: NDArray[Any] = wild(seed, height + 2, width + 3).astype(dtype)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.random(size, dtype=np.float32) for size in (height, width))
    before = rng.random((3, height, width), dtype=np.float32)
    expected = before.copy()
    cropped = tile[:, :height, :width].astype(np.float32)
    restorer._blend_numpy(cropped, rows, columns, expected)
    sums = inside(before, *given_out)
    kernels.blend_tile(inside(tile, *given_in), rows, columns, sums, threads=threads)
    np.testing.assert_array_equal(sums, expected)


def test_a_written_view_leaves_its_surroundings_alone() -> None:
    large = np.full((3, 40, 60), 7.0, dtype=np.float32)
    window = np.s_[:, 5:25, 11:43]
    kernels.frame_to_planes(photo(17, 30), out=large[window])
    kernels.blend_tile(
        np.ones((3, 20, 32), np.float32),
        np.ones(20, np.float32),
        np.ones(32, np.float32),
        large[window],
    )
    large[window] = 7.0
    np.testing.assert_array_equal(large, 7.0)
    frame = np.full((30, 50, 3), 9, dtype=np.uint8)
    kernels.planes_to_frame(np.ones((3, 20, 40), np.float32), out=frame[3:21, 4:37])
    assert (frame[3:21, 4:37] == 255).all()
    frame[3:21, 4:37] = 9
    assert (frame == 9).all()


def test_every_level_survives_a_round_trip() -> None:
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for dtype in (np.float32, np.float16):
        planes = kernels.frame_to_planes(frame, dtype=dtype)
        np.testing.assert_array_equal(kernels.planes_to_frame(planes), frame)


def test_every_half_is_read_right() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(1, 256, 256)
    planes = np.repeat(halves, 3, axis=0)
    values = np.nan_to_num(halves[0].astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    expected = (np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    np.testing.assert_array_equal(kernels.planes_to_frame(planes)[..., 0], expected)
    # Subnormals do not show in a level, but in a sum they do.
    sums = np.zeros((3, 256, 256), dtype=np.float32)
    ones = np.ones(256, dtype=np.float32)
    kernels.blend_tile(planes, ones, ones, sums)
    np.testing.assert_array_equal(sums[1], np.clip(values, 0, 1))


def test_not_a_number_is_black() -> None:
    planes = np.full((3, 20, 40), np.nan, dtype=np.float32)
    assert not kernels.planes_to_frame(planes).any()


DIGEST = """
import hashlib, numpy as np, rirf_kernels as k
rng = np.random.default_rng(4)
frame = rng.integers(0, 256, (61, 333, 3), dtype=np.uint8)
found = hashlib.sha256()
for dtype in (np.float32, np.float16):
    planes = k.frame_to_planes(frame, height=64, width=352, dtype=dtype)
    found.update(planes.tobytes())
    wild = rng.uniform(-0.2, 1.2, planes.shape).astype(dtype)
    found.update(k.planes_to_frame(wild).tobytes())
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = np.tile(halves.reshape(1, 256, 256), (3, 1, 1)).astype(dtype)
    sums, ramp = np.zeros((3, 256, 256), np.float32), np.linspace(0, 1, 256, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        k.blend_tile(halves, ramp, ramp, sums)
    found.update(sums.tobytes())
print(k.build_info()["isa"], found.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    """Also own bit arithmetic against the processor's half precision."""
    found = {}
    for isa in ("baseline", "x86-64-v3", ""):
        environment = {**os.environ, "RIRF_KERNELS_ISA": isa}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        name, digest = done.stdout.split()
        found[name] = digest
        assert len(digest) == 2 * hashlib.sha256().digest_size
    assert "baseline" in found
    assert len(set(found.values())) == 1, found


@given(seed=SEEDS, height=SIDES, width=SIDES, floor=st.floats(0.05, 0.5))
def test_fog_invert_is_the_estimate_of_the_sdk(
    seed: int, height: int, width: int, floor: float
) -> None:
    """On planes as the runtime has them, with transmissions below the guard."""
    rng = np.random.default_rng(seed)
    planes = rng.random((1, 3, height, width), dtype=np.float32)
    t = rng.uniform(0.01, 1.0, (height, width)).astype(np.float32)
    light = tuple(rng.uniform(0.7, 1.0, 3).tolist())
    image = planes[0].transpose(1, 2, 0)
    out = np.empty_like(planes)
    kernels.fog_invert(image, t, light, floor=floor, out=out[0].transpose(1, 2, 0))
    expected = fog.invert(image, t, (light[0], light[1], light[2]), floor)
    np.testing.assert_allclose(out[0].transpose(1, 2, 0), expected, rtol=0, atol=1e-5)


def some_model(rng: np.random.Generator, shape: str) -> consistency.Model:
    """A model with any tables; ``shape`` says which taps its kernel has."""
    psf: NDArray[np.float32] | None = None
    if shape != "none":
        psf = rng.random((31, 31)).astype(np.float32)
        if shape == "sparse":
            psf *= rng.random(psf.shape) < 0.05
            psf[rng.integers(0, 31), rng.integers(0, 31)] = 1.0
        elif shape == "corner":
            psf[:] = 0.0
            psf[rng.choice([0, 30]), rng.choice([0, 30])] = 1.0
        psf /= psf.sum()
    # Smooth: a level next to a tie may go either way, which must show no more than rounding does.
    shift = np.ascontiguousarray(
        cv2.blur(rng.uniform(-0.05, 0.05, (256, 3)), (1, 101)), dtype=np.float32
    )
    variance, block = (
        (cv2.blur(rng.random((256, 3)), (1, 101)) / 100).astype(np.float32) for _ in range(2)
    )
    light = tuple(rng.random(3).tolist())
    return consistency.Model((light[0], light[1], light[2]), psf, shift, variance, block)


def native_moments(
    frame: Any, restored: Any, t: Any, model: consistency.Model, threads: int = 0
) -> NDArray[np.float64]:
    found: NDArray[np.float64] = kernels.residual(
        frame,
        restored,
        t,
        model.light,
        model.psf,
        model.shift,
        model.variance,
        model.block_variance,
        threads=threads,
    )
    return found


@settings(max_examples=150)
@given(
    seed=SEEDS,
    height=st.integers(8, 100),
    width=st.one_of(st.integers(8, 80), st.integers(250, 300), st.integers(510, 530)),
    shape=st.sampled_from(["none", "dense", "sparse", "corner"]),
    layout=layouts(),
    threads=THREADS,
)
def test_the_residual_is_its_twin(
    seed: int, height: int, width: int, shape: str, layout: Any, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    frame, restored = levels(seed, height, width), levels(seed + 1, height, width)
    t = rng.random((height, width), dtype=np.float32)
    model = some_model(rng, shape)
    steps, _ = layout
    views = [inside(image, *layout) for image in (frame, restored)]
    near = inside(t, steps[:2], (1, 0) if steps[0] > 1 else (0, 1))
    found = native_moments(views[0], views[1], near, model, threads)
    twin = dataclasses.astuple(consistency._measure_numpy(frame, restored, t, model))
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(twin), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found, native_moments(frame, restored, t, model, 1))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 270), (260, 11), (8, 33)])
def test_a_kernel_wider_than_the_frame_mirrors_again_and_again(height: int, width: int) -> None:
    rng = np.random.default_rng(7)
    frame, restored = levels(1, height, width), levels(2, height, width)
    t = rng.random((height, width), dtype=np.float32)
    model = some_model(rng, "dense")
    assert model.psf is not None
    light = np.array(model.light)
    fogged = t[..., None] * (restored[..., ::-1] / 255.0 - light) + light
    wide = np.pad(fogged, ((15, 15), (15, 15), (0, 0)), mode="reflect")
    again = sum(
        float(weight) * wide[30 - row :, 30 - column :][:height, :width]
        for (row, column), weight in np.ndenumerate(model.psf)
    )
    level = np.clip(np.floor(255.0 * again + 0.5), 0, 255).astype(int)
    r = frame[..., ::-1] / 255.0 - again - model.shift[level, np.arange(3)]
    found = native_moments(frame, restored, t, model)
    assert np.sqrt(found[0]) == pytest.approx(np.sqrt(np.mean(r**2)), abs=1e-5)
    rows, columns = height // 8, width // 8
    blocks = r[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8, 3).mean(axis=(1, 3))
    assert np.sqrt(found[2]) == pytest.approx(np.sqrt(np.mean(blocks**2)), abs=1e-5)


def test_the_residual_of_a_diagnosis_goes_through_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runtime's function gives what the kernels give, and the twin's result without them."""
    rng = np.random.default_rng(3)
    frame, restored = levels(3, 200, 301), levels(4, 200, 301)
    t = rng.random((200, 301), dtype=np.float32)
    model = some_model(rng, "sparse")
    with_kernels = consistency.measure(frame, restored, t, model)
    np.testing.assert_array_equal(
        dataclasses.astuple(with_kernels), native_moments(frame, restored, t, model)
    )
    monkeypatch.setattr(consistency, "kernels", lambda: None)
    without = consistency.measure(frame, restored, t, model)
    np.testing.assert_allclose(
        np.sqrt(dataclasses.astuple(with_kernels)),
        np.sqrt(dataclasses.astuple(without)),
        rtol=0,
        atol=1e-5,
    )


def test_a_restored_frame_is_the_same_with_and_without_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Brighter:
        inputs = outputs = ()
        device = "arithmetic"

        def run(self, inputs: Any) -> dict[str, NDArray[np.float32]]:
            update = np.float32(0.7) * (1 - inputs["state"]) * inputs["transmission"]
            return {"update": update - np.float32(0.1)}

    frame = photo(150, 211)
    t = np.random.default_rng(2).uniform(0.3, 1.0, (150, 211)).astype(np.float32)

    def run(tile: int) -> NDArray[np.uint8]:
        engine: Any = Brighter()
        schedule = ((-1.0, 1.0), (0.5, 0.5))
        return restorer.restore(
            engine, frame, None, t, schedule, multiple=16, tile=tile, overlap=24
        )

    whole, tiled = run(1024), run(64)
    monkeypatch.setattr(restorer, "kernels", lambda: None)
    np.testing.assert_array_equal(run(1024), whole)
    np.testing.assert_array_equal(run(64), tiled)


FRAME = levels(0, 20, 30)
PLANES = np.zeros((3, 20, 30), dtype=np.float32)
ROW, COLUMN = np.ones(20, np.float32), np.ones(30, np.float32)
TABLE = np.zeros((256, 3), dtype=np.float32)
T = np.ones((20, 30), dtype=np.float32)
MODEL: tuple[Any, ...] = ((0.5, 0.5, 0.5), None, TABLE, TABLE, TABLE)
BYTES = np.zeros(20 * 30 * 3 * 4, dtype=np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.frame_to_planes(None), TypeError, "frame: got NoneType"),
        (lambda: kernels.frame_to_planes(PLANES), TypeError, "frame: got float32, expected uint8"),
        (lambda: kernels.frame_to_planes(FRAME[..., 0]), ValueError, "frame: got the shape"),
        (lambda: kernels.frame_to_planes(FRAME[:0]), ValueError, "frame: got 0 x 30 pixels"),
        (
            lambda: kernels.frame_to_planes(FRAME, height=19),
            ValueError,
            "planes: got 19 x 30 pixels, expected at least 20 x 30 as in frame",
        ),
        (
            lambda: kernels.frame_to_planes(FRAME, dtype=np.float64),
            TypeError,
            "out: got float64, expected float32 or float16",
        ),
        (
            lambda: kernels.frame_to_planes(FRAME, out=np.zeros((2, 3, 20, 30), np.float32)),
            ValueError,
            r"out: got the shape \(2, 3, 20, 30\)",
        ),
        (
            lambda: kernels.frame_to_planes(FRAME, out=np.broadcast_to(PLANES, PLANES.shape)),
            ValueError,
            "out: is read-only",
        ),
        (
            lambda: kernels.frame_to_planes(
                BYTES[:1800].reshape(20, 30, 3), out=BYTES.view(np.float32).reshape(3, 20, 30)
            ),
            ValueError,
            "planes: shares memory with frame",
        ),
        (
            lambda: kernels.frame_to_planes(
                FRAME, out=np.lib.stride_tricks.as_strided(PLANES, (3, 20, 30), (4, 4, 4))
            ),
            ValueError,
            r"planes: got strides 1, 1, 1 \(plane, row, column\)",
        ),
        (
            lambda: kernels.planes_to_frame(PLANES.astype(np.float64)),
            TypeError,
            "planes: got float64",
        ),
        (lambda: kernels.planes_to_frame(PLANES[:2]), ValueError, "planes: got the shape"),
        (lambda: kernels.planes_to_frame(PLANES[0]), ValueError, "planes: got the shape"),
        (
            lambda: kernels.planes_to_frame(PLANES, width=31),
            ValueError,
            "planes: got 20 x 30 pixels, expected at least 20 x 31 as in frame",
        ),
        (
            lambda: kernels.planes_to_frame(PLANES, out=FRAME.astype(np.float32)),
            TypeError,
            "out: got float32, expected uint8",
        ),
        (
            lambda: kernels.blend_tile(PLANES, ROW, COLUMN, PLANES.astype(np.float16)),
            TypeError,
            "sums: got float16, expected float32",
        ),
        (
            lambda: kernels.blend_tile(PLANES, COLUMN, COLUMN, PLANES.copy()),
            ValueError,
            r"row_weights: got the shape \(30,\), expected 20 numbers",
        ),
        (
            lambda: kernels.blend_tile(PLANES, ROW, ROW, PLANES.copy()),
            ValueError,
            "column_weights: got the shape",
        ),
        (
            lambda: kernels.blend_tile(PLANES[:, 1:], ROW, COLUMN, PLANES.copy()),
            ValueError,
            "tile: got 19 x 30 pixels, expected at least 20 x 30 as in sums",
        ),
        (
            lambda: kernels.blend_tile(PLANES, ROW, COLUMN, PLANES),
            ValueError,
            "sums: shares memory with tile",
        ),
        (
            lambda: kernels.residual(FRAME[:7], FRAME[:7], T[:7], *MODEL),
            ValueError,
            "frame: got 7 x 30 pixels, expected at least 8 x 8",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME[1:], T, *MODEL),
            ValueError,
            "restored: got 19 x 30 pixels, expected 20 x 30 as in frame",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, T[:, 1:], *MODEL),
            ValueError,
            "transmission: got 20 x 29 pixels, expected 20 x 30 as in frame",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, np.stack([T, T]), *MODEL),
            ValueError,
            "transmission: got a batch of 2",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, T, (0.5, 0.5, 1.5), *MODEL[1:]),
            ValueError,
            "model.light: got 1.5",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, T, (0.5, 0.5), *MODEL[1:]),
            ValueError,
            "light: got the shape",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, T, MODEL[0], PLANES, *MODEL[2:]),
            ValueError,
            "psf: got the shape .*expected 961 numbers",
        ),
        (
            lambda: kernels.residual(
                FRAME, FRAME, T, MODEL[0], np.zeros((31, 31), np.float32), *MODEL[2:]
            ),
            ValueError,
            "model.psf: is all zeros",
        ),
        (
            lambda: kernels.residual(FRAME, FRAME, T, *MODEL[:2], TABLE[:9], *MODEL[3:]),
            ValueError,
            "shift: got the shape .*expected 768 numbers",
        ),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
