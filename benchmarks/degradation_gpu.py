"""GPU rows of benchmarks/degradation.py: share of a measured copy, and the chain against peers.

The one place that calls the CUDA half of the kernels. Times are taken by CUDA events, on the
stream the kernels are given; peers run on the same stream.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from degradation_peers import Call, Kornia, Library, Missing, Native, Scene, TorchEager
from degradation_timing import Candidate, compare

__all__ = ["COPY_SHARE", "event_timer", "gpu_rows", "native_calls", "reason"]

COPY_SHARE = 0.7
GROUPS = ("fog, GPU", "noise, GPU", "chain, GPU")
# Bytes that an image's pixel costs at least: fog reads three channels and the depth, writes three;
# noise reads three and writes three. All float32.
_BYTES = {"fog, GPU": 28, "noise, GPU": 24}
PEERS: tuple[type[Library], ...] = (TorchEager, Kornia)


def reason(device: str) -> str:
    """Why the GPU rows cannot be measured here; empty when they can."""
    if device == "cpu":
        return "--device cpu"
    try:
        import torch
    except ImportError:
        return "torch is not installed (it makes the GPU's arrays and the peers)"
    if not torch.cuda.is_available():
        return "no CUDA device"
    try:
        kernels = Native().kernels
    except Missing as error:
        return str(error)
    if not kernels.build_info()["cuda"]:
        return "rirf_kernels was built without its CUDA half (make kernels, with nvcc)"
    return ""


def event_timer(call: Callable[[], object], repeats: int) -> float:
    """Seconds a call between two CUDA events on the current stream."""
    torch: Any = import_module("torch")  # its events carry no annotations
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeats


def native_calls(scene: Scene) -> dict[str, Call]:
    """Our calls on CUDA arrays, by group: buffers, workspace and stream are the caller's."""
    import torch

    from rirf_kernels import cuda

    recipes = cuda.to_device(Native().kernels.recipes(len(scene.images), **scene.native_fields()))
    images = torch.from_numpy(scene.images).cuda()
    priors = torch.from_numpy(scene.priors).cuda()
    out = torch.empty_like(images)
    bytes_ = cuda.workspace_bytes(len(scene.images), *scene.size)
    work = torch.empty(bytes_, dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream()
    return {
        "fog, GPU": lambda: cuda.fog(images, priors, recipes, out, stream=stream),
        "noise, GPU": lambda: cuda.noise(images, recipes, out, stream=stream),
        "chain, GPU": lambda: cuda.degrade(images, recipes, out, work, prior=priors, stream=stream),
    }


def _copy(pixels: int, bytes_a_pixel: int) -> Call:
    """A device copy that reads and writes ``bytes_a_pixel`` for every pixel."""
    import torch

    source = torch.empty(pixels * bytes_a_pixel // 8, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _candidates(group: str, scene: Scene, native: Call) -> list[Candidate]:
    count = len(scene.images)
    ours = Native()
    first = Candidate(ours.name, ours.provider, "", native, count)
    if group in _BYTES:
        pixels = count * scene.size[0] * scene.size[1]
        note = f"device copy of as many bytes ({_BYTES[group]} a pixel): ratio is our share of it"
        copy = _copy(pixels, _BYTES[group])
        return [first, Candidate("copy", "torch", note, copy, count, COPY_SHARE)]
    found = [first]
    for kind in PEERS:
        note = kind.lacks["chain"]
        try:
            peer = kind("cuda")  # type: ignore[call-arg]
            call = peer.prepare("chain", scene)
            found.append(Candidate(kind.name, peer.provider, note, call, count, 1.0))
        except Missing as error:
            found.append(Candidate(kind.name, "", note, None, count, 1.0, str(error)))
    return found


def gpu_rows(
    size: int, batch: int, rounds: int, device: str, progress: Callable[[str], object]
) -> list[dict[str, Any]]:
    """The rows of every GPU group; where nothing can be measured, they say why."""
    why = reason(device)
    rows: list[dict[str, Any]] = []
    if why:
        name, shares = Native.name, dict.fromkeys(_BYTES, ("copy", COPY_SHARE))
        for group in GROUPS:
            peers = [shares[group]] if group in shares else [(kind.name, 1.0) for kind in PEERS]
            blank = [Candidate(name, "", "", None, batch, None, why)]
            blank += [Candidate(peer, "", "", None, batch, target, why) for peer, target in peers]
            unmeasured = compare(blank, rounds, event_timer, progress)
            where = {"device": "-", "threads": "-"}
            rows += [{"group": group, **row, **where} for row in unmeasured]
        return rows

    import torch

    scene = Scene.make(size, batch, threads=0)
    calls = native_calls(scene)
    for group in GROUPS:
        found = _candidates(group, scene, calls[group])
        where = {"device": torch.cuda.get_device_name(), "threads": "-"}
        measured = compare(found, rounds, event_timer, progress)
        rows += [{"group": group, **row, **where} for row in measured]
    return rows
