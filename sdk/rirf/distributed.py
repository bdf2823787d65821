"""Batches over many machines with Ray Data: what is left to do, who does it, what came of it.

Pictures and results stay on storage that every machine sees under the same paths; paths and lines
of text are all that travels. A journal in the output folder remembers what is done. Knows nothing
of what is done to a picture, and imports Ray only when a job runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO
from urllib.parse import urlsplit

from rirf._version import __version__
from rirf.cli.batch import Outcome, Work, attempt, say, settle
from rirf.errors import ClusterError, OutputError, RirfError, require
from rirf.files import Found, prepare_folder, write_atomic

__all__ = ["JOURNAL", "Job", "run_on_ray"]

JOURNAL = ".rirf-ray.jsonl"
"""The journal's name in the output folder."""

_LOG = logging.getLogger(__name__)

_PURPOSE = "work on many machines"
_BLOCK = 16  # pictures handed out at once: a dead worker costs no more than these, done again
_RETRIES = 2  # of a block whose worker died
_THREADS = 4  # of a worker, where its machine has them and nobody said otherwise
_CONNECT_S, _INSPECT_S = 10, 120
_STORE_BYTES = 100 * 2**20  # object store of a cluster of our own: only paths and lines go through


@dataclass(frozen=True)
class Job:
    """What is to be done to each picture, in a form that can be sent to other machines.

    Attributes:
        label: the command's name.
        folder: the output folder, which exists.
        opened: called once in each worker with a number of CPU threads (None: not to be set); what
            it enters does one picture. Must be picklable.
        complete: whether all files of a picture are there, given its relative path.
        settings: what the results depend on besides the picture and rirf's version, as JSON.
        inputs: files and folders that every worker must see.
        threads: CPU threads of a worker; chosen by the cluster's machines when None.
        gpu: whether a worker needs a GPU, and to itself.
    """

    label: str
    folder: Path
    opened: Callable[[int | None], AbstractContextManager[Work]]
    complete: Callable[[Path], bool]
    settings: Mapping[str, object]
    inputs: Sequence[Path]
    threads: int | None = None
    gpu: bool = False


def run_on_ray(address: str, found: Sequence[Found], job: Job, *, quiet: bool = False) -> int:
    """Work on every picture that is not done yet and return how many failed.

    A picture is done when the journal says so, for the same settings and the same size and time of
    its file, and all its results are there. One that failed before is tried again.

    Args:
        address: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``, or ``local`` for a cluster of this
            machine that lives as long as the job.
        found: the pictures.
        job: what to do.
        quiet: print failures only.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster does not answer, runs other versions, has no room for a worker, or
            its machines do not see the files; or it was lost on the way.
        OutputError: the journal cannot be written.
        RirfError: a worker cannot start its work, for the reason the command would give here.
    """
    ray = require("ray", "ray", _PURPOSE)
    require("ray.data", "ray", _PURPOSE)
    with _Journal.open(job) as journal:
        left = [item for item in found if not journal.has(item)]
        if len(left) < len(found) and not quiet:
            say(f"{len(found) - len(left)} of {len(found)} pictures were done before")
        if not left:
            return 0
        with _connected(ray, address), _marker(job.folder) as marker:
            site = _Site(str(Path.cwd()), __version__, job.folder, marker, tuple(job.inputs))
            plan = _hire(ray, job, site)
            _inspect_nodes(ray, plan)
            stream = _from_inside if address.startswith("ray://") else _stream
            outcomes = _heard(stream(plan, left))
            return settle(journal.noting(outcomes), len(left), label=job.label, quiet=quiet)


