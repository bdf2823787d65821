from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rirf import conditioning
from rirf.bundle import MANIFEST, SCHEMA_VERSION, Bundle, shipped_names
from rirf.errors import BundleError

pytestmark = pytest.mark.lean


@pytest.fixture
def folder(shipped: Path, tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be damaged."""
    return Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, which carries no checksum of itself."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refuses(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


def test_the_shipped_bundle_opens(shipped: Path) -> None:
    bundle = Bundle.open(shipped)
    assert bundle.folder == shipped
    assert bundle.manifest.schema_version == SCHEMA_VERSION
    assert bundle.manifest.restorer.schedules
    for graph in (bundle.manifest.reasoner, bundle.manifest.restorer):
        assert bundle.path(graph).stat().st_size > 0
    assert (shipped / "MODEL_CARD.md").is_file()


def test_the_shipped_bundle_carries_its_quality(shipped: Path) -> None:
    metrics = Bundle.open(shipped, verify=False).manifest.metrics
    for condition in ("input", "predicted", "true", "none", "shuffled"):
        assert set(metrics[condition]) >= {"psnr", "ssim"}
    assert metrics["predicted"]["psnr"] > metrics["input"]["psnr"]


def test_a_path_may_be_text(folder: Path) -> None:
    assert Bundle.open(str(folder)).folder == folder


def test_what_is_shipped_goes_by_its_name(shipped: Path) -> None:
    assert shipped_names()[0] == shipped.stem
    for name in shipped_names():
        bundle = Bundle.open(name)
        assert bundle.folder == shipped.with_name(f"{name}.rirf")
        assert bundle.manifest.name == name


def test_a_folder_of_that_name_goes_first(
    folder: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename(shipped.stem)
    assert Bundle.open(shipped.stem).folder == Path(shipped.stem)


def test_the_digest_pins_the_manifest(folder: Path) -> None:
    bundle = Bundle.open(folder)
    expected = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert bundle.digest == expected
    edit(folder, lambda manifest: manifest.update(name="other"))
    assert Bundle.open(folder).digest != expected


def test_no_such_bundle(tmp_path: Path) -> None:
    refuses(tmp_path / "none.rirf", r"none\.rirf: no such bundle; expected a folder NAME\.rirf")
    refuses(tmp_path / "none.rirf", f"one that is shipped: {', '.join(shipped_names())}")


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    file = tmp_path / "file.rirf"
    file.write_bytes(b"PK")
    refuses(file, "expected a folder")


@pytest.mark.parametrize("name", ["reasoner.onnx", "restorer.onnx", "MODEL_CARD.md"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuses(folder, f"missing {name}; copy or export the bundle again")


@pytest.mark.parametrize("name", ["extra.txt", "sub/extra.onnx", ".hidden"])
def test_a_file_that_is_not_listed(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"?")
    refuses(folder, f"not listed {name}")


def test_a_renamed_file_is_missing_and_not_listed(folder: Path) -> None:
    (folder / "restorer.onnx").rename(folder / "net.onnx")
    refuses(folder, r"missing restorer\.onnx; not listed net\.onnx")


@pytest.mark.parametrize("name", ["reasoner.onnx", "restorer.onnx"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_flipped_bit(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    refuses(folder, rf"{name}: SHA-256 \w{{16}}\.\.\., the manifest says \w{{16}}.*altered")


def test_a_cut_off_file(folder: Path) -> None:
    data = (folder / "reasoner.onnx").read_bytes()
    (folder / "reasoner.onnx").write_bytes(data[: len(data) // 2])
    refuses(folder, r"reasoner\.onnx: SHA-256")


def test_an_edited_card(folder: Path) -> None:
    with (folder / "MODEL_CARD.md").open("a") as card:
        card.write("Fit for every use.\n")
    refuses(folder, r"MODEL_CARD\.md: SHA-256")


def test_without_verifying_the_manifest_alone_counts(folder: Path) -> None:
    (folder / "extra.txt").write_bytes(b"?")
    with (folder / "MODEL_CARD.md").open("a") as card:
        card.write("?")
    bundle = Bundle.open(folder, verify=False)
    with pytest.raises(BundleError, match=r"not listed extra\.txt"):
        bundle.verify()


def test_built_engines_are_no_part_of_it(folder: Path) -> None:
    engine = folder / "cache" / "sm90" / "restorer.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"built here")
    Bundle.open(folder)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "1", None, 1.5])
def test_another_schema(folder: Path, version: object) -> None:
    edit(folder, lambda manifest: manifest.update(schema_version=version))
    refuses(folder, rf"schema_version {version!r}, this rirf reads {SCHEMA_VERSION}; install")


def test_a_newer_schema_is_named_before_its_new_fields(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(schema_version=2, sound="a new field"))
    refuses(folder, "schema_version 2, this rirf reads 1")


def test_no_schema(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.pop("schema_version"))
    refuses(folder, "schema_version None")


@pytest.mark.parametrize("data", [b"[]", b"3", b"null", b'"text"', b"true"])
def test_json_that_is_no_manifest(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    refuses(folder, "schema_version None")


@pytest.mark.parametrize("data", [b"", b'{"schema_version": 1', b"\xff\xfe\x00", b"schema: 1"])
def test_not_json(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    refuses(folder, r"manifest\.json: not JSON .* damaged, copy or export it again")


def test_no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    refuses(folder, r"manifest\.json cannot be read .*incomplete")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.update(colour="red"), id="unknown field"),
        pytest.param(lambda m: m["restorer"].update(colour="red"), id="unknown graph field"),
        pytest.param(lambda m: m["policy"].update(colour="red"), id="unknown policy field"),
        pytest.param(lambda m: m.pop("policy"), id="no policy"),
        pytest.param(lambda m: m.pop("metrics"), id="no metrics"),
        pytest.param(lambda m: m["restorer"].pop("multiple"), id="no multiple"),
        pytest.param(lambda m: m["restorer"].update(multiple=0), id="multiple of zero"),
        pytest.param(lambda m: m["reasoner"].update(parameters=0), id="no parameters"),
        pytest.param(lambda m: m["reasoner"].update(precision="fp8"), id="unknown precision"),
        pytest.param(lambda m: m["reasoner"].update(inputs="x"), id="inputs no table"),
        pytest.param(lambda m: m["files"].update({"reasoner.onnx": 3}), id="checksum no text"),
    ],
)
def test_fields_that_do_not_fit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)
    refuses(folder, r"manifest\.json: not a manifest of schema 1: ")


def test_a_graph_without_checksum(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"].pop("restorer.onnx"))
    refuses(folder, r"files has no checksum of restorer\.onnx")


def test_a_policy_without_its_schedule(folder: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        ladder = [{"above": 0.0, "mode": "coarse"}, {"above": 9.0, "mode": "4"}]
        manifest["policy"]["ladder"] = ladder
        manifest["restorer"]["schedules"] = {"coarse": [[-1.0, 1.0]]}

    edit(folder, change)
    refuses(folder, "the policy uses '4', which has no schedule")


def schedules(manifest: dict[str, Any], mode: str, pairs: object) -> None:
    manifest["restorer"]["schedules"][mode] = pairs


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([[-1.0, 1.0]], id="the leap"),
        pytest.param([[-1.0, 1.0], [0.0, 1.0]], id="leap and one step"),
        pytest.param([[-1.0, 1.0], *([t / 4, 0.25] for t in range(4))], id="leap and four steps"),
    ],
)
def test_a_whole_schedule(folder: Path, pairs: list[list[float]]) -> None:
    edit(folder, lambda manifest: schedules(manifest, "1", pairs))
    expected = tuple((time, step) for time, step in pairs)
    assert Bundle.open(folder).manifest.restorer.schedules["1"] == expected


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([], id="empty"),
        pytest.param([[0.0, 1.0]], id="starts late"),
        pytest.param([[-1.0, 1.0], [0.5, 0.5]], id="gap"),
        pytest.param([[-1.0, 1.0], [-0.5, 0.5]], id="overlap"),
        pytest.param([[-1.0, 1.0], [0.0, 1.5]], id="past the end"),
        pytest.param([[-1.0, 0.0]], id="no progress"),
        pytest.param([[-1.0, -1.0]], id="backwards"),
        pytest.param([[-1.0, float("nan")]], id="not a number"),
        pytest.param([[-1.0, float("inf")]], id="infinite"),
        pytest.param([[-1.0]], id="no pair"),
    ],
)
def test_a_bad_schedule(folder: Path, pairs: list[list[float]]) -> None:
    edit(folder, lambda manifest: schedules(manifest, "1", pairs))
    refuses(folder, "not a manifest of schema 1: .*\n.*schedules")


@pytest.mark.parametrize("mode", ["bypass", "3"])
def test_a_schedule_of_no_mode(folder: Path, mode: str) -> None:
    edit(folder, lambda manifest: schedules(manifest, mode, [[-1.0, 1.0]]))
    refuses(folder, "not a manifest of schema 1")


def test_another_conditioning_vector(folder: Path) -> None:
    other = conditioning.VERSION + 1
    edit(folder, lambda manifest: manifest.update(conditioning_version=other))
    refuses(
        folder, f"conditioning vector version {other}, this rirf has {conditioning.VERSION}: export"
    )


def test_other_views(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["views"].update(crop=64))
    refuses(folder, "made for views .*crop=64.*, this rirf has .*crop=96.*export it again")


def test_files_outside_the_bundle_are_refused(folder: Path) -> None:
    outside = folder.parent / "evil.onnx"
    shutil.copy(folder / "restorer.onnx", outside)

    def change(manifest: dict[str, Any]) -> None:
        digest = manifest["files"].pop("restorer.onnx")
        manifest["files"]["../evil.onnx"] = digest
        manifest["restorer"]["file"] = "../evil.onnx"

    edit(folder, change)
    refuses(folder, r"missing \.\./evil\.onnx; not listed restorer\.onnx")
