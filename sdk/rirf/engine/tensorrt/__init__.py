"""TensorRT and TensorRT-RTX: build engines from ONNX files, keep them, run them.

Building needs one of the two libraries; keeping needs nothing more; running needs pycuda and a GPU.
Knows ONNX files and shapes, not what the graphs compute.
"""

from rirf.engine.tensorrt.backend import TensorRTEngine
from rirf.engine.tensorrt.build import Profile, Progress, build_engine, profiles_for
from rirf.engine.tensorrt.cache import CachedEngine, EngineKey, load_or_build
from rirf.engine.tensorrt.device import Gpu, find_gpu
from rirf.engine.tensorrt.library import Flavour, Library, find_library

__all__ = [
    "CachedEngine",
    "EngineKey",
    "Flavour",
    "Gpu",
    "Library",
    "Profile",
    "Progress",
    "TensorRTEngine",
    "build_engine",
    "find_gpu",
    "find_library",
    "load_or_build",
    "profiles_for",
]
