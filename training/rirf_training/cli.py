"""``rirf train reasoner|restorer``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rirf.cli.command import Command
from rirf.errors import ImageError, OutputError, require

__all__ = ["command"]

_EPILOG = """\
examples:
  rirf train reasoner --data DATA --out runs/reasoner
  rirf train restorer --data DATA --out runs/restorer --reasoner runs/reasoner
  rirf train restorer --data DATA --out runs/quick --set loop.steps=2000 --set predicted=0
  rirf train restorer --data DATA --out runs/restorer --reasoner runs/reasoner --resume

DATA holds <set>/<split>/ folders of clean pictures (and <set>/labels/<split>/ with class maps where
there are any), or pictures directly. Every configuration key is in training/configs/.
"""


def _add_arguments(parser: ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="reasoner|restorer")
    for kind, text in (
        ("reasoner", "learn to diagnose: presence, severity, parameters, scene"),
        ("restorer", "learn to restore from a frame and its diagnosis"),
    ):
        sub = kinds.add_parser(kind, help=text, description=text)
        sub.add_argument("--data", type=Path, required=True, help="folder of clean pictures")
        sub.add_argument("--out", type=Path, required=True, help="folder of the run")
        sub.add_argument("--config", type=Path, help="YAML file of settings")
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a setting, e.g. loop.steps=2000 (repeatable)",
        )
        sub.add_argument(
            "--cache",
            type=Path,
            help="folder of draws and decoded images (default: draws beside --out)",
        )
        sub.add_argument("--resume", action="store_true", help="continue the run in --out")
        sub.add_argument(
            "--workers", type=int, default=2, help="processes or threads that make draws"
        )
        sub.add_argument("--threads", type=int, help="threads of the network's arithmetic")
        sub.add_argument("--quiet", action="store_true", help="no progress bars")
        if kind == "restorer":
            sub.add_argument(
                "--reasoner", type=Path, help="reasoner checkpoint whose diagnoses are mixed in"
            )


def _run(args: Namespace) -> int:
    torch = require("torch", "train", "train networks")
    for module in ("yaml", "safetensors", "matplotlib"):
        require(module, "train", "train networks")
    from rirf_training.config import ReasonerRun, RestorerRun, read_config
    from rirf_training.run import train_reasoner, train_restorer

    if not args.data.is_dir():
        raise ImageError(f"{args.data}: no such folder; --data takes a folder of clean pictures")
    if args.out.exists() and not args.out.is_dir():
        raise OutputError(f"{args.out} is a file; --out takes a folder")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    cache = args.cache or args.out.parent / "draws"
    options = {"resume": args.resume, "workers": args.workers, "progress": not args.quiet}
    if args.kind == "reasoner":
        run = read_config(ReasonerRun, args.config, args.set)
        figures = train_reasoner(run, args.data, args.out, cache, **options)
    else:
        restorer_run = read_config(RestorerRun, args.config, args.set)
        figures = train_restorer(
            restorer_run, args.data, args.out, cache, reasoner=args.reasoner, **options
        )
    for name, value in figures.items():
        print(f"{name:24s} {value:.4g}")
    print(f"checkpoint: {args.out}, curves: {args.out / 'curves.png'}")
    return 0


command = Command(
    name="train",
    help="train the reasoner or the restorer",
    add_arguments=_add_arguments,
    run=_run,
    epilog=_EPILOG,
)
