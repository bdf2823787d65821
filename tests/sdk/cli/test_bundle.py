"""``rirf bundle``: what it shows, checks, compares and signs, and how it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rirf.bundle import MANIFEST, SIGNATURE, Bundle, file_digest
from rirf.cli import main
from rirf.cli.bundle import describe, differences, weight_changes

lean = pytest.mark.lean


@pytest.fixture
def folder(shipped: Path, tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be changed."""
    return Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def reweigh(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the restorer's weights, and its checksum with them."""
    import onnx

    path = folder / "restorer.onnx"
    model = onnx.load(path)
    change(model.graph.initializer)
    onnx.save(model, path)
    digest = file_digest(path)
    edit(folder, lambda manifest: manifest["files"].update({path.name: digest}))


def scale(tensors: Any, factor: float) -> None:
    """Multiply every float tensor."""
    import onnx

    for tensor in tensors:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            new = onnx.numpy_helper.from_array(values * np.float32(factor), tensor.name)
            tensor.CopyFrom(new)


@lean
def test_info_for_people(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "info", str(shipped)]) == 0
    out = capsys.readouterr().out
    manifest = Bundle.open(shipped).manifest
    assert out.startswith(f"edge: {shipped}\n")
    assert "signature  unsigned" in out
    for graph in (manifest.reasoner, manifest.restorer):
        row = next(line for line in out.splitlines() if line.startswith(f"  {graph.file[:8]} "))
        assert f"{graph.precision}  " in row
        assert f"{graph.parameters / 1e6:.2f} M" in row
        assert " dB" in row
    assert f"{manifest.metrics['predicted']['psnr']:.2f}" in out
    assert f"bypass below {manifest.policy.bypass_below:g} of " in out
    assert f"rirf {manifest.provenance['exported_by']['rirf']}, torch " in out
    assert max(map(len, out.splitlines()[1:])) <= 120


