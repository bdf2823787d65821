"""``rirf train reasoner|restorer|rl`` and ``rirf distill``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rirf.cli.command import Command
from rirf.errors import ImageError, OutputError, require

__all__ = ["command", "distill"]

_EPILOG = """\
examples:
  rirf train reasoner --data DATA --out runs/reasoner
  rirf train restorer --data DATA --out runs/restorer --reasoner runs/reasoner
  rirf train restorer --data DATA --out runs/quick --set loop.steps=2000 --set predicted=0
  rirf train restorer --data DATA --out runs/restorer --reasoner runs/reasoner --resume
  rirf train rl --data DATA --out runs/rl --start runs/restorer --reasoner runs/reasoner \\
      --judge other.rirf

DATA holds <set>/<split>/ folders of clean pictures (and <set>/labels/<split>/ with class maps where
there are any), or pictures directly. Every configuration key is in training/configs/.
"""
_DISTILL_EPILOG = """\
examples:
  rirf distill --data DATA --teacher runs/teacher --reasoner runs/reasoner --out runs/student
  rirf distill --data DATA --recorded outputs --reasoner runs/reasoner --out runs/student

A teacher restores every patch too, with the same diagnosis; loss.teacher weighs what it makes
against the clean patch. Recorded outputs of any restorer, as NAME.degraded.png, NAME.restored.png,
NAME.json (the diagnosis) and, where there is one, NAME.clean.png, give the share "recorded" of each
batch. DATA and the configuration are those of rirf train restorer.
"""


def _add_common(parser: ArgumentParser) -> None:
    """The arguments that every run has."""
    parser.add_argument("--data", type=Path, required=True, help="folder of clean pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, e.g. loop.steps=2000 (repeatable)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder of draws and decoded images (default: draws by --out)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes or threads that make draws"
    )
    parser.add_argument("--threads", type=int, help="threads of the network's arithmetic")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_restorer(parser: ArgumentParser) -> None:
    """The arguments that every restorer run has."""
    parser.add_argument(
        "--reasoner", type=Path, help="reasoner checkpoint whose diagnoses are mixed in"
    )
    parser.add_argument(
        "--start", type=Path, help="restorer checkpoint whose weights the run begins with"
    )


def _add_rl(parser: ArgumentParser) -> None:
    """The arguments that a reinforcement run has."""
    for name, text in (
        ("start", "restorer checkpoint with a bridge whose weights the run begins with"),
        ("reasoner", "reasoner checkpoint that gives the reward, and the diagnoses"),
        (
            "judge",
            "bundle or checkpoint of another reasoner; ends a run that fools the first",
        ),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)


def _add_arguments(parser: ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="reasoner|restorer|rl")
    for kind, text in (
        ("reasoner", "learn to diagnose: presence, severity, parameters, scene"),
        ("restorer", "learn to restore from a frame and its diagnosis"),
        ("rl", "learn on from what the reasoner says of restored frames"),
    ):
        sub = kinds.add_parser(kind, help=text, description=text)
        _add_common(sub)
        if kind == "restorer":
            _add_restorer(sub)
        elif kind == "rl":
            _add_rl(sub)


def _add_distill_arguments(parser: ArgumentParser) -> None:
    _add_common(parser)
    _add_restorer(parser)
    parser.add_argument("--teacher", type=Path, help="restorer checkpoint that is imitated")
    parser.add_argument("--recorded", type=Path, help="folder of recorded outputs, see below")


def _prepared(args: Namespace) -> tuple[Path, dict[str, Any]]:
    """Check what every run needs; the cache, and options of every run."""
    torch = require("torch", "train", "train networks")
    for module in ("yaml", "safetensors", "matplotlib"):
        require(module, "train", "train networks")
    if not args.data.is_dir():
        raise ImageError(f"{args.data}: no such folder; --data takes a folder of clean pictures")
    if args.out.exists() and not args.out.is_dir():
        raise OutputError(f"{args.out} is a file; --out takes a folder")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    cache = args.cache or args.out.parent / "draws"
    return cache, {"resume": args.resume, "workers": args.workers, "progress": not args.quiet}


def _report(figures: dict[str, float], out: Path) -> int:
    for name, value in figures.items():
        print(f"{name:24s} {value:.4g}")
    print(f"checkpoint: {out}, curves: {out / 'curves.png'}")
    return 0


def _run(args: Namespace) -> int:
    cache, options = _prepared(args)
    from rirf_training.config import ReasonerRun, RestorerRun, RlRun, read_config
    from rirf_training.run import train_reasoner, train_restorer, train_rl

    if args.kind == "rl":
        rl_run = read_config(RlRun, args.config, args.set)
        models = {name: getattr(args, name) for name in ("start", "reasoner", "judge")}
        kept = train_rl(rl_run, args.data, args.out, cache, **models, **options)
        if kept.stopped:
            print(f"stopped early, the reward is being fooled: {kept.stopped}")
        print(f"kept: step {kept.step} of {rl_run.loop.steps}, which the judge liked best")
        return _report(kept.figures, args.out)
    if args.kind == "reasoner":
        run = read_config(ReasonerRun, args.config, args.set)
        figures = train_reasoner(run, args.data, args.out, cache, **options)
    else:
        restorer_run = read_config(RestorerRun, args.config, args.set)
        models = {"reasoner": args.reasoner, "start": args.start}
        figures = train_restorer(restorer_run, args.data, args.out, cache, **models, **options)
    return _report(figures, args.out)


def _run_distill(args: Namespace) -> int:
    cache, options = _prepared(args)
    from rirf_training.config import RestorerRun, TrainingError, read_config
    from rirf_training.run import train_restorer

    if args.teacher is None and args.recorded is None:
        raise TrainingError(
            "nothing to learn from: give --teacher CHECKPOINT, --recorded FOLDER or both"
        )
    run = read_config(RestorerRun, args.config, args.set)
    sources = {name: getattr(args, name) for name in ("reasoner", "start", "teacher", "recorded")}
    figures = train_restorer(run, args.data, args.out, cache, **sources, **options)
    return _report(figures, args.out)


command = Command(
    name="train",
    help="train the reasoner or the restorer",
    add_arguments=_add_arguments,
    run=_run,
    epilog=_EPILOG,
)
distill = Command(
    name="distill",
    help="train a restorer on what another one makes of its frames",
    add_arguments=_add_distill_arguments,
    run=_run_distill,
    epilog=_DISTILL_EPILOG,
)
