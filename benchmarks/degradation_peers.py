"""What benchmarks/degradation.py measures: our kernels, our NumPy code, and other libraries.

A library is a class that turns an operation and a scene into a call without arguments. Every class
says, for each operation it has, what its call leaves out compared with ours, so that no table row
stands there without it. Libraries are imported when they are loaded, never with this module.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, metadata
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rirf.degradation import (
    FogParameters,
    NoiseParameters,
    RainParameters,
    Recipe,
    ShakeParameters,
    degrade,
    fog,
    geometric,
    noise,
    rain,
    shake,
)
from rirf.degradation.backends import Backend
from rirf.images import to_float

__all__ = [
    "PEERS",
    "Albumentations",
    "Call",
    "ImageCorruptions",
    "Kornia",
    "Library",
    "Missing",
    "Native",
    "NumpyOps",
    "OpenCV",
    "Runtime",
    "Scene",
    "TorchEager",
    "mid_range_recipe",
]

Call = Callable[[], object]
SEED = 2026


class Missing(Exception):
    """A library that cannot be measured here; the text says why and what mends it."""


def _middle(bounds: tuple[float, float]) -> float:
    return (bounds[0] + bounds[1]) / 2


def mid_range_recipe() -> Recipe:
    """All four effects, every parameter in the middle of the range that training draws it from.

    Slant and noise offset are drawn from ranges about zero; theirs is the middle of the upper half.
    """
    return Recipe(
        atmospheric_light=(_middle(fog.LIGHT_RANGE),) * 3,
        fog=FogParameters(beta=_middle(fog.BETA_RANGE)),
        shake=ShakeParameters(
            steps=round(_middle(shake.STEPS_RANGE)), step_px=_middle(shake.STEP_RANGE_PX)
        ),
        rain=RainParameters(
            density=_middle(rain.DENSITY_RANGE),
            slant_deg=rain.SLANT_RANGE_DEG[1] / 2,
            length_px=_middle(rain.LENGTH_RANGE_PX),
            width_px=_middle(rain.WIDTH_RANGE_PX),
            opacity=_middle(rain.OPACITY_RANGE),
        ),
        noise=NoiseParameters(gain=_middle(noise.GAIN_RANGE), offset=noise.OFFSET_RANGE[1] / 2),
    )


@dataclass(frozen=True)
class Scene:
    """What every candidate is given: the same photograph ``batch`` times, and one seed an image.

    Attributes:
        images: float32 RGB (N, H, W, 3) in [0, 1].
        seeds: one an image; they set depth, random walk, streaks and noise.
        threads: how many each candidate may use.
    """

    images: NDArray[np.float32]
    seeds: tuple[int, ...]
    threads: int

    @classmethod
    def make(cls, size: int, batch: int, threads: int) -> Scene:
        """A packaged photograph, cropped or mirrored out to ``size`` x ``size``."""
        from skimage import data

        photo = np.asarray(data.astronaut())
        missing = max(0, size - photo.shape[0]), max(0, size - photo.shape[1])
        grown = np.pad(photo, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
        image = to_float(np.ascontiguousarray(grown[:size, :size]))
        return cls(np.stack([image] * batch), tuple(range(SEED, SEED + batch)), threads)

    @property
    def recipe(self) -> Recipe:
        """The parameters of every image."""
        return mid_range_recipe()

    @property
    def effects(self) -> tuple[FogParameters, ShakeParameters, RainParameters, NoiseParameters]:
        """The four parameter sets, none of them absent."""
        recipe = self.recipe
        parts = recipe.fog, recipe.shake, recipe.rain, recipe.noise
        if parts[0] is None or parts[1] is None or parts[2] is None or parts[3] is None:
            raise ValueError(f"the benchmark needs all four effects, got {recipe}")
        return parts[0], parts[1], parts[2], parts[3]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def priors(self) -> NDArray[np.float32]:
        """Depth priors (N, H, W)."""
        return np.stack([geometric(seed, *self.size) for seed in self.seeds])

    @cached_property
    def psfs(self) -> NDArray[np.float32]:
        """Point-spread functions (N, 31, 31)."""
        return np.stack([shake.kernel(seed, self.effects[1]) for seed in self.seeds])

    @cached_property
    def deviation(self) -> float:
        """Root mean square of our noise on these images, for peers that have one sigma only."""
        return math.sqrt(noise.variance(noise.sigma(self.images, self.effects[3])))

    @property
    def drop(self) -> tuple[int, int, int]:
        """Drops an image, height and horizontal reach of one, for peers that draw lines."""
        streak, (height, width) = self.effects[2], self.size
        angle = math.radians(streak.slant_deg)
        # A peer's line lies inside the frame; a tiny frame takes a shorter one.
        length = min(round(streak.length_px), height // 2)
        number = round(streak.density * height * width)
        return number, max(1, round(length * math.cos(angle))), round(length * math.sin(angle))

    def native_fields(self) -> dict[str, Any]:
        """The recipe as keyword arguments of ``rirf_kernels.recipes``."""
        haze, walk, streak, grain = self.effects
        fields = {**vars(haze), **vars(walk), **vars(streak), **vars(grain)}
        light = self.recipe.atmospheric_light
        return {**fields, "light": light, "seed": list(self.seeds), "present": 15}


class Library(ABC):
    """One candidate: where it comes from, what it has, and how its calls are made."""

    name: ClassVar[str]
    install: ClassVar[str]
    lacks: ClassVar[dict[str, str]]
    """Operations it has: what its call leaves out or does otherwise, compared with ours."""
    provider = ""

    @abstractmethod
    def prepare(self, operation: str, scene: Scene) -> Call:
        """A call that degrades every image of the scene once.

        Raises:
            Missing: this build of the library cannot.
        """


def _version(*packages: str) -> str:
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def _load(library: type[Library], *modules: str) -> list[Any]:
    # Importing a library that does not fit its dependencies may raise anything.
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise Missing(f"{library.install} ({error})") from error
    except Exception as error:
        raise Missing(f"importing it fails: {type(error).__name__}: {error}") from error


def each_image(step: Callable[[Any], object], images: Iterable[Any]) -> Call:
    """A call for libraries that take one image at a time."""
    inputs = list(images)

    def call() -> object:
        return [step(image) for image in inputs]

    return call


class Native(Library):
    """The kernels, called as a user calls them; buffers are the caller's and used again."""

    name = "rirf_kernels"
    install = "rirf_kernels is not installed (make kernels)"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "samples depth and kernel too; gives severities",
        "fog": "samples the depth too; gives the mean transmission",
        "fog, map given": "gives the mean transmission",
        "shake": "makes the kernel too",
        "rain": "gives the coverage",
        "noise": "gives the mean variance",
    }
    reuse = True

    def __init__(self) -> None:
        (self.kernels,) = _load(Native, "rirf_kernels")
        self.provider = f"{_version('rirf-kernels')}, {self.kernels.build_info()['isa']}"

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        kernels, images, size = self.kernels, scene.images, scene.size
        recipes = kernels.recipes(len(images), **scene.native_fields())
        out = np.empty_like(images) if self.reuse else None
        prior = np.empty(images.shape[:3], dtype=np.float32) if self.reuse else None
        threads = {"threads": scene.threads}

        def fog_with_prior() -> object:
            near = kernels.prior(recipes, *size, out=prior, **threads)
            return kernels.fog(images, near, recipes, out=out, **threads)

        def shake_with_kernel() -> object:
            return kernels.shake(images, kernels.shake_kernels(recipes)[0], out=out, **threads)

        calls: dict[str, Call] = {
            "chain": lambda: kernels.degrade(images, recipes, out=out, **threads),
            "fog": fog_with_prior,
            "fog, map given": lambda: kernels.fog(
                images, scene.priors, recipes, out=out, **threads
            ),
            "shake": shake_with_kernel,
            "rain": lambda: kernels.rain(images, recipes, out=out, **threads),
            "noise": lambda: kernels.noise(images, recipes, out=out, **threads),
        }
        return calls[operation]