@lean
def test_info_without_a_name_is_of_the_shipped_bundle(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "info", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(json.dumps(describe(Bundle.open(shipped))))
    restorer = record["graphs"]["restorer"]
    assert restorer["bytes"] == (shipped / "restorer.onnx").stat().st_size
    assert restorer["sha256"] == file_digest(shipped / "restorer.onnx")
    assert record["signed"] is False
    assert record["schedules"]["coarse"] == [[-1.0, 1.0]]


@lean
def test_info_of_a_bundle_that_says_little(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, lambda manifest: manifest.update(provenance={}, metrics={}))
    assert main(["bundle", "info", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "not evaluated; rirf eval does" in out
    assert "exported by    -" in out


@lean
def test_info_survives_records_of_another_form(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["metrics"] = {"input": {"lpips": 0.1}, "predicted": 3}
        manifest["provenance"] = {
            "parity_db": {"reasoner": {"light": None}, "restorer": {"update": "good"}},
            "reasoner": "trained",
        }

    edit(folder, change)
    assert main(["bundle", "info", str(folder)]) == 0
    assert "equal" in capsys.readouterr().out


@lean
def test_verify_runs_both_graphs(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", str(shipped)]) == 0
    out = capsys.readouterr().out
    assert "checksums  3 files as the manifest lists them" in out
    assert "signature  none" in out
    assert "inference  reasoner ran on CPUExecutionProvider" in out
    assert "inference  restorer ran on CPUExecutionProvider" in out
    assert out.splitlines()[-1].endswith("is good")


@lean
@pytest.mark.parametrize("action", ["info", "verify"])
def test_a_damaged_bundle_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    (folder / "MODEL_CARD.md").unlink()
    assert main(["bundle", action, str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "missing MODEL_CARD.md; copy or export the bundle again" in captured.err


@lean
def test_a_file_that_cannot_be_read_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable = Path("/proc/self/mem")
    if not unreadable.is_file():
        pytest.skip("needs a regular file whose reading fails even for root: /proc/self/mem")
    (folder / "MODEL_CARD.md").unlink()
    (folder / "MODEL_CARD.md").symlink_to(unreadable)
    assert main(["bundle", "verify", str(folder)]) == 1
    assert "MODEL_CARD.md: cannot be read" in capsys.readouterr().err


@lean
def test_verify_refuses_what_is_no_graph(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "restorer.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    edit(folder, lambda m: m["files"].update({path.name: file_digest(path)}))
    assert main(["bundle", "verify", str(folder)]) == 1
    assert "cannot be loaded by ONNX Runtime" in capsys.readouterr().err


def test_verify_refuses_weights_that_are_no_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reweigh(folder, lambda tensors: scale(tensors, float("nan")))
    assert main(["bundle", "verify", str(folder)]) == 1
    captured = capsys.readouterr()
    assert "inference  reasoner ran" in captured.out
    assert "restorer.onnx: update holds values that are no finite numbers" in captured.err
    assert "is good" not in captured.out


@lean
def test_verify_refuses_tables_that_lie(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        (light,) = (spec for spec in manifest["reasoner"]["outputs"] if spec["name"] == "light")
        light["shape"] = [1, 5]

    edit(folder, change)
    assert main(["bundle", "verify", str(folder)]) == 1
    assert "light came out as (1, 3), the manifest says (1, 5)" in capsys.readouterr().err


def test_keygen_sign_verify(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = tmp_path / "maker.key", tmp_path / "maker.key.pub"
    assert main(["bundle", "keygen", str(key)]) == 0
    assert main(["bundle", "sign", str(folder), "--key", str(key)]) == 0
    assert str(folder / SIGNATURE) in capsys.readouterr().out
    assert main(["bundle", "verify", str(folder), "--key", str(public)]) == 0
    assert f"signature  by the owner of {public}" in capsys.readouterr().out
    assert main(["bundle", "verify", str(folder)]) == 0
    assert "present, not checked: give --key PUBLIC" in capsys.readouterr().out
    assert main(["bundle", "info", str(folder)]) == 0
    assert "signed, see rirf bundle verify --key" in capsys.readouterr().out


def test_verify_with_a_key_refuses_the_unsigned(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "keygen", str(tmp_path / "k")]) == 0
    capsys.readouterr()
    assert main(["bundle", "verify", str(shipped), "--key", str(tmp_path / "k.pub")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rirf: error: ")
    assert captured.err.count("\n") == 1
    assert "has no manifest.sig" in captured.err


@lean
def test_the_same_bundle_does_not_differ(
    shipped: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "diff", str(shipped), str(folder)]) == 0
    assert capsys.readouterr().out == "the two bundles are the same\n"


def section(out: str, title: str) -> list[str]:
    """The lines of one section of a diff."""
    parts = {part.splitlines()[0]: part.splitlines()[1:] for part in out.split("\n\n")}
    return parts[title]


@lean
def test_diff_names_what_differs(
    shipped: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["name"] = "other"
        manifest["policy"]["bypass_below"] = 0.5
        manifest["restorer"]["schedules"]["1"] = [[-1.0, 1.0], [0.0, 1.0]]
        manifest["metrics"]["predicted"]["psnr"] += 0.5
        manifest["provenance"]["exported_by"]["torch"] = "9.9"
        manifest["provenance"]["exported_by"]["extra"] = {"deep": True}

    edit(folder, change)
    assert main(["bundle", "diff", str(shipped), str(folder)]) == 0
    out = capsys.readouterr().out
    before = Bundle.open(shipped).manifest
    assert section(out, "weights") == ["  reasoner  same file", "  restorer  same file"]
    (schedule,) = section(out, "schedules")
    assert schedule.split("  ")[1:3] == ["1", "-"]
    (policy,) = section(out, "policy")
    assert policy.split()[:3] == ["bypass_below", f"{before.policy.bypass_below}", "0.5"]
    (metric,) = section(out, "metrics")
    assert metric.split()[0] == "predicted.psnr"
    assert metric.split()[-1] == "+0.5"
    provenance = section(out, "provenance")
    assert [line.split()[0] for line in provenance] == [
        "exported_by.torch",
        "exported_by.extra.deep",
    ]
    (rest,) = section(out, "the rest of the manifest")
    assert rest.split() == ["name", "edge", "other"]


def test_diff_measures_weights(
    shipped: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reweigh(folder, lambda tensors: scale(tensors, 1.25))
    assert main(["bundle", "diff", str(shipped), str(folder)]) == 0
    out = capsys.readouterr().out
    same, changed = section(out, "weights")
    assert same == "  reasoner  same file"
    assert "tensors differ, relative change 0.25" in changed
    assert section(out, "policy") == ["  same"]


def test_weights_that_only_one_graph_has_are_counted(folder: Path, shipped: Path) -> None:
    import onnx

    def change(tensors: Any) -> None:
        tensors.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "added"))

    reweigh(folder, change)
    pair = shipped / "restorer.onnx", folder / "restorer.onnx"
    assert weight_changes(*pair).startswith("0 of ")
    assert weight_changes(*pair).endswith(" tensors differ, 1 in the second alone")
    assert weight_changes(*reversed(pair)).endswith(" tensors differ, 1 in the first alone")


@lean
def test_differences_of_trees() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": {}, "e": 0}
    assert differences(one, one) == {}
    other = {"a": {"b": 2, "c": [1, 3]}, "d": {"x": True}, "e": 0}
    assert differences(one, other) == {
        "a.b": (1, 2),
        "a.c": ([1, 2], [1, 3]),
        "d": ({}, None),
        "d.x": (None, True),
    }


@lean
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: ACTION"),
        (["show"], "invalid choice: 'show'"),
        (["diff", "one.rirf"], "required: B.rirf"),
        (["sign", "one.rirf"], "required: --key"),
        (["info", "--js"], "unrecognized arguments: --js"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["bundle", *arguments]) == 2
    assert message in capsys.readouterr().err


@lean
def test_each_action_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("info", "verify", "diff", "keygen", "sign"):
        assert main(["bundle", action, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: rirf bundle {action}")
