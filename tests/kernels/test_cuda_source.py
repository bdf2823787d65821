"""The CUDA drivers, run on the CPU: every launch a loop over its blocks and threads.

Not a measurement of a GPU and no proof of its arithmetic, but every index, border and bound of the
.cu files runs here, against the CPU kernels. On a machine with a GPU, test_cuda.py runs the real
thing.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.building import ROOT, configure, run
from tests.kernels.layouts import laid_out, layouts, room, sizes
from tests.kernels.recipes import as_rows, rains, seeded_recipes

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")
cuda: Any = pytest.importorskip("rirf_kernels.cuda", reason="not built: make kernels")

DATA = st.integers(0, 2**32 - 1)
# Streaks that stay within what CUDA offers: 64 pixels from their middle.
SHORT = 80.0
ARCHITECTURES = "80 86 87 89 90 100 110 120"


def host_module(folder: Path) -> ModuleType:
    """The module ``_cuda`` built as a host run."""
    pytest.importorskip("nanobind", reason="needs nanobind to build the module")
    build = configure(
        ROOT / "kernels",
        folder,
        "-DRIRF_CUDA=HOST",
        "-DRIRF_PYTHON=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    build.make("_cuda")
    (file,) = folder.glob("_cuda.*.so")
    spec = importlib.util.spec_from_file_location("rirf_kernels._cuda", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def host_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """``rirf_kernels.cuda`` on the host run, whatever was built or not."""
    module = host_module(tmp_path_factory.mktemp("host-run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rirf_kernels._cuda", module)
        patch.setattr(native, "_cuda", module, raising=False)
        yield


def picture(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return values


def raw(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    return rows.view(np.uint8)


def space(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    """Workspace full of ones: a call may expect nothing of it."""
    bytes_ = cuda.workspace_bytes(batch, height, width)
    base = np.full(bytes_ + 256, 0xFF, dtype=np.uint8)
    start = -base.ctypes.data % 256
    return base[start : start + bytes_]


def within_reach(rows: NDArray[np.void]) -> bool:
    try:
        cuda.check_recipes(rows)
    except ValueError as error:
        assert "length_px" in str(error)
        return False
    return True


@given(DATA, st.integers(0, 2**40), st.integers(1, 70))
def test_words_and_normals_are_the_cpus(seed: int, first: int, count: int) -> None:
    words = np.zeros(count, dtype=np.uint32)
    cuda.words(seed, 3, 1, words, first=first)
    np.testing.assert_array_equal(words, native.words(seed, 3, 1, count, first))
    normals = np.zeros(count, dtype=np.float32)
    cuda.normals(seed, 3, 1, normals, first=first)
    np.testing.assert_allclose(normals, native.normals(seed, 3, 1, count, first), rtol=0, atol=2e-6)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300))
def test_recipes_are_drawn_from_seeds_on_the_device(seeds: list[int]) -> None:
    rows = np.zeros(len(seeds), dtype=native.RECIPE)
    cuda.sample(np.array(seeds, dtype=np.uint64).view(np.uint8), raw(rows))
    assert rows.tobytes() == native.sample(seeds).tobytes()


@given(DATA, sizes(high=120), st.integers(1, 2), layouts())
@settings(max_examples=40)
def test_the_prior_agrees(seed: int, size: tuple[int, int], batch: int, layout: str) -> None:
    rows = native.sample([seed + k for k in range(batch)])
    out = room((batch, *size), layout)
    cuda.prior(raw(rows), out.view, space(batch, *size))
    # The CPU blurs on a coarse grid and interpolates; measured worst 1.6e-6.
    np.testing.assert_allclose(out.view, native.prior(rows, *size), rtol=0, atol=5e-6)
    assert out.left_alone()


@given(DATA, sizes(high=70), st.integers(1, 3), layouts(), layouts(), layouts())
@settings(max_examples=40)
def test_fog_agrees_and_inverts(
    seed: int, size: tuple[int, int], batch: int, source: str, target: str, maps: str
) -> None:
    rows = native.sample([seed + k for k in range(batch)])
    image = laid_out(picture(seed, (batch, *size, 3)), source)
    near = laid_out(0.05 + 0.95 * picture(seed + 1, (batch, *size)), maps)
    out, t = room((batch, *size, 3), target), room((batch, *size), maps)
    means = np.full(batch, np.nan)
    cuda.fog(image, near, raw(rows), out.view, transmission=t.view, means=means)
    expected = np.empty((batch, *size), dtype=np.float32)
    fogged, averages = native.fog(image, near, rows, transmission=expected)
    np.testing.assert_allclose(out.view, fogged, rtol=0, atol=1e-6)
    np.testing.assert_allclose(t.view, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(means, averages, rtol=0, atol=1e-7)
    assert out.left_alone() and t.left_alone()
    clean = room((batch, *size, 3), source)
    cuda.fog_invert(out.view, t.view, np.ascontiguousarray(rows["light"]), clean.view, floor=0.1)
    again = native.fog_invert(out.view, t.view, rows["light"], floor=0.1)
    np.testing.assert_allclose(clean.view, again, rtol=0, atol=1e-5)


@given(DATA, sizes(high=60), st.integers(1, 3), layouts(), layouts())
@settings(max_examples=30)
def test_shake_agrees(
    seed: int, size: tuple[int, int], batch: int, source: str, target: str
) -> None:
    rows = native.sample([seed + k for k in range(batch)])
    psf = np.full((batch, 31, 31), np.nan, dtype=np.float32)
    truth = np.zeros(batch, dtype=native.TRUTH)
    cuda.shake_kernels(raw(rows), psf, truth=truth.view(np.uint8))
    kernels, moments = native.shake_kernels(rows)
    np.testing.assert_allclose(psf, kernels, rtol=0, atol=1e-7)
    for name in ("direction_deg", "blur_length_px", "energy", "rms_px"):
        np.testing.assert_allclose(truth[name], moments[name], rtol=0, atol=1e-5)
    image = laid_out(picture(seed, (batch, *size, 3)), source)
    out = room((batch, *size, 3), target)
    cuda.shake(image, kernels, out.view, space(batch, *size))
    np.testing.assert_allclose(out.view, native.shake(image, kernels), rtol=0, atol=2e-6)
    assert out.left_alone()


@given(DATA, sizes(high=70), st.lists(rains(SHORT), min_size=1, max_size=3), layouts(), layouts())
@settings(max_examples=40)
def test_rain_has_the_same_mask_to_the_bit(
    seed: int, size: tuple[int, int], showers: list[Any], source: str, target: str
) -> None:
    rows = native.recipes(len(showers), seed=seed, present=native.RAIN, light=(0.8, 0.9, 1.0))
    for row, shower in zip(rows, showers, strict=True):
        for name, value in vars(shower).items():
            row[name] = value
    if not within_reach(rows):
        return
    shape = (len(showers), *size)
    mask, coverage = room(shape, target), np.full(len(showers), np.nan)
    cuda.rain_mask(raw(rows), mask.view, space(*shape), coverage=coverage)
    expected, covered = native.rain_mask(rows, *size)
    np.testing.assert_array_equal(mask.view, expected)
    np.testing.assert_allclose(coverage, covered, rtol=1e-12)
    assert mask.left_alone()
    image = laid_out(picture(seed, (*shape, 3)), source)
    out = room((*shape, 3), target)
    cuda.rain(image, raw(rows), out.view, space(*shape), coverage=coverage)
    np.testing.assert_allclose(out.view, native.rain(image, rows)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(coverage, covered, rtol=1e-12)


@given(DATA, sizes(high=70), st.integers(1, 3), layouts(), layouts())
@settings(max_examples=40)
def test_noise_agrees(
    seed: int, size: tuple[int, int], batch: int, source: str, target: str
) -> None:
    rows = native.sample([seed + k for k in range(batch)])
    image = laid_out(picture(seed, (batch, *size, 3)), source)
    out, variances = room((batch, *size, 3), target), np.full(batch, np.nan)
    cuda.noise(image, raw(rows), out.view, variances=variances)
    noisy, expected = native.noise(image, rows)
    np.testing.assert_allclose(out.view, noisy, rtol=0, atol=2e-6)
    np.testing.assert_allclose(variances, expected, rtol=1e-5)
    assert out.left_alone()
    only = np.full(batch, np.nan)
    cuda.noise_variances(image, raw(rows), only)
    np.testing.assert_allclose(only, variances, rtol=1e-12)


@given(
    DATA,
    sizes(high=60),
    st.lists(seeded_recipes(), min_size=1, max_size=3),
    st.booleans(),
    layouts(),
    layouts(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_the_chain_agrees(
    data: int,
    size: tuple[int, int],
    seeded: list[tuple[int, Any]],
    given_prior: bool,
    source: str,
    target: str,
) -> None:
    rows = as_rows(native, seeded)
    if not within_reach(rows):
        return
    shape = (len(seeded), *size)
    image = laid_out(picture(data, (*shape, 3)), source)
    near = laid_out(0.05 + 0.95 * picture(data + 1, shape), target) if given_prior else None
    wanted: dict[str, Any] = {
        "stages": {name: np.full((*shape, 3), 7, np.float32) for name in native_stages()},
        "transmission": np.zeros(shape, np.float32),
        "mask": np.ones(shape, np.float32),
        "psf": np.ones((len(seeded), 31, 31), np.float32),
    }
    got = {
        name: {key: stage.copy() for key, stage in value.items()}
        if isinstance(value, dict)
        else value.copy()
        for name, value in wanted.items()
    }
    expected, truth = native.degrade(image, rows, prior=near, **wanted)
    out, found = room((*shape, 3), target), np.full(len(seeded), np.nan, dtype=native.TRUTH)
    cuda.degrade(
        image,
        raw(rows),
        out.view,
        space(*shape),
        prior=near,
        truth=found.view(np.uint8),
        **got,
    )
    loud = max(1.0, *(abs(row["gain"]) + abs(row["offset"]) / 255.0 for row in rows))
    np.testing.assert_allclose(out.view, expected, rtol=0, atol=1e-5 * loud)
    assert out.left_alone()
    np.testing.assert_array_equal(got["mask"], wanted["mask"])
    np.testing.assert_allclose(got["transmission"], wanted["transmission"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got["psf"], wanted["psf"], rtol=0, atol=1e-6)
    for name, stage in wanted["stages"].items():
        np.testing.assert_allclose(got["stages"][name], stage, rtol=0, atol=1e-5 * loud)
    np.testing.assert_allclose(found["severity"], truth["severity"], rtol=0, atol=1e-4)
    for name in ("transmission_mean", "coverage", "energy", "variance"):
        np.testing.assert_allclose(found[name], truth[name], rtol=1e-5, atol=1e-6)


def native_stages() -> tuple[str, ...]:
    return ("fog", "shake", "rain", "noise")


def test_the_fast_path_and_the_general_one_agree() -> None:
    # 64 x 60 dense and aligned: vectors of four pixels; the same in another layout: one by one.
    rows = native.sample([5, 6])
    rows["present"] = 15
    base = np.zeros(2 * 64 * 60 * 3 + 4, dtype=np.float32)
    start = (-base.ctypes.data % 16) // 4
    dense = base[start : start + 2 * 64 * 60 * 3].reshape(2, 64, 60, 3)
    dense[...] = picture(1, dense.shape)
    outs = []
    for layout in ("dense", "channels_first"):
        out = room(dense.shape, layout).view
        cuda.degrade(laid_out(dense, layout), raw(rows), out, space(2, 64, 60))
        outs.append(out)
    np.testing.assert_array_equal(*outs)


@given(DATA, sizes(high=40), st.integers(0, 9), st.integers(0, 9), st.sampled_from(("f4", "f2")))
@settings(max_examples=40)
def test_frames_agree(seed: int, size: tuple[int, int], more: int, wider: int, kind: str) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = np.zeros((3, size[0] + more, size[1] + wider), dtype=kind)
    cuda.frame_to_planes(frame[::-1, ::-1], planes)
    expected = native.frame_to_planes(
        frame[::-1, ::-1], height=planes.shape[1], width=planes.shape[2], dtype=kind
    )[0]
    np.testing.assert_array_equal(planes, expected)
    wild = (3 * picture(seed, planes.shape) - 1).astype(kind)
    back = np.zeros_like(frame)
    cuda.planes_to_frame(wild, back)
    np.testing.assert_array_equal(back, native.planes_to_frame(wild, height=size[0], width=size[1]))
    rows, columns = picture(seed, size[:1]), picture(seed + 1, size[1:])
    sums, same = picture(seed, (3, *size)), picture(seed, (3, *size))
    cuda.blend_tile(wild, rows, columns, sums)
    native.blend_tile(wild, rows, columns, same)
    np.testing.assert_allclose(sums, same, rtol=0, atol=1e-6)


@given(DATA, sizes(low=8, high=50), st.booleans())
@settings(max_examples=25)
def test_the_residual_agrees(seed: int, size: tuple[int, int], shaken: bool) -> None:
    random = np.random.default_rng(seed)
    frame, restored = (random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    transmission = picture(seed, size)
    light = (0.7, 0.8, 0.9)
    psf = native.shake_kernels(native.sample(seed))[0][0] if shaken else None
    # Smooth, as a model's are: a level that rounds the other way then changes next to nothing.
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    tables = [picture(seed + k, (1, 3)) * levels ** (k + 1) for k in range(3)]
    out = np.full(4, np.nan)
    cuda.residual(frame, restored, transmission, light, psf, *tables, out)
    expected = native.residual(frame, restored, transmission, light, psf, *tables)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


def test_means_coverage_and_severities_agree() -> None:
    maps = picture(3, (2, 37, 41))
    found = np.full(2, np.nan)
    cuda.means(maps, found)
    np.testing.assert_allclose(found, native.means(maps), rtol=1e-7)
    cuda.coverage(maps, found, threshold=0.25)
    np.testing.assert_allclose(found, native.coverage(maps, threshold=0.25), rtol=1e-12)
    rows = native.sample([1, 2])
    truth = native.degrade(picture(4, (2, 20, 30, 3)), rows)[1]
    wiped = truth.copy()
    wiped["severity"] = -1
    cuda.severities(raw(rows), wiped.view(np.uint8))
    assert wiped.tobytes() == truth.tobytes()


def test_host_arrays_go_there_and_back() -> None:
    image = picture(1, (33, 47, 3))
    rows = native.sample(6)
    stages = {"fog": np.zeros_like(image), "noise": np.zeros_like(image)}
    mask, psf = np.zeros((33, 47), np.float32), np.zeros((1, 31, 31), np.float32)
    same = {name: np.zeros_like(image) for name in stages}
    expected, truth = native.degrade(image, rows, stages=same)
    out, found = cuda.degrade_host(image, rows, stages=stages, mask=mask, psf=psf)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["severity"], truth["severity"], rtol=0, atol=1e-4)
    for name, stage in stages.items():
        np.testing.assert_allclose(stage, same[name], rtol=0, atol=1e-5)
    assert mask.max() > 0.5 and psf.sum() == pytest.approx(1, abs=1e-5)


def test_bad_arguments_are_named() -> None:
    image, rows = picture(1, (1, 20, 24, 3)), native.sample(1)
    out, work = np.full_like(image, -1), space(1, 20, 24)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("image", {"image": image.astype(np.float64)}),
        ("image", {"image": image[..., :2]}),
        ("out", {"out": out[:, :-1]}),
        ("out", {"out": image}),
        ("recipes", {"recipes": raw(rows)[:-8]}),
        ("workspace", {"workspace": work[:-1]}),
        ("workspace", {"workspace": work[64:]}),
        ("prior", {"prior": picture(1, (1, 20, 23))}),
        ("stages", {"stages": {"haze": out.copy()}}),
        ("stages['fog']", {"stages": {"fog": out[:, 1:].copy()}}),
        ("mask", {"mask": picture(1, (20, 23))}),
        ("psf", {"psf": np.zeros((1, 30, 31), np.float32)}),
        ("truth", {"truth": np.zeros(80, np.uint8)}),
        ("stream", {"stream": "the first"}),
    ]
    for name, wrong in cases:
        arguments = {"image": image, "recipes": raw(rows), "out": out, "workspace": work, **wrong}
        with pytest.raises((TypeError, ValueError)) as caught:
            cuda.degrade(**arguments)
        shown = str(caught.value).replace("record.", "").replace("stages['fog']", "fog")
        assert name.replace("stages['fog']", "fog") in shown, (name, shown)
    assert (out == -1).all()
    long = native.recipes(1, present=native.RAIN, length_px=400.0)
    with pytest.raises(ValueError, match="length_px"):
        cuda.to_device(long)


def test_a_stream_may_be_a_number_or_any_librarys() -> None:
    class Stream:
        def __init__(self, **fields: int) -> None:
            vars(self).update(fields)

    image, out = picture(1, (20, 24, 3)), np.zeros((20, 24, 3), np.float32)
    for stream in (0, None, Stream(cuda_stream=0), Stream(ptr=0), Stream(handle=0)):
        cuda.noise(image, raw(native.sample(3)), out, stream=stream)
        assert out.any()
        out[...] = 0


@pytest.mark.slow
def test_the_cuda_half_compiles_for_every_architecture(tmp_path: Path) -> None:
    """By the compiler itself: all machine codes and PTX, linked, and the module loads anywhere."""
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA compiler (nvcc) on the PATH")
    try:
        import rirf_kernels._cuda  # noqa: F401
    except ImportError:
        pytest.fail("nvcc is here, but rirf_kernels was built without it: make kernels")
    installed = Path(native.__file__).parent
    program = (
        "import sys, rirf_kernels.cuda as c, rirf_kernels;"
        "i = rirf_kernels.build_info(); print(i['cuda_architectures']); print(c.available()[1])"
    )
    done = run(sys.executable, "-c", program, PYTHONPATH=str(installed.parent))
    listed, reason = done.stdout.splitlines()
    known = run("nvcc", "--list-gpu-arch").stdout
    expected = [name for name in ARCHITECTURES.split() if f"compute_{name}\n" in known]
    assert listed.split() == expected
    assert cuda_device_is_there() or reason
    (module,) = installed.glob("_cuda.*.so")
    assert b".nv_fatbin" in module.read_bytes()
    kernels = ROOT / "kernels"
    for source in sorted((kernels / "src").glob("*/*.cu")):
        ptx = tmp_path / f"{source.stem}.ptx"
        include = [f"-I{kernels / folder}" for folder in ("src", "include")]
        newest = f"-arch=compute_{expected[-1]}"
        run("nvcc", "-std=c++17", "-ptx", newest, *include, source, "-o", ptx)
        launched = source.read_text(encoding="utf-8").count("RIRF_KERNEL ")
        assert ptx.read_text(encoding="utf-8").count(".entry") == launched, source.name


def cuda_device_is_there() -> bool:
    return Path("/dev/nvidia0").exists()
