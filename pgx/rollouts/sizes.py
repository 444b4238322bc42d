"""Numbers of actors and trajectories: the values that `auto` stands for, and conflicts between them."""

from dataclasses import dataclass
from typing import Literal

Auto = Literal["auto"]

_MAX_LISTED = 10_000  # largest number of workers that an error message suggests


@dataclass(frozen=True)
class ActorSizes:
    """Sizes of a run with actors."""

    num_envs: int  # over all actors
    workers: int  # W, actors
    trajectories: int  # of an update
    queue: int  # maximum number of trajectories that are requested and not yet learned from

    @property
    def envs_per_actor(self) -> int:
        """Return n, the environments of an actor."""
        return self.num_envs // self.workers


def resolve_sizes(
    num_envs: int, workers: int | Auto, trajectories: int | Auto, queue: int | Auto, cores: int
) -> ActorSizes:
    """Replace `auto` by numbers.

    Args:
        num_envs: environments of the run.
        workers: auto: the largest divisor of num_envs that is at most `cores`.
        trajectories: auto: the number of workers, so that an update contains rows of every environment.
        queue: auto: twice the number of trajectories, and at least the number of workers.
        cores: cores that this process may use.
    """
    count = resolve_workers(num_envs, workers, cores)
    per_update = count if trajectories == "auto" else trajectories
    return ActorSizes(num_envs, count, per_update, max(2 * per_update, count) if queue == "auto" else queue)


def resolve_workers(num_envs: int, workers: int | Auto, cores: int) -> int:
    """Return the number of workers; for auto, the largest divisor of num_envs that is at most `cores`."""
    if workers != "auto":
        return workers
    return max(w for w in range(1, max(1, cores) + 1) if num_envs % w == 0)


def worker_problems(num_envs: int, workers: int) -> list[str]:
    """Return messages that say why the environments cannot be divided among so many workers."""
    n, w = num_envs, workers
    if w > n:
        return [
            f"runner.workers={w}: more than env.num_envs={n}, and each worker has at least one environment; "
            f"set at most {n}"
        ]
    if n % w:
        fitting = ", ".join(str(d) for d in range(1, min(n, _MAX_LISTED) + 1) if n % d == 0)
        return [
            f"runner.workers={w}: env.num_envs={n} / {w} = {n / w:.2f} environments each; set one of {fitting}"
        ]
    return []


def size_problems(sizes: ActorSizes) -> list[str]:
    """Return messages that name conflicts between the sizes."""
    w, m, q = sizes.workers, sizes.trajectories, sizes.queue
    found = worker_problems(sizes.num_envs, w)
    if q < m:
        found.append(
            f"runner.queue={q}: an update takes runner.trajectories={m}, of which only {q} would be requested; "
            f"set at least {m}"
        )
    elif q < w:
        found.append(
            f"runner.queue={q}: {w - q} of runner.workers={w} actors would always be idle; set at least {w}"
        )
    return found
