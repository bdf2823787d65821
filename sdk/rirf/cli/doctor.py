"""``rirf doctor``: does this installation work, and if not, which command mends it.

Believes what it has tried: a provider counts after one real inference, the runtime after one
restored frame. Reads versions from package metadata, so that nothing heavy is imported to learn
them. Changes nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rirf._version import __version__
from rirf.cli import accelerator
from rirf.cli.command import Command

__all__ = ["Finding", "Report", "command", "conflicts", "examine", "jetson_notes", "versions"]

_PACKAGES = (
    "numpy",
    "pydantic",
    "tqdm",
    "scikit-image",
    "torch",
    "onnx",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "rirf-kernels",
)
# Each of these families installs the same module; a second member overwrites the first one's files.
_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
)
_OPENCVS = (
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-python-headless",
)
_JETSON = Path("/etc/nv_tegra_release")
_GPU = (Path("/dev/nvidia0"), Path("/dev/nvhost-gpu"))
# Sends the tensors to a service on the network; it is not probed.
_REMOTE = "AzureExecutionProvider"
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Finding:
    """Something to know; only a ``problem`` stops ``rirf.load()``."""

    level: Literal["problem", "warning", "note"]
    what: str
    fix: str = ""


@dataclass
class Report:
    """Everything ``rirf doctor`` prints."""

    rirf: str
    python: str
    platform: str
    cpu: dict[str, Any]
    packages: dict[str, str | None]
    providers: dict[str, str] = field(default_factory=dict)
    tensorrt: dict[str, str] = field(default_factory=dict)
    jetson: dict[str, str] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    degradation: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether ``rirf.load()`` works."""
        return not any(finding.level == "problem" for finding in self.findings)

    def to_json(self) -> str:
        """The report as one JSON object."""
        return json.dumps({**asdict(self), "ok": self.ok}, indent=2)

    def to_text(self) -> str:
        """The report for a person."""
        cpu = self.cpu
        threads = ", ".join(f"{key}={value}" for key, value in cpu["environment"].items())
        lines = [
            f"rirf {self.rirf}, Python {self.python}, {self.platform}",
            f"{cpu['usable']} of {cpu['count']} CPU cores usable" + (threads and f" ({threads})"),
            "",
            "packages",
            *(f"  {name:<24}{version or '-'}" for name, version in self.packages.items()),
        ]
        if self.providers:
            lines += ["", "providers of ONNX Runtime, each after one real inference"]
            lines += [f"  {name:<28}{state}" for name, state in self.providers.items()]
        sections = {
            "TensorRT": self.tensorrt,
            "Jetson": self.jetson,
            "bundle": self.bundle,
            "one frame restored": self.run,
            "degradation": self.degradation,
        }
        for title, entries in sections.items():
            width = max((len(key) for key in entries), default=0) + 2
            if entries:
                lines += ["", title, *(f"  {k:<{max(width, 10)}}{v}" for k, v in entries.items())]
        for finding in self.findings:
            lines += ["", f"{finding.level}: {finding.what}"]
            if finding.fix:
                lines.append(f"  fix: {finding.fix}")
        lines += ["", "rirf works here" if self.ok else "rirf does not work here, see the problems"]
        return "\n".join(lines)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Version by name of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def conflicts(has_gpu: bool) -> list[Finding]:
    """Packages that overwrite each other's files."""
    findings = []
    runtimes = sorted(versions(_RUNTIMES))
    if len(runtimes) > 1:
        keep = "gpu" if has_gpu and "onnxruntime-gpu" in runtimes else "cpu"
        findings.append(
            Finding(
                "warning",
                f"{' and '.join(runtimes)} are installed side by side and overwrite each other's "
                "files; which one answers is chance",
                f"pip uninstall -y {' '.join(runtimes)} && pip install 'rirf[{keep}]'",
            )
        )
    opencvs = sorted(versions(_OPENCVS))
    if len(opencvs) > 1:
        # Contrib has everything plain has; headless needs no system library.
        contrib = any("contrib" in name for name in opencvs)
        keep = "opencv-contrib-python-headless" if contrib else "opencv-python-headless"
        findings.append(
            Finding(
                "warning",
                f"{' and '.join(opencvs)} are installed side by side and overwrite each other's "
                "files",
                f"pip uninstall -y {' '.join(opencvs)} && pip install {keep}",
            )
        )
    return findings


