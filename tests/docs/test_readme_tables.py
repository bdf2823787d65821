"""README.md shows what is recorded; slices, and records that tell a machine's path, are refused."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rirf.bundle import Bundle
from rirf.diagnosis import EFFECTS

pytestmark = pytest.mark.lean

ROOT = Path(__file__).resolve().parents[2]
README = """\
# title

<!-- table:quality -->
old
<!-- /table -->

prose

<!-- table:reasoner -->
<!-- /table -->
end
"""
LATENCY_PLACE = "<!-- table:latency -->\n<!-- /table -->\n"


def load() -> ModuleType:
    # By its path: `docs` may be the name of some installed package.
    spec = importlib.util.spec_from_file_location(
        "rirf_readme_tables", ROOT / "docs" / "readme_tables.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, at work on a README and records of its own."""
    module = load()
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    monkeypatch.setattr(module, "README", tmp_path / "README.md")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images in the protocol's layout."""
    pytest.importorskip("skimage", reason="the evaluation needs scikit-image")
    from tests.sdk.evaluation.synthetic import data_root

    return data_root(tmp_path_factory.mktemp("images"), photographs=2, streets=2)


@pytest.fixture(scope="module")
def evaluated(images: Path) -> dict[str, Any]:
    """What ``rirf eval --json`` writes of the shipped bundle on these images."""
    from rirf.cli import main

    file = images / "eval.json"
    assert main(["eval", "--data", str(images), "--threads", "1", "--json", str(file)]) == 0
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="module")
def classical(images: Path) -> dict[str, Any]:
    """What benchmarks/classical.py writes of two methods on the same images."""
    file = images / "classical.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        benchmark = importlib.import_module("classical")
        methods = ["--methods", "classical-blind-nlm", "classical-told-map-nlm"]
        benchmark.main(["--data", str(images), "--json", str(file), *methods])
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def record_file(folder: Path, record: dict[str, Any]) -> str:
    file = folder / "given.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    return str(file)


