"""The critic that sees the clock: a number for every step of the episode."""

import torch
from torch import Tensor

from pgx.algos.common.advantages import rollout_values
from pgx.core.agent import Critic
from pgx.core.data import Observations
from pgx.core.specs import Continuous, Discrete
from pgx.networks.tabular import TimeDependentCritic
from tests.conftest import Make

HORIZON = 4


def critic() -> Critic:
    made = TimeDependentCritic(HORIZON).make(Continuous((2,)), Discrete(2), torch.Generator())
    with torch.no_grad():
        made.value.copy_(torch.tensor([10.0, 11.0, 12.0, 13.0]))
    return made


def at(*time: int) -> Observations:
    return Observations(
        torch.randn(len(time), 2, generator=torch.Generator().manual_seed(0)), torch.tensor(time)
    )


def test_it_starts_at_zero_with_a_number_for_every_step() -> None:
    made = TimeDependentCritic(HORIZON).make(Continuous((2,)), Discrete(2), torch.Generator())
    assert torch.equal(made(at(0, 1, 2, 3)), torch.zeros(4))
    assert [p.shape for p in made.parameters()] == [(HORIZON,)]


def test_the_value_is_the_number_of_the_step_whatever_the_state() -> None:
    assert critic()(at(2, 0, 3, 0)).tolist() == [12.0, 10.0, 13.0, 10.0]


def test_steps_beyond_the_horizon_share_the_last_number() -> None:
    assert critic()(at(3, 4, 1000)).tolist() == [13.0, 13.0, 13.0]


def test_its_least_squares_fit_is_the_mean_target_of_every_step() -> None:
    """What a baseline of its own for every step is: b_t = mean of the targets at t."""
    made, generator = critic(), torch.Generator().manual_seed(1)
    obs = at(0, 0, 1, 1, 1, 2, 3, 5)
    target = torch.randn(8, generator=generator)
    optimizer = torch.optim.LBFGS(made.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (made(obs) - target).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    expected = torch.stack([target[:2].mean(), target[2:5].mean(), target[5], target[6:].mean()])
    torch.testing.assert_close(next(iter(made.parameters())).detach(), expected, atol=1e-4, rtol=0)


def test_in_a_rollout_it_sees_the_step_of_every_row_and_of_its_successor(make: Make) -> None:
    """Endless is cut after 16 steps: the successor of a cut step has a clock that goes on."""
    trainer = make(
        "algo=a2c", "critic=time_dependent", "critic.horizon=20", "env=tests.environments:Endless-v0"
    )
    agent = trainer.agent
    with torch.no_grad():
        next(iter(agent.critic.parameters())).copy_(torch.arange(20.0))
    rollout = trainer.runner.collect(agent)
    value, next_value = rollout_values(agent.critic, agent.normalizer, rollout)
    valid = rollout.valid
    steps = (torch.arange(64) % 17).unsqueeze(1).expand(64, 4)  # 16 steps and the one that resets
    assert torch.equal(value[valid], steps[valid].float())
    assert torch.equal(next_value[valid], steps[valid].float() + 1)
    assert int(rollout.truncated.sum()) == 4 * 3