class NativeNewArrays(Native):
    """The same with a new output at every call."""

    name = "rirf_kernels, new arrays"
    lacks: ClassVar[dict[str, str]] = {"chain": "as rirf_kernels, but allocates its output"}
    reuse = False


class Runtime(Library):
    """``rirf.degradation.degrade``: the chain and the whole true diagnosis, scene included."""

    backend: ClassVar[Backend]
    install = Native.install
    lacks: ClassVar[dict[str, str]] = {"degrade()": "describes the scene too"}

    def __init__(self) -> None:
        if self.backend == "native":
            _load(Native, "rirf_kernels")
        self.provider = _version("rirf")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        images, seeds, recipe = scene.images, scene.seeds, scene.recipe

        def call() -> object:
            return [
                degrade(
                    image,
                    seed,
                    recipe=recipe,
                    backend=self.backend,
                    keep_stages=False,
                    threads=scene.threads,
                )
                for image, seed in zip(images, seeds, strict=True)
            ]

        return call


class RuntimeNative(Runtime):
    """The native backend."""

    name, backend = "degrade(), native", "native"


class RuntimeNumpy(Runtime):
    """The NumPy backend."""

    name, backend = "degrade(), NumPy", "numpy"


class NumpyOps(Library):
    """Our NumPy path, effect by effect; OpenCV does its convolutions."""

    name = "rirf NumPy"
    install = "part of rirf"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "the same result; one image at a time",
        "fog": "the same result",
        "fog, map given": "the same result",
        "shake": "the same result",
        "rain": "the same result",
        "noise": "the same result",
    }

    def __init__(self) -> None:
        self.provider = _version("numpy", "opencv-python-headless")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        haze, walk, streak, grain = scene.effects
        light, size = scene.recipe.atmospheric_light, scene.size

        def blend(image: Any, near: Any) -> Any:
            t = fog.transmission(near, haze)
            return fog.apply(image, t, light), fog.severity(float(t.mean()))

        def mist(image: Any, seed: int, _: Any) -> Any:
            return blend(image, geometric(seed, *size))

        def blur(image: Any, seed: int, _: Any) -> Any:
            psf = shake.kernel(seed, walk)
            return shake.apply(image, psf), shake.severity(shake.moments(psf).rms_px)

        def drops(image: Any, seed: int, _: Any) -> Any:
            streaks = rain.mask(seed, streak, *size)
            return rain.apply(image, streaks, streak, light), rain.coverage(streaks)

        def grains(image: Any, seed: int, _: Any) -> Any:
            deviation = noise.sigma(image, grain)
            return noise.apply(image, seed, deviation), noise.variance(deviation)

        def chain(image: Any, seed: int, near: Any) -> Any:
            for step in (mist, blur, drops, grains):
                image, _ = step(image, seed, near)
            return np.clip(image, np.float32(0.0), np.float32(1.0))

        steps: dict[str, Callable[[Any, int, Any], Any]] = {
            "chain": chain,
            "fog": mist,
            "fog, map given": lambda image, _, near: blend(image, near),
            "shake": blur,
            "rain": drops,
            "noise": grains,
        }
        step = steps[operation]
        inputs = zip(scene.images, scene.seeds, scene.priors, strict=True)
        return each_image(lambda given: step(*given), inputs)


