"""Arrays of others: torch tensors go in and out without a copy, in any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.layouts import pixels

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")
torch: Any = pytest.importorskip("torch", reason="tensors are what goes in here")

N, H, W = 3, 20, 27
SEEDS = [4, 5, 6]


@pytest.fixture
def batch() -> Any:
    """A batch as training has it: (N, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels(1, N, H, W, 3), -1, 1)))


def test_a_batch_of_planes_goes_in_and_out_as_a_view(batch: Any) -> None:
    rows = native.sample(SEEDS)
    out = torch.full_like(batch, float("nan"))
    address = out.data_ptr()
    made, _ = native.degrade(batch.permute(0, 2, 3, 1), rows, out=out.permute(0, 2, 3, 1))
    expected, _ = native.degrade(np.moveaxis(batch.numpy(), 1, -1).copy(), rows)
    # Written into the tensor's own memory, every element of it.
    assert out.data_ptr() == address
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), expected)
    assert made.data_ptr() == address


def test_channels_last_and_slices_give_the_same(batch: Any) -> None:
    rows = native.sample(SEEDS)
    expected, _ = native.degrade(batch.permute(0, 2, 3, 1), rows)
    last = batch.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(native.degrade(last, rows)[0], expected)
    larger = torch.zeros(2 * N, 5, H + 4, W + 4)
    window = larger[::2, 1:4, 2:-2, 2:-2]
    window.copy_(batch)
    np.testing.assert_array_equal(native.degrade(window.permute(0, 2, 3, 1), rows)[0], expected)


def test_in_place_on_a_tensor(batch: Any) -> None:
    rows = native.recipes(N, seed=SEEDS, gain=0.1, offset=3.0)
    view = batch.permute(0, 2, 3, 1)
    expected, _ = native.noise(view.numpy().copy(), rows)
    native.noise(view, rows, out=view)
    np.testing.assert_array_equal(view.numpy(), expected)


def test_records_may_be_tensors(batch: Any) -> None:
    rows = native.recipes(N, seed=SEEDS, present=15, steps=12, step_px=1.5, density=0.01)
    rows["length_px"] = 15.0
    view = batch.permute(0, 2, 3, 1)
    mask, psf = torch.empty(N, H, W), torch.empty(N, 31, 31)
    stage = torch.empty(N, H, W, 3)
    native.degrade(view, rows, mask=mask, psf=psf, stages={"fog": stage})
    np.testing.assert_array_equal(mask.numpy(), native.rain_mask(rows, H, W)[0])
    np.testing.assert_array_equal(psf.numpy(), native.shake_kernels(rows)[0])
    prior = torch.from_numpy(native.prior(rows, H, W))
    np.testing.assert_array_equal(stage.numpy(), native.fog(view, prior, rows)[0])


def test_a_read_only_input_is_taken() -> None:
    image = pixels(2, N, H, W, 3)
    rows = native.sample(SEEDS)
    expected, _ = native.degrade(image, rows)
    image.setflags(write=False)
    np.testing.assert_array_equal(native.degrade(image, rows)[0], expected)
    copy_of_bytes = np.frombuffer(image.tobytes(), dtype=np.float32).reshape(image.shape)
    np.testing.assert_array_equal(native.degrade(copy_of_bytes, rows)[0], expected)


def test_the_input_is_left_alone(batch: Any) -> None:
    before = batch.clone()
    native.degrade(batch.permute(0, 2, 3, 1), native.sample(SEEDS))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "int32"])
def test_other_types_are_refused(batch: Any, kind: str) -> None:
    tensor = batch.permute(0, 2, 3, 1).to(getattr(torch, kind))
    with pytest.raises(TypeError, match=f"image: got {kind}, expected float32"):
        native.degrade(tensor, native.sample(SEEDS))
    with pytest.raises(TypeError, match=f"out: got {kind}, expected float32"):
        native.degrade(batch.permute(0, 2, 3, 1), native.sample(SEEDS), out=tensor)


@pytest.mark.parametrize("how", ["to_sparse", "meta"])
def test_tensors_without_memory_are_refused(batch: Any, how: str) -> None:
    tensor = batch.permute(0, 2, 3, 1)
    tensor = tensor.to_sparse() if how == "to_sparse" else tensor.to("meta")
    with pytest.raises(TypeError, match="image"):
        native.degrade(tensor, native.sample(SEEDS))


def test_planes_first_are_refused_with_the_fix(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"image: .* its view with the channels last"):
        native.degrade(batch, native.sample(SEEDS))


class OnlyDlpack:
    """Nothing but the protocol."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_any_object_with_the_protocol_goes_in() -> None:
    image = pixels(3, H, W, 3)
    rows = native.sample([9])
    out = np.empty_like(image)
    native.degrade(OnlyDlpack(image), rows, out=OnlyDlpack(out))
    np.testing.assert_array_equal(out, native.degrade(image, rows)[0])
