"""Checkpoint to ONNX: names, dynamic axes and metadata of the two graphs.

Reasoner: ``thumbnail`` (1, 3, 256, 256) and ``crops`` (1, 8, 3, 96, 96) in, the outputs of
``rirf_training.networks.reasoner.OUTPUTS`` out. Restorer: ``degraded``, ``state`` (1, 3, H, W),
``transmission`` (1, 1, H, W), ``condition`` (1, 40), ``time`` (1,), ``step`` (1,) in, ``update``
(1, 3, H, W) out, with H and W any multiples of the network's. All float32.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from rirf import __version__, conditioning, views
from rirf_training.networks.reasoner import OUTPUTS, Reasoner
from rirf_training.networks.restorer import Restorer

__all__ = ["COARSE", "OPSET", "RESTORER_INPUTS", "example_inputs", "export_onnx", "input_names"]

# 18 is the lowest the exporter writes without conversion, so the most engines can read it.
OPSET = 18
RESTORER_INPUTS = ("degraded", "state", "transmission", "condition", "time", "step")
REASONER_INPUTS = ("thumbnail", "crops")
# Time and step of the coarse leap: one evaluation from time -1 to 0.
COARSE = (-1.0, 1.0)


def input_names(network: Reasoner | Restorer) -> tuple[str, ...]:
    """Names of the graph's inputs, in order."""
    return REASONER_INPUTS if isinstance(network, Reasoner) else RESTORER_INPUTS


def output_names(network: Reasoner | Restorer) -> tuple[str, ...]:
    """Names of the graph's outputs, in order."""
    return OUTPUTS if isinstance(network, Reasoner) else ("update",)


def example_inputs(
    network: Reasoner | Restorer,
    height: int,
    width: int,
    seed: int = 0,
    moment: tuple[float, float] = COARSE,
) -> tuple[Tensor, ...]:
    """Random inputs in the networks' value ranges.

    Height, width and moment (time, step) count for the restorer.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    if isinstance(network, Reasoner):
        side, crop = views.THUMBNAIL_SIZE, views.CROP_SIZE
        return uniform(1, 3, side, side), uniform(1, views.CROPS, 3, crop, crop)
    return (
        uniform(1, 3, height, width),
        uniform(1, 3, height, width),
        0.05 + 0.95 * uniform(1, 1, height, width),
        uniform(1, conditioning.SIZE),
        torch.tensor([moment[0]]),
        torch.tensor([moment[1]]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its passes on stdout and by warnings; neither is the user's business."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _dynamic_shapes(network: Reasoner | Restorer) -> tuple[Any, ...] | None:
    if isinstance(network, Reasoner):
        return None
    height = network.multiple * torch.export.Dim("h", min=1, max=1024)
    width = network.multiple * torch.export.Dim("w", min=1, max=1024)
    frame = {2: height, 3: width}
    return (frame, frame, frame, None, None, None)


def export_onnx(network: Reasoner | Restorer, file: Path, metadata: dict[str, str]) -> None:
    """Write a network as one self-contained ONNX file, checked by ONNX's own checker."""
    network.eval()
    sample = example_inputs(network, 4 * 16, 6 * 16)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            sample,
            input_names=list(input_names(network)),
            output_names=list(output_names(network)),
            dynamic_shapes=_dynamic_shapes(network),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: onnx.ModelProto = program.model_proto
    _name_axes(model, network)
    model.producer_name, model.producer_version = "rirf", __version__
    model.doc_string = (type(network).__doc__ or "").strip().splitlines()[0]
    for node in model.graph.node:
        # Stack traces of the exporting machine: large, and nobody else's business.
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, file)


def _name_axes(model: onnx.ModelProto, network: nn.Module) -> None:
    """Readable names for dynamic axes, in place of the exporter's expressions."""
    if not isinstance(network, Restorer):
        return
    axes: Sequence[tuple[int, str]] = ((2, "height"), (3, "width"))
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        if len(shape.dim) == 4:
            for axis, name in axes:
                shape.dim[axis].dim_param = name
