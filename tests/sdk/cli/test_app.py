"""The entry of the command line: help, versions, exit statuses, commands of other packages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rirf import __version__
from rirf.cli import Command, main
from rirf.cli.app import BUILT_IN, ENTRY_POINTS
from tests.sdk.pictures import photo, rirf, save, start

pytestmark = pytest.mark.lean

PLUGIN = """
from rirf.cli import Command
from rirf.errors import ImageError, require

def add_arguments(parser):
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--need", action="store_true")

def run(arguments):
    if arguments.fail:
        raise ImageError("it failed\\nover two lines")
    if arguments.need:
        require("no_such_module", "train", "do it")
    print("added command ran")
    return 7

command = Command(name="added", help="an added command", add_arguments=add_arguments, run=run)
not_a_command = 3
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """An installed distribution that offers commands, to be put on PYTHONPATH."""
    folder = tmp_path / "packages"
    info = folder / "added_commands-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "needy.py").write_text("import no_such_module\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added-commands\nVersion: 1.0\n")
    entries = [
        "added = plugin:command",
        "wrong = plugin:not_a_command",
        "needy = needy:command",
        "train = needy:command",
        "distill = needy:command",
        "restore = plugin:command",
    ]
    (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *entries, ""]))
    return folder


def path_with(folder: Path) -> str:
    # This interpreter's own path, so that rirf is found however it was made importable.
    return ":".join([str(folder), *filter(None, sys.path)])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rirf {__version__}\n"


def test_help_lists_every_built_in_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, text in BUILT_IN.items():
        assert name in out
        assert text in out


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: rirf" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restroe", "x"], "did you mean 'restore'?"),
        (["zzz"], "there are restore, diagnose"),
        (["--frobnicate"], "no option '--frobnicate'"),
        (["restore"], "required: SRC, -o/--output"),
        (["restore", "x"], "required: -o/--output"),
        (["restore", "x", "-o", "y", "--steps", "3"], "invalid choice: '3'"),
        (["restore", "x", "-o", "y", "--threads", "0"], "at least 1"),
        (["restore", "x", "-o", "y", "--threads", "two"], "at least 1"),
        (["restore", "x", "-o", "y", "--form", "png"], "--form"),
        (["doctor", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: rirf {name}")
    assert BUILT_IN[name][1:] in " ".join(out.split())


def test_an_error_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", str(tmp_path / "missing.png"), "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("rirf: error: ")
    assert err.count("\n") == 1


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys; from rirf.cli import main; main(['--help']); main(['--version']);"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"cv2", "numpy", "onnxruntime", "pydantic", "torch", "tqdm"}


def test_commands_of_other_packages(packages: Path, tmp_path: Path) -> None:
    path = path_with(packages)
    overview = rirf("--help", cwd=tmp_path, PYTHONPATH=path)
    assert overview.returncode == 0
    assert "added by added-commands" in overview.stdout
    # Listed although its package cannot be imported.
    assert "train the reasoner or the restorer" in overview.stdout
    assert "train a restorer on what another one makes" in overview.stdout

    done = rirf("added", cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (7, "added command ran\n")
    failed = rirf("added", "--fail", cwd=tmp_path, PYTHONPATH=path)
    assert (failed.returncode, failed.stderr) == (1, "rirf: error: it failed over two lines\n")


def test_a_missing_extra_is_named(packages: Path, tmp_path: Path) -> None:
    path = path_with(packages)
    for arguments in (["train", "--whatever"], ["distill"], ["added", "--need"]):
        done = rirf(*arguments, cwd=tmp_path, PYTHONPATH=path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "pip install 'rirf[train]'" in done.stderr
        assert "no_such_module" in done.stderr
    other = rirf("needy", cwd=tmp_path, PYTHONPATH=path)
    assert other.returncode == 2
    assert "install that package" in other.stderr


def test_an_entry_that_is_no_command_is_refused(packages: Path, tmp_path: Path) -> None:
    done = rirf("wrong", cwd=tmp_path, PYTHONPATH=path_with(packages))
    assert done.returncode == 1
    assert "plugin:not_a_command" in done.stderr


def test_a_built_in_name_cannot_be_taken(packages: Path, tmp_path: Path) -> None:
    done = rirf("restore", "--help", cwd=tmp_path, PYTHONPATH=path_with(packages))
    assert "NAME.diagnosis.json" in done.stdout


def test_a_missing_base_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "cv2.py").write_text("raise ImportError('no cv2 here')\n")
    path = path_with(tmp_path / "shadow")
    done = rirf("restore", "x.png", "-o", "out", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert "pip install 'rirf[cpu]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / "in" / f"{number:02}.png", photo(32, 32, number))
    with start("degrade", "in", "-o", "out", "--seed", "1", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(60)
    assert process.returncode == 141
    assert errors == ""


def test_an_interrupt_is_status_130(tmp_path: Path) -> None:
    for number in range(60):
        save(tmp_path / "in" / f"{number:02}.png", photo(256, 256, number))
    with start("degrade", "in", "-o", "out", "--seed", "1", cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "rirf: interrupted"
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("out/.rirf-*"))


def test_a_command_is_plain_data() -> None:
    command = Command("name", "help", lambda parser: None, lambda arguments: 0)
    assert command.epilog == ""