class OpenCV(Library):
    """Our model written by hand in OpenCV calls, with OpenCV's random numbers, buffers used again.

    The nearest thing to ours that a user writes in an afternoon.
    """

    name = "OpenCV by hand"
    install = "pip install opencv-python-headless"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "depth map and kernel given; no severities",
        "fog, map given": "no mean transmission",
        "shake": "filter2D, the same 31x31 kernel, given",
        "rain": "randu seeds, filter2D with our streak; no coverage; none enter from outside",
        "noise": "randn and arithmetic; no mean variance",
    }

    def __init__(self) -> None:
        (self.cv2,) = _load(OpenCV, "cv2")
        self.provider = _version("opencv-python-headless")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        cv2 = self.cv2
        haze, _, streak, grain = scene.effects
        light = (*scene.recipe.atmospheric_light, 0.0)
        height, width = scene.size
        stamp = np.ascontiguousarray(rain.stamp(streak)[::-1, ::-1])
        maps = [np.empty((height, width), dtype=np.float32) for _ in range(2)]
        frames = [np.empty((height, width, 3), dtype=np.float32) for _ in range(3)]

        def every(value: float) -> tuple[float, float, float, float]:
            # OpenCV takes a bare number as a value for the first channel alone.
            return value, value, value, value

        def blend(image: Any, near: Any, _: Any, out: Any) -> Any:
            t = cv2.pow(near, haze.beta, dst=maps[0])
            cv2.max(t, fog.TRANSMISSION_FLOOR, dst=t)
            cv2.min(t, 1.0, dst=t)
            cv2.subtract(image, light, dst=out)
            cv2.multiply(out, cv2.merge((t, t, t), dst=frames[2]), dst=out)
            return cv2.add(out, light, dst=out)

        def blur(image: Any, _: Any, psf: Any, out: Any) -> Any:
            return cv2.filter2D(image, -1, psf, dst=out, borderType=cv2.BORDER_REFLECT_101)

        def drops(image: Any, _near: Any, _psf: Any, out: Any) -> Any:
            cv2.randu(maps[0], 0.0, 1.0)
            _, seeds = cv2.threshold(
                maps[0], streak.density, 1.0, cv2.THRESH_BINARY_INV, dst=maps[0]
            )
            streaks = cv2.filter2D(seeds, -1, stamp, dst=maps[1], borderType=cv2.BORDER_CONSTANT)
            cv2.max(streaks, 0.0, dst=streaks)
            cv2.min(streaks, 1.0, dst=streaks)
            layers = [streaks * np.float32(streak.opacity * each) for each in light[:3]]
            return cv2.add(image, cv2.merge(layers, dst=frames[2]), dst=out)

        def grains(image: Any, _near: Any, _psf: Any, out: Any) -> Any:
            field = cv2.randn(frames[2], every(0.0), every(1.0))
            level = cv2.min(cv2.max(image, every(0.0)), every(1.0))
            cv2.multiply(level, every(grain.gain), dst=level)
            cv2.add(level, every(grain.offset / 255.0), dst=level)
            deviation = cv2.absdiff(level, every(0.0), dst=level)
            cv2.multiply(field, deviation, dst=field)
            return cv2.add(image, field, dst=out)

        def chain(image: Any, near: Any, psf: Any, out: Any) -> Any:
            foggy = blend(image, near, psf, frames[0])
            blurred = blur(foggy, near, psf, frames[1])
            rainy = drops(blurred, near, psf, frames[0])
            noisy = grains(rainy, near, psf, out)
            return cv2.min(cv2.max(noisy, every(0.0), dst=out), every(1.0), dst=out)

        steps: dict[str, Callable[..., Any]] = {
            "chain": chain,
            "fog, map given": blend,
            "shake": blur,
            "rain": drops,
            "noise": grains,
        }
        step = steps[operation]
        turned = [np.ascontiguousarray(psf[::-1, ::-1]) for psf in scene.psfs]
        out = np.empty_like(scene.images)
        inputs = zip(scene.images, scene.priors, turned, out, strict=True)
        return each_image(lambda given: step(*given), inputs)


