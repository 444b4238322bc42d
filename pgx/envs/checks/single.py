"""What the trainer assumes of an environment by itself: that it answers, and of its episodes."""

import numpy as np

from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.envs.checks.subject import (
    CheckResult,
    EnvUnderTest,
    Inconclusive,
    Result,
    fails,
    flat,
    holds,
    same_bits,
    unknown,
)

ENOUGH = 8  # episodes from which a rule of how they end may be read


def made(subject: EnvUnderTest) -> CheckResult:
    if isinstance(subject.env_or_problem, str):
        return fails(subject.env_or_problem)
    env = subject.env_or_problem
    limit = None if env.spec is None else env.spec.max_episode_steps
    return holds(
        f"{type(env.unwrapped).__name__}, " + (f"time limit {limit} steps" if limit else "no time limit")
    )


def spaces_taken(subject: EnvUnderTest) -> CheckResult:
    if isinstance(subject.specs_or_problem, str):
        return fails(subject.specs_or_problem)
    head = {Discrete: "categorical", MultiDiscrete: "a categorical each", Continuous: "Gaussian"}
    specs = subject.specs_or_problem
    shown, specs_or_problem = describe(specs.obs), describe(specs.action)
    return holds(f"observations: {shown}; actions: {specs_or_problem} (head: {head[type(specs.action)]})")


def describe(spec: ObsSpec | ActionSpec) -> str:
    """A spec in words."""
    match spec:
        case Discrete(n):
            return f"one of {n}"
        case MultiDiscrete(sizes):
            return f"one of {' and one of '.join(map(str, sizes))}"
        case Image(shape):
            return f"images {' x '.join(map(str, shape))}"
        case Continuous(shape):
            return f"{' x '.join(map(str, shape)) or 'one'} real number{'' if shape in ((), (1,)) else 's'}"


def interface(subject: EnvUnderTest) -> CheckResult:
    trace = subject.trace
    if trace.error:
        return fails(trace.error)
    return holds(f"{len(trace.step_seconds):,} steps and {len(trace.reset_seconds):,} resets")


def ends(subject: EnvUnderTest) -> CheckResult:
    trace, env = subject.played, subject.env
    limit = None if env.spec is None else env.spec.max_episode_steps
    starts = [i for i, result in enumerate(trace.results) if result.first]
    lengths = [end - start for start, end in zip(starts, trace.ends, strict=False)]
    if lengths:
        return holds(f"{len(lengths)} of {min(lengths)} to {max(lengths)} steps, with random actions")
    looked = f"none ended within {len(trace.step_seconds):,} steps"
    if limit is None:
        return unknown(
            f"{looked}; there is no time limit (max_episode_steps where it is registered sets one)"
        )
    return unknown(f"{looked}; the time limit is {limit:,}")


def last_observation(subject: EnvUnderTest) -> CheckResult:
    """That of an end is the successor, and not what the next episode begins with."""
    results = subject.played.results
    ended = subject.played.ends
    if not ended:
        raise Inconclusive("no episode ended")
    for i in ended:
        for key in ("final_observation", "final_obs", "terminal_observation"):
            if key in results[i].info and not same_bits(results[i].info[key], results[i].kept):
                return fails(
                    f'answer {i} ends an episode and has another observation in info["{key}"]: it resets itself'
                )
    pairs = [(results[i], results[i + 1]) for i in ended if i + 1 < len(results)]
    inner = [a for a in results if not a.first and not a.ended][:200]
    if pairs and all(same_bits(last.kept, following.kept) for last, following in pairs):
        if all(same_bits(a.kept, pairs[0][1].kept) for a in inner):
            raise Inconclusive("all observations are the same")
        return fails(f"at {len(pairs)} of {len(pairs)} ends it is the one that the next episode begins with")
    if len(pairs) >= ENOUGH and _among_the_first(results, ended, inner):
        return fails(
            f"at {len(ended)} of {len(ended)} ends it lies among those that episodes begin with, within episodes rarely"
        )
    return holds(f"{len(ended)} ends, not the observations that the next episodes begin with")


def _among_the_first(results: list[Result], ended: list[int], inner: list[Result]) -> bool:
    """Whether episodes end in the range of their beginnings and leave it in between."""
    firsts = np.stack([flat(a.kept) for a in results if a.first])
    low, high = firsts.min(axis=0), firsts.max(axis=0)

    def share(some: list[Result]) -> float:
        seen = np.stack([flat(a.kept) for a in some])
        return float(((seen >= low) & (seen <= high)).all(axis=1).mean())

    # The last episode's end has been seen, its successor has not: a range of one episode more would be fairer.
    return bool(inner) and share([results[i] for i in ended]) > 0.9 and share(inner) < 0.5


def unshared(subject: EnvUnderTest) -> CheckResult:
    """Observations that were given out stay what they were."""
    for number, result in enumerate(subject.played.results):
        if not same_bits(result.seen, result.kept):
            return fails(f"answer {number} was written over by a later one; return a copy of it")
    return holds(f"{len(subject.played.results):,} observations")


def drawing(subject: EnvUnderTest) -> CheckResult:
    mode = subject.env.render_mode
    if mode == "human":
        return fails("render_mode=human draws every step; leave env.kwargs.render_mode out")
    return holds("made and stepped without a render_mode" if mode is None else f"render_mode={mode}")
