"""Evaluation: the fixed protocol, the figures, the run over all conditions, table, contact sheet.

Everything published about a bundle's quality comes from here. Knows how to draw, restore and
compare frames; knows nothing of how a bundle was trained, and tunes nothing by what it measures.
Needs the ``eval`` extra (scikit-image), which is imported only when a figure is computed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rirf.evaluation.metrics import Figures, measure
    from rirf.evaluation.protocol import Case, Protocol, Sample, load_protocol
    from rirf.evaluation.report import table, to_json
    from rirf.evaluation.runner import evaluate
    from rirf.evaluation.sheet import contact_sheet

__all__ = [
    "Case",
    "Figures",
    "Protocol",
    "Sample",
    "contact_sheet",
    "evaluate",
    "load_protocol",
    "measure",
    "table",
    "to_json",
]

_HOMES = {
    "Case": "protocol",
    "Figures": "metrics",
    "Protocol": "protocol",
    "Sample": "protocol",
    "contact_sheet": "sheet",
    "evaluate": "runner",
    "measure": "metrics",
    "load_protocol": "protocol",
    "table": "report",
    "to_json": "report",
}


def __getattr__(name: str) -> Any:
    # rirf.evaluation.cli loads this package for its help text: the heavy parts come on use.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
