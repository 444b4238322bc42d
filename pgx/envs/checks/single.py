"""What the trainer assumes of an environment by itself: that it answers, and of its episodes."""

import numpy as np

from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.envs.checks.subject import Answer, Subject, Untold, Verdict, fails, flat, holds, same_bits, untold

ENOUGH = 8  # episodes from which a rule of how they end may be read


def made(subject: Subject) -> Verdict:
    if isinstance(subject.made, str):
        return fails(subject.made)
    env = subject.made
    limit = None if env.spec is None else env.spec.max_episode_steps
    return holds(
        f"{type(env.unwrapped).__name__}, " + (f"time limit {limit} steps" if limit else "no time limit")
    )


def spaces_taken(subject: Subject) -> Verdict:
    if isinstance(subject.taken, str):
        return fails(subject.taken)
    head = {Discrete: "categorical", MultiDiscrete: "a categorical each", Continuous: "Gaussian"}
    specs = subject.taken
    shown, taken = describe(specs.obs), describe(specs.action)
    return holds(f"observations: {shown}; actions: {taken} (head: {head[type(specs.action)]})")


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


def interface(subject: Subject) -> Verdict:
    recording = subject.recording
    if recording.trouble:
        return fails(recording.trouble)
    return holds(f"{len(recording.step_seconds):,} steps and {len(recording.reset_seconds):,} resets")


def ends(subject: Subject) -> Verdict:
    recording, env = subject.played, subject.env
    limit = None if env.spec is None else env.spec.max_episode_steps
    starts = [i for i, answer in enumerate(recording.answers) if answer.first]
    lengths = [end - start for start, end in zip(starts, recording.ends, strict=False)]
    if lengths:
        return holds(f"{len(lengths)} of {min(lengths)} to {max(lengths)} steps, with random actions")
    looked = f"none ended within {len(recording.step_seconds):,} steps"
    if limit is None:
        return untold(f"{looked}; there is no time limit (max_episode_steps where it is registered sets one)")
    return untold(f"{looked}; the time limit is {limit:,}")


def last_observation(subject: Subject) -> Verdict:
    """That of an end is the successor, and not what the next episode begins with."""
    answers = subject.played.answers
    ended = subject.played.ends
    if not ended:
        raise Untold("no episode ended")
    for i in ended:
        for key in ("final_observation", "final_obs", "terminal_observation"):
            if key in answers[i].info and not same_bits(answers[i].info[key], answers[i].kept):
                return fails(
                    f'answer {i} ends an episode and has another observation in info["{key}"]: it resets itself'
                )
    pairs = [(answers[i], answers[i + 1]) for i in ended if i + 1 < len(answers)]
    inner = [a for a in answers if not a.first and not a.ended][:200]
    if pairs and all(same_bits(last.kept, following.kept) for last, following in pairs):
        if all(same_bits(a.kept, pairs[0][1].kept) for a in inner):
            raise Untold("all observations are the same")
        return fails(f"at {len(pairs)} of {len(pairs)} ends it is the one that the next episode begins with")
    if len(pairs) >= ENOUGH and _among_the_first(answers, ended, inner):
        return fails(
            f"at {len(ended)} of {len(ended)} ends it lies among those that episodes begin with, within episodes rarely"
        )
    return holds(f"{len(ended)} ends, not the observations that the next episodes begin with")


def _among_the_first(answers: list[Answer], ended: list[int], inner: list[Answer]) -> bool:
    """Whether episodes end in the range of their beginnings and leave it in between."""
    firsts = np.stack([flat(a.kept) for a in answers if a.first])
    low, high = firsts.min(axis=0), firsts.max(axis=0)

    def share(some: list[Answer]) -> float:
        seen = np.stack([flat(a.kept) for a in some])
        return float(((seen >= low) & (seen <= high)).all(axis=1).mean())

    # The last episode's end has been seen, its successor has not: a range of one episode more would be fairer.
    return bool(inner) and share([answers[i] for i in ended]) > 0.9 and share(inner) < 0.5


def unshared(subject: Subject) -> Verdict:
    """Observations that were given out stay what they were."""
    for number, answer in enumerate(subject.played.answers):
        if not same_bits(answer.seen, answer.kept):
            return fails(f"answer {number} was written over by a later one; return a copy of it")
    return holds(f"{len(subject.played.answers):,} observations")


def drawing(subject: Subject) -> Verdict:
    mode = subject.env.render_mode
    if mode == "human":
        return fails("render_mode=human draws every step; leave env.kwargs.render_mode out")
    return holds("made and stepped without a render_mode" if mode is None else f"render_mode={mode}")
