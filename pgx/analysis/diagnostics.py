"""Table of the problems that `pgx doctor` knows, causes before consequences.

`python -m pgx.analysis.diagnostics` prints the table of docs/doctor.md.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

from pgx.analysis import detectors
from pgx.analysis.curves import DiagnosedRun
from pgx.analysis.detectors import Detector, stays_above, stays_below
from pgx.runs.metrics import tag


@dataclass(frozen=True)
class RunFilter:
    """Runs in which a problem can occur."""

    description: str
    matches: Callable[[DiagnosedRun], bool]


@dataclass(frozen=True)
class Problem:
    """Row of the table.

    Args:
        name: of the problem.
        metrics: keys in pgx.runs.metrics that the detector reads.
        criterion: text; {} stands for the bound.
        bound: argument of the detector.
        source: of the bound.
        remedies: "ACTION KEY" or "ACTION KEY=VALUE", the most promising first. ACTION is raise, lower, set, use or
            check.
        applies_to: runs in which the problem can occur.
        detector: returns the evidence, or None.
        consequences: names of problems that this one explains.
        min_rows: rows of metrics that the detector needs.
    """

    name: str
    metrics: tuple[str, ...]
    criterion: str
    bound: float
    source: str
    remedies: tuple[str, ...]
    applies_to: RunFilter
    detector: Detector
    consequences: tuple[str, ...] = ()
    min_rows: int = 5


def _has(*keys: str) -> Callable[[DiagnosedRun], bool]:
    return lambda run: any(run.value(key) is not None for key in keys)


def _rule(run: DiagnosedRun, *names: str) -> bool:
    return run.value("algo.name") in names


ALL = RunFilter("all", lambda run: True)
GRADIENT = RunFilter("rules with an `optimizer`", _has("optimizer.name"))
SINGLE = RunFilter(
    "a2c, actor_critic, reinforce, vtrace with `optimizer.max_grad_norm`",
    lambda run: _rule(run, "a2c", "actor_critic", "reinforce", "vtrace"),
)
CLIPPED = RunFilter("ppo, ppg", _has("algo.clip_range"))
PASSES = RunFilter("ppo, ppg, ppo_kl, mdpo", lambda run: _rule(run, "ppo", "ppg", "ppo_kl", "mdpo"))
TRUST = RunFilter("trpo, npg", _has("algo.max_kl"))
BOUNDED = RunFilter("npg, ppo_kl", lambda run: _rule(run, "npg", "ppo_kl"))
SEARCH = RunFilter("trpo", _has("algo.line_search_steps"))
CONJUGATE = RunFilter(
    "trpo, npg with `algo.solver=cg`",
    lambda run: TRUST.matches(run) and run.value("algo.solver") in (None, "cg"),
)
CRITIC = RunFilter("rules with a `critic_optimizer`", _has("critic_optimizer.name"))
BONUS = RunFilter("rules with `algo.entropy_coefficient`", _has("algo.entropy_coefficient"))
ONLINE = RunFilter("all but off_policy_reinforce", lambda run: not _rule(run, "off_policy_reinforce"))
EPISODES = RunFilter("`runner=episodes`", lambda run: run.value("runner.name") == "episodes")
STEPWISE = RunFilter(
    "`runner=sync`, `runner=actor_learner`", lambda run: run.value("runner.name") in ("sync", "actor_learner")
)
UNCORRECTED = RunFilter(
    "all but vtrace, off_policy_reinforce and `runner=a3c`",
    lambda run: not _rule(run, "vtrace", "off_policy_reinforce") and run.value("runner.name") != "a3c",
)
CORRECTED = RunFilter("vtrace", lambda run: _rule(run, "vtrace"))
CONTINUOUS = RunFilter("continuous actions", _has("policy.log_std_init"))
GAUSSIAN = RunFilter(
    "continuous actions with `policy.continuous=gaussian`",
    lambda run: CONTINUOUS.matches(run) and run.value("policy.continuous") in (None, "gaussian"),
)


_STEP_PROBLEMS = (
    "KL over its bound", "ESS collapse", "clip fraction high", "gain below prediction", "return lost",
)  # fmt: skip
_DOWNSTREAM = (
    *_STEP_PROBLEMS, "numbers not finite", "actions outside the bounds",
    "standard deviation explodes", "exploration lost", "critic diverging", "critic explains nothing",
    "gradient always clipped", "line search rejects", "policy does not move",
)  # fmt: skip

_CG_PROBLEM = "conjugate gradient does not converge"

PROBLEMS: tuple[Problem, ...] = (
    Problem(
        "advantages are all zero", ("advantage_std",),
        "each minibatch is one row and its advantage is normalized, or the standard deviation of the advantages is "
        "{} in half of the updates whose returns differ", 0.0,
        "(A - mean) / std of a single row is 0 / 0 and counts as 0, so the update has no gradient",
        ("raise algo.minibatch_size", "raise env.num_envs", "raise runner.rollout_steps",
         "set algo.normalize_advantage"),
        ONLINE, detectors.zero_advantages,
        (*_DOWNSTREAM, "no signal", "too few steps in an update", "learning rate too high", "steps too short",
         "damping too large", "entropy bonus too large"),
        min_rows=1,
    ),
    Problem(
        "no reward", ("episode_return_min", "episode_return_max"),
        "every episode of the run returns {}", 0.0,
        "pgx: without rewards there is nothing to learn",
        ("check env.id: pgx check shows its rewards", "raise trainer.total_steps", "raise algo.entropy_coefficient",
         "raise policy.log_std_init"),
        ONLINE, detectors.no_reward,
        (*_DOWNSTREAM, "no signal", "learning rate too high", "steps too short", "damping too large",
         "entropy bonus too large"),
    ),
    Problem(
        "no signal", ("episode_return_min", "episode_return_max"),
        "the returns of all episodes differ by at most {}", 0.0,
        "pgx: if all returns are equal, advantages are noise",
        ("check env.id: pgx check shows its rewards", "raise policy.log_std_init", "raise algo.entropy_coefficient"),
        ONLINE, detectors.identical_returns,
        (*_DOWNSTREAM, "steps too short", "learning rate too high", "entropy bonus too large"),
    ),
    Problem(
        "reward scale", ("episode_return", "episode_length"),
        "with `env.scale_reward=false`: discounted returns above {} (reward per step times min(episode length, "
        "1 / (1 - discount)))", 1000.0,
        "pgx: Adam at 3e-4 changes the output of a layer of 64 units by about 0.02 per step; effect of the scale: "
        "Henderson et al., 2018, section 4.4; van Hasselt et al., 2016",
        ("set env.scale_reward=true",),
        ONLINE, detectors.large_unscaled_returns, (*_DOWNSTREAM, "learning rate too high", "steps too short"),
    ),
    Problem(
        "rewards are clipped", ("clipped_reward_fraction",),
        "more than {} of the scaled rewards exceed `env.reward_clip`", 0.1,
        "pgx: clipped rewards carry no information",
        ("raise env.reward_clip", "set env.scale_reward=true"),
        ONLINE, stays_above("clipped_reward_fraction"), ("critic explains nothing",),
    ),
    Problem(
        "too few episodes in an update", ("episodes", "iteration"), "fewer than {} episodes", 4.0,
        "pgx: with n episodes, a leave-one-out baseline averages n - 1",
        ("raise env.num_envs", "raise runner.episodes_per_env"),
        EPISODES, detectors.few_episodes, (*_DOWNSTREAM, "learning rate too high"),
    ),
    Problem(
        "too few steps in an update", ("iteration",), "fewer than {} environment steps", 32.0,
        "the smallest rollouts and minibatches of RL Baselines3 Zoo; gradient noise: McCandlish et al., 2018",
        ("raise env.num_envs", "raise runner.rollout_steps"),
        STEPWISE, detectors.few_rows, (*_DOWNSTREAM, "learning rate too high", "steps too short"),
    ),
    Problem(
        "policy lag without correction", ("ess",),
        "the behaviour policy is more than {} updates old, and the rule has no importance weights", 2.0,
        "pgx, measured: a lag of 1 has no effect, a lag of 4 halves the return (docs/algorithms/impala.md)",
        ("lower runner.lag", "lower runner.queue", "use algo=vtrace"),
        UNCORRECTED, detectors.uncorrected_lag, (*_DOWNSTREAM, "learning rate too high", "steps too short"),
    ),
    Problem(
        "policy lag truncates the weights", ("rho_clipped",),
        "`algo.rho_clip` truncates more than {} of the weights", 0.2,
        "pgx (docs/algorithms/vtrace.md); the policy that is then evaluated: Espeholt et al., 2018, section 4.1",
        ("lower runner.lag", "lower runner.queue", "lower optimizer.learning_rate", "raise algo.rho_clip"),
        CORRECTED, stays_above("rho_clipped"), _STEP_PROBLEMS,
    ),
    Problem(
        "entropy bonus too large", ("entropy",),
        "with `algo.entropy_coefficient` above 0.1: entropy in the second half is at least {} of its initial value",
        0.98, "RL Baselines3 Zoo searches coefficients up to 0.1; Mnih et al., 2016: 0.01",
        ("lower algo.entropy_coefficient",),
        BONUS, detectors.with_setting("algo.entropy_coefficient", operator.gt, detectors.entropy_held_up, 0.1),
        (*_DOWNSTREAM, "learning rate too high", "steps too short"),
    ),
    Problem(
        "initial policy too narrow", ("entropy",),
        "`policy.log_std_init` below {}: the initial standard deviation is below 0.02", -4.0,
        "RL Baselines3 Zoo searches from -4; pgx and Stable-Baselines3 use 0",
        ("raise policy.log_std_init",),
        CONTINUOUS, detectors.narrow_start,
        (*_DOWNSTREAM, "learning rate too high", "trust region too wide", "steps too short", "damping too small",
         _CG_PROBLEM),
    ),
    Problem(
        "clip range too wide", ("kl",), "`algo.clip_range` above {}, and KL above 0.05", 0.4,
        "RL Baselines3 Zoo searches up to 0.4, Schulman et al., 2017, table 1, to 0.3; the KL: docs/algorithms/ppo.md",
        ("lower algo.clip_range", "set algo.target_kl"),
        CLIPPED, detectors.with_setting("algo.clip_range", operator.gt, stays_above("kl"), 0.05),
        (*_DOWNSTREAM, "learning rate too high"),
    ),
    Problem(
        "damping too small", ("cg_residual", "kl"),
        "`algo.damping` below {}, and the line search shortens steps, or the CG residual is "
        "above half of the gradient, or KL of any update is above ten times `algo.max_kl`", 1e-3,
        "a tenth of the smallest value in RL Baselines3 Zoo; modular_rl and pgx use 0.1 or more",
        ("raise algo.damping",),
        CONJUGATE, detectors.with_setting("algo.damping", operator.lt, detectors.full_step_fails, 0.0),
        (*_DOWNSTREAM, "trust region too wide", _CG_PROBLEM),
    ),
    Problem(
        "trust region too wide", ("kl",), "KL of an update above {} nats", 0.3,
        "three times the largest value in RL Baselines3 Zoo and pgx, 0.1; Schulman et al., 2015: 0.01",
        ("lower algo.max_kl", "raise algo.damping"),
        TRUST, stays_above("kl"), (*_DOWNSTREAM, "damping too large", _CG_PROBLEM),
    ),
    Problem(
        "conjugate gradient does not converge", ("cg_residual",), "`algo/cg_residual` above {}", 0.7,
        "pgx; inexact Newton methods require at most 0.5: Nocedal and Wright, 2006, section 7.1",
        ("raise algo.cg_steps", "raise algo.damping"),
        CONJUGATE, stays_above("cg_residual"), ("line search rejects", "damping too large", *_STEP_PROBLEMS),
    ),
    Problem(
        "learning rate too high", ("kl",),
        "KL above {} nats in half of the run, or above twice that in a quarter of the updates, or above twenty times "
        "that in the first update", 0.05,
        "docs/algorithms/ppo.md; Spinning Up calls targets of 0.01 to 0.05 usual",
        ("lower optimizer.learning_rate", "lower algo.epochs", "lower algo.steps", "set algo.target_kl",
         "set optimizer.max_grad_norm"),
        GRADIENT, detectors.updates_too_large, _DOWNSTREAM,
    ),
    Problem(
        "actions outside the bounds", ("clipped_action_fraction", "entropy"),
        "more than {} of the actions are outside the bounds and clipped, and entropy is not below its initial value",
        0.5, "pgx: all actions beyond a bound have the same effect, so no gradient limits the standard deviation",
        ("set policy.continuous=squashed_gaussian", "lower algo.entropy_coefficient", "lower policy.log_std_init"),
        GAUSSIAN, detectors.actions_outside_bounds, ("standard deviation explodes", "return lost"),
    ),
    Problem(
        "standard deviation explodes", ("entropy",),
        "entropy {} nats per action dimension above its initial value: ten times the standard deviation", 2.3,
        "pgx; entropy falls in healthy runs",
        ("lower optimizer.learning_rate", "lower algo.entropy_coefficient", "set policy.continuous=squashed_gaussian",
         "set algo.target_kl"),
        CONTINUOUS, detectors.deviation_explodes, (*_STEP_PROBLEMS, "numbers not finite", "critic explains nothing"),
    ),
    Problem(
        "exploration lost", ("entropy", "episode_return_recent"),
        "entropy below {} of its initial value, and the return not near its best", 0.02,
        "pgx; Schulman, 2016 (talk)",
        ("raise algo.entropy_coefficient", "lower optimizer.learning_rate", "lower policy.output_gain",
         "raise policy.log_std_init", "lower algo.max_kl"),
        ONLINE, detectors.exploration_lost,
        ("steps too short", "damping too large", "policy does not move", "return lost"),
    ),
    Problem(
        "damping too large", ("kl",), "KL below {} of `algo.max_kl`", 0.1,
        "docs/algorithms/trpo.md: damping uses up most of the bound",
        ("lower algo.damping", "raise algo.max_kl"),
        TRUST, detectors.overdamped, ("policy does not move",),
    ),
    Problem(
        "steps too short", ("kl", "learning_rate"),
        "KL below {} nats before the learning rate is annealed to a tenth", 1e-5,
        "pgx: a thousandth of the smallest target that Spinning Up calls usual",
        ("raise optimizer.learning_rate", "raise algo.epochs", "raise algo.steps", "raise optimizer.max_grad_norm"),
        PASSES, detectors.updates_too_small, ("policy does not move",),
    ),
    Problem(
        "environment not finite", ("updates_skipped",),
        "more than {} observations or rewards are NaN or infinite: the first ends the run", 0.0,
        "docs/reliability.md", ("check env.id: pgx check shows its observations and rewards",),
        ALL, detectors.environment_not_finite, min_rows=0,
    ),
    Problem(
        "numbers not finite", ("updates_skipped",),
        "more than {} updates made parameters NaN or infinite, or such an update ended the run", 0.0,
        "docs/reliability.md", ("lower optimizer.learning_rate", "lower critic_optimizer.learning_rate"),
        ALL, detectors.nonfinite_updates, ("return lost",), min_rows=0,
    ),
    Problem(
        "critic diverging", ("explained_variance_after", "critic_loss"),
        "the critic's error is above {} in units of the return, and its explained variance is negative", 3.0,
        "pgx; explained variance below 0 is worse than a constant: OpenAI Baselines",
        ("lower critic_optimizer.learning_rate", "set critic_optimizer.max_grad_norm", "set env.scale_reward=true"),
        CRITIC, detectors.critic_diverges,
        ("critic explains nothing", "gradient always clipped", *_STEP_PROBLEMS),
    ),
    Problem(
        "critic explains nothing", ("explained_variance", "critic_loss"),
        "explained variance at most {} in a third of the run, after its first tenth, with errors above 0.1 in units of "
        "the return", 0.0,
        "OpenAI Baselines: 0 is no better than a constant; Schulman, 2016 (talk)",
        ("raise critic_optimizer.learning_rate", "raise algo.critic_epochs", "raise algo.critic_steps",
         "lower algo.gae_lambda", "set env.scale_reward=true"),
        CRITIC, detectors.critic_explains_nothing, ("gain below prediction", "gradient always clipped"),
    ),
    Problem(
        "KL over its bound", ("kl",), "KL above {} times `algo.max_kl` or `algo.kl_target`", 3.0,
        "pgx; Schulman et al., 2017, section 4, doubles the penalty from 1.5 on",
        ("raise algo.damping", "lower algo.max_kl", "lower optimizer.learning_rate", "lower algo.epochs"),
        BOUNDED, detectors.kl_above_bound, _STEP_PROBLEMS[1:],
    ),
    Problem(
        "line search rejects", ("line_search_fraction",),
        "the line search finds no step in more than {} of the updates", 0.25,
        "pgx",
        ("raise algo.damping", "lower algo.max_kl", "raise algo.line_search_steps", "raise runner.rollout_steps"),
        SEARCH, detectors.line_search_rejects, ("gain below prediction", "policy does not move"),
    ),
    Problem(
        "policy does not move", ("kl", "episode_return_recent"),
        "KL below {} nats in half of the updates before the learning rate is annealed to a tenth, and the mean return "
        "of the last third of the run exceeds that of the first by less than 1.5 standard deviations", 1e-5,
        "pgx: a thousandth of the smallest target that Spinning Up calls usual",
        ("raise optimizer.learning_rate", "set algo.normalize_advantage=true", "raise runner.episodes_per_env",
         "raise optimizer.max_grad_norm", "raise algo.max_kl"),
        ONLINE, detectors.policy_static, ("return lost",),
    ),
    Problem(
        "gain below prediction", ("surrogate_gain", "predicted_gain"),
        "the surrogate's gain is below {} of the predicted gain in half of the run", 0.25,
        "Nocedal and Wright, 2006, algorithm 4.1: a trust region shrinks below 1/4",
        ("lower algo.max_kl", "raise algo.damping"),
        TRUST, detectors.gain_below_prediction, ("return lost",),
    ),
    Problem(
        "ESS collapse", ("ess",), "effective sample size below {} of the batch", 0.5,
        "sequential Monte Carlo resamples at half: Liu and Chen, 1995",
        ("lower optimizer.learning_rate", "lower algo.epochs", "lower algo.max_kl", "lower runner.lag"),
        ONLINE, stays_below("ess"), ("return lost",),
    ),
    Problem(
        "clip fraction high", ("clip_fraction",), "clip fraction above {} in half of the run", 0.35,
        "docs/algorithms/ppo.md says 0.3, which pgx's ppg exceeds for a while on Walker2d",
        ("lower optimizer.learning_rate", "lower algo.epochs", "lower algo.policy_epochs", "set algo.target_kl"),
        CLIPPED, stays_above("clip_fraction", 0.5), ("return lost",),
    ),
    Problem(
        "gradient always clipped", ("gradient_norm",),
        "gradient norm above {} times `optimizer.max_grad_norm` in nine tenths of the run", 10.0,
        "pgx; the bound is above 1 because Adam and RMSprop are nearly invariant to a constant factor",
        ("set env.scale_reward=true", "set algo.normalize_advantage=true", "raise optimizer.max_grad_norm"),
        SINGLE, detectors.gradient_clipped, (),
    ),
    Problem(
        "horizon too short", ("episode_return_recent", "episode_length"),
        "more than {} of the best return is lost, while rewards per step rose and episodes became shorter; at the best "
        "return they were longer than 2 / (1 - discount)", 0.3,
        "pgx: docs/algorithms/vtrace.md shows five runs whose return falls while the discounted return rises",
        ("raise algo.discount",),
        ONLINE, detectors.short_horizon, ("return lost",),
    ),
    Problem(
        "return lost", ("episode_return_recent",),
        "more than {} of the gain in return is lost at the end; the gain must be at least half of the return", 0.75,
        "pgx; drawdown: Chan et al., 2020",
        ("use checkpoints/best.pt", "lower optimizer.learning_rate", "set optimizer.schedule=linear",
         "lower algo.max_kl"),
        ONLINE, detectors.return_lost, (),
    ),
)  # fmt: skip


def problem_table() -> str:
    """Return the table of docs/doctor.md in Markdown."""
    lines = [
        "| problem | metrics | criterion | source of the bound | try | applies to |",
        "|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        tags = ", ".join(f"`{tag(key)}`" for key in problem.metrics)
        criterion = problem.criterion.replace("{}", f"{problem.bound:g}")
        cells = [problem.name, tags, criterion, problem.source, "; ".join(problem.remedies)]
        lines.append(f"| {' | '.join(cells)} | {problem.applies_to.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(problem_table(), end="")
