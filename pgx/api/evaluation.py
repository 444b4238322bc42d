"""Evaluation of a fixed agent on whole episodes, with bootstrap intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pgx.analysis.statistics import Resampling, Statistic, estimate, iqm, mean
from pgx.config.run_config import RunConfig
from pgx.core.agent import Act, Agent
from pgx.core.data import Observations
from pgx.core.seeding import derive, generator
from pgx.core.text import format_number
from pgx.envs.vector import VectorEnv
from pgx.rollouts.sources import Episode
from pgx.training.evaluation import ProgressCallback, never_stop, play, success_rate

Mode = Literal["deterministic", "stochastic"]
Interval = tuple[float, float]
_RESAMPLES = 5_000  # of the bootstrap; the ends of an interval then vary by a few percent of its width
_CONFIDENCE_LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Evaluation:
    """Episodes of a fixed agent and their statistics. Intervals are 95 % bootstrap intervals; None for one episode.

    Args:
        mode: deterministic: the most likely actions; stochastic: sampled actions.
        seed: of environments and sampled actions.
        env: id of the environment.
        backend: that ran it.
        seconds: duration.
        returns: undiscounted returns of the episodes, in the order in which they ended.
        lengths: in steps.
        successes: as the environment reports them at the last step; None: it does not.
        cut: episodes that were cut at the step limit.
        unshaped_returns: in the environment's own reward; None: rewards were not shaped.
        mean: of the returns.
        mean_interval: of the mean.
        iqm: mean of the middle half of the returns.
        iqm_interval: of the IQM.
        std: standard deviation of the returns.
        unshaped_mean: mean of `unshaped_returns`.
        unshaped_mean_interval: of this mean.
        success_rate: fraction of the episodes that report success; None: none reports it.
    """

    mode: Mode
    seed: int
    env: str
    backend: str
    seconds: float
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: Sequence[bool | None]
    cut: Sequence[bool]
    unshaped_returns: NDArray[np.float64] | None
    mean: float
    mean_interval: Interval | None
    iqm: float
    iqm_interval: Interval | None
    std: float
    unshaped_mean: float | None
    unshaped_mean_interval: Interval | None
    success_rate: float | None

    @property
    def steps_per_second(self) -> float:
        """Return the environment steps per second."""
        return float(self.lengths.sum()) / self.seconds

    def __str__(self) -> str:
        interval = ""
        if self.mean_interval is not None:
            interval = ", 95% interval " + " to ".join(map(format_number, self.mean_interval))
        return (
            f"{len(self.returns)} {self.mode} episodes on {self.env}: mean return {format_number(self.mean)}"
            f"{interval}, IQM {format_number(self.iqm)}"
        )


def evaluate_agent(
    config: RunConfig,
    agent: Agent,
    envs: VectorEnv,
    episodes: int,
    mode: Mode,
    seed: int,
    on_step: ProgressCallback,
) -> Evaluation:
    """Play episodes with a frozen agent and return their statistics.

    Args:
        config: of the run; `trainer.eval_max_steps` cuts episodes.
        agent: to evaluate; it is not changed.
        envs: to play in, from freshly seeded starts.
        episodes: number of episodes, >= 1.
        mode: how actions are chosen.
        seed: of environments and sampled actions.
        on_step: called after each step.
    """
    started = time.monotonic()
    act = choose_actions(agent, mode, seed, config.device)
    played = play(
        agent,
        act,
        envs,
        episodes,
        derive(seed, "evaluation"),
        torch.device(config.device),
        config.trainer.eval_max_steps,
        never_stop,
        on_step,
    )
    return _evaluation(played, mode, seed, envs, time.monotonic() - started)


def choose_actions(agent: Agent, mode: Mode, seed: int, device: str) -> Callable[[Observations], Act]:
    """Return the function that chooses actions in a mode."""
    if mode == "deterministic":
        return agent.act_greedily
    return partial(agent.act, generator=generator(seed, "evaluation actions", device))


def _evaluation(
    played: Sequence[Episode], mode: Mode, seed: int, envs: VectorEnv, seconds: float
) -> Evaluation:
    returns = np.array([episode.episode_return for episode in played])
    unshaped = np.array([e.unshaped_return for e in played if e.unshaped_return is not None])
    resampling = Resampling(_RESAMPLES, _CONFIDENCE_LEVEL, derive(seed, "evaluation intervals"))
    mean_return, mean_interval = _estimate(returns, mean, resampling)
    iqm_return, iqm_interval = _estimate(returns, iqm, resampling)
    unshaped_mean, unshaped_interval = (
        _estimate(unshaped, mean, resampling) if len(unshaped) else (None, None)
    )
    return Evaluation(
        mode=mode,
        seed=seed,
        env=envs.id,
        backend=envs.backend,
        seconds=seconds,
        returns=returns,
        lengths=np.array([episode.length for episode in played]),
        successes=[episode.success for episode in played],
        cut=[episode.cut for episode in played],
        unshaped_returns=unshaped if len(unshaped) else None,
        mean=mean_return,
        mean_interval=mean_interval,
        iqm=iqm_return,
        iqm_interval=iqm_interval,
        std=float(np.std(returns)),
        unshaped_mean=unshaped_mean,
        unshaped_mean_interval=unshaped_interval,
        success_rate=success_rate(played),
    )


def _estimate(
    returns: NDArray[np.float64], statistic: Statistic, resampling: Resampling
) -> tuple[float, Interval | None]:
    """Return a statistic and its interval."""
    found = estimate([returns], statistic, resampling)
    return found.value, None if found.low is None or found.high is None else (found.low, found.high)
