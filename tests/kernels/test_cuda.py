"""The kernels on a GPU: parity with the CPU's, graph capture, and calls that do not wait.

Arrays come from torch or CuPy, whichever the machine has; without a GPU every test says so.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.layouts import sizes
from tests.kernels.recipes import as_rows, seeded_recipes

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")
cuda: Any = pytest.importorskip("rirf_kernels.cuda", reason="not built: make kernels")

pytestmark = pytest.mark.gpu

DATA = st.integers(0, 2**32 - 1)
FEW = settings(
    max_examples=40,
    deadline=None,  # the first launch of a kernel loads it
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Torch:
    """Arrays by torch."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ImportError("torch finds no CUDA device")
        self.lib: Any = torch

    def put(self, values: NDArray[Any]) -> Any:
        return self.lib.from_numpy(np.ascontiguousarray(values)).cuda()

    def get(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = array.cpu().numpy()
        return values

    def stream(self) -> Any:
        return self.lib.cuda.Stream()

    def wait(self) -> None:
        self.lib.cuda.synchronize()


class Cupy:
    """Arrays by CuPy."""

    def __init__(self) -> None:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            raise ImportError("CuPy finds no CUDA device")
        self.lib: Any = cupy

    def put(self, values: NDArray[Any]) -> Any:
        return self.lib.asarray(values)

    def get(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = self.lib.asnumpy(array)
        return values

    def stream(self) -> Any:
        return self.lib.cuda.Stream(non_blocking=True)

    def wait(self) -> None:
        self.lib.cuda.Device().synchronize()


class Own:
    """Arrays of our own, by __cuda_array_interface__, as PyCUDA's and Numba's."""

    def put(self, values: NDArray[Any]) -> Any:
        return cuda.DeviceArray(values.shape, values.dtype).fill(values)

    def get(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = array.numpy()
        return values

    def stream(self) -> Any:
        return None

    def wait(self) -> None:
        cuda.DeviceArray((1,)).numpy()


@pytest.fixture(params=[Torch, Cupy, Own], ids=["torch", "cupy", "own"])
def arrays(request: pytest.FixtureRequest) -> Any:
    working, why = cuda.available()
    if not working:
        pytest.skip(f"no kernels on a GPU here: {why}")
    try:
        return request.param()
    except Exception as error:  # a library may be missing, or there without a driver
        pytest.skip(f"{request.param.__name__}: {error}")


def picture(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return values


def raw(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    return rows.view(np.uint8)


def space(arrays: Any, *size: int) -> Any:
    return arrays.put(np.full(cuda.workspace_bytes(*size), 0xFF, dtype=np.uint8))


@FEW
@given(DATA, sizes(high=200), st.lists(seeded_recipes(), min_size=1, max_size=4), st.booleans())
def test_the_chain_agrees_with_the_cpu(
    arrays: Any, data: int, size: tuple[int, int], seeded: list[Any], given_prior: bool
) -> None:
    rows = as_rows(native, seeded)
    try:
        cuda.check_recipes(rows)
    except ValueError:
        return
    shape = (len(seeded), *size)
    image = picture(data, (*shape, 3))
    near = 0.05 + 0.95 * picture(data + 1, shape) if given_prior else None
    mask, transmission = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    expected, truth = native.degrade(image, rows, prior=near, mask=mask, transmission=transmission)
    out, found = arrays.put(np.zeros_like(image)), arrays.put(np.zeros(truth.nbytes, np.uint8))
    got_mask, got_t = arrays.put(mask * 0 - 1), arrays.put(transmission * 0)
    cuda.degrade(
        arrays.put(image),
        arrays.put(raw(rows)),
        out,
        space(arrays, *shape),
        prior=None if near is None else arrays.put(near),
        mask=got_mask,
        transmission=got_t,
        truth=found,
    )
    arrays.wait()
    loud = max(1.0, *(abs(row["gain"]) + abs(row["offset"]) / 255.0 for row in rows))
    np.testing.assert_allclose(arrays.get(out), expected, rtol=0, atol=1e-5 * loud)
    np.testing.assert_array_equal(arrays.get(got_mask), mask)
    np.testing.assert_allclose(arrays.get(got_t), transmission, rtol=0, atol=1e-5)
    told = arrays.get(found).view(native.TRUTH)
    np.testing.assert_allclose(told["severity"], truth["severity"], rtol=0, atol=1e-4)


@FEW
@given(DATA, st.integers(1, 400))
def test_random_numbers_are_the_cpus(arrays: Any, seed: int, count: int) -> None:
    words, normals = arrays.put(np.zeros(count, np.uint32)), arrays.put(np.zeros(count, np.float32))
    cuda.words(seed, 4, 1, words)
    cuda.normals(seed, 4, 1, normals)
    rows = arrays.put(np.zeros(native.RECIPE.itemsize, np.uint8))
    cuda.sample(arrays.put(np.array([seed], np.uint64).view(np.uint8)), rows)
    arrays.wait()
    np.testing.assert_array_equal(arrays.get(words), native.words(seed, 4, 1, count))
    expected = native.normals(seed, 4, 1, count)
    np.testing.assert_allclose(arrays.get(normals), expected, rtol=0, atol=1e-5)
    assert arrays.get(rows).tobytes() == native.sample(seed).tobytes()


def test_frames_agree_with_the_cpu(arrays: Any) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    planes = arrays.put(np.zeros((3, 64, 96), np.float16))
    cuda.frame_to_planes(arrays.put(frame), planes)
    back = arrays.put(np.zeros_like(frame))
    cuda.planes_to_frame(planes, back)
    arrays.wait()
    expected = native.frame_to_planes(frame, height=64, width=96, dtype=np.float16)[0]
    np.testing.assert_array_equal(arrays.get(planes), expected)
    np.testing.assert_array_equal(arrays.get(back), frame)


def test_the_residual_agrees_with_the_cpu(arrays: Any) -> None:
    random = np.random.default_rng(2)
    frame, restored = (random.integers(0, 256, (45, 70, 3), dtype=np.uint8) for _ in range(2))
    t, light = picture(3, (45, 70)), (0.7, 0.8, 0.9)
    psf = native.shake_kernels(native.sample(9))[0][0]
    ramp = np.repeat(np.linspace(0, 0.2, 256, dtype=np.float32)[:, None], 3, axis=1)
    out = arrays.put(np.zeros(4))
    table = arrays.put(ramp)
    put = (arrays.put(frame), arrays.put(restored), arrays.put(t), light, arrays.put(psf))
    cuda.residual(*put, table, table, table, out)
    arrays.wait()
    expected = native.residual(frame, restored, t, light, psf, ramp, ramp, ramp)
    np.testing.assert_allclose(arrays.get(out), expected, rtol=0, atol=1e-5)


def test_a_captured_graph_draws_anew_from_new_seeds(arrays: Any) -> None:
    if not isinstance(arrays, Torch):
        pytest.skip("captured through torch")
    torch = arrays.lib
    image = picture(4, (2, 40, 56, 3))
    on_device, out = arrays.put(image), arrays.put(np.zeros_like(image))
    seeds = arrays.put(np.zeros(16, np.uint8))
    rows = arrays.put(np.zeros(2 * native.RECIPE.itemsize, np.uint8))
    work = space(arrays, 2, 40, 56)

    def draw(stream: Any) -> None:
        cuda.sample(seeds, rows, stream=stream)
        cuda.degrade(on_device, rows, out, work, stream=stream)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        draw(side)  # kernels are loaded before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draw(torch.cuda.current_stream())
    for pair in ([3, 4], [2**63 + 5, 6]):
        seeds.copy_(arrays.put(np.array(pair, np.uint64).view(np.uint8)))
        graph.replay()
        torch.cuda.synchronize()
        expected, _ = native.degrade(image, native.sample(pair))
        np.testing.assert_allclose(arrays.get(out), expected, rtol=0, atol=1e-5)


def test_a_call_does_not_wait_for_its_work(arrays: Any) -> None:
    if not isinstance(arrays, Torch):
        pytest.skip("watched through torch")
    torch = arrays.lib
    stream = arrays.stream()
    image = torch.rand(4, 256, 256, 3, device="cuda")
    out, work = torch.empty_like(image), space(arrays, 4, 256, 256)
    rows = arrays.put(raw(native.sample([1, 2, 3, 4])))
    cuda.degrade(image, rows, out, work, stream=stream)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2_000_000_000)  # about a second of the device's clock
        begun = time.perf_counter()
        cuda.degrade(image, rows, out, work, stream=stream)
        called = time.perf_counter() - begun
        assert not stream.query(), "the work was done when the call came back"
    torch.cuda.synchronize()
    assert called < 0.2


def test_arrays_of_the_wrong_side_are_named(arrays: Any) -> None:
    image, rows = picture(5, (20, 24, 3)), raw(native.sample(1))
    on_device = arrays.put(image)
    with pytest.raises(ValueError, match=r"recipes: .*CUDA memory"):
        cuda.noise(on_device, rows, arrays.put(image))
    with pytest.raises(ValueError, match=r"image: .*CUDA memory"):
        cuda.noise(image, arrays.put(rows), arrays.put(image))
    if not isinstance(arrays, Own):
        with pytest.raises(ValueError, match=r"image: .*CPU memory"):
            native.noise(on_device, native.sample(1))
