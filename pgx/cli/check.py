"""`pgx check`: validate an environment before training on it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import (
    Command,
)
from pgx.core.errors import RunError, UserError
from pgx.distributed.child_process import LOOK, Process, ending, reap, start

if TYPE_CHECKING:
    from pgx.config.run_config import EnvConfig
    from pgx.envs.checks import Asked, Pace, Verdict
    from pgx.envs.checks.process import Seen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="as for pgx train, e.g. env=Walker2d-v4 env.num_envs=8")


def run(options: argparse.Namespace) -> int:
    return check_environment(options.overrides)


COMMAND = Command(
    "check",
    "validate an environment, e.g. pgx check env=my_module:MyEnv-v0",
    "Validate an environment (docs/environments.md).",
    add_arguments,
    run,
)


MARGIN = (
    10.0  # seconds that an assumption may take longer than worker processes may: they name the line of a hang
)
PATIENCE = 5.0  # seconds between lines of progress when output is not a terminal
STYLES = {"holds": "green", "fails": "bold red", "cannot be told": "yellow"}


@dataclass(frozen=True)
class Lost:
    """Message for a check process that exited or was stopped."""

    why: str


def check_environment(overrides: list[str]) -> int:
    """Print a verdict for each check; return 0, or 1 if a check fails.

    Args:
        overrides: as for `pgx train`; they name and configure the environment.

    Raises:
        UserError: the overrides are invalid, or the environment cannot be created.
    """
    from pgx.config.run_config import EnvConfig
    from pgx.envs.checks import CHECKS, Verdict, fails, untold
    from pgx.envs.checks.process import Looks, Refused, Seen
    from pgx.envs.make import nan_keywords
    from pgx.runs.writer import complain

    values = _values(overrides)
    env = EnvConfig(**values["env"])
    for warning in nan_keywords(env.kwargs):
        complain(warning)
    verdicts: dict[str, Verdict] = {}
    assumption, seen = next(iter(CHECKS)), Seen(None, None)
    with _check_process(_asked(env), env.worker_timeout + MARGIN) as messages:
        for message in _with_progress(messages):
            match message:
                case Looks(assumption):
                    pass
                case Verdict():
                    verdicts[assumption] = message
                case Refused(problem):
                    raise UserError(problem)
                case Lost(why):
                    verdicts[assumption] = fails(why)
                case Seen():
                    seen = message
    for assumption in CHECKS:
        verdicts.setdefault(assumption, untold("not checked; see above"))
    verdicts[f"policy={values['policy']['name']} accepts the observations"] = _policy(values, env, seen)
    _show(verdicts)
    print(_paces(seen.pace, env))
    print(_summary(env.id, verdicts))
    return RunError.exit_code if any(v.outcome == "fails" for v in verdicts.values()) else 0


def _values(overrides: list[str]) -> dict[str, Any]:
    """Return the config values of the run, without checking that its parts fit each other."""
    from pgx.config.check import plain_values, value_problems
    from pgx.config.compose import compose
    from pgx.config.overrides import jobs, prepare
    from pgx.envs.make import id_problem

    if len(jobs(prepare(overrides))) > 1:
        raise UserError(f"{' '.join(overrides)}: has several values; pgx check takes one environment")
    cfg = compose(overrides)
    if found := value_problems(cfg):
        raise UserError(*found)
    values = plain_values(cfg)
    if problem := id_problem(values["env"]["id"]):
        raise UserError(problem)
    return values


def _asked(env: EnvConfig) -> Asked:
    from pgx.envs.checks import Asked
    from pgx.envs.recipe import pack
    from pgx.rollouts.sizes import cores

    try:
        recipe = pack(env.id, env.kwargs)
    except ValueError:  # a check reports it
        recipe = None
    threads = env.num_threads or cores()
    return Asked(
        env.id,
        env.num_envs,
        env.kwargs,
        env.backend,
        threads,
        env.worker_timeout,
        recipe,
        env.normalize_obs,
    )


@contextmanager
def _check_process(asked: Asked, limit: float) -> Iterator[Iterator[Any]]:
    """Start a process that checks an environment, and stop it at the end.

    Args:
        asked: the environment and its settings.
        limit: seconds per check, after which the environment counts as hanging.

    Yields:
        The messages of the process.
    """
    (theirs, lifeline), (shown, shows) = os.pipe(), os.pipe()
    process, channel = start("pgx.envs.checks.process", [theirs, shows])
    os.close(theirs)
    os.close(shows)
    try:
        channel.send(asked)
        yield _messages(process, channel, shown, limit)
    finally:
        channel.close()
        os.close(lifeline)
        reap([process])
        os.close(shown)


def _messages(process: Process, channel: Connection[Any, Any], shown: int, limit: float) -> Iterator[Any]:
    """Yield messages of the check process until its last; None at intervals while there is none."""
    from pgx.distributed.stuck import frames, give_up, place
    from pgx.envs.checks.process import Refused, Seen

    waited, message = 0.0, None
    while not isinstance(message, Seen | Refused | Lost):
        if not channel.poll(LOOK):
            waited, message = waited + LOOK, None
            if waited >= limit:
                where = place(frames(give_up(process, shown)))
                message = Lost(
                    f"the check did not finish within {limit:g} s" + (f", {where}" if where else "")
                )
        else:
            waited = 0.0
            try:
                message = channel.recv()
            except (EOFError, ConnectionResetError):
                message = Lost(f"the check process {ending(process)}")
        yield message


def _with_progress(messages: Iterator[Any]) -> Iterator[Any]:
    """Yield the messages, and print progress to stderr: one redrawn line on a terminal, else a line at intervals."""
    from pgx.envs.checks import CHECKS
    from pgx.envs.checks.process import Looks

    live, printed, drawn, line = sys.stderr.isatty(), time.monotonic(), False, ""
    for message in messages:
        if isinstance(message, Looks):
            line = f"{list(CHECKS).index(message.assumption) + 1}/{len(CHECKS)} {message.assumption}?"
        if live and line:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            drawn = True
        elif line and time.monotonic() - printed >= PATIENCE:
            print(line, file=sys.stderr, flush=True)
            printed = time.monotonic()
        if message is not None:
            yield message
    if drawn:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _policy(values: dict[str, Any], env: EnvConfig, seen: Seen) -> Verdict:
    """Check that the configured networks can be built for the environment."""
    import torch

    from pgx.config.run_config import spec_of
    from pgx.envs.checks import fails, holds, untold
    from pgx.networks.agents import AgentSpec, flat_image_hint

    if seen.spaces is None:
        return untold("the spaces are unknown")
    plan = AgentSpec(
        policy=spec_of("policy", values["policy"]),
        critic=spec_of("critic", values["critic"]),
        normalize_obs=env.normalize_obs,
        obs_clip=env.obs_clip or torch.inf,
        seed=values["seed"],
    )
    try:
        agent = plan.make(*seen.spaces, torch.device("cpu"))
    except UserError as error:
        return fails(str(error))
    count = sum(p.numel() for p in agent.policy.parameters())
    hint = f"; {flat}" if (flat := flat_image_hint(values, seen.spaces[0])) else ""
    return holds(
        f"{type(agent.policy).__name__} of {count:,} parameters; critic={values['critic']['name']}{hint}"
    )


def _show(verdicts: dict[str, Verdict]) -> None:
    from rich.table import Table
    from rich.text import Text

    from pgx.cli.tables import print_table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("verdict", "check", "evidence"):
        table.add_column(heading, no_wrap=heading != "evidence")
    for assumption, verdict in verdicts.items():
        evidence = " ".join(verdict.evidence.split())
        table.add_row(Text(verdict.outcome, STYLES[verdict.outcome]), Text(assumption), Text(evidence))
    print_table(table)


def _paces(pace: Pace | None, env: EnvConfig) -> str:
    if pace is None:
        return "speed not measured"
    step = f"{pace.step_ms:.3g} ms per step (slowest {pace.slowest_ms:.3g})"
    text = f"one environment: {step}, {pace.reset_ms:.3g} ms per reset"
    if pace.steps_per_second is not None:
        text += f"; {env.num_envs} environments: {pace.steps_per_second:,.0f} steps/s"
    return text


def _summary(env_id: str, verdicts: dict[str, Verdict]) -> str:
    counts = {outcome: sum(v.outcome == outcome for v in verdicts.values()) for outcome in STYLES}
    totals = [
        f"{counts['holds']} checks hold",
        f"{counts['fails']} fail",
        f"{counts['cannot be told']} cannot be told",
    ]
    end = ""
    if failed := [name for name, verdict in verdicts.items() if verdict.outcome == "fails"]:
        end = f": {'; '.join(failed)}"
    return f"{env_id}: {', '.join(totals)}{end}"
