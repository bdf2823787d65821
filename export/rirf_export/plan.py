"""What an export is asked for, checked and written out before anything long begins.

One bundle a precision: NAME.rirf holds fp32, NAME-fp16.rirf and NAME-int8.rirf the others, each
whole in itself. Engines go into the cache folder of their bundle. Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from rirf.errors import OutputError, RirfError
from rirf.shapes import DEFAULT_SHAPES, Shapes, parse_shapes

__all__ = ["Lowered", "Plan", "PlanError", "Precision", "Target", "parse_list"]

Lowered: TypeAlias = Literal["fp16", "int8"]
Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
Target: TypeAlias = Literal["onnx", "tensorrt", "tensorrt-rtx"]


class PlanError(RirfError):
    """What was asked for contradicts itself; the message says how to mend it."""


def parse_list(option: str, text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """A list like ``fp32,int8``, in the order of ``allowed``.

    Raises:
        PlanError: empty, or a name that is not allowed.
    """
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise PlanError(
            f"{option} {text}: got {', '.join(name or 'nothing' for name in wrong)}; expected one "
            f"or more of {', '.join(allowed)}, separated by commas"
        )
    return tuple(name for name in allowed if name in names)


@dataclass(frozen=True)
class Plan:
    """All that an export makes.

    Attributes:
        out: the fp32 bundle, ``NAME.rirf``; it is made in any case, as what the others are held to.
        precisions, targets: in a fixed order.
        shapes: of the engines.
    """

    out: Path
    precisions: tuple[Precision, ...]
    targets: tuple[Target, ...]
    shapes: Shapes = DEFAULT_SHAPES

    @classmethod
    def of(cls, out: Path, precisions: str, targets: str, shapes: str | None) -> Plan:
        """From the command line's texts.

        Raises:
            OutputError: ``out`` does not end in .rirf.
            PlanError: a list names something else.
            EngineError: shapes that contradict themselves.
        """
        if out.suffix != ".rirf":
            raise OutputError(f"{out}: a bundle's name ends in .rirf")
        return cls(
            out=out,
            precisions=parse_list("--precision", precisions, get_args(Precision)),  # type: ignore[arg-type]  # checked against the literal
            targets=parse_list("--targets", targets, get_args(Target)),  # type: ignore[arg-type]  # likewise
            shapes=DEFAULT_SHAPES if shapes is None else parse_shapes(shapes),
        )

    @property
    def lower(self) -> tuple[Lowered, ...]:
        """The precisions below fp32: these are gated."""
        return tuple(each for each in self.precisions if each != "fp32")

    @property
    def libraries(self) -> tuple[Literal["tensorrt", "tensorrt-rtx"], ...]:
        """The engine builders that are wanted."""
        return tuple(each for each in self.targets if each != "onnx")

    @property
    def bundles(self) -> dict[Precision, Path]:
        """Where each precision's bundle goes."""
        found: dict[Precision, Path] = {"fp32": self.out}
        for precision in self.lower:
            found[precision] = self.out.with_name(f"{self.out.stem}-{precision}.rirf")
        return found

    def describe(self) -> str:
        """The plan for people, a line a product."""
        lines = []
        for precision, bundle in self.bundles.items():
            gate = "" if precision == "fp32" else ", quality gate against fp32"
            extra = "" if precision in self.precisions else " (what the others are held to)"
            lines.append(f"{bundle}  {precision} ONNX, parity with torch{gate}{extra}")
            if precision in self.precisions:
                lines += [
                    f"  cache/  {library} engines for {self.shapes}" for library in self.libraries
                ]
        return "\n".join(lines)