class Albumentations(Library):
    """RandomFog, MotionBlur, RandomRain, GaussNoise inside a Compose, one image at a time."""

    name = "albumentations"
    install = "pip install albumentations"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "fog and rain in uint8; no depth, no signal-dependent noise, no severities",
        "fog": "RandomFog, coefficient 0.65: uint8 discs; no depth, no transmission",
        "shake": "MotionBlur(31): a straight line",
        "rain": "RandomRain, torrential, its most: two lines a row of the frame; uint8",
        "noise": "GaussNoise: one sigma, our root mean square; not signal-dependent",
    }

    def __init__(self) -> None:
        (self.library,) = _load(Albumentations, "albumentations")
        self.provider = _version("albumentations")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        library = self.library
        streak, light = scene.effects[2], scene.recipe.atmospheric_light
        _, drop_height, drop_reach = scene.drop
        tint = tuple(round(255 * streak.opacity * each) for each in light)
        transforms = {
            # 0.65: the middle of its default range.
            "fog": library.RandomFog(fog_coef_range=(0.65, 0.65), alpha_coef=0.08, p=1),
            "shake": library.MotionBlur(blur_limit=(31, 31), p=1),
            # Its slant is the horizontal reach in pixels. The blur of 3 makes up for lines that
            # are not antialiased; ours does not darken the frame.
            "rain": library.RandomRain(
                slant_range=(drop_reach, drop_reach),
                drop_length=drop_height,
                drop_width=round(streak.width_px),
                drop_color=tint,
                blur_value=3,
                brightness_coefficient=1.0,
                rain_type="torrential",
                p=1,
            ),
            "noise": library.GaussNoise(std_range=(scene.deviation,) * 2, p=1),
        }
        used = list(transforms.values()) if operation == "chain" else [transforms[operation]]
        composed = library.Compose(used, seed=SEED)
        return each_image(lambda image: composed(image=image)["image"], scene.images)


