"""A stand-in for Triton Inference Server inside the test's process. It is not Triton.

Reads a repository through Triton's protobuf, runs its ONNX graphs in ONNX Runtime on one thread,
and imports its Python model with a double of ``triton_python_backend_utils`` that sends requests
to those graphs. Tensors are held to ``config.pbtxt`` on their way in and out, as the server does.
Says nothing about scheduling, devices, shared memory or the network.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import grpc
import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

BACKEND_UTILS = "triton_python_backend_utils"


class ServerError(Exception):
    """What a client is told."""


def read_config(file: Path) -> Any:
    """A ``config.pbtxt`` as Triton's own message; an unknown field or name is an error."""
    return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def numpy_type(config: Any) -> np.dtype[Any]:
    """The dtype that a tensor of a model's configuration has in NumPy."""
    name = model_config_pb2.DataType.Name(config.data_type).removeprefix("TYPE_")
    found: np.dtype[Any] = np.dtype(triton_to_np_dtype("BYTES" if name == "STRING" else name))
    return found


class Tensor:
    """``pb_utils.Tensor``; the server's memory is not to be written to."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        self._name = name
        self._array = array.view()
        self._array.flags.writeable = False

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class TritonError:
    """``pb_utils.TritonError``."""

    def __init__(self, message: str) -> None:
        self._message = message

    def message(self) -> str:
        return self._message


class Response:
    """``pb_utils.InferenceResponse``."""

    def __init__(self, output_tensors: Sequence[Tensor], error: TritonError | None = None) -> None:
        self._tensors = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


class Request:
    """``pb_utils.InferenceRequest`` as a Python model receives it."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = list(inputs)

    def inputs(self) -> list[Tensor]:
        return self._inputs


def _find(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


class Server:
    """The models of a repository, started.

    Args:
        repository: the folder with one folder a model.
    """

    def __init__(self, repository: Path) -> None:
        self.configs = {
            folder.name: read_config(folder / "config.pbtxt") for folder in repository.iterdir()
        }
        self._repository = repository
        self._graphs = {}
        self.requests: list[str] = []
        for name, config in self.configs.items():
            assert config.name == name
            if config.platform == "onnxruntime_onnx":
                self._graphs[name] = self._session(repository / name / "1" / "model.onnx")

    @staticmethod
    def _session(file: Path) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def _held(self, tables: Any, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        """Arrays as a configuration's table says, or an error."""
        if set(arrays) != {table.name for table in tables}:
            raise ServerError(f"{where}: got {sorted(arrays)}")
        for table in tables:
            array = arrays[table.name]
            fits = len(array.shape) == len(table.dims) and all(
                dim in (-1, size) for dim, size in zip(table.dims, array.shape, strict=True)
            )
            if not fits or array.dtype != numpy_type(table):
                raise ServerError(
                    f"{where}: '{table.name}' is {array.dtype} {array.shape}, expected "
                    f"{numpy_type(table)} {list(table.dims)}"
                )

    def graph(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one of the ONNX models."""
        self.requests.append(name)
        if name not in self._graphs:
            raise ServerError(f"unknown model '{name}'")
        config, session = self.configs[name], self._graphs[name]
        self._held(config.input, inputs, f"inputs of {name}")
        names = [output.name for output in session.get_outputs()]
        try:
            values = session.run(names, dict(inputs))
        except Exception as error:
            raise ServerError(f"onnx runtime error: {error}") from error
        outputs = dict(zip(names, values, strict=True))
        self._held(config.output, outputs, f"outputs of {name}")
        return outputs

    def backend_utils(self) -> ModuleType:
        """The double of ``triton_python_backend_utils``."""
        server = self

        class InferenceRequest:
            def __init__(
                self,
                *,
                model_name: str,
                requested_output_names: Sequence[str],
                inputs: Sequence[Tensor],
                preferred_memory: object,
            ) -> None:
                assert preferred_memory == ("memory", "cpu", 0)
                self._model, self._names = model_name, requested_output_names
                self._inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}

            def exec(self) -> Response:
                try:
                    outputs = server.graph(self._model, self._inputs)
                except ServerError as error:
                    return Response([], TritonError(str(error)))
                return Response([Tensor(name, outputs[name]) for name in self._names])

        module: Any = ModuleType(BACKEND_UTILS)
        module.Tensor, module.TritonError = Tensor, TritonError
        module.InferenceRequest, module.InferenceResponse = InferenceRequest, Response
        module.TRITONSERVER_MEMORY_CPU = "cpu"
        module.PreferredMemory = lambda kind, device: ("memory", kind, device)
        module.get_input_tensor_by_name = lambda request, name: _find(request.inputs(), name)
        module.get_output_tensor_by_name = lambda response, name: _find(
            response.output_tensors(), name
        )
        found: ModuleType = module
        return found

    def python_model(self, name: str) -> Any:
        """The module ``model.py`` of a Python model, imported from the repository."""
        file = self._repository / name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location(f"served_{name}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with patch.dict(sys.modules, {BACKEND_UTILS: self.backend_utils()}):
            spec.loader.exec_module(module)
        return module

    @contextmanager
    def started(self, name: str) -> Iterator[PythonModel]:
        """A Python model, initialised and at the end finalised."""
        model = self.python_model(name).TritonPythonModel()
        config = json_format.MessageToDict(self.configs[name], preserving_proto_field_name=True)
        model.initialize({"model_config": json.dumps(config), "model_name": name})
        yield PythonModel(self, name, model)
        model.finalize()


class PythonModel:
    """A running Python model; call it with arrays by name."""

    def __init__(self, server: Server, name: str, model: Any) -> None:
        self._server, self._name, self.model = server, name, model

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        config = self._server.configs[self._name]
        self._server._held(config.input, inputs, f"inputs of {self._name}")
        request = Request([Tensor(name, array) for name, array in inputs.items()])
        (response,) = self.model.execute([request])
        if response.has_error():
            raise ServerError(response.error().message())
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        self._server._held(config.output, outputs, f"outputs of {self._name}")
        return outputs


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """One Python model over the protocol that Triton's clients speak."""

    def __init__(self, name: str, model: PythonModel) -> None:
        self._name, self._model = name, model

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name != self._name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model '{request.model_name}'")
        inputs = {
            given.name: np.frombuffer(raw, triton_to_np_dtype(given.datatype)).reshape(given.shape)
            for given, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        try:
            outputs = self._model(**inputs)
        except ServerError as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
        answer = service_pb2.ModelInferResponse(model_name=self._name, model_version="1")
        for name, array in outputs.items():
            text = array.dtype == np.object_
            answer.outputs.add(name=name, datatype="BYTES" if text else "UINT8", shape=array.shape)
            raw = serialize_byte_tensor(array).item() if text else array.tobytes()
            answer.raw_output_contents.append(raw)
        return answer


@contextmanager
def listening(name: str, model: PythonModel) -> Iterator[str]:
    """A running Python model on a free port of this machine; yields its address."""
    host = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(name, model), host)
    port = host.add_insecure_port("localhost:0")
    host.start()
    try:
        yield f"localhost:{port}"
    finally:
        host.stop(None).wait()
