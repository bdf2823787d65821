"""The engine interface. Knows no backend and no bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rirf.errors import EngineError

__all__ = ["Engine", "TensorSpec", "check_tensors"]


class TensorSpec(BaseModel):
    """A graph input or output: name, shape (a string names a dynamic axis), NumPy dtype name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Engine(Protocol):
    """A loaded graph, ready to run. Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in order."""

    @property
    def device(self) -> str:
        """Where it runs, e.g. ``CPUExecutionProvider``."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns new arrays.

        Raises:
            EngineError: a tensor is missing, unknown, or of the wrong dtype or shape.
        """

    def run_into(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Run once, writing into C-contiguous arrays the caller owns; nothing is allocated.

        Raises:
            EngineError: as :meth:`run`, for inputs and outputs.
        """

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run once and forget the outputs, so that the first real frame is not the slow one."""

    def close(self) -> None:
        """Release the graph; running afterwards is an EngineError."""


def check_tensors(
    name: str, given: Mapping[str, NDArray[Any]], specs: Sequence[TensorSpec]
) -> None:
    """Refuse tensors that do not fit a graph.

    Args:
        name: of the graph, for the message.
        given: arrays by tensor name.
        specs: what the graph takes or gives.

    Raises:
        EngineError: a tensor is missing, unknown, or of the wrong dtype or shape.
    """
    wanted = {spec.name for spec in specs}
    if set(given) != wanted:
        raise EngineError(f"{name}: got tensors {sorted(given)}, expected {sorted(wanted)}")
    for spec in specs:
        array = given[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(axis, str) or axis == size
            for axis, size in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or str(array.dtype) != spec.dtype:
            raise EngineError(
                f"{name}: {spec.name} is {array.dtype} {array.shape}, expected {spec.dtype} "
                f"{spec.shape}"
            )
