"""Verbs that play, film, write out or make again one run: eval, record, export, collect, replay, doctor."""

import argparse
from pathlib import Path

from pgx.cli.verbs.verb import (
    Verb,
    count,
    split_overrides,
    take_checkpoint,
    take_max_steps,
    take_run,
    take_sampling,
    take_trust,
)


def _take_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="RUN",
        nargs="+",
        help="a run's folder, e.g. outputs/Walker2d-v4/trpo/2026-...; KEY=VALUE changes where environments run, "
        "e.g. env.backend=gymnasium",
    )
    parser.add_argument("--episodes", type=count, help="how many (the run's trainer.eval_episodes)")
    take_max_steps(parser)
    how = parser.add_mutually_exclusive_group()
    take_sampling(how)
    how.add_argument("--both", action="store_true", help="the one and the other, from the same starts")
    parser.add_argument("--json", action="store_true", help="one record for each run, every return in it")
    take_checkpoint(parser, "the environments and of sampling")


def _eval(options: argparse.Namespace) -> int:
    from pgx.cli.commands.evaluate import Mode, evaluate

    modes: list[Mode] = ["stochastic"] if options.stochastic else ["deterministic"]
    if options.both:
        modes = ["deterministic", "stochastic"]
    runs, overrides = split_overrides(options.words)
    return evaluate(
        runs,
        overrides,
        options.checkpoint,
        options.episodes,
        options.max_steps,
        modes,
        options.seed,
        options.trust,
        options.json,
    )


def _take_record(parser: argparse.ArgumentParser) -> None:
    take_run(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the video: .mp4 or .gif")
    parser.add_argument("--episodes", type=count, default=1, help="how many, one after another (1)")
    take_max_steps(parser)
    take_sampling(parser)
    parser.add_argument("--fps", type=count, help="frames a second at most, in real time (mp4: 60, gif: 25)")
    parser.add_argument(
        "--width", type=count, help="pixels, where the environment can be asked: MuJoCo's can"
    )
    parser.add_argument("--height", type=count, help="pixels, as --width")
    take_checkpoint(parser, "the environment and of sampling")


def _record(options: argparse.Namespace) -> int:
    from pgx.cli.commands.record import record

    size = None if options.width is None and options.height is None else (options.width, options.height)
    return record(
        options.run,
        options.checkpoint,
        options.episodes,
        options.stochastic,
        options.out,
        options.fps,
        size,
        options.max_steps,
        options.seed,
        options.trust,
    )


def _take_export(parser: argparse.ArgumentParser) -> None:
    take_run(parser)
    parser.add_argument("--to", choices=["onnx", "torchscript"], required=True, help="the format")
    parser.add_argument("--out", metavar="FILE", required=True, help="what is written")
    take_checkpoint(parser, "the observations of the check")


def _export(options: argparse.Namespace) -> int:
    from pgx.cli.commands.export import export

    return export(options.run, options.checkpoint, options.to, options.out, options.seed, options.trust)


def _take_collect(parser: argparse.ArgumentParser) -> None:
    take_run(parser, "outputs/CartPole-v1/ppo/2026-...")
    parser.add_argument("--episodes", type=count, required=True, help="how many")
    parser.add_argument("--out", metavar="PATH", required=True, help="the dataset's folder, which is made")
    take_max_steps(parser)
    take_checkpoint(parser, "the environments and of sampling")


def _collect(options: argparse.Namespace) -> int:
    from pgx.cli.commands.collect import collect

    return collect(
        options.run,
        options.checkpoint,
        options.episodes,
        options.max_steps,
        options.out,
        options.seed,
        options.trust,
    )


def _take_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="RUN/post_mortem/iteration_...")
    take_trust(parser, "the run's config")


def _replay(options: argparse.Namespace) -> int:
    from pgx.cli.commands.replay import replay

    return replay(Path(options.bundle), options.trust)


def _take_doctor(parser: argparse.ArgumentParser) -> None:
    take_run(parser)
    parser.add_argument("--json", action="store_true", help="the same for programs")


def _doctor(options: argparse.Namespace) -> int:
    from pgx.cli.commands.doctor import doctor

    return doctor(Path(options.run), options.json)


EVAL = Verb("eval", "play episodes with trained runs", "Play episodes with trained runs.", _take_eval, _eval)
RECORD = Verb(
    "record",
    "film episodes of a trained run, e.g. pgx record RUN --out walker.mp4",
    "Film episodes (docs/show.md).",
    _take_record,
    _record,
)
EXPORT = Verb(
    "export",
    "write a run's policy as a file that runs without pgx (ONNX, TorchScript)",
    "Write a policy (docs/show.md).",
    _take_export,
    _export,
)
COLLECT = Verb(
    "collect",
    "write episodes of a trained run as a dataset that others can learn from (dataset=PATH)",
    "Write sampled episodes of a trained run as a dataset.",
    _take_collect,
    _collect,
)
REPLAY = Verb(
    "replay",
    "make again what a run failed of (NaN, infinity), from its post-mortem",
    "Make again what a run failed of (docs/reliability.md).",
    _take_replay,
    _replay,
)
DOCTOR = Verb(
    "doctor",
    "say in words what went wrong in a run, when, and which knob to turn",
    "Read a run's health metrics (docs/doctor.md).",
    _take_doctor,
    _doctor,
)
