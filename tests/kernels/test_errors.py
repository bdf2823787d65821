"""Every argument of every function, wrong in turn: an error that names it, and nothing written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.layouts import pixels

native: Any = pytest.importorskip("rirf_kernels", reason="not built: make kernels")

N, H, W = 2, 12, 17
IMAGE, MAP = (N, H, W, 3), (N, H, W)
STAGES = ("fog", "shake", "rain", "noise")
FILL = 0.25


def recipe(**fields: Any) -> NDArray[np.void]:
    """Two recipes of every effect, valid but for what is given for the second."""
    rows: NDArray[np.void] = native.recipes(N, seed=[1, 2], present=15, steps=9, step_px=1.0)
    rows["density"], rows["length_px"], rows["opacity"], rows["gain"] = 0.01, 9.0, 0.5, 0.1
    for name, value in fields.items():
        rows[name][1] = value
    return rows


def filled(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, FILL, dtype=np.float32)


def degrade(args: dict[str, Any]) -> Any:
    stages = {name: args.pop(name) for name in STAGES}
    return native.degrade(**args, stages=stages)


# Valid arguments of each function, made anew for each call; those of OUTPUTS are written.
FUNCTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[[], dict[str, Any]]]] = {
    "fog": (
        lambda args: native.fog(**args),
        lambda: {
            "image": pixels(0, *IMAGE),
            "prior": pixels(1, *MAP),
            "recipes": recipe(),
            "out": filled(*IMAGE),
            "transmission": filled(*MAP),
            "means": np.full(N, FILL),
        },
    ),
    "fog_invert": (
        lambda args: native.fog_invert(**args),
        lambda: {
            "image": pixels(0, *IMAGE),
            "transmission": pixels(1, *MAP),
            "light": np.ones((N, 3)),
            "floor": 0.1,
            "out": filled(*IMAGE),
        },
    ),
    "shake": (
        lambda args: native.shake(**args),
        lambda: {
            "image": pixels(0, *IMAGE),
            "psf": native.shake_kernels(recipe())[0],
            "out": filled(*IMAGE),
        },
    ),
    "rain_mask": (
        lambda args: native.rain_mask(args.pop("recipes"), H, W, **args),
        lambda: {"recipes": recipe(), "out": filled(*MAP), "coverage": np.full(N, FILL)},
    ),
    "rain": (
        lambda args: native.rain(**args),
        lambda: {
            "image": pixels(0, *IMAGE),
            "recipes": recipe(),
            "out": filled(*IMAGE),
            "mask": filled(*MAP),
            "coverage": np.full(N, FILL),
        },
    ),
    "noise": (
        lambda args: native.noise(**args),
        lambda: {
            "image": pixels(0, *IMAGE),
            "recipes": recipe(),
            "out": filled(*IMAGE),
            "variances": np.full(N, FILL),
        },
    ),
    "prior": (
        lambda args: native.prior(args.pop("recipes"), H, W, **args),
        lambda: {"recipes": recipe(), "out": filled(*MAP)},
    ),
    "degrade": (
        degrade,
        lambda: {
            "image": pixels(0, *IMAGE),
            "recipes": recipe(),
            "prior": pixels(1, *MAP),
            "out": filled(*IMAGE),
            "transmission": filled(*MAP),
            "mask": filled(*MAP),
            "psf": filled(N, 31, 31),
            "truth": np.full(N * 88, 3, dtype=np.uint8).view(native.TRUTH),
            **{name: filled(*IMAGE) for name in STAGES},
        },
    ),
}
OUTPUTS = {"out", "means", "coverage", "variances", "truth", "mask", *STAGES}
# In messages of the binding and of the C interface.
OTHER_NAMES = {
    "out": ("mask", "prior"),
    "transmission": ("record.transmission",),
    "mask": ("record.mask",),
    **{name: (f"stages['{name}']", f"record.{name}") for name in STAGES},
}


def is_written(function: str, name: str) -> bool:
    return (
        name in OUTPUTS
        or (name == "transmission" and function != "fog_invert")
        or (name == "psf" and function == "degrade")
    )


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def wrong_arrays(name: str, good: NDArray[Any], *, written: bool) -> dict[str, Any]:
    """Ways in which an array can be wrong."""
    is_run = good.dtype.names is not None or good.dtype == np.float64 or name == "psf"
    wrong: dict[str, Any] = {
        "a list": good.tolist(),
        "a string": "abc",
        "complex": np.zeros(good.shape, dtype=np.complex64),
        "one axis too many": good.reshape(1, 1, *good.shape) if not is_run else None,
        "one image too many": np.concatenate([good, good[:1]]),
        "strides that are not whole elements": None,
        "read-only": read_only(good.copy()) if written else None,
        "not contiguous": np.repeat(good, 2, axis=0)[::2] if is_run else None,
    }
    if good.dtype == np.float32:
        packed = np.zeros(good.shape, dtype=np.dtype([("tag", "u1"), ("value", "<f4")]))
        unaligned = np.frombuffer(b"x" + good.tobytes(), dtype=np.uint8)[1:].view(np.float32)
        wrong |= {
            "float64": good.astype(np.float64),
            "uint8": (good * 255).astype(np.uint8),
            "big-endian": good.astype(">f4"),
            "strides that are not whole elements": packed["value"],
            "at an odd address": None if written else unaligned.reshape(good.shape),
        }
        if name != "psf":
            wrong |= {
                "another height": np.zeros((good.shape[0], H + 1, *good.shape[2:]), np.float32),
                "elements that share memory": np.broadcast_to(
                    np.zeros(1, dtype=np.float32), good.shape
                ).copy()[:, :1]
                if not written
                else np.lib.stride_tricks.as_strided(
                    np.zeros(64, dtype=np.float32), good.shape, (4,) * good.ndim
                ),
            }
    return {how: value for how, value in wrong.items() if value is not None}


def wrong_cases() -> list[Any]:
    cases: list[Any] = []
    for function, (_, make) in FUNCTIONS.items():
        for name, good in make().items():
            if not isinstance(good, np.ndarray) or name == "light":
                continue
            cases += [
                pytest.param(function, name, how, id=f"{function}-{name}-{how}")
                for how in wrong_arrays(name, good, written=is_written(function, name))
            ]
    return cases


def snapshot(function: str, args: dict[str, Any]) -> dict[str, bytes]:
    return {
        name: value.tobytes()
        for name, value in args.items()
        if isinstance(value, np.ndarray) and is_written(function, name)
    }


def refused(
    function: str,
    args: dict[str, Any],
    name: str,
    kinds: type[Exception] | tuple[Any, ...],
    either: tuple[str, ...] = (),
) -> str:
    """The message with which a call is refused; it names the argument, and nothing is written."""
    before = snapshot(function, args)
    call, _ = FUNCTIONS[function]
    with pytest.raises(kinds) as caught:
        call(dict(args))
    assert snapshot(function, args) == before
    message = str(caught.value)
    known = (name, *OTHER_NAMES.get(name, ()), *either)
    assert any(each in message for each in known), message
    return message


def test_the_valid_arguments_are_valid() -> None:
    for function, (call, make) in FUNCTIONS.items():
        args = make()
        before = snapshot(function, args)
        call(dict(args))
        after = snapshot(function, args)
        assert all(after[name] != before[name] for name in before), function


@pytest.mark.parametrize(("function", "name", "how"), wrong_cases())
def test_a_wrong_array_is_refused(function: str, name: str, how: str) -> None:
    args = FUNCTIONS[function][1]()
    args[name] = wrong_arrays(name, args[name], written=is_written(function, name))[how]
    # Of two arguments that disagree in their number of images, either may be called the wrong one.
    either = tuple(args) if how == "one image too many" else ()
    refused(function, args, name, (TypeError, ValueError), either)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_none_is_refused_where_an_array_is_needed(function: str) -> None:
    for name in ("image", "recipes", "prior", "psf"):
        args = FUNCTIONS[function][1]()
        if name not in args or (function == "degrade" and name in ("prior", "psf")):
            continue
        args[name] = None
        refused(function, args, name, TypeError)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("beta", (0.0, -1.0, 101.0)),
        ("light", ((0.5, 0.5, -0.01), (1.01, 0.5, 0.5), (0.5, math.nan, 0.5))),
        ("steps", (0, -1, 4097)),
        ("step_px", (-0.1, 1001.0)),
        ("density", (-0.1, 1.1)),
        ("slant_deg", (-91.0, 91.0)),
        ("length_px", (0.0, 1001.0)),
        ("width_px", (0.0, 101.0)),
        ("opacity", (-0.1, 1.1)),
        ("gain", (-11.0, 11.0)),
        ("offset", (-256.0, 256.0)),
        ("present", (16, 2**32 - 1)),
    ],
)
def test_a_recipe_out_of_range_is_refused(field: str, values: tuple[Any, ...]) -> None:
    floats = field not in ("steps", "present")
    wild = (math.nan, math.inf, -math.inf) if floats else ()
    for value in (*values, *wild):
        args = FUNCTIONS["degrade"][1]()
        args["recipes"] = recipe(**{field: value})
        # The first recipe is good: nothing of its image may have been written either.
        message = refused("degrade", args, "recipes[1]." + field, ValueError)
        assert "expected" in message


@pytest.mark.parametrize("function", ["fog", "rain", "noise"])
def test_each_effect_checks_what_it_reads(function: str) -> None:
    fields = {"fog": "beta", "rain": "density", "noise": "gain"}
    args = FUNCTIONS[function][1]()
    args["recipes"] = recipe(**{fields[function]: math.nan})
    refused(function, args, fields[function], ValueError)
    # What belongs to another effect does not matter.
    for other, field in fields.items():
        if other != function:
            args["recipes"] = recipe(**{field: math.nan})
            FUNCTIONS[function][0](dict(args))


def test_fields_of_absent_effects_are_not_read() -> None:
    rows = recipe(beta=math.nan, density=math.nan, step_px=math.nan, gain=math.nan, present=0)
    image = pixels(3, *IMAGE)
    degraded, _ = native.degrade(image, rows)
    np.testing.assert_array_equal(degraded[1], image[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("floor", 0.0),
        ("floor", math.nan),
        ("floor", 1.5),
        ("floor", "low"),
        ("light", None),
        ("light", "red"),
        ("light", [1.0, 1.0, 1.0]),
        ("light", np.ones((3, N))),
        ("threads", "two"),
        ("threads", 2**40),
        ("threads", 1.5),
    ],
)
def test_a_wrong_number_is_refused(name: str, value: Any) -> None:
    args = FUNCTIONS["fog_invert"][1]() | {name: value}
    refused("fog_invert", args, name, (TypeError, ValueError))


@pytest.mark.parametrize("function", ["shake", "degrade"])
def test_output_in_the_inputs_memory_is_refused(function: str) -> None:
    args = FUNCTIONS[function][1]()
    args["out"] = args["image"]
    assert "shares memory with image" in refused(function, args, "out", ValueError)


@pytest.mark.parametrize("function", ["fog", "rain", "noise", "fog_invert"])
def test_output_over_a_part_of_the_input_is_refused(function: str) -> None:
    """The very same view is welcome (see the parity tests), a shifted one is not."""
    args = FUNCTIONS[function][1]()
    memory = pixels(5, N, H + 1, W, 3)
    args["image"], args["out"] = memory[:, :-1], memory[:, 1:]
    refused(function, args, "out", ValueError)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("fog", "out"),
        ("fog", "image"),
        ("fog", "shake"),
        ("noise", "rain"),
        ("transmission", "prior"),
        ("mask", "transmission"),
    ],
)
def test_two_arrays_of_a_chain_in_one_memory_are_refused(one: str, other: str) -> None:
    args = FUNCTIONS["degrade"][1]()
    args[one] = args[other]
    assert "shares memory" in refused("degrade", args, one, ValueError)


def test_slices_of_one_array_are_apart() -> None:
    """Interleaved in memory, but no element is shared."""
    memory = np.empty((N, 3, H, W, 4), dtype=np.float32)
    image, out, stage = (memory[:, i, :, :, :3] for i in range(3))
    transmission = memory[:, 1, :, :, 3]
    image[...] = pixels(6, *IMAGE)
    expected, _ = native.degrade(image.copy(), recipe())
    native.degrade(image, recipe(), out=out, stages={"rain": stage}, transmission=transmission)
    np.testing.assert_array_equal(out, expected)


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="stages: got an unknown key"):
        native.degrade(pixels(0, *IMAGE), recipe(), stages={"snow": filled(*IMAGE)})


def test_empty_images_are_refused() -> None:
    with pytest.raises(ValueError, match="image: got a batch of 0"):
        native.degrade(np.zeros((0, H, W, 3), dtype=np.float32), native.recipes(0))
    with pytest.raises(ValueError, match="height: got -1"):
        native.prior(recipe(), -1, 4)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: native.words("a", 0, 0, 4), "seed"),
        (lambda: native.words(1.5, 0, 0, 4), "seed"),
        (lambda: native.words(1, -1, 0, 4), "stage"),
        (lambda: native.words(1, 0, 2**32, 4), "stream"),
        (lambda: native.normals(1, 0, 0, -4), "count"),
        (lambda: native.uniforms(1, 0, 0, 4, first=-1), "first"),
        (lambda: native.sample(None), "seeds"),
        (lambda: native.sample([1.5]), "seeds"),
        (lambda: native.recipes(-1), "count"),
        (lambda: native.means(None), "map"),
        (lambda: native.coverage(np.zeros((4, 4))), "map"),
        (lambda: native.coverage(filled(4, 4), threshold="a"), "threshold"),
        (lambda: native.severities(recipe(), None), "truth"),
        (lambda: native.severities(recipe(), np.zeros(3, dtype=native.TRUTH)), "truth"),
        (lambda: native.shake_kernels(None), "recipes"),
        (lambda: native.shake_kernels(recipe(steps=0)), "recipes"),
    ],
)
def test_the_smaller_functions_name_what_is_wrong(call: Callable[[], Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        call()
