"""The reference is the network that was described, its graph computes it, and all are timed."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from rirf.bundle import Bundle
from rirf.engine import OnnxEngine

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
# Published for width 32: 17.1 M parameters; 16 G multiply-adds at 256 x 256.
PUBLISHED_PARAMETERS = 17.1e6
PUBLISHED_MULTIPLY_ADDS = 16e9


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("reference_latency")


def readme_tables() -> ModuleType:
    # By its path: `docs` may be the name of some installed package.
    file = FOLDER.parent / "docs" / "readme_tables.py"
    spec = importlib.util.spec_from_file_location("rirf_readme_tables", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameters_by_hand(
    width: int, encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...]
) -> int:
    """From the description alone, layer by layer."""

    def convolution(into: int, out: int, side: int, groups: int = 1, bias: bool = True) -> int:
        return into // groups * out * side * side + (out if bias else 0)

    def block(c: int) -> int:
        norms = 2 * 2 * c
        scales = 2 * c
        spatial = convolution(c, 2 * c, 1) + convolution(2 * c, 2 * c, 3, groups=2 * c)
        attention = convolution(c, c, 1)
        feed = convolution(c, 2 * c, 1)
        return norms + scales + spatial + attention + feed + 2 * convolution(c, c, 1)

    total = convolution(3, width, 3) + convolution(width, 3, 3)
    for level, count in enumerate(encoder):
        channels = width << level
        total += count * block(channels) + convolution(channels, 2 * channels, 2)
    total += middle * block(width << len(encoder))
    for level, count in zip(reversed(range(len(encoder))), decoder, strict=True):
        channels = width << level
        total += count * block(channels)
        total += convolution(2 * channels, 4 * channels, 1, bias=False)
    return total


def multiply_adds_by_hand(
    width: int, encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...], size: int
) -> int:
    """Of the convolutions, at ``size`` x ``size``."""

    def block(c: int, pixels: int) -> int:
        # 1x1: c to 2c, c to c, c to 2c, c to c; 3x3 over 2c channels one by one; c to c of means.
        return (2 + 1 + 2 + 1) * c * c * pixels + 9 * 2 * c * pixels + c * c

    total = 2 * 27 * width * size * size
    for level, count in enumerate(encoder):
        c, pixels = width << level, (size >> level) ** 2
        total += count * block(c, pixels) + 4 * c * 2 * c * pixels // 4
    total += middle * block(width << len(encoder), (size >> len(encoder)) ** 2)
    for level, count in zip(reversed(range(len(encoder))), decoder, strict=True):
        c, pixels = width << level, (size >> level) ** 2
        total += count * block(c, pixels) + 2 * c * 4 * c * pixels // 4
    return total


def test_parameters_are_those_of_the_description(script: ModuleType) -> None:
    network = script.NAFNet()
    counted = sum(each.numel() for each in network.parameters())
    assert counted == parameters_by_hand(32, (1, 1, 1, 28), 1, (1, 1, 1, 1))
    assert counted == pytest.approx(PUBLISHED_PARAMETERS, rel=0.005)
    # At first both residual branches of every block add nothing.
    image = torch.rand(1, 8, 4, 4)
    block = script.NAFBlock(8)
    assert torch.equal(block(image), image)


def test_block_follows_the_description(script: ModuleType) -> None:
    torch.manual_seed(0)
    block = script.NAFBlock(4).double()
    x = torch.rand(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        for each in block.parameters():
            each.normal_()
        got = block(x)

        def norm(layer: Any, values: torch.Tensor) -> torch.Tensor:
            last = values.permute(0, 2, 3, 1)
            scales = layer.weight.flatten(), layer.bias.flatten()
            centred = last - last.mean(-1, keepdim=True)
            spread = centred.square().mean(-1, keepdim=True).add(1e-6).sqrt()
            done: torch.Tensor = centred / spread * scales[0] + scales[1]
            return done.permute(0, 3, 1, 2)

        def mix(layer: Any, values: torch.Tensor) -> torch.Tensor:
            weights = layer.weight[:, :, 0, 0]
            mixed: torch.Tensor = torch.einsum("oc,bchw->bohw", weights, values)
            mixed += layer.bias[:, None, None]
            return mixed

        wide = mix(block.widen, norm(block.spatial_norm, x))
        near = torch.nn.functional.pad(wide, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        wide = torch.einsum("bchwyx,cyx->bchw", near, block.depthwise.weight[:, 0])
        wide = wide + block.depthwise.bias[:, None, None]
        gated = wide[:, :4] * wide[:, 4:]
        gated = gated * mix(block.attention, gated.mean((2, 3), keepdim=True))
        y = x + block.beta * mix(block.narrow, gated)
        wide = mix(block.feed, norm(block.channel_norm, y))
        expected = y + block.gamma * mix(block.back, wide[:, :4] * wide[:, 4:])
    torch.testing.assert_close(got, expected)


def test_graph_equals_torch_and_costs_what_the_description_says(
    script: ModuleType, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {"width": 8, "encoder": (1, 2), "middle": 1, "decoder": (1, 1)}
    network = script.reference(**sizes)
    file = tmp_path / "reference.onnx"
    script.export_reference(network, file, 32)
    engine = OnnxEngine(file, threads=1)
    image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    (restored,) = engine.run({"image": image}).values()
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    # No block is idle: the network without its blocks gives something else.
    for each in network.modules():
        if isinstance(each, script.NAFBlock):
            before = network(torch.from_numpy(image)).detach().numpy()
            each.beta.data.zero_()
            each.gamma.data.zero_()
            after = network(torch.from_numpy(image)).detach().numpy()
            assert np.abs(after - before).max() > 1e-4
    assert [spec.shape for spec in engine.inputs] == [(1, 3, 32, 32)]
    counted = script.multiply_adds(file, {"image": image})
    assert counted == multiply_adds_by_hand(**sizes, size=32)
    # The same formula at the published size: the one above is right because this one is.
    whole = multiply_adds_by_hand(32, (1, 1, 1, 28), 1, (1, 1, 1, 1), 256)
    assert whole == pytest.approx(PUBLISHED_MULTIPLY_ADDS, rel=0.02)


def test_multiply_adds_of_each_operator(script: ModuleType, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    weights = {
        "strided": (6, 2, 3, 3),  # two groups
        "raised": (6, 5, 2, 2),
        "matrix": (7, 3),
        "turned": (4, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "strided"], ["a"], group=2, strides=[2, 2], pads=[1] * 4),
        helper.make_node("ConvTranspose", ["a", "raised"], ["b"], strides=[2, 2]),
        helper.make_node("MatMul", ["y", "matrix"], ["c"]),
        helper.make_node("Gemm", ["z", "turned"], ["d"], transA=1),
    ]
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "operators",
        [
            helper.make_tensor_value_info("x", float32, [1, 4, "height", "width"]),
            helper.make_tensor_value_info("y", float32, [2, 5, 7]),
            helper.make_tensor_value_info("z", float32, [4, 9]),
        ],
        [helper.make_tensor_value_info(name, float32, None) for name in "bcd"],
        [
            onnx.numpy_helper.from_array(random.random(shape, dtype=np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path / "operators.onnx"
    onnx.save_model(model, file)
    feeds = {
        "x": random.random((1, 4, 8, 12), dtype=np.float32),
        "y": random.random((2, 5, 7), dtype=np.float32),
        "z": random.random((4, 9), dtype=np.float32),
    }
    strided = 6 * (4 * 6) * (2 * 9)
    raised = 6 * (4 * 6) * (5 * 4)
    matrix = 2 * 5 * 7 * 3
    turned = 9 * 4 * 3
    assert script.multiply_adds(file, feeds) == strided + raised + matrix + turned


@pytest.mark.slow
def test_table_record_and_targets(
    script: ModuleType,
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The whole reference takes its time to export; how deep it is changes nothing here.
    monkeypatch.setattr(script, "ENCODER_BLOCKS", (1, 1, 1, 1))
    monkeypatch.setattr(script, "SIZE", 64)
    monkeypatch.setattr(script, "THREADS", 1)
    monkeypatch.setattr(script, "RESTORER_MS_MAX", 1e6)
    monkeypatch.setattr(script, "TIMES_FASTER_MIN", 0.0)
    monkeypatch.setattr(script, "REASONER_MS_MAX", 0.0)  # nothing can meet it
    file = tmp_path / "latency.json"
    assert script.main(["--rounds", "3", "--check", "--json", str(file)]) == 1
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(printed[-1])
    assert json.loads(file.read_text(encoding="utf-8")) == record
    assert printed[0].split()[:3] == ["network", "median", "ms"]
    rows = {row["name"]: row for row in record["rows"]}
    assert (
        list(rows)
        == ["restorer", "reasoner", script.REFERENCE]
        == [line.split("  ")[0] for line in printed[2:5]]
    )
    assert record["ok"] is False
    assert [row["ok"] for row in rows.values()] == [True, False, None]

    manifest = Bundle.open(shipped).manifest
    assert rows["restorer"]["parameters"] == manifest.restorer.parameters
    assert rows["reasoner"]["parameters"] == manifest.reasoner.parameters
    by_hand = parameters_by_hand(32, (1, 1, 1, 1), 1, (1, 1, 1, 1))
    assert rows[script.REFERENCE]["parameters"] == by_hand
    by_hand = multiply_adds_by_hand(32, (1, 1, 1, 1), 1, (1, 1, 1, 1), 64)
    assert rows[script.REFERENCE]["multiply_adds"] == by_hand
    for row in rows.values():
        low, high = row["quartiles_ms"]
        assert 0.0 < low <= row["ms"] <= high and len(row["seconds"]) == 3
        assert row["ms"] == pytest.approx(1e3 * np.median(row["seconds"]))
        assert row["size"] == "64x64" and row["threads"] == 1
        assert row["provider"] == "CPUExecutionProvider" and row["device"]
    seconds = [np.array(row["seconds"]) for row in rows.values()]
    faster = record["times_faster"]
    assert faster["restorer"] == pytest.approx(np.median(seconds[2] / seconds[0]))
    assert faster["pair"] == pytest.approx(np.median(seconds[2] / (seconds[0] + seconds[1])))
    assert record["environment"]["bundle_digest"] == Bundle.open(shipped).digest
    assert record["environment"]["threads"] == 1

    # README.md's table is made of this record.
    tables = readme_tables()
    kept = tables.summary("latency", record)
    shown = tables.tables({"latency": kept})["latency"]
    assert f"| {rows['restorer']['ms']:.1f} (target ≤ 1e+06) |" in shown
    assert f"| {faster['reasoner']:.1f} × |" in shown and "one 64×64\nframe" in shown

    # The same run holds when every target can be met.
    told = {"restorer": 11.0}
    monkeypatch.setattr(script, "REASONER_MS_MAX", 1e6)
    assert script.hold(record["rows"], told, True) is True
    monkeypatch.setattr(script, "TIMES_FASTER_MIN", 11.5)
    assert script.hold(record["rows"], told, True) is False
    assert script.hold(record["rows"], told, False) is None


def test_what_cannot_be_compared_is_refused(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--size", "64"], ["--threads", "1"]):
        with pytest.raises(SystemExit):
            script.main(["--check", *wrong])
        assert "targets are for 512x512 and 2 threads" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="expected a multiple of 16"):
        script.main(["--size", "72"])