class _Journal:
    """What is done: one line of JSON for the job, then one for each picture that came back."""

    def __init__(self, file: TextIO, job: Job, done: Mapping[str, object]) -> None:
        self._file = file
        self._job = job
        self._done = done

    @classmethod
    @contextmanager
    def open(cls, job: Job) -> Iterator[_Journal]:
        path = job.folder / JOURNAL
        text = json.dumps([__version__, job.label, dict(job.settings)], default=str, sort_keys=True)
        head = {"rirf": __version__, "job": hashlib.sha256(text.encode()).hexdigest()}
        done = _read_journal(path, head)
        # Written anew: without failures, which are tried again, and without a torn last line.
        entries = [head, *({"picture": name, "source": seen} for name, seen in done.items())]
        write_atomic(path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        try:
            file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from error
        with file:
            yield cls(file, job, done)

    def has(self, item: Found) -> bool:
        seen = self._done.get(item.relative.as_posix())
        return (
            seen is not None and seen == _identity(item.path) and self._job.complete(item.relative)
        )

    def noting(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Pass outcomes on, each written down first."""
        for outcome in outcomes:
            item = outcome.item
            entry: dict[str, object] = {"picture": item.relative.as_posix()}
            if outcome.error is None:
                entry["source"] = _identity(item.path)
            else:
                entry["error"] = outcome.error
            try:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()
            except OSError as error:
                raise _unwritable(self._job.folder / JOURNAL, error) from error
            yield outcome


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: the journal cannot be written: {error.strerror or error}; make room and run the "
        "same command again"
    )


def _read_journal(path: Path, head: Mapping[str, object]) -> dict[str, object]:
    """What is done by relative path: nothing where the journal is another job's, or no journal."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    entries: list[Any] = []
    for line in lines:
        with suppress(ValueError):  # the line at which a job was killed
            entries.append(json.loads(line))
    if not entries or entries[0] != head:
        return {}
    return {entry["picture"]: entry["source"] for entry in entries[1:] if "source" in entry}


def _identity(path: Path) -> list[object] | None:
    """Which file it is, and in which state."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # Nobody agreed to Ray's usage statistics by naming this machine; the variable still rules.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    elif address != "auto":
        _reach(address)
    try:
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"--ray {address}: {error}; expected a running Ray cluster with this machine's "
                "versions of Ray and Python: start one with ray start, or use --ray local"
            ) from error
        yield
    except BrokenPipeError:  # a connection's error, but that of the reader of what is printed
        raise
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"--ray {address}: the cluster was lost: {error}; run the same command again, what is "
            "done is kept"
        ) from error
    finally:
        ray.shutdown()  # also of what had begun when another version was found


def _reach(address: str) -> None:
    """Knock first: Ray itself waits for minutes where nobody listens."""
    client = address.startswith("ray://")
    try:
        parts = urlsplit(address if client else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ClusterError(
            f"--ray: got {address!r}; expected auto, local, HOST:PORT or ray://HOST:PORT"
        )
    if client:
        return  # Ray's client gives up in time, and its server may die of a connection cut short
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"--ray {address}: the cluster does not answer ({error.strerror or error}); check that "
            "its head is running and that the port is open"
        ) from error


@contextmanager
def _marker(folder: Path) -> Iterator[str]:
    """A file in the output folder by which a worker knows that it sees the same one."""
    path = folder / f".rirf-{secrets.token_hex(8)}.tmp"
    write_atomic(path, b"")
    try:
        yield path.name
    finally:
        with suppress(OSError):
            path.unlink()


@dataclass(frozen=True)
class _Site:
    """What a worker must find where it runs."""

    cwd: str
    version: str
    folder: Path
    marker: str
    inputs: tuple[Path, ...]

    def complaint(self) -> str | None:
        """Enter the working folder of the command and say what is not as it is there."""
        if __version__ != self.version:
            return (
                f"has rirf {__version__}, expected {self.version} as on the machine of the "
                "command; install one version on all"
            )
        try:
            os.chdir(self.cwd)  # given paths stay as they are, and so do messages with them
        except OSError as error:
            if not all(path.is_absolute() for path in (*self.inputs, self.folder)):
                return (
                    f"cannot enter {self.cwd} ({error.strerror}), to which paths of the command "
                    "are relative; work in a shared folder or give absolute paths"
                )
        shared = "workers need the same storage under the same paths as the command"
        for path in self.inputs:
            if not path.exists():
                return f"does not see {path}; {shared}"
        if not (self.folder / self.marker).exists():
            return f"does not see the output folder {self.folder}, or sees another one; {shared}"
        try:
            prepare_folder(self.folder)
        except OutputError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class _Plan:
    """The workers: what they do and find, how many, what each occupies, and on which machines.

    ``threads`` is what they are told, None for the GPU's; ``nodes`` maps identifiers to names.
    """

    site: _Site
    opened: bytes
    workers: int
    cpus: int
    gpus: int
    threads: int | None
    nodes: Mapping[str, str]


def _hire(ray: ModuleType, job: Job, site: _Site) -> _Plan:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    cpus = [int(node["Resources"]["CPU"]) for node in nodes]
    threads = job.threads or min([_THREADS, *cpus])
    rooms = [
        min(count // threads, int(node["Resources"].get("GPU", 0)) if job.gpu else count)
        for node, count in zip(nodes, cpus, strict=True)
    ]
    if not any(rooms):
        gpu = " and a GPU" if job.gpu else ""
        raise ClusterError(
            f"no machine of the cluster has room for a worker of {threads} CPUs{gpu}; expected one "
            f"(they have {', '.join(map(str, cpus)) or 'no'} CPUs): use fewer --threads, or add one"
        )
    return _Plan(
        site=site,
        opened=pickle.dumps(job.opened),
        workers=sum(rooms),
        cpus=threads,
        gpus=int(job.gpu),
        threads=None if job.gpu else threads,
        nodes={
            node["NodeID"]: node["NodeManagerAddress"]
            for node, room in zip(nodes, rooms, strict=True)
            if room
        },
    )


def _pinned(node: str) -> Any:
    strategies = require("ray.util.scheduling_strategies", "ray", _PURPOSE)
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def _inspect_nodes(ray: ModuleType, plan: _Plan) -> None:
    """Let every machine look for what it needs, before any of them begins."""
    inspect = ray.remote(num_cpus=0, max_retries=1)(_complaint)
    asked = {
        name: inspect.options(scheduling_strategy=_pinned(node)).remote(plan.site)
        for node, name in plan.nodes.items()
    }
    for name, answer in asked.items():
        try:
            complaint = ray.get(answer, timeout=_INSPECT_S)
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"machine {name} of the cluster cannot run rirf ({error}); expected rirf "
                f"{__version__} in the Python of its Ray"
            ) from error
        if complaint is not None:
            raise ClusterError(f"machine {name} of the cluster {complaint}")


def _complaint(site: _Site) -> str | None:
    return site.complaint()


@dataclass(frozen=True)
class _Answer:
    """What a worker sends back: an outcome, or why it cannot work at all, and its warnings."""

    outcome: Outcome
    fatal: str | None = None
    warnings: tuple[str, ...] = ()


class _Worker:
    """Lives in an actor of Ray: loads once, then does one picture after the other."""

    def __init__(self, site: _Site, job_opened: bytes, threads: int | None) -> None:
        self._site = site
        self._opened = job_opened
        self._threads = threads
        self._stack = ExitStack()
        self._work: Work | None = None
        self._warnings = _Warnings()
        logging.getLogger("rirf").addHandler(self._warnings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        item: Found = pickle.loads(row["item"])
        return {"index": row["index"], "answer": pickle.dumps(self._answer(item))}

    def _answer(self, item: Found) -> _Answer:
        # Loaded here rather than in __init__, whose errors Ray takes for a machine's and retries.
        if self._work is None:
            try:
                self._work = self._start()
            except RirfError as error:
                return _Answer(Outcome(item), fatal=str(error))
        try:
            outcome = attempt(item, self._work)
        except Exception as error:  # a defect: one picture's, so that the others are still done
            text = f"{item.path}: {type(error).__name__}: {error}; please report this defect"
            outcome = Outcome(item, error=text)
        return _Answer(outcome, warnings=self._warnings.taken())

    def _start(self) -> Work:
        complaint = self._site.complaint()  # again: the machine may have joined after the job began
        if complaint is not None:
            raise ClusterError(f"machine {socket.gethostname()} of the cluster {complaint}")
        if self._threads is not None:
            require("cv2", "cpu", "read pictures").setNumThreads(self._threads)
        opened: Callable[[int | None], AbstractContextManager[Work]] = pickle.loads(self._opened)
        return self._stack.enter_context(opened(self._threads))


class _Warnings(logging.Handler):
    """Keeps what rirf warns of, such as a fallback, until it can be sent."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def taken(self) -> tuple[str, ...]:
        texts, self._texts = tuple(self._texts), []
        return texts


def _heard(answers: Iterator[tuple[int, _Answer]]) -> Iterator[Outcome]:
    """The outcomes; each warning is passed on once, and a worker that cannot work ends the job."""
    warned: set[str] = set()
    for _, answer in answers:
        if answer.fatal is not None:
            raise RirfError(answer.fatal)
        for text in answer.warnings:
            if text not in warned:
                warned.add(text)
                _LOG.warning("%s", text)
        yield answer.outcome


def _stream(plan: _Plan, items: Sequence[Found]) -> Iterator[tuple[int, _Answer]]:
    """One answer for each picture, in the order in which they come."""
    left = dict(enumerate(items))
    # What died with its worker again and again comes in a block of its own the second time, so
    # that one picture that kills its worker takes no other along.
    for size in (min(_BLOCK, max(1, len(items) // (4 * plan.workers))), 1):
        for index, answer in _pass(plan, left, size):
            if left.pop(index, None) is not None:
                yield index, answer
        if not left:
            return
    for index, item in left.items():
        text = (
            f"{item.path}: its worker died each time (killed, out of memory or crashed); try this "
            "picture without --ray"
        )
        yield index, _Answer(Outcome(item, error=text))


def _pass(plan: _Plan, left: Mapping[int, Found], size: int) -> Iterator[tuple[int, _Answer]]:
    """Send the pictures once, in blocks of ``size``; those whose worker died do not come back."""
    data = require("ray.data", "ray", _PURPOSE)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one of our own
    context.max_errored_blocks = -1  # lost blocks are found by what is missing
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Bytes, because a path need not be text that Arrow takes.
    rows = [{"index": index, "item": pickle.dumps(item)} for index, item in left.items()]
    blocks = -(-len(rows) // size)
    crowd = data.ActorPoolStrategy(
        min_size=1,
        max_size=min(plan.workers, blocks),
        # A second block waiting at a worker would be lost with it, too.
        max_tasks_in_flight_per_actor=1,
    )
    sent = data.from_items(rows, override_num_blocks=blocks)
    with warnings.catch_warnings():
        # The last two have no other name yet; without them Ray tries a deadly picture for ever.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        answers = sent.map(
            _Worker,
            fn_constructor_args=(plan.site, plan.opened, plan.threads),
            compute=crowd,
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
    for row in answers.iter_rows():
        yield row["index"], pickle.loads(row["answer"])


class _Coordinator:
    """Runs the stream inside the cluster: Ray Data does not work through ``ray://``."""

    def __init__(self, plan: _Plan, items: Sequence[Found]) -> None:
        self._answers = _stream(plan, items)
        self._round = plan.workers

    def more(self) -> list[tuple[int, _Answer]]:
        """About one answer a worker; none at the end."""
        return list(islice(self._answers, self._round))


def _from_inside(plan: _Plan, items: Sequence[Found]) -> Iterator[tuple[int, _Answer]]:
    ray = require("ray", "ray", _PURPOSE)
    coordinator = ray.remote(num_cpus=0)(_Coordinator)
    place = _pinned(next(iter(plan.nodes)))
    running = coordinator.options(scheduling_strategy=place).remote(plan, list(items))
    while answers := ray.get(running.more.remote()):
        yield from answers
