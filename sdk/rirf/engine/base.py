"""The engine interface. Knows no backend and no bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

__all__ = ["Engine", "TensorSpec"]


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
