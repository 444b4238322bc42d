"""`pgx check`: validate an environment before training on it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgx.cli.arguments import Command
from pgx.core.errors import RunError, UserError
from pgx.core.tracebacks import location, parse_frames
from pgx.distributed.worker_process import POLL_SECONDS, WorkerProcess, stop

if TYPE_CHECKING:
    from pgx.config.run_config import EnvConfig
    from pgx.envs.checks.env_under_test import CheckRequest, CheckResult
    from pgx.envs.checks.suite import ChecksFinished, Timing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as for pgx train, e.g. env=Walker2d-v4 env.num_envs=8",
    )


def run(options: argparse.Namespace) -> int:
    return check_environment(options.overrides)


COMMAND = Command(
    "check",
    "validate an environment, e.g. pgx check env=my_module:MyEnv-v0",
    "Check what training requires of an environment, and print a result with evidence for each check "
    "(docs/environments.md).",
    add_arguments,
    run,
)


# Added to env.worker_timeout, after which worker processes report the line of a hang themselves.
_EXTRA_SECONDS = 10.0
_PROGRESS_SECONDS = 5.0  # seconds between lines of progress when output is not a terminal
_OUTCOME_STYLES = {"holds": "green", "fails": "bold red", "unknown": "yellow"}


@dataclass(frozen=True)
class _ProcessFailed:
    """Message for a check process that exited or was stopped."""

    reason: str


def check_environment(overrides: list[str]) -> int:
    """Print a result for each check; return 0, or 1 if a check fails.

    Args:
        overrides: as for `pgx train`; they name and configure the environment.

    Raises:
        UserError: the overrides are invalid, or the environment cannot be created.
    """
    from pgx.config.run_config import EnvConfig
    from pgx.envs.checks.env_under_test import CheckResult, fails, unknown
    from pgx.envs.checks.suite import CHECKS, BackendUnavailable, ChecksFinished, CheckStarted
    from pgx.envs.make import nan_kwargs_warnings
    from pgx.runs.writer import print_warning

    values = _values(overrides)
    env = EnvConfig(**values["env"])
    for warning in nan_kwargs_warnings(env.kwargs):
        print_warning(warning)
    results: dict[str, CheckResult] = {}
    check, finished = next(iter(CHECKS)), ChecksFinished(None, None)
    with _check_process(_request(env), env.worker_timeout + _EXTRA_SECONDS) as messages:
        for message in _with_progress(messages):
            match message:
                case CheckStarted(check):
                    pass
                case CheckResult():
                    results[check] = message
                case BackendUnavailable(problem):
                    raise UserError(problem)
                case _ProcessFailed(reason):
                    results[check] = fails(reason)
                case ChecksFinished():
                    finished = message
    for check in CHECKS:
        results.setdefault(check, unknown("not checked; see above"))
    results[f"policy={values['policy']['name']} accepts the observations"] = _check_policy(
        values, env, finished
    )
    _show(results)
    print(_timing(finished.timing, env))
    print(_summary(env.id, results))
    return RunError.exit_code if any(r.outcome == "fails" for r in results.values()) else 0


def _values(overrides: list[str]) -> dict[str, Any]:
    """Return the config values of a run. Contradictions between them do not matter for an environment."""
    from pgx.config.compose import compose
    from pgx.config.overrides import expand_sweep, prepare
    from pgx.config.validate import plain_values, value_problems
    from pgx.envs.registry import id_problem

    if len(expand_sweep(prepare(overrides))) > 1:
        raise UserError(f"{' '.join(overrides)}: has several values; pgx check takes one environment")
    cfg = compose(overrides)
    if found := value_problems(cfg):
        raise UserError(*found)
    values = plain_values(cfg)
    if problem := id_problem(values["env"]["id"]):
        raise UserError(problem)
    return values


def _request(env: EnvConfig) -> CheckRequest:
    from pgx.core.cpu import available_cores
    from pgx.envs.checks.env_under_test import CheckRequest
    from pgx.envs.registry import pickle_env

    try:
        pickled_env = pickle_env(env.id, env.kwargs)
    except ValueError:  # a check reports it
        pickled_env = None
    threads = env.num_threads or available_cores()
    return CheckRequest(
        env.id,
        env.num_envs,
        env.kwargs,
        env.backend,
        threads,
        env.worker_timeout,
        pickled_env,
        env.normalize_obs,
    )


@contextmanager
def _check_process(request: CheckRequest, limit: float) -> Iterator[Iterator[Any]]:
    """Start a process that checks an environment, and stop it at the end.

    Args:
        request: the environment and its settings.
        limit: seconds per check, after which the environment counts as hanging.

    Yields:
        The messages of the process.
    """
    worker = WorkerProcess("pgx.envs.checks.suite:serve_checks", "the check process")
    try:
        worker.send(request)
        yield _messages(worker, limit)
    finally:
        stop([worker], WorkerProcess.abandon)


def _messages(worker: WorkerProcess, limit: float) -> Iterator[Any]:
    """Yield the messages of the check process up to the last one, and None at intervals while it sends none."""
    from pgx.envs.checks.suite import BackendUnavailable, ChecksFinished

    waited, message = 0.0, None
    while not isinstance(message, ChecksFinished | BackendUnavailable | _ProcessFailed):
        if not worker.poll(POLL_SECONDS):
            waited, message = waited + POLL_SECONDS, None
            if waited >= limit:
                where = location(parse_frames(worker.kill_hanging()))
                message = _ProcessFailed(
                    f"the check did not finish within {limit:g} s" + (f", {where}" if where else "")
                )
        else:
            waited = 0.0
            try:
                message = worker.receive()
            except RunError as error:
                message = _ProcessFailed(str(error))
        yield message


def _with_progress(messages: Iterator[Any]) -> Iterator[Any]:
    """Yield the messages except None; print progress to stderr, on a terminal as one line that is redrawn."""
    from pgx.envs.checks.suite import CHECKS, CheckStarted

    is_terminal, printed, drawn, line = sys.stderr.isatty(), time.monotonic(), False, ""
    for message in messages:
        if isinstance(message, CheckStarted):
            line = f"{list(CHECKS).index(message.check) + 1}/{len(CHECKS)} {message.check}"
        if is_terminal and line:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            drawn = True
        elif line and time.monotonic() - printed >= _PROGRESS_SECONDS:
            print(line, file=sys.stderr, flush=True)
            printed = time.monotonic()
        if message is not None:
            yield message
    if drawn:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _check_policy(values: dict[str, Any], env: EnvConfig, finished: ChecksFinished) -> CheckResult:
    """Check that the configured networks can be built for the environment."""
    import torch

    from pgx.config.run_config import make_spec
    from pgx.envs.checks.env_under_test import fails, holds, unknown
    from pgx.networks.agents import AgentSpec, flat_image_hint

    if finished.spaces is None:
        return unknown("the spaces are unknown")
    spec = AgentSpec(
        policy=make_spec("policy", values["policy"]),
        critic=make_spec("critic", values["critic"]),
        normalize_obs=env.normalize_obs,
        obs_clip=env.obs_clip or torch.inf,
        seed=values["seed"],
    )
    try:
        agent = spec.make(*finished.spaces, torch.device("cpu"))
    except UserError as error:
        return fails(str(error))
    count = sum(p.numel() for p in agent.policy.parameters())
    hint = f"; {flat}" if (flat := flat_image_hint(values, finished.spaces[0])) else ""
    return holds(
        f"{type(agent.policy).__name__} of {count:,} parameters; critic={values['critic']['name']}{hint}"
    )


def _show(results: dict[str, CheckResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    from pgx.cli.printing import print_table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("result", "check", "evidence"):
        table.add_column(heading, no_wrap=heading != "evidence")
    for check, result in results.items():
        evidence = " ".join(result.evidence.split())
        table.add_row(Text(result.outcome, _OUTCOME_STYLES[result.outcome]), Text(check), Text(evidence))
    print_table(table)


def _timing(timing: Timing | None, env: EnvConfig) -> str:
    if timing is None:
        return "speed not measured"
    step = f"{timing.step_ms:.3g} ms per step (slowest {timing.slowest_ms:.3g})"
    text = f"one environment: {step}, {timing.reset_ms:.3g} ms per reset"
    if timing.steps_per_second is not None:
        text += f"; {env.num_envs} environments: {timing.steps_per_second:,.0f} steps/s"
    return text


def _summary(env_id: str, results: dict[str, CheckResult]) -> str:
    counts = {outcome: sum(r.outcome == outcome for r in results.values()) for outcome in _OUTCOME_STYLES}
    totals = [
        f"{counts['holds']} checks hold",
        f"{counts['fails']} fail",
        f"{counts['unknown']} unknown",
    ]
    end = ""
    if failed := [name for name, result in results.items() if result.outcome == "fails"]:
        end = f": {'; '.join(failed)}"
    return f"{env_id}: {', '.join(totals)}{end}"