def jetson_notes(release: Path = _JETSON) -> list[Finding]:
    """What is different on a Jetson, empty elsewhere."""
    try:
        line = release.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip("# ")
    except (OSError, IndexError):
        return []
    findings = [
        Finding(
            "note",
            f"this is a Jetson ({line}): OpenCV and TensorRT come with JetPack; an environment "
            "sees them when it is made with --system-site-packages",
            "python3 -m venv --system-site-packages .venv",
        )
    ]
    wheels = sorted(versions(_OPENCVS))
    if wheels:
        findings.append(
            Finding(
                "warning",
                f"{' and '.join(wheels)} hide JetPack's own OpenCV",
                f"pip uninstall -y {' '.join(wheels)}",
            )
        )
    if "onnxruntime-gpu" not in versions(_RUNTIMES):
        findings.append(
            Finding(
                "note",
                "onnxruntime-gpu is not installed; PyPI has no build of it for Jetson, NVIDIA "
                "offers one for each JetPack version",
            )
        )
    return findings


def _module(report: Report, name: str, extra: str, mend: str = "") -> Any:
    """Import a module, or say why it cannot be."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation fails in any way it likes
        report.findings.append(
            Finding(
                "problem",
                f"{name} cannot be imported: {_line(error)}",
                mend or f"pip install 'rirf[{extra}]'",
            )
        )
        return None


def _line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def _opencv(report: Report) -> None:
    mend = ""
    wheels = sorted(versions(_OPENCVS))
    if wheels:
        mend = f"pip uninstall -y {' '.join(wheels)} && pip install opencv-python-headless"
    cv2 = _module(report, "cv2", "cpu", mend)
    if cv2 is not None and not wheels:
        report.packages["cv2 (from the system)"] = cv2.__version__


def _providers(report: Report, has_gpu: bool) -> None:
    onnxruntime = _module(report, "onnxruntime", "cpu")
    if onnxruntime is None:
        return
    if not versions(_RUNTIMES):
        report.packages["onnxruntime (from the system)"] = onnxruntime.__version__
    probe = _module(report, "rirf.engine.onnx_backend", "cpu").probe_provider
    for name in onnxruntime.get_available_providers():
        if name == _REMOTE:
            report.providers[name] = "not probed, it is a service on the network"
            continue
        reason = probe(name)
        report.providers[name] = "works" if reason is None else f"does not work: {_flat(reason)}"
        if reason is not None:
            level: Literal["problem", "warning"] = "problem" if name == _CPU else "warning"
            mend = (
                f"pip install --force-reinstall {' '.join(sorted(versions(_RUNTIMES)))}"
                if name == _CPU
                else "install the libraries that the reason names, or leave it: others are used"
            )
            report.findings.append(
                Finding(level, f"{name} is listed but does not work: {_flat(reason)}", mend)
            )
    if has_gpu and not any("CUDA" in name or "Tensor" in name for name in report.providers):
        report.findings.append(
            Finding(
                "note",
                "there is an NVIDIA GPU, but this ONNX Runtime cannot use it",
                "pip uninstall -y onnxruntime && pip install 'rirf[gpu]'",
            )
        )


def _tensorrt(report: Report, bundle: Path | None, has_gpu: bool, run_engines: bool) -> None:
    """Libraries that build engines, the GPU they build for, and, if asked, the engines at work."""
    found = accelerator.libraries()
    report.tensorrt |= found
    for flavour, state in found.items():
        if state.startswith("does not start"):
            report.findings.append(
                Finding("warning", f"{flavour} {state}", f"pip install 'rirf[{flavour}]'")
            )
    if found or has_gpu:
        report.tensorrt["GPU"] = accelerator.gpu()
    if not run_engines:
        return
    if not found:
        report.findings.append(
            Finding(
                "warning",
                "there is no TensorRT to run engines with",
                "pip install 'rirf[tensorrt]', or on a Jetson use JetPack's",
            )
        )
    for flavour, state in accelerator.engines(bundle, list(found)).items():
        report.tensorrt[f"{flavour} engines"] = state
        if state.startswith("does not work"):
            report.findings.append(Finding("warning", f"{flavour} engines: {state}"))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _shipped(report: Report, bundle: Path | None) -> None:
    """Restore one frame: the proof that ``rirf.load()`` works."""
    import numpy as np

    import rirf

    try:
        with rirf.load(bundle) as pipeline:
            rows, columns = np.mgrid[0:96, 0:128]
            frame = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
            result = pipeline(frame)
    except Exception as error:  # whatever stops it is what the doctor is asked for
        text = _line(error)
        if not isinstance(error, rirf.RirfError):
            text = f"{type(error).__name__}: {text}"
        mend = "" if bundle is not None else "pip install --force-reinstall --no-deps rirf"
        report.findings.append(Finding("problem", f"rirf.load() fails: {text}", mend))
        return
    report.run = {
        "frame": "128 x 96 pixels",
        "steps": result.steps,
        "time": f"{1000 * result.timings['total']:.0f} ms (the first one, with warming up)",
    }


def _bundle(report: Report, path: Path | None) -> None:
    from rirf.bundle import SHIPPED, Bundle

    where = SHIPPED if path is None else path
    report.bundle["path"] = str(where)
    try:
        Bundle.open(where)
    except Exception as error:  # as above
        report.bundle["state"] = f"cannot be used: {_line(error)}"
        return
    report.bundle["state"] = "complete, every checksum right"


def _degradation(report: Report) -> None:
    """Degrade one frame: which backend does it, and why not the faster one."""
    import numpy as np

    from rirf import native
    from rirf.degradation import degrade, select_backend

    module = native.kernels()
    reason, installed = native.why_not()
    if module is None:
        report.degradation["kernels"] = reason
        finding = Finding(
            "warning" if installed else "note",
            f"{reason}; degradation and training run on NumPy, several times slower",
            native.INSTALL,
        )
        report.findings.append(finding)
    else:
        built = module.build_info()
        cuda = f"CUDA for {built['cuda_architectures']}" if built["cuda"] else "no CUDA half"
        report.degradation["kernels"] = f"ABI {built['abi']}, {built['isa']}, {cuda}"
    try:
        report.degradation["backend"] = select_backend()
        degrade(np.full((96, 128, 3), 0.5, dtype=np.float32), 6)
    except Exception as error:  # as above
        report.degradation["state"] = f"does not work: {_line(error)}"
        report.findings.append(Finding("warning", f"degradation fails: {_line(error)}"))


def _cpu() -> dict[str, Any]:
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        usable = os.cpu_count() or 1
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "count": os.cpu_count(),
        "usable": usable,
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def examine(
    bundle: Path | None = None,
    *,
    engines: bool = False,
    jetson: Path = _JETSON,
    gpu: Sequence[Path] = _GPU,
) -> Report:
    """Examine this installation.

    Args:
        bundle: the bundle to try instead of the one shipped.
        engines: also run one frame on TensorRT, which may build engines first.
        jetson, gpu: files that are there on a Jetson, and where there is an NVIDIA GPU.
    """
    has_gpu = any(path.exists() for path in gpu)
    installed = versions((*_PACKAGES, *_RUNTIMES, *_OPENCVS))
    packages: dict[str, str | None] = {name: installed.get(name) for name in _PACKAGES}
    packages |= {name: installed[name] for name in (*_RUNTIMES, *_OPENCVS) if name in installed}
    report = Report(
        rirf=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        packages=packages,
    )
    _opencv(report)
    _providers(report, has_gpu)
    report.findings += conflicts(has_gpu) + jetson_notes(jetson)
    report.jetson |= accelerator.jetson()
    if report.ok:  # without OpenCV and ONNX Runtime the rest would only repeat that
        _bundle(report, bundle)
        _shipped(report, bundle)
        _tensorrt(report, bundle, has_gpu, engines)
        _degradation(report)
    return report


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of ``rirf doctor``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--bundle", metavar="BUNDLE", type=Path, help="bundle to try instead of the default, edge"
    )
    parser.add_argument(
        "--engines",
        action="store_true",
        help="also restore a frame on each TensorRT library; the first time this builds engines",
    )


def run(arguments: Namespace) -> int:
    """Run ``rirf doctor``."""
    report = examine(arguments.bundle, engines=arguments.engines)
    print(report.to_json() if arguments.json else report.to_text(), file=sys.stdout)
    return 0 if report.ok else 1


command = Command(
    name="doctor",
    help="check this installation and name the fix of what is wrong",
    add_arguments=add_arguments,
    run=run,
    epilog="The exit status is 1 when something stops rirf.load() from working.\n",
)
