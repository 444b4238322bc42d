"""Tests of sequences: a recurrent policy computes the same in learning as it did in acting."""

import itertools
from copy import deepcopy
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from pgx.algos import rules
from pgx.algos.common.advantages import rollout_observations
from pgx.algos.common.sequences import cut_sequences, sequence_conflicts
from pgx.config.validate import problems_of
from pgx.core.agent import Act, Agent, RecurrentPolicy, RecurrentState
from pgx.core.data import Observations, Rollout
from pgx.networks.distributions import Categorical
from pgx.training.evaluation import ignore_progress, never_stop, play
from pgx.training.trainer import Trainer
from tests.conftest import QUIET, Make, composed, parameters, resumed_run, small

# Episodes of 9 to 15 steps: within a sequence they end, and are cut.
TASK = ["env=CartPole-v1", "env.kwargs.max_episode_steps=15", "policy.output_gain=3.0"]
BACKENDS = ["env.backend=gymnasium", "env.backend=envpool"]
# Learning multiplies other numbers of rows at once than acting did, so sums may be rounded otherwise: by a few units in
# the last digit of float32, 2.4e-7 for log-probabilities of 2 to 4 nats.
ROUNDING = 1e-6
# sequence_length and burn_in, of rollouts of 64 steps
CUTS = [
    (16, 5),
    (8, 40),
    (1, 0),
    *(pytest.param(*cut, marks=pytest.mark.system) for cut in ((64, 0), (32, 0), (32, 32), (1, 3))),
]


def trainer_for(
    make: Make, *overrides: str, cell: str = "gru", length: int = 16, burn_in: int = 0
) -> Trainer:
    cut = [f"policy.sequence_length={length}", f"policy.burn_in={burn_in}"]
    return make("algo=ppo", "algo.epochs=1", *TASK, f"policy={cell}", *cut, *overrides)


def recut(agent: Agent, length: int, burn_in: int) -> Agent:
    """Return the same agent with another sequence length and burn-in."""
    policy = deepcopy(agent.policy)
    assert policy.recurrent_state is not None
    policy.recurrent_state = RecurrentState(policy.recurrent_state.size, length, burn_in)
    return Agent(policy, agent.critic, agent.normalizer)


def moved(agent: Agent, scale: float) -> Agent:
    """Return the agent with perturbed parameters."""
    policy, generator = deepcopy(agent.policy), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in policy.parameters():
            p += scale * torch.randn(p.shape, generator=generator)
    return Agent(policy, agent.critic, agent.normalizer)


@torch.no_grad()
def logits(agent: Agent, rollout: Rollout) -> Tensor:
    """Return the logits [T, N, K] in learning; 0 in invalid rows."""
    distribution = agent.policy(rollout_observations(agent, rollout))
    assert isinstance(distribution, Categorical)
    out = torch.zeros(*rollout.valid.shape, distribution.logits.shape[-1])
    out[rollout.valid] = distribution.logits
    return out


@torch.no_grad()
def walked(agent: Agent, rollout: Rollout, length: int, burn_in: int) -> Tensor:
    """Compute the same step by step from the state stored burn_in steps before each sequence."""
    policy = cast(RecurrentPolicy, agent.policy)
    assert rollout.recurrent_state is not None
    out = torch.zeros(*rollout.valid.shape, 2)
    for first in range(0, len(out), length):
        start = max(0, first - burn_in)
        for n in range(out.shape[1]):
            state = rollout.recurrent_state[start, n : n + 1]
            for t in range(start, min(first + length, len(out))):
                if rollout.time[t, n] == 0:
                    state = torch.zeros_like(state)
                seen = agent.observe(rollout.obs[t, n : n + 1], rollout.time[t, n : n + 1], None, state)
                distribution, after = policy.advance(seen)
                state = after
                if t >= first and rollout.valid[t, n]:
                    out[t, n] = cast(Categorical, distribution).logits[0]
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("length", "burn_in"), CUTS)
def test_the_first_ratio_is_one_in_rollouts_that_go_on_from_each_other(
    make: Make, backend: str, length: int, burn_in: int
) -> None:
    trainer = trainer_for(make, backend, length=length, burn_in=burn_in)
    agent = trainer.agent
    for iteration in range(3):
        rollout = trainer.runner.collect(agent)
        assert rollout.terminated.any() and rollout.truncated.any() and not rollout.valid.all()
        assert rollout.recurrent_state is not None
        under_way = rollout.time[0] > 0
        assert bool((rollout.recurrent_state[0].abs().amax(-1) > 0)[under_way].all())
        assert bool(under_way.any()) == (iteration > 0)
        batch = trainer.algorithm.estimate(agent, rollout)
        assert len(batch) == rollout.steps
        log_prob = agent.policy(batch.obs).log_prob(batch.action).detach()
        assert float((log_prob - batch.log_prob).abs().max()) <= ROUNDING
        forgetful = replace(rollout, recurrent_state=torch.zeros_like(rollout.recurrent_state))
        if burn_in == 0 and (iteration > 0 or length < 64):  # what was remembered makes a difference
            without = agent.policy(rollout_observations(agent, forgetful)).log_prob(batch.action).detach()
            assert float((without - batch.log_prob).abs().max()) > 1e-3
        trainer.algorithm.update(agent, trainer.learner, rollout, 0.0)
        agent.normalizer.observe(rollout.obs[rollout.valid])


