"""Inference engines behind one interface: named arrays in, named arrays out. One file a backend."""

from rirf.engine.base import Engine, TensorSpec
from rirf.engine.onnx_backend import OnnxEngine, available_providers, probe_provider

__all__ = ["Engine", "OnnxEngine", "TensorSpec", "available_providers", "probe_provider"]