def cells(table: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first cell, emphasis left out."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in rows}) == 1, "rows of one table have as many cells"
    return {row[0]: row[1:] for row in rows}


def latency_record() -> dict[str, Any]:
    """The form of reference_latency.py; its own test hands the script a measured one."""
    shared = {"size": "512x512", "threads": 2, "provider": "CPUExecutionProvider"}
    numbers = {
        "restorer": (60.04, 3_300_000, 4_000_000_000),
        "reasoner": (11.0, 2_200_000, 1_400_000_000),
        "NAFNet width 32": (790.0, 17_111_907, 63_800_000_000),
    }
    rows = [
        {
            "name": name,
            "ms": ms,
            "quartiles_ms": [ms - 1.0, ms + 1.0],
            "parameters": parameters,
            "multiply_adds": operations,
            "seconds": [ms / 1e3],
            "note": "",
            **shared,
        }
        for name, (ms, parameters, operations) in numbers.items()
    ]
    return {
        "benchmark": "reference_latency",
        "ok": True,
        "reference": "NAFNet width 32",
        "times_faster": {"restorer": 13.16, "reasoner": 71.8, "pair": 11.1},
        "targets": {"reasoner_ms": 12.0, "restorer_ms": 75.0, "times_faster": 10.0},
        "cores": 2,
        "environment": {"device": "AMD EPYC", "threads": 2, "cores": 2, "host": "secret"},
        "rows": rows,
    }


def test_readme_shows_what_is_recorded(script: ModuleType) -> None:
    if not script.recorded(script.RESULTS):
        pytest.skip("docs/results holds no record")
    assert script.main(["--check"]) == 0, "run: python docs/readme_tables.py"


def test_the_recorded_evaluation_is_the_shipped_bundles(script: ModuleType, shipped: Path) -> None:
    records = script.recorded(script.RESULTS)
    manifest = Bundle.open(shipped).manifest
    if "evaluation" not in records or not manifest.metrics:
        pytest.skip("needs a recorded evaluation and a bundle with metrics")
    for condition in ("input", "predicted", "true", "none", "shuffled"):
        recorded, stored = records["evaluation"][condition], manifest.metrics[condition]
        # The same bundle measured on another machine differs by less.
        assert recorded["psnr"] == pytest.approx(stored["psnr"], abs=0.01), condition
        assert recorded["ssim"] == pytest.approx(stored["ssim"], abs=0.001), condition


def test_recording_an_evaluation_writes_aggregates_and_tables(
    house: ModuleType, evaluated: dict[str, Any], tmp_path: Path
) -> None:
    assert house.main(["--record", "evaluation", record_file(tmp_path, evaluated)]) == 0
    text = (house.RESULTS / "evaluation.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert "cases" in evaluated and "cases" not in kept and "clean_cases" not in kept
    assert not any(case["name"] in text for case in evaluated["cases"])
    for name in ("input", "predicted", "true", "none", "shuffled"):
        assert kept[name] == evaluated[name]
    assert kept["per_dataset"]["camvid"]["true"] == evaluated["per_dataset"]["camvid"]["true"]
    assert kept["reasoner"] == evaluated["reasoner"]
    assert kept["environment"]["bundle_digest"] == evaluated["environment"]["bundle_digest"]

    page = house.README.read_text(encoding="utf-8")
    quality, reasoner = (part.split("<!-- /table -->")[0] for part in page.split("table:")[1:])
    rows = cells(quality)
    assert rows["PSNR dB / SSIM"] == ["all 4 images", "CamVid (2)", "BSDS500 (2)"]
    groups = [evaluated, *(evaluated["per_dataset"][name] for name in ("camvid", "bsds500"))]
    for title, condition in {
        "degraded input": "input",
        "restored without diagnosis": "none",
        "restored with another image's diagnosis": "shuffled",
        "restored with the reasoner's diagnosis": "predicted",
        "restored with the true diagnosis": "true",
    }.items():
        assert rows[title] == [
            f"{group[condition]['psnr']:.2f} / {group[condition]['ssim']:.3f}" for group in groups
        ]
    (published,) = (row for title, row in rows.items() if title.startswith("R&R, as published"))
    assert published == ["19.56 / 0.621", "–", "–"]
    assert "other images" in quality and "13.46 / 0.326" in quality
    assert set(EFFECTS) < cells(reasoner).keys()
    # Text outside the markers is as it was.
    assert page.startswith("# title\n\n<!-- table:quality -->\n|")
    assert "<!-- /table -->\n\nprose\n\n<!-- table:reasoner -->\n" in page
    assert page.endswith("|\n<!-- /table -->\nend\n") and "\nold\n" not in page

    assert house.main(["--check"]) == 0
    house.README.write_text(page.replace("degraded input", "dirty input"), encoding="utf-8")
    assert house.main(["--check"]) == 1
    assert house.main([]) == 0
    assert house.README.read_text(encoding="utf-8") == page


def test_classical_rows_stand_beside_the_pair(
    house: ModuleType,
    evaluated: dict[str, Any],
    classical: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = record_file(tmp_path, classical)
    assert house.main(["--record", "classical", given]) == 1
    assert "has no evaluation.json beside it" in capsys.readouterr().err
    assert house.main(["--record", "evaluation", record_file(tmp_path, evaluated)]) == 0
    text = (house.RESULTS / "classical.json").read_text(encoding="utf-8")
    assert "cases" in classical and not any(case["name"] in text for case in classical["cases"])

    rows = cells(house.README.read_text(encoding="utf-8").split("<!-- /table -->")[0])
    assert list(rows)[1] == "---" and list(rows)[2] == "degraded input"
    _, blind, told = classical["rows"]
    for title, row in {
        "classical sequence with non-local means, knows nothing": blind,
        "classical sequence with non-local means, knows the true diagnosis and transmission map": (
            told
        ),
    }.items():
        found = [row, row["per_dataset"]["camvid"], row["per_dataset"]["bsds500"]]
        assert rows[title] == [f"{each['psnr']:.2f} / {each['ssim']:.3f}" for each in found]

    # A method that was not measured has no row; one whose licence asks for it is credited.
    changed = copy.deepcopy(classical)
    changed["rows"][1] |= {"method": "classical-told-bm3d"}
    changed["rows"][2] = {"method": "classical-blind-bm3d", "not_measured": "not installed"}
    made = house.tables(
        {
            "evaluation": house.summary("evaluation", evaluated),
            "classical": house.summary("classical", changed),
        }
    )
    titles = [title for title in cells(made["quality"]) if title.startswith("classical")]
    assert titles == ["classical sequence with BM3D, knows the true diagnosis"]
    assert made["quality"].endswith("IEEE TIP 16, 2007.")

    # Figures of other frames do not stand in one table.
    changed["rows"][0]["per_dataset"]["camvid"]["psnr"] += 0.1
    with pytest.raises(house.RecordError, match="expected the same frames"):
        house.tables(
            {
                "evaluation": house.summary("evaluation", evaluated),
                "classical": house.summary("classical", changed),
            }
        )
    with pytest.raises(house.RecordError, match="got figures of protocol 'train'"):
        house.summary("classical", classical | {"protocol": "train"})


def test_reasoner_table_has_means_and_f1_only_where_all_have_it(script: ModuleType) -> None:
    def effect(accuracy: float, mae: float) -> dict[str, Any]:
        return {
            "images_present": 7,
            "presence_accuracy": accuracy,
            "presence_f1": accuracy,
            "severity_mae": mae,
            "interval_coverage": 0.9,
        }

    figures = zip(EFFECTS, (0.9, 0.8, 0.7, 1.0), (1.0, 2.0, 4.0, 9.0), strict=True)
    reasoner = {name: effect(accuracy, mae) for name, accuracy, mae in figures}
    group = {"images": 9, "input": {"psnr": 1.0, "ssim": 0.1}}
    record = {**group, "per_dataset": {"camvid": group, "bsds500": group}, "reasoner": reasoner}
    rows = cells(script.tables({"evaluation": record})["reasoner"])
    assert rows[""][2] == "presence F1"
    assert rows["mean"] == ["", "85.0 %", "0.850", "4.0", "90.0 %"]
    assert rows[EFFECTS[0]] == ["7", "90.0 %", "0.900", "1.0", "90.0 %"]

    del reasoner[EFFECTS[2]]["presence_f1"]
    rows = cells(script.tables({"evaluation": record})["reasoner"])
    assert "presence F1" not in rows[""] and rows["mean"] == ["", "85.0 %", "4.0", "90.0 %"]


def test_latency_table(house: ModuleType, tmp_path: Path) -> None:
    house.README.write_text(LATENCY_PLACE, encoding="utf-8")
    assert house.main(["--record", "latency", record_file(tmp_path, latency_record())]) == 0
    kept = json.loads((house.RESULTS / "latency.json").read_text(encoding="utf-8"))
    assert "secret" not in json.dumps(kept)
    assert all("seconds" not in row for row in kept["rows"])
    page = house.README.read_text(encoding="utf-8")
    assert "one 512×512\nframe" in page and "two threads of an AMD EPYC" in page
    rows = cells(page)
    assert rows["reasoner"][:3] == ["2.20 M", "1.4 G", "11.0 (target ≤ 12)"]
    assert rows["restorer, one step"] == [
        "3.30 M",
        "4.0 G",
        "60.0 (target ≤ 75)",
        "59.0 to 61.0",
        "13.2 × (target ≥ 10)",
    ]
    assert rows["NAFNet width 32, random weights"][2:] == ["790.0", "789.0 to 791.0", ""]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("latency", {"ok": None}, "expected those its targets are for"),
        ("latency", {"benchmark": "degradation"}, "got a record of 'degradation'"),
        ("latency", {"rows": None}, "lacks what is expected"),
        ("latency", {"environment": {"device": "/opt/x"}}, "names paths of a machine: /opt/x"),
        ("latency", {"reference": r"C:\nets\a"}, "names paths of a machine"),
        ("evaluation", {}, "lacks what is expected"),
        ("speed", {}, "expected one of evaluation, classical, latency"),
    ],
)
def test_other_records_are_refused(
    script: ModuleType, kind: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(script.RecordError, match=said.replace("?", r"\?")):
        script.summary(kind, latency_record() | change)


def test_a_slice_is_refused(
    house: ModuleType,
    evaluated: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sliced = copy.deepcopy(evaluated) | {"available": 433}
    assert house.main(["--record", "evaluation", record_file(tmp_path, sliced)]) == 1
    assert "got 4 of 433 images; expected the whole protocol" in capsys.readouterr().err
    assert not (house.RESULTS / "evaluation.json").exists()
    assert house.README.read_text(encoding="utf-8") == README


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("no place at all\n", "table quality has no place"),
        (README + LATENCY_PLACE, "nothing is recorded for table latency"),
        (README + README, "table quality stands there twice"),
        (README.replace("<!-- /table -->\nend", "end"), "its markers do not pair"),
        (README.replace("old\n<!-- /table -->", "old"), "its markers do not pair"),
        (README.replace("old", "<!-- table:old -->"), "its markers do not pair"),
        (README + "<!-- /table -->\n", "its markers do not pair"),
    ],
)
def test_a_page_whose_markers_are_wrong_is_refused(
    script: ModuleType, document: str, said: str
) -> None:
    with pytest.raises(script.RecordError, match=said):
        script.with_tables(document, {"quality": "| a |", "reasoner": "| b |"})


def test_calls_that_contradict_themselves_and_unreadable_files(
    house: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        house.main(["--check", "--record", "latency", "x.json"])
    assert "--check writes nothing" in capsys.readouterr().err
    assert house.main(["--record", "latency", str(tmp_path / "missing.json")]) == 1
    assert "cannot be read as JSON" in capsys.readouterr().err
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    assert house.main(["--record", "latency", str(tmp_path / "list.json")]) == 1
    assert "expected one JSON object" in capsys.readouterr().err
