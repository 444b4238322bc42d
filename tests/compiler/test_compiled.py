"""An iteration that is undone: nothing that it began in the second thread changes what was restored."""

import threading

import torch

from pgx.compiler.compiled import Compiled
from pgx.core.agent import Agent, Metrics
from pgx.core.algorithm import Learner
from pgx.core.data import Rollout
from pgx.core.stopping import IterationAbandoned
from tests.conftest import Make


def test_settle_waits_for_the_second_thread() -> None:
    engine = Compiled(lambda call: None, processors=2)
    begun, go_on, changed = threading.Event(), threading.Event(), []

    def change() -> None:
        begun.set()
        go_on.wait(timeout=10)
        changed.append(True)

    engine.submit(change)
    begun.wait(timeout=10)
    threading.Timer(0.05, go_on.set).start()
    engine.settle()
    assert changed


def test_a_rollback_waits_for_the_critic_that_learns_in_the_second_thread(make: Make) -> None:
    trainer = make("algo=ppo", "env=CartPole-v1")
    trainer.learner.engine = Compiled(lambda call: None, processors=2)
    weights = list(trainer.agent.critic.parameters())
    before = [weight.detach().clone() for weight in weights]

    def update(agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        late = threading.Event()

        def learn() -> None:
            late.wait(timeout=0.2)  # nobody sets it: the main thread is past this by then
            with torch.no_grad():
                for weight in weights:
                    weight += 1.0

        learner.engine.submit(learn)
        trainer.stop_requested = True
        raise IterationAbandoned

    trainer.algorithm.update = update  # type: ignore[method-assign]
    assert trainer.train()["status"] == "interrupted"
    trainer.learner.engine.settle()
    assert all(torch.equal(old, new) for old, new in zip(before, weights, strict=True))
