"""A row of the doctor's table, and the kinds of runs that rows apply to."""

from collections.abc import Callable
from dataclasses import dataclass

from pgx.analysis.recorded import Recorded
from pgx.analysis.signs import Look


@dataclass(frozen=True)
class Kind:
    """The runs that a sickness can befall."""

    words: str
    holds: Callable[[Recorded], bool]


@dataclass(frozen=True)
class Sickness:
    """Something that goes wrong in a run."""

    name: str
    metrics: tuple[str, ...]  # keys of pgx.runs.metrics that it is seen by
    sign: str  # what is seen; {} is the bound
    bound: float
    source: str  # of the bound
    turn: tuple[str, ...]  # "lower key": knobs, those first that are likelier to help
    of: Kind
    look: Look
    explains: tuple[str, ...] = ()  # what is no sickness of its own where this one is
    fewest: int = 5  # rows of metrics that it takes; fewer than 5 have no medians to speak of


def _has(*keys: str) -> Callable[[Recorded], bool]:
    return lambda run: any(run.value(key) is not None for key in keys)


def _rule(run: Recorded, *names: str) -> bool:
    return run.value("algo.name") in names


ALL = Kind("all", lambda run: True)
GRADIENT = Kind("rules with an `optimizer`", _has("optimizer.name"))
SINGLE = Kind(
    "a2c, actor_critic, reinforce, vtrace with `optimizer.max_grad_norm`",
    lambda run: _rule(run, "a2c", "actor_critic", "reinforce", "vtrace"),
)
CLIPPED = Kind("ppo, ppg", _has("algo.clip_range"))
PASSES = Kind("ppo, ppg, ppo_kl, mdpo", lambda run: _rule(run, "ppo", "ppg", "ppo_kl", "mdpo"))
TRUST = Kind("trpo, npg", _has("algo.max_kl"))
BOUNDED = Kind("npg, ppo_kl", lambda run: _rule(run, "npg", "ppo_kl"))
SEARCH = Kind("trpo", _has("algo.line_search_steps"))
CONJUGATE = Kind(
    "trpo, npg with `algo.solver=cg`",
    lambda run: TRUST.holds(run) and run.value("algo.solver") in (None, "cg"),
)
CRITIC = Kind("rules with a `critic_optimizer`", _has("critic_optimizer.name"))
BONUS = Kind("rules with `algo.entropy_coefficient`", _has("algo.entropy_coefficient"))
ONLINE = Kind("all but off_policy_reinforce", lambda run: not _rule(run, "off_policy_reinforce"))
EPISODES = Kind("`runner=episodes`", lambda run: run.value("runner.name") == "episodes")
STRETCHES = Kind(
    "`runner=sync`, `runner=actor_learner`", lambda run: run.value("runner.name") in ("sync", "actor_learner")
)
UNCORRECTED = Kind(
    "all but vtrace, off_policy_reinforce and `runner=a3c`",
    lambda run: not _rule(run, "vtrace", "off_policy_reinforce") and run.value("runner.name") != "a3c",
)
CORRECTED = Kind("vtrace", lambda run: _rule(run, "vtrace"))
CONTINUOUS = Kind("continuous actions", _has("policy.log_std_init"))
GAUSSIAN = Kind(
    "continuous actions with `policy.continuous=gaussian`",
    lambda run: CONTINUOUS.holds(run) and run.value("policy.continuous") in (None, "gaussian"),
)