class ImageCorruptions(Library):
    """fog, motion_blur, gaussian_noise at severity 3 of 5; uint8 in and out, and no rain."""

    name = "imagecorruptions"
    install = "pip install --no-deps imagecorruptions"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "NO RAIN; uint8 between steps; no depth, no severities",
        "fog": "severity 3: plasma fractal, uint8; no depth, no transmission",
        "shake": "severity 3: radius 15, a straight line, uint8",
        "noise": "severity 3: one sigma 0.18, uint8; not signal-dependent",
    }

    def __init__(self) -> None:
        # 1.1.2, the last release, asks for two names that are gone: setuptools' pkg_resources
        # (only to find pictures for a corruption not used here) and NumPy's float_. Both are
        # lent to it alone; its own code runs as it is.
        lent = "pkg_resources" not in sys.modules
        if lent:
            stand_in = ModuleType("pkg_resources")
            stand_in.resource_filename = lambda package, path: path  # type: ignore[attr-defined]
            sys.modules["pkg_resources"] = stand_in
        try:
            self.library, inside = _load(
                ImageCorruptions, "imagecorruptions", "imagecorruptions.corruptions"
            )
        finally:
            if lent:
                del sys.modules["pkg_resources"]
        if not hasattr(np, "float_"):
            inside.np = SimpleNamespace(**vars(np), float_=np.float64)
        self.provider = _version("imagecorruptions")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        corrupt = self.library.corrupt
        names = {"fog": "fog", "shake": "motion_blur", "noise": "gaussian_noise"}
        used = list(names.values()) if operation == "chain" else [names[operation]]

        def step(image: Any) -> Any:
            for name in used:
                image = corrupt(image, severity=3, corruption_name=name)
            return image

        return each_image(step, np.rint(scene.images * 255).astype(np.uint8))


class Kornia(Library):
    """RandomMotionBlur, RandomRain, RandomGaussianNoise on a tensor (N, 3, H, W); no fog."""

    name = "kornia"
    install = "pip install kornia"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "NO FOG; lines without antialiasing, no signal-dependent noise, no severities",
        "shake": "RandomMotionBlur(31): a straight line",
        "rain": "RandomRain: as many lines of our size, one pixel wide, one fixed grey",
        "noise": "RandomGaussianNoise: one sigma, our root mean square; not signal-dependent",
    }

    def __init__(self, device: str = "cpu") -> None:
        self.torch, self.library = _load(Kornia, "torch", "kornia.augmentation")
        self.device = device
        self.provider = _version("kornia", "torch")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        torch, library = self.torch, self.library
        number, drop_height, drop_reach = scene.drop
        slant = scene.effects[2].slant_deg
        steps = {
            "shake": library.RandomMotionBlur(
                31, (slant, slant), (0.0, 0.0), border_type="reflect", p=1.0
            ),
            "rain": library.RandomRain(
                number_of_drops=(number, number),
                drop_height=(drop_height, drop_height),
                drop_width=(drop_reach, drop_reach),
                p=1.0,
            ),
            "noise": library.RandomGaussianNoise(mean=0.0, std=scene.deviation, p=1.0),
        }
        used = list(steps.values()) if operation == "chain" else [steps[operation]]
        planar = torch.from_numpy(scene.images).permute(0, 3, 1, 2).contiguous().to(self.device)

        def call() -> object:
            with torch.inference_mode():
                image = planar
                for step in used:
                    image = step(image)
                return image.clamp(0.0, 1.0) if operation == "chain" else image

        return call


