"""The verbs of `pgx`. Nothing heavy is imported before a verb needs it: `pgx --help` answers at once."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pgx import __version__
from pgx.errors import Preempted, RunError, UserError
from pgx.schema import nearest

INTERRUPTED = 130  # what a shell reports for a process ended by Ctrl-C

VERBS = {
    "train": "train a policy, e.g. pgx train algo=trpo env=Walker2d-v4; pgx train --help shows every key",
    "sweep": "the runs of pgx train -m: sweep status DIR shows them, sweep resume DIR goes on with what is left",
    "eval": "play episodes with trained runs",
    "record": "film episodes of a trained run, e.g. pgx record RUN --out walker.mp4",
    "export": "write a run's policy as a file that runs without pgx (ONNX, TorchScript)",
    "tensorboard": "look at runs in the browser, under readable names",
    "collect": "write episodes of a trained run as a dataset that others can learn from (dataset=PATH)",
    "compare": "groups of runs side by side, over seeds: scores with intervals, curves, costs, health",
    "runs": "list runs: state, steps, return, speed; --watch goes on",
    "replay": "make again what a run failed of (NaN, infinity), from its post-mortem",
    "check": "look whether an environment is what a run takes it for, e.g. pgx check env=my_module:MyEnv-v0",
    "doctor": "say in words what went wrong in a run, when, and which knob to turn",
    "envs": "list the environments that env= takes",
    "algos": "list the update rules that algo= takes",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb and exit: 0 done, 1 a run failed, 2 the user's mistake, 130 interrupted, 143 preempted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
    except (UserError, RunError) as error:
        _report(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Preempted as ended:
        code = ended.exit_code
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = RunError.exit_code
    except Exception as error:
        _report(
            f"{type(error).__name__}: {error} (a defect of pgx, or of the environment; PGX_DEBUG=1 shows where)"
        )
        code = RunError.exit_code
    sys.exit(code)


def _report(message: str) -> None:
    if os.environ.get("PGX_DEBUG") == "1":
        traceback.print_exc()
    lines = message.splitlines()
    head = "pgx: error: " if len(lines) == 1 else f"pgx: {len(lines)} errors:\n  "
    print(head + "\n  ".join(lines), file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    # Modules in the current folder can register environments. Last: no file in a folder that one happens to be in
    # stands in for a library.
    sys.path.append("")
    if arguments and arguments[0] == "train":
        from pgx.commands.train import train

        return train(arguments[1:])
    parser = _Parser(prog="pgx", description="A laboratory for policy-gradient methods.")
    parser.add_argument("--version", action="version", version=f"pgx {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="", required=True, parser_class=_Parser)
    verbs.add_parser("train", help=VERBS["train"], add_help=False)
    many = verbs.add_parser(
        "sweep", help=VERBS["sweep"], description="See and resume a sweep (docs/sweeps.md)."
    )
    many.add_argument(
        "action", choices=["status", "resume"], help="show its jobs, or run what is left of them"
    )
    many.add_argument("folder", metavar="DIR", help="the sweep's folder, e.g. outputs/sweeps/2026-...")
    many.add_argument("overrides", nargs="*", help="for resume: another launcher, e.g. hydra/launcher=ray")
    _add_trust(many, "the sweep's files")
    many.set_defaults(verb=_sweep)
    run = verbs.add_parser("eval", help=VERBS["eval"], description="Play episodes with trained runs.")
    run.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run's folder, e.g. outputs/Walker2d-v4/trpo/2026-..."
    )
    run.add_argument("--episodes", type=_count, help="how many (the run's trainer.eval_episodes)")
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the likeliest"
    )
    how.add_argument("--both", action="store_true", help="the one and the other, from the same starts")
    run.add_argument("--json", action="store_true", help="one record for each run, every return in it")
    run.add_argument("--checkpoint", default="last", help="last, best or step_<steps> (last)")
    run.add_argument("--seed", type=int, default=0, help="of the environments and of sampling (0)")
    _add_trust(run, "the run's config")
    run.set_defaults(verb=_eval)
    _add_show(verbs)
    source = verbs.add_parser(
        "collect", help=VERBS["collect"], description="Write sampled episodes of a trained run as a dataset."
    )
    source.add_argument("run", metavar="RUN", help="the run's folder, e.g. outputs/CartPole-v1/ppo/2026-...")
    source.add_argument("--episodes", type=_count, required=True, help="how many")
    source.add_argument("--out", metavar="PATH", required=True, help="the dataset's folder, which is made")
    source.add_argument("--checkpoint", default="last", help="last, best or step_<steps> (last)")
    source.add_argument("--seed", type=int, default=0, help="of the environments and of sampling (0)")
    _add_trust(source, "the run's config")
    source.set_defaults(verb=_collect)
    failed = verbs.add_parser(
        "replay", help=VERBS["replay"], description="Make again what a run failed of (docs/reliability.md)."
    )
    failed.add_argument("bundle", metavar="BUNDLE", help="RUN/post_mortem/iteration_...")
    _add_trust(failed, "the run's config")
    failed.set_defaults(verb=_replay)
    _add_compare(verbs)
    listed = verbs.add_parser("runs", help=VERBS["runs"], description="List the runs below a folder.")
    listed.add_argument("folder", nargs="?", default="outputs", metavar="DIR", help="where to look (outputs)")
    listed.add_argument("--watch", action="store_true", help="again every few seconds, until Ctrl-C")
    listed.add_argument("--json", action="store_true", help="as JSON, a list a look")
    listed.set_defaults(verb=_runs)
    looked = verbs.add_parser(
        "check", help=VERBS["check"], description="Look at an environment (docs/environments.md)."
    )
    looked.add_argument("overrides", nargs="*", help="as for pgx train, e.g. env=Walker2d-v4 env.num_envs=8")
    looked.set_defaults(verb=_check)
    sick = verbs.add_parser(
        "doctor", help=VERBS["doctor"], description="Read a run's health metrics (docs/doctor.md)."
    )
    sick.add_argument("run", metavar="RUN", help="the run's folder, e.g. outputs/Walker2d-v4/trpo/2026-...")
    sick.add_argument("--json", action="store_true", help="the same for programs")
    sick.set_defaults(verb=_doctor)
    envs = verbs.add_parser("envs", help=VERBS["envs"], description="List the environments that env= takes.")
    envs.add_argument("pattern", nargs="?", default="", help="only ids that contain this")
    envs.set_defaults(verb=_envs)
    algos = verbs.add_parser("algos", help=VERBS["algos"], description="List the rules that algo= takes.")
    algos.set_defaults(verb=_algos)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        raise UserError(f"no verb '{arguments[0]}'{nearest(arguments[0], VERBS)} (verbs: {', '.join(VERBS)})")
    if not arguments:
        parser.print_help()
        return UserError.exit_code
    options = parser.parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    return verb(options)


def _add_trust(verb: argparse.ArgumentParser, whose: str) -> None:
    verb.add_argument(
        "--trust",
        action="store_true",
        help=f"allow what {whose} would import: modules of environments (docs/checkpoints.md)",
    )


def _add_compare(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    verb = verbs.add_parser(
        "compare", help=VERBS["compare"], description="Compare groups of runs over seeds (docs/compare.md)."
    )
    verb.add_argument(
        "places",
        nargs="+",
        metavar="DIR",
        help="runs are looked for below; DIR:env=...,algo=... names those of others",
    )
    verb.add_argument(
        "--by", default="algo", metavar="KEYS", help="what makes a group, e.g. algo,algo.max_kl (algo)"
    )
    verb.add_argument("--metric", metavar="TAG", help="what is compared (rollout/episode_return_recent)")
    verb.add_argument(
        "--at", type=_count, metavar="STEP", help="where scores are taken (the last step that all runs share)"
    )
    verb.add_argument(
        "--reference",
        metavar="FILE",
        help="scores that are 0 and 1 of each environment (lowest, highest of the runs)",
    )
    verb.add_argument("--resamples", type=_count, default=2000, help="of the bootstrap (2000)")
    verb.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    verb.add_argument("--out", metavar="FOLDER", help="write a page, figures, CSV, JSON and Markdown there")
    verb.set_defaults(verb=_compare)


def _add_show(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    """The verbs that show a run to others."""
    film = verbs.add_parser("record", help=VERBS["record"], description="Film episodes (docs/show.md).")
    film.add_argument("run", metavar="RUN", help="the run's folder, e.g. outputs/Walker2d-v4/trpo/2026-...")
    film.add_argument("--out", metavar="FILE", required=True, help="the video: .mp4 or .gif")
    film.add_argument("--episodes", type=_count, default=1, help="how many, one after another (1)")
    film.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the likeliest"
    )
    film.add_argument("--fps", type=_count, help="frames a second at most, in real time (mp4: 60, gif: 25)")
    film.add_argument("--width", type=_count, help="pixels, where the environment can be asked: MuJoCo's can")
    film.add_argument("--height", type=_count, help="pixels, as --width")
    file = verbs.add_parser("export", help=VERBS["export"], description="Write a policy (docs/show.md).")
    file.add_argument("run", metavar="RUN", help="the run's folder, e.g. outputs/Walker2d-v4/trpo/2026-...")
    file.add_argument("--to", choices=["onnx", "torchscript"], required=True, help="the format")
    file.add_argument("--out", metavar="FILE", required=True, help="what is written")
    for verb, what in ((film, "the environment and of sampling"), (file, "the observations of the check")):
        verb.add_argument("--checkpoint", default="last", help="last, best or step_<steps> (last)")
        verb.add_argument("--seed", type=int, default=0, help=f"of {what} (0)")
        _add_trust(verb, "the run's config")
    film.set_defaults(verb=_record)
    file.set_defaults(verb=_export)
    board = verbs.add_parser(
        "tensorboard", help=VERBS["tensorboard"], description="Look at runs in the browser (docs/show.md)."
    )
    board.add_argument(
        "folder", metavar="DIR", nargs="?", default="outputs", help="with runs in it (outputs)"
    )
    board.add_argument("--port", type=int, help="0: any that is free (6006, or one of the next that is free)")
    board.add_argument(
        "--host", default="localhost", help="the address that it listens on; 0.0.0.0: all (localhost)"
    )
    board.set_defaults(verb=_tensorboard)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got '{text}'")
    return int(text)


def _sweep(options: argparse.Namespace) -> int:
    from pgx.commands.sweep import resume, status

    if options.action == "resume":
        return resume(Path(options.folder), options.overrides, options.trust)
    if options.trust:
        raise UserError("--trust: pgx sweep status reads the sweep's files and imports nothing")
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: pgx sweep status takes a folder alone")
    return status(Path(options.folder))


def _eval(options: argparse.Namespace) -> int:
    from pgx.commands.evaluate import Mode, evaluate

    modes: list[Mode] = ["stochastic"] if options.stochastic else ["deterministic"]
    if options.both:
        modes = ["deterministic", "stochastic"]
    return evaluate(
        options.runs, options.checkpoint, options.episodes, modes, options.seed, options.trust, options.json
    )


def _record(options: argparse.Namespace) -> int:
    from pgx.commands.record import record

    size = None if options.width is None and options.height is None else (options.width, options.height)
    return record(
        options.run,
        options.checkpoint,
        options.episodes,
        options.stochastic,
        options.out,
        options.fps,
        size,
        options.seed,
        options.trust,
    )


def _export(options: argparse.Namespace) -> int:
    from pgx.commands.export import export

    return export(options.run, options.checkpoint, options.to, options.out, options.seed, options.trust)


def _tensorboard(options: argparse.Namespace) -> int:
    from pgx.commands.tensorboard import show

    return show(options.folder, options.port, options.host)


def _collect(options: argparse.Namespace) -> int:
    from pgx.commands.collect import collect

    return collect(
        options.run, options.checkpoint, options.episodes, options.out, options.seed, options.trust
    )


def _compare(options: argparse.Namespace) -> int:
    from pgx.commands.compare import compare_runs

    return compare_runs(
        options.places,
        options.by,
        options.metric,
        options.at,
        options.reference,
        options.resamples,
        options.seed,
        options.out,
    )


def _runs(options: argparse.Namespace) -> int:
    from pgx.commands.runs import runs

    return runs(Path(options.folder), options.watch, options.json)


def _replay(options: argparse.Namespace) -> int:
    from pgx.commands.replay import replay

    return replay(Path(options.bundle), options.trust)


def _check(options: argparse.Namespace) -> int:
    from pgx.commands.check_env import check_environment

    return check_environment(options.overrides)


def _doctor(options: argparse.Namespace) -> int:
    from pgx.commands.doctor import doctor

    return doctor(Path(options.run), options.json)


def _envs(options: argparse.Namespace) -> int:
    from pgx.commands.listing import list_environments

    return list_environments(options.pattern)


def _algos(options: argparse.Namespace) -> int:
    from pgx.commands.listing import list_rules

    return list_rules()


if __name__ == "__main__":
    main()
