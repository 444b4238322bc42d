"""What an iteration does, in which order, and what it reports."""

import math
from typing import Any

import pytest
import torch

from pgx.core.agent import Agent, Metrics
from pgx.core.algorithm import Learner
from pgx.core.data import Rollout
from pgx.training.loop import SyncLoop
from pgx.training.trainer import Trainer
from tests.conftest import Make, parameters

A2C = ["algo=a2c", "env=CartPole-v1", "env.backend=gymnasium", "runner.rollout_steps=16", "logger.every=1"]


def synchronous(trainer: Trainer) -> SyncLoop:
    assert isinstance(trainer.iterations, SyncLoop)
    return trainer.iterations


def test_progress_is_the_share_of_the_budget_that_was_used_before_and_1_at_most(make: Make) -> None:
    trainer = make(*A2C, "trainer.total_steps=1000")
    iterations, seen, update = synchronous(trainer), list[float](), trainer.algorithm.update

    def noted(agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        seen.append(progress)
        return update(agent, learner, rollout, progress)

    trainer.algorithm.update = noted  # type: ignore[method-assign]
    for trainer.counters.steps in (0, 250, 1000, 1300):
        iterations.next(trainer.counters)
    assert seen == [0.0, 0.25, 1.0, 1.0]


def test_gradient_steps_are_of_one_update(make: Make) -> None:
    """However many updates came before: a2c takes the same few in each."""
    trainer = make(*A2C)
    reports = [synchronous(trainer).next(trainer.counters) for _ in range(3)]
    counts = [report.metrics["gradient_steps"] for report in reports if report.metrics]
    assert len(counts) == 3 and len(set(counts)) == 1 and sum(counts) == trainer.learner.gradient_steps


def test_the_statistics_move_after_the_update_and_the_look_at_its_health_before_it(make: Make) -> None:
    trainer = make(*A2C)
    agent, algorithm, order = trainer.agent, trainer.algorithm, list[tuple[str, int | None, torch.Tensor]]()

    def noted(name: str) -> None:
        original = getattr(algorithm, name)

        def asked(*given: Any) -> Any:
            order.append((name, agent.normalizer.seen, parameters(trainer)))
            return original(*given)

        setattr(algorithm, name, asked)

    noted("estimate")
    noted("update")
    report = synchronous(trainer).next(trainer.counters)
    names = [name for name, _, _ in order]
    assert names[:2] == ["estimate", "update"] and {seen for _, seen, _ in order} == {0}
    assert torch.equal(order[0][2], order[1][2]) and not torch.equal(order[0][2], parameters(trainer))
    assert agent.normalizer.seen == report.steps
    assert report.metrics is not None and report.metrics["kl"] > 0 and report.metrics["step_norm"] > 0


def test_every_so_manyth_update_is_looked_at_and_the_last(make: Make) -> None:
    trainer = make(*A2C, "logger.every=3", "trainer.total_steps=100000")
    looked = []
    for trainer.counters.iterations in range(8):
        trainer.counters.steps = 99_999 if trainer.counters.iterations == 7 else 0
        looked.append(synchronous(trainer).next(trainer.counters).metrics is not None)
    assert looked == [False, False, True, False, False, True, False, True]


def test_an_update_that_is_skipped_has_no_health_and_changes_nothing(make: Make) -> None:
    trainer = make(*A2C, "trainer.on_nan=skip_update")
    before, update = parameters(trainer), trainer.algorithm.update

    def broken(*given: Any) -> Metrics:
        metrics = update(*given)
        with torch.no_grad():
            next(iter(trainer.agent.policy.parameters())).fill_(math.nan)
        return metrics

    trainer.algorithm.update = broken  # type: ignore[method-assign]
    report = synchronous(trainer).next(trainer.counters)
    assert report.skipped and report.updated and report.metrics is None and report.steps > 0
    assert torch.equal(parameters(trainer), before)


def test_an_iteration_that_is_undone_leaves_no_episode_and_no_draw(make: Make) -> None:
    trainer, straight = make(*A2C, name="undone"), make(*A2C, name="straight")
    iterations, update = synchronous(trainer), trainer.algorithm.update
    for each in (trainer, straight):
        report = synchronous(each).next(each.counters)
        each.counters.steps, each.counters.iterations = report.steps, 1
        each.runner.begin(1)

    def stopped(*given: Any) -> Any:
        raise KeyboardInterrupt

    trainer.algorithm.update = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        iterations.next(trainer.counters)
    assert trainer.runner.episodes  # type: ignore[attr-defined]
    assert iterations.roll_back(trainer.counters) > 0
    assert trainer.runner.episodes == []  # type: ignore[attr-defined]
    trainer.algorithm.update = update  # type: ignore[method-assign]
    trainer.runner.begin(1)
    one, two = (synchronous(each).next(each.counters) for each in (trainer, straight))
    assert one.episodes == two.episodes and one.steps == two.steps
    assert torch.equal(parameters(trainer), parameters(straight))