class TorchEager(Library):
    """Our model in plain torch operations: what one writes without kernels of one's own."""

    name = "torch by hand"
    install = "pip install torch"
    lacks: ClassVar[dict[str, str]] = {
        "chain": "depth map and kernel given; torch's random numbers; no severities",
    }

    def __init__(self, device: str = "cpu") -> None:
        (self.torch,) = _load(TorchEager, "torch")
        self.device = device
        self.provider = _version("torch")

    def prepare(self, operation: str, scene: Scene) -> Call:
        """See :class:`Library`."""
        if operation != "chain":
            raise ValueError(f"torch by hand has the chain alone, not {operation}")
        planar = self.torch.from_numpy(scene.images).permute(0, 3, 1, 2).contiguous()
        images, run = planar.to(self.device), self.chain(scene)
        return lambda: run(images)

    def chain(self, scene: Scene) -> Callable[..., Any]:
        """The chain as a function of a tensor (N, 3, H, W) on the device.

        It takes its random numbers as further arguments when they are given: ``uniform``
        (N, 1, H + 2 p, W + 2 q) for a streak of (2 p + 1, 2 q + 1), and ``normal``, shaped as
        the images.
        """
        torch, functional, device = self.torch, self.torch.nn.functional, self.device
        haze, _, streak, grain = scene.effects
        count, (height, width) = len(scene.images), scene.size

        def tensor(values: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

        light = tensor(scene.recipe.atmospheric_light).view(1, 3, 1, 1)
        near = tensor(scene.priors)[:, None]
        # conv2d correlates; convolution takes the kernel turned by 180 degrees.
        psf = tensor(scene.psfs[:, None, ::-1, ::-1]).repeat_interleave(3, dim=0)
        stamp = tensor(rain.stamp(streak)[None, None, ::-1, ::-1])
        field = (
            count,
            1,
            height + stamp.shape[2] - 1,
            width + stamp.shape[3] - 1,
        )
        reach = psf.shape[-1] // 2

        def run(images: Any, uniform: Any = None, normal: Any = None) -> Any:
            with torch.inference_mode():
                t = near.pow(haze.beta).clamp(fog.TRANSMISSION_FLOOR, 1.0)
                frames = images * t + light * (1.0 - t)
                framed = functional.pad(frames, (reach,) * 4, mode="reflect")
                flat = framed.view(1, count * 3, *framed.shape[2:])
                frames = functional.conv2d(flat, psf, groups=count * 3).view_as(images)
                numbers = torch.rand(field, device=device) if uniform is None else uniform
                seeds = (numbers < streak.density).float()
                mask = functional.conv2d(seeds, stamp).clamp(0.0, 1.0)
                frames = frames + (streak.opacity * mask) * light
                deviation = (grain.gain * frames.clamp(0.0, 1.0) + grain.offset / 255.0).abs()
                numbers = torch.randn_like(frames) if normal is None else normal
                return (frames + numbers * deviation).clamp(0.0, 1.0)

        return run


PEERS: tuple[type[Library], ...] = (
    NativeNewArrays,
    NumpyOps,
    OpenCV,
    Albumentations,
    ImageCorruptions,
    Kornia,
    TorchEager,
)
"""Everything that is measured against :class:`Native`."""