def test_a_boundary_resets_recurrent_states(make: Make) -> None:
    trainer = trainer_for(make)
    assert trainer.runner.collect(trainer.agent).recurrent_state is not None
    trainer.runner.begin(1)
    rollout = trainer.runner.collect(trainer.agent)
    assert rollout.recurrent_state is not None and not rollout.recurrent_state[0].any()
    batch = trainer.algorithm.estimate(trainer.agent, rollout)
    log_prob = trainer.agent.policy(batch.obs).log_prob(batch.action).detach()
    assert float((log_prob - batch.log_prob).abs().max()) <= ROUNDING


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("length", "burn_in"), [*CUTS, (24, 0), (24, 30), (100, 7)])
def test_sequences_are_walks_from_the_stored_state(make: Make, cell: str, length: int, burn_in: int) -> None:
    """With changed parameters, for one sequence, for single rows, and for a shorter last sequence."""
    trainer = trainer_for(make, cell=cell)
    trainer.runner.collect(trainer.agent)
    rollout = trainer.runner.collect(trainer.agent)
    agent = recut(moved(trainer.agent, 0.1), length, burn_in)
    assert torch.allclose(logits(agent, rollout), walked(agent, rollout, length, burn_in), atol=2e-5)


def test_burn_in_brings_the_state_nearer_to_that_of_a_full_unroll(make: Make) -> None:
    """Parameters move after acting: what they would remember from the episodes' beginnings is one unroll of all."""
    trainer = trainer_for(make, "env.kwargs.max_episode_steps=500", "env=Acrobot-v1")
    acted, agent = trainer.runner.collect(trainer.agent), moved(trainer.agent, 0.03)
    assert not acted.done.any() and not acted.time[0].any()

    def error(burn_in: int) -> float:
        learned = logits(recut(agent, 4, burn_in), acted)
        return float((learned - logits(recut(agent, 64, 0), acted)).abs().mean())

    errors = [error(burn_in) for burn_in in (0, 2, 4, 8, 60)]
    assert all(longer < shorter for shorter, longer in itertools.pairwise(errors))
    assert errors[0] > 1e-3 and errors[2] < errors[0] / 2 and errors[-1] < 1e-5


@pytest.mark.parametrize(("length", "burn_in"), CUTS)
def test_burn_in_steps_are_those_before_a_sequence_and_no_row_is_one(
    make: Make, length: int, burn_in: int
) -> None:
    trainer = trainer_for(make, length=length, burn_in=burn_in)
    history = cut_sequences(trainer.agent, trainer.runner.collect(trainer.agent))
    before = [min(burn_in, piece * length) for piece in range(64 // length) for _ in range(4)]
    step = torch.arange(len(history.burn_in)).unsqueeze(-1)
    assert torch.equal(history.burn_in, step < torch.tensor(before))
    assert not history.burn_in[history.step, history.sequence].any()


def test_an_environments_past_and_the_others_change_no_row(make: Make) -> None:
    trainer = trainer_for(make, length=32)
    rollout = trainer.runner.collect(trainer.agent)
    before = logits(trainer.agent, rollout)
    start = int(rollout.time[:, 0].eq(0).nonzero()[-1])  # of the last episode of environment 0
    sequence = start - start % 32
    assert start > sequence
    obs = rollout.obs.clone()
    obs[:start, 0] += 1.0
    after = logits(trainer.agent, replace(rollout, obs=obs))
    assert torch.equal(before[:, 1:], after[:, 1:])
    assert torch.equal(before[start:, 0], after[start:, 0])
    assert not torch.allclose(before[sequence:start, 0], after[sequence:start, 0])


@pytest.mark.parametrize(("length", "burn_in"), [(16, 0), (8, 40), (1, 0)])
def test_minibatches_deal_out_every_row_once_in_whole_sequences(
    make: Make, length: int, burn_in: int
) -> None:
    trainer = trainer_for(make, length=length, burn_in=burn_in)
    batch = trainer.algorithm.estimate(trainer.agent, trainer.runner.collect(trainer.agent))
    generator = torch.Generator().manual_seed(0)
    deals = [batch.minibatches(64, generator) for _ in range(2)]
    assert not torch.equal(deals[0][0], deals[1][0])
    assert batch.obs.history is not None
    sequence = batch.obs.history.sequence
    whole = trainer.agent.policy(batch.obs).log_prob(batch.action)
    for parts in deals:
        assert len(parts) == round(len(batch) / 64) > 1
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(batch)))
        assert sum(len(sequence[part].unique()) for part in parts) == len(sequence.unique())
        for index in parts:
            rows = batch.rows(index)
            assert len(rows) == len(index)
            log_prob = trainer.agent.policy(rows.obs).log_prob(rows.action)
            assert torch.allclose(log_prob, whole[index], atol=1e-5)


