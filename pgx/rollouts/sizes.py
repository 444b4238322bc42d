"""How many actors, and how many of their trajectories: what `auto` means, and what does not go together."""

from dataclasses import dataclass
from typing import Literal

Auto = Literal["auto"]

_MAX_LISTED = 10_000  # workers in what an error says would fit


@dataclass(frozen=True)
class ActorSizes:
    """Of a run with actors of its own."""

    num_envs: int  # of the run, over all actors
    workers: int  # W, actors
    trajectories: int  # of an update
    queue: int  # trajectories begun and not yet learned from, at most

    @property
    def envs_per_actor(self) -> int:
        """n, environments of an actor."""
        return self.num_envs // self.workers


def resolve_sizes(
    num_envs: int, workers: int | Auto, trajectories: int | Auto, queue: int | Auto, cores: int
) -> ActorSizes:
    """The sizes that are meant.

    Args:
        num_envs: of the run.
        workers: auto: the largest divisor of num_envs that is at most `cores`.
        trajectories: auto: as many as workers, so that an update sees every environment.
        queue: auto: twice as many as trajectories, and at least one for each worker.
        cores: that this process may use.
    """
    count = resolve_workers(num_envs, workers, cores)
    taken = count if trajectories == "auto" else trajectories
    return ActorSizes(num_envs, count, taken, max(2 * taken, count) if queue == "auto" else queue)


def resolve_workers(num_envs: int, workers: int | Auto, cores: int) -> int:
    """How many workers are meant; auto: the largest divisor of num_envs that is at most `cores`."""
    if workers != "auto":
        return workers
    return max(w for w in range(1, max(1, cores) + 1) if num_envs % w == 0)


def worker_problems(num_envs: int, workers: int) -> list[str]:
    """Why so many workers cannot share the environments out, in words; empty when they can."""
    n, w = num_envs, workers
    if w > n:
        return [
            f"runner.workers={w}: more than env.num_envs={n}, and each has at least one environment; at most {n}"
        ]
    if n % w:
        fitting = ", ".join(str(d) for d in range(1, min(n, _MAX_LISTED) + 1) if n % d == 0)
        return [
            f"runner.workers={w}: env.num_envs={n} / {w} = {n / w:.2f} environments each; expected one of {fitting}"
        ]
    return []


def size_problems(wanted: ActorSizes) -> list[str]:
    """What does not go together, in words; empty when all is well."""
    w, m, q = wanted.workers, wanted.trajectories, wanted.queue
    found = worker_problems(wanted.num_envs, w)
    if q < m:
        found.append(
            f"runner.queue={q}: an update takes runner.trajectories={m}, of which only {q} would ever be begun; "
            f"at least {m}"
        )
    elif q < w:
        found.append(
            f"runner.queue={q}: of runner.workers={w} actors {w - q} would have nothing to do at any time; at least {w}"
        )
    return found
