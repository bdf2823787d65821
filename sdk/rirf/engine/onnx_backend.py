"""ONNX Runtime: the CPU by default, and any execution provider that proves it works here.

A provider counts as available after one real inference, not because a list names it: wheels list
what was compiled in, and missing drivers or libraries only show when a graph runs.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rirf.engine.base import TensorSpec, check_tensors
from rirf.errors import EngineError, require

__all__ = ["CPU", "OnnxEngine", "available_providers", "probe_provider"]

CPU = "CPUExecutionProvider"
_LOG = logging.getLogger(__name__)
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# The smallest graph that computes: y = x + x, float32 (4,), opset 13.
_PROBE = base64.b64decode(
    "CAg6NQoOCgF4CgF4EgF5IgNBZGQSAWdaDwoBeBIKCggIARIECgIIBGIPCgF5EgoKCAgBEgQKAggEQgQKABAN"
)


def _runtime() -> Any:
    return require("onnxruntime", "cpu", "run the networks")


def _session_options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    # 3 is ERROR: the runtime's own warnings are not the caller's business.
    options.log_severity_level = 3
    return options


@cache
def probe_provider(name: str) -> str | None:
    """None when the provider ran a real graph in this process, else the reason why not."""
    runtime = _runtime()
    listed = runtime.get_available_providers()
    if name not in listed:
        return f"this onnxruntime was built without it (it has {', '.join(listed)})"
    try:
        options = _session_options(runtime, 1)
        session = runtime.InferenceSession(_PROBE, options, providers=[name])
        if session.get_providers()[0] != name:
            return f"onnxruntime fell back to {session.get_providers()[0]}"
        x = np.arange(4, dtype=np.float32)
        (y,) = session.run(None, {"x": x})
    except Exception as error:  # the runtime raises many undocumented types here
        return str(error).strip().splitlines()[0]
    return None if np.array_equal(y, x + x) else f"computed {y} for {x} + {x}"


def available_providers() -> list[str]:
    """Names of the providers that work here, in ONNX Runtime's order of preference."""
    names: list[str] = _runtime().get_available_providers()
    return [name for name in names if probe_provider(name) is None]


class OnnxEngine:
    """An ONNX graph in ONNX Runtime; see :class:`rirf.engine.base.Engine`.

    Args:
        path: the ``.onnx`` file.
        providers: execution providers by preference; the CPU when None. The CPU is always the last
            resort unless ``strict``.
        threads: threads inside an operator; ONNX Runtime's choice when None.
        strict: a provider that does not work is an error instead of a logged fallback.

    Raises:
        EngineError: the graph cannot be loaded, or (strict) a provider does not work.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        strict: bool = False,
    ) -> None:
        runtime = _runtime()
        if threads is not None and threads < 1:
            raise EngineError(f"threads is {threads}; expected 1 or more, or None")
        usable = []
        for name in providers or (CPU,):
            reason = None if name == CPU else probe_provider(name)
            if reason is None:
                usable.append(name)
            elif strict:
                raise EngineError(f"{name} does not work here: {reason}; drop strict or fix it")
            else:
                _LOG.warning("%s does not work here (%s): falling back", name, reason)
        if CPU not in usable and not strict:
            usable.append(CPU)
        try:
            self._session = runtime.InferenceSession(
                str(path), _session_options(runtime, threads), providers=usable
            )
        except Exception as error:  # the runtime raises many undocumented types here
            raise EngineError(f"{path}: cannot be loaded by ONNX Runtime: {error}") from error
        self._path = path
        self._inputs = tuple(self._spec(value) for value in self._session.get_inputs())
        self._outputs = tuple(self._spec(value) for value in self._session.get_outputs())
        self._device = str(self._session.get_providers()[0])

    def _spec(self, value: Any) -> TensorSpec:
        if value.type not in _DTYPES:
            raise EngineError(f"{self._path}: tensor {value.name} has type {value.type}")
        shape = tuple(axis if isinstance(axis, int | str) else "?" for axis in value.shape)
        return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES[value.type])

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in order."""
        return self._outputs

    @property
    def device(self) -> str:
        """The first execution provider in use."""
        return self._device

    def _live(self) -> Any:
        if self._session is None:
            raise EngineError(f"{self._path.name}: the engine was closed; load it again")
        return self._session

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns new arrays. See :meth:`rirf.engine.base.Engine.run`."""
        session = self._live()
        check_tensors(self._path.name, inputs, self._inputs)
        names = [spec.name for spec in self._outputs]
        try:
            values = session.run(names, dict(inputs))
        except Exception as error:  # the runtime raises many undocumented types here
            raise EngineError(f"{self._path.name}: inference failed: {error}") from error
        return dict(zip(names, values, strict=True))

    def run_into(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Run once into the caller's arrays. See :meth:`rirf.engine.base.Engine.run_into`."""
        session = self._live()
        check_tensors(self._path.name, inputs, self._inputs)
        check_tensors(self._path.name, outputs, self._outputs)
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, array in outputs.items():
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise EngineError(f"{name}: expected a writeable C-contiguous output array")
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # the runtime raises many undocumented types here
            raise EngineError(f"{self._path.name}: inference failed: {error}") from error

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once and forget the outputs."""
        self.run(inputs)

    def close(self) -> None:
        """Release the session."""
        self._session = None
