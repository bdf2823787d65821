"""The runtime's modules import with base + cpu, and import nothing that belongs to training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lean

# Each probe runs in its own interpreter: this one has already imported whatever the other tests
# needed. It prints one JSON object last.
WALK = """
import importlib, json, logging, pkgutil, sys, traceback
import rirf

seen, broken = ["rirf"], {}

def visit(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name.rpartition(".")[2] == "__main__":
            continue  # importing it runs the command line
        seen.append(module.name)
        try:
            imported = importlib.import_module(module.name)
        except BaseException:
            broken[module.name] = traceback.format_exc(limit=-3)
            continue
        if module.ispkg:
            visit(imported)

visit(rirf)
print(json.dumps({
    "seen": seen,
    "broken": broken,
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "log_handlers": [repr(handler) for handler in logging.getLogger().handlers],
}))
"""

IMPORT_ONLY = """
import json, sys
import rirf
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def probe(code: str, cwd: Path) -> Any:
    # An empty working directory: `python -c` puts it first on the path.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = probe(WALK, tmp_path_factory.mktemp("empty"))
    return found


def test_every_module_imports(walk: dict[str, Any]) -> None:
    assert len(walk["seen"]) > 1, "found no module in rirf"
    assert not walk["broken"], "\n".join(f"{k}:\n{v}" for k, v in walk["broken"].items())


def test_no_module_imports_training_code(walk: dict[str, Any]) -> None:
    assert not {"torch", "rirf_training", "rirf_export"} & set(walk["loaded"])


def test_imports_set_up_no_logging(walk: dict[str, Any]) -> None:
    assert walk["log_handlers"] == []


def test_import_rirf_is_lazy(tmp_path: Path) -> None:
    heavy = {"cv2", "onnxruntime", "pydantic", "torch"}
    assert not heavy & set(probe(IMPORT_ONLY, tmp_path))