def accepted(rule: str) -> bool:
    """A rule supports a recurrent policy or is refused with a reason."""
    overrides = ["env=CartPole-v1", *small(rule), "policy=gru", "policy.sequence_length=1"]
    problems = problems_of(composed(*QUIET, *overrides))
    assert not problems or any("policy=gru" in problem for problem in problems), problems
    return not problems


TAKE_ONE = {"a2c", "actor_critic", "mdpo", "npg", "ppo", "ppo_kl", "reinforce", "trpo", "vtrace"}


@pytest.mark.parametrize("rule", rules())
def test_every_rule_learns_with_a_recurrent_policy_or_refuses_it(make: Make, rule: str) -> None:
    if not accepted(rule):
        assert rule not in TAKE_ONE
        return
    recurrent = ["policy=gru", "policy.sequence_length=16"]
    trainer = make(*small(rule), "env=CartPole-v1", *recurrent, "trainer.total_steps=256")
    before = parameters(trainer)
    trainer.train()
    after = parameters(trainer)
    assert bool(after.isfinite().all()) and not torch.equal(before, after)


def test_scores_of_single_rows_are_refused() -> None:
    overrides = ["algo=npg", "algo.solver=compatible", "algo.fisher=empirical", "env=CartPole-v1"]
    assert problems_of(composed(*overrides)) == []
    (problem,) = problems_of(composed(*overrides, "policy=lstm"))
    assert problem.startswith("algo.solver") and "policy=lstm" in problem and "cg" in problem


@pytest.mark.parametrize(
    ("steps", "length", "burn_in", "told"),
    [
        (128, 32, 0, []),
        (128, 32, 96, []),
        (None, 1000, 7, []),
        (100, 32, 0, [["sequence_length", "100", "32", "3.125", "25"]]),
        (16, 32, 0, [["sequence_length", "16", "32", "0.5", "have 16"]]),
        (128, 32, 97, [["burn_in", "128", "32", "96", "97"]]),
        (128, 128, 1, [["burn_in", "= 0 steps", "got 1"]]),
    ],
)
def test_sequences_must_divide_a_rollout(
    steps: int | None, length: int, burn_in: int, told: list[list[str]]
) -> None:
    conflicts = sequence_conflicts(steps, length, burn_in)
    assert len(conflicts) == len(told)
    for conflict, words in zip(conflicts, told, strict=True):
        assert all(word in conflict for word in words), conflict


def test_minibatches_must_be_made_of_whole_sequences() -> None:
    base = ["algo=ppo", "env=CartPole-v1", "policy=gru"]
    assert problems_of(composed(*base)) == []
    longer = ["policy.sequence_length=128", "runner.rollout_steps=128"]
    (problem,) = problems_of(composed(*base, *longer))  # minibatches of 64
    assert problem.startswith("algo.minibatch_size") and "128" in problem and "64" in problem


RESUMED = [["algo=ppo", "algo.epochs=1"], ["algo=vtrace", "runner.lag=2"]]


@pytest.mark.parametrize("rule", RESUMED, ids=str)
def test_a_resumed_run_ends_with_the_bits_of_one_that_went_on(make: Make, rule: list[str]) -> None:
    settings = [
        *rule,
        *TASK,
        "policy=gru",
        "policy.sequence_length=16",
        "trainer.total_steps=1000",
        "trainer.checkpoint_every=500",
    ]
    whole = make(*settings, name="whole")
    whole.train()
    assert torch.equal(parameters(whole), parameters(resumed_run(make, *settings, at=500)))


def test_an_evaluated_episode_is_an_unroll_from_state_zero(make: Make) -> None:
    trainer = trainer_for(make)
    agent = trainer.agent
    seen: list[tuple[Observations, Tensor]] = []

    def act(obs: Observations) -> Act:
        taken = agent.act_greedily(obs)
        seen.append((obs, taken.log_prob))
        return taken

    play(
        agent,
        act,
        trainer.runner.envs,
        episodes=12,
        seed=0,
        device=torch.device("cpu"),
        max_steps=1000,
        should_stop=never_stop,
        on_step=ignore_progress,
    )
    histories = [obs.history for obs, _ in seen if obs.history is not None]
    assert len(histories) == len(seen) > 30
    begins = torch.stack([obs.time == 0 for obs, _ in seen])
    first = histories[0]
    steps, envs = begins.shape
    whole = replace(
        first,
        features=torch.cat([h.features for h in histories]),
        begins=begins,
        burn_in=torch.zeros_like(begins),
        step=torch.arange(steps).repeat_interleave(envs),
        sequence=torch.arange(envs).repeat(steps),
    )
    with torch.no_grad():
        unrolled = agent.policy(
            Observations(torch.zeros(steps * envs), torch.zeros(steps * envs), None, whole)
        )
    log_prob = unrolled.log_prob(unrolled.mode()).view(steps, envs)
    # A reset row carries on what the episode remembered; nothing is decided there.
    resets = begins & torch.cat([begins[1:], begins[-1:]])
    played = torch.stack([log_prob for _, log_prob in seen])
    assert int(resets.sum()) > 5
    assert torch.allclose(log_prob[~resets], played[~resets], atol=1e-5)
