"""The ``rirf`` model of a Triton repository: a frame in, the restored frame and its diagnosis out.

``rirf export --triton`` copies this file into the repository, beside the bundle's manifest, and
Triton's Python backend imports it there. The pipeline is rirf's own; its two engines are models of
the same server. Does not know how or where those run: their ``config.pbtxt`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Exists inside the server alone, and has no type stubs.
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

from rirf import Bundle, EngineError, Pipeline, RirfError
from rirf.bundle import Graph
from rirf.engine import TensorSpec

__all__ = ["ServedEngine", "TritonPythonModel"]


class ServedEngine:
    """A graph that the server runs; see :class:`rirf.engine.base.Engine`.

    Args:
        model: its name in the repository.
        graph: its tensor tables.
    """

    def __init__(self, model: str, graph: Graph) -> None:
        self._model = model
        self._graph = graph
        self._open = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in order."""
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in order."""
        return self._graph.outputs

    @property
    def device(self) -> str:
        """The model; where it runs is the server's choice."""
        return f"Triton model {self._model}"

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns new arrays. The server compares the tensors with its tables.

        Raises:
            EngineError: the server refused or failed.
        """
        if not self._open:
            raise EngineError(f"{self._model}: the engine was closed; load the model again")
        names = [spec.name for spec in self.outputs]
        response = pb_utils.InferenceRequest(
            model_name=self._model,
            requested_output_names=names,
            inputs=[
                pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()
            ],
            # Also from a graph on a GPU: the rest of the pipeline is NumPy.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise EngineError(f"{self._model}: {response.error().message()}")
        # Copies: the tensors' memory is shared with the server and goes with the response.
        return {
            name: np.array(pb_utils.get_output_tensor_by_name(response, name).as_numpy())
            for name in names
        }

    def run_into(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Run once and copy into the caller's arrays; the server allocates all the same.

        Raises:
            EngineError: as :meth:`run`, or an output array does not fit.
        """
        values = self.run(inputs)
        for name in values.keys() | outputs.keys():
            got, target = values.get(name), outputs.get(name)
            if (
                got is None
                or target is None
                or (got.shape, got.dtype)
                != (
                    target.shape,
                    target.dtype,
                )
            ):
                raise EngineError(
                    f"{self._model}: output {name} is {_kind(target)}, expected {_kind(got)}"
                )
            np.copyto(target, got)

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once and forget the outputs."""
        self.run(inputs)

    def close(self) -> None:
        """Forget the model; the server keeps it for others."""
        self._open = False


def _kind(array: NDArray[Any] | None) -> str:
    return "none" if array is None else f"{array.dtype} {array.shape}"


class TritonPythonModel:
    """What the Python backend looks for in this file."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the manifest beside this file and the names of the graphs' models.

        Raises:
            BundleError: the rirf in this server cannot read that manifest.
        """
        parameters = json.loads(args["model_config"])["parameters"]

        def engine(kind: str, graph: Graph) -> ServedEngine:
            return ServedEngine(parameters[kind]["string_value"], graph)

        # The graphs lie in the folders of their own models, so there are no files to compare.
        bundle = Bundle.open(Path(__file__).parent, verify=False)
        self._pipeline = Pipeline(
            bundle,
            engine("reasoner", bundle.manifest.reasoner),
            engine("restorer", bundle.manifest.restorer),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request: restored frame and diagnosis, or what was wrong with the frame."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        frame = pb_utils.get_input_tensor_by_name(request, "frame").as_numpy()
        try:
            result = self._pipeline(frame)
        except RirfError as error:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))
        text = "null" if result.diagnosis is None else result.diagnosis.to_json()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("restored", np.ascontiguousarray(result.image)),
                pb_utils.Tensor("diagnosis", np.array([text.encode()], dtype=np.object_)),
            ]
        )

    def finalize(self) -> None:
        """Close the engines."""
        self._pipeline.close()
