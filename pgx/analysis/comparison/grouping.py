"""Which runs are taken for one thing, and what gives reason to doubt it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pgx.analysis.reading.run import Run
from pgx.core.errors import UserError
from pgx.core.schema import nearest

# What makes a run another experiment; the rest of a config is where and how it ran.
_MATTERS = ("algo.", "policy.", "critic.", "optimizer.", "critic_optimizer.", "runner.", "env.", "reward.")
_NOT = ("env.num_threads", "env.backend", "env.worker_timeout")


def with_distinct_envs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with their environments' full ids where two modules have environments of one name.

    `a:Walker-v0` and `b:Walker-v0` are different environments; `a:Walker-v0` and `Walker-v0` are one.
    """
    modules: dict[str, set[str]] = {}
    for run in runs:
        modules.setdefault(run.env, set()).update(_module(run))
    return [
        replace(run, env=f"{''.join(_module(run))}:{run.env}")
        if len(modules[run.env]) > 1 and _module(run)
        else run
        for run in runs
    ]


def _module(run: Run) -> tuple[str, ...]:
    """Return the module before the colon of an environment's id; empty without one, or where the user renamed it."""
    module, colon, name = str(run.config.get("env.id", "")).rpartition(":")
    return (module,) if colon and name == run.env else ()


def check_keys(by: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuse keys to group by that no run has.

    Raises:
        UserError: naming the nearest.
    """
    keys = {"algo", *(key for run in runs for key in run.config)}
    problems = [f"--by {key}: no run has it{nearest(key, keys)}" for key in by if key not in keys]
    problems += [
        f"--by {key}: environments stand apart, and seeds are what a group is over"
        for key in by
        if key in ("env.id", "seed")
    ]
    if problems:
        raise UserError(*problems)


def group_of(run: Run, by: Sequence[str]) -> str:
    """The name of the group that a run belongs to."""
    return ", ".join(run.algo if key == "algo" else f"{key}={run.config.get(key, '-')}" for key in by)


def doubts(env: str, name: str, runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Lines about a group whose runs differ in more than their seeds, or not in them."""
    lines = []
    own = [run for run in runs if run.source == "pgx"]
    keys = {key for run in own for key in run.config if key.startswith(_MATTERS) and key not in (*_NOT, *by)}
    values = {key: sorted({str(run.config.get(key)) for run in own}) for key in sorted(keys)}
    differing = {key: found for key, found in values.items() if len(found) > 1}
    if differing:
        told = "; ".join(f"{key}: {', '.join(found[:4])}" for key, found in list(differing.items())[:3])
        lines.append(
            f"{name} on {env}: its runs differ in more than seeds ({told}{'; ...' if len(differing) > 3 else ''}) and "
            f"are taken for the same; --by {','.join([*by, next(iter(differing))])} tells them apart"
        )
    elif again := [
        seed for seed, n in Counter(run.seed for run in own).items() if n > 1 and seed is not None
    ]:
        lines.append(f"{name} on {env}: seed {', '.join(sorted(again))} more than once: no independent runs")
    return lines
