"""A recurrent policy reads an episode from its beginning, that episode alone, and learns from no burn-in step."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from pgx.core.data import History, Observations
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.networks.distributions import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian
from pgx.networks.recurrent import GRUCell, GRUPolicy, LSTMCell, LSTMPolicy, RecurrentNetwork
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product

CELLS = ["gru", "lstm"]
VECTOR = Continuous((3,))
L, S, UNITS = 12, 3, 5


def recurrent(
    cell: str, obs: ObsSpec = VECTOR, action: ActionSpec | None = None, seed: int = 0, **values: Any
) -> RecurrentNetwork:
    settings: dict[str, Any] = {
        "hidden": [6],
        "activation": "tanh",
        "hidden_gain": 1.3,
        "memory_units": UNITS,
        "output_gain": 1.0,
        "log_std_init": -0.5,
        "continuous": "gaussian",
        "sequence_length": L,
        "burn_in": 0,
    }
    spec = GRUPolicy if cell == "gru" else LSTMPolicy
    settings |= ({} if cell == "gru" else {"forget_bias": 1.0}) | values
    generator = torch.Generator().manual_seed(seed)
    return cast(RecurrentNetwork, spec(**settings).make(obs, action or Discrete(4), generator))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def history(
    policy: RecurrentNetwork, features: Tensor, begins: list[tuple[int, int]] | None = None
) -> History:
    """Sequences of features [L, S, ...] from states that are not zero; begins: (step, sequence)."""
    steps, sequences = features.shape[:2]
    never = torch.zeros(steps, sequences, dtype=torch.bool)
    starts = never.clone()
    for at in begins or []:
        starts[at] = True
    return History(
        features=features,
        begins=starts,
        recurrent_state=0.5 * normal(sequences, policy.recurrent_state.size, seed=7),
        burn_in=never,
        step=torch.arange(steps).repeat_interleave(sequences),
        sequence=torch.arange(sequences).repeat(steps),
    )


def every_step(history: History, mask: Tensor | None = None) -> Observations:
    """All L * S steps as rows, time-major."""
    rows = history.features.flatten(0, 1)
    return Observations(rows, torch.zeros(len(rows), dtype=torch.int64), mask, history)


def logits(policy: RecurrentNetwork, history: History) -> Tensor:
    """[L, S, K]."""
    distribution = policy(every_step(history))
    assert isinstance(distribution, Categorical)
    return distribution.logits.unflatten(0, history.begins.shape)


def in_double(policy: RecurrentNetwork, history: History) -> tuple[RecurrentNetwork, History]:
    wide = replace(
        history, features=history.features.double(), recurrent_state=history.recurrent_state.double()
    )
    return policy.double(), wide


@pytest.mark.parametrize("cell", CELLS)
def test_an_episode_is_read_as_torchs_own_networks_read_it(cell: str) -> None:
    policy = recurrent(cell, hidden=[])
    net: nn.GRU | nn.LSTM = nn.GRU(3, UNITS) if cell == "gru" else nn.LSTM(3, UNITS)
    with torch.no_grad():
        policy.cell.bias.copy_(normal(len(policy.cell.bias), seed=3))
        net.weight_ih_l0.copy_(policy.cell.input)
        net.weight_hh_l0.copy_(policy.cell.recurrent)
        net.bias_ih_l0.copy_(policy.cell.bias)
        net.bias_hh_l0.zero_()
    seen = history(policy, normal(L, S, 3))
    parts = [part.unsqueeze(0).contiguous() for part in seen.recurrent_state.split(UNITS, -1)]
    outputs, after = net(seen.features, parts[0] if cell == "gru" else tuple(parts))
    distribution, state = policy.advance(every_step(seen))
    expected = cast(nn.Linear, policy.head.net)(outputs).flatten(0, 1)
    assert torch.allclose(distribution.params[0], expected, atol=1e-6)
    last = after if cell == "gru" else torch.cat(after, -1)
    assert torch.allclose(state, last.squeeze(0), atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_each_gates_weights_are_orthogonal_and_the_forget_gate_starts_open(cell: str) -> None:
    net = recurrent(cell, hidden=[9]).cell
    for weights in (net.input, net.recurrent):
        for gate in weights.detach().split(UNITS):
            assert torch.allclose(gate @ gate.T, torch.eye(UNITS), atol=1e-5)
    assert not torch.equal(net.recurrent[:UNITS], net.recurrent[UNITS : 2 * UNITS])
    biases = [0.0, 0.0, 0.0] if cell == "gru" else [0.0, 1.0, 0.0, 0.0]
    assert torch.equal(net.bias.detach(), torch.tensor(biases).repeat_interleave(UNITS))


@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_from_the_given_stream_and_go_through_a_state_dict(cell: str) -> None:
    before = torch.random.get_rng_state()
    one, same, other = recurrent(cell), recurrent(cell), recurrent(cell, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    seen = history(one, normal(L, S, 3))
    assert torch.equal(logits(one, seen), logits(same, seen))
    assert not torch.allclose(logits(one, seen), logits(other, seen))
    other.load_state_dict(one.state_dict())
    assert torch.equal(logits(one, seen), logits(other, seen))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("obs", [VECTOR, Continuous((2, 4)), Discrete(5), Image((4, 4, 3))], ids=str)
@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (Discrete(4), Categorical),
        (MultiDiscrete((2, 3)), MultiCategorical),
        (Continuous((2,)), DiagonalGaussian),
        (Continuous((2,), (-1.0, -1.0), (1.0, 1.0)), SquashedGaussian),
    ],
    ids=["discrete", "multi-discrete", "gaussian", "squashed"],
)
def test_it_takes_every_observation_and_gives_every_head(
    cell: str, obs: ObsSpec, action: ActionSpec, kind: type
) -> None:
    continuous = "squashed_gaussian" if kind is SquashedGaussian else "gaussian"
    policy = recurrent(cell, obs, action, continuous=continuous)
    if isinstance(obs, Continuous):
        features = normal(L, S, *obs.shape)
    elif isinstance(obs, Discrete):
        features = torch.arange(L * S).view(L, S) % obs.n
    else:
        features = (100 * normal(L, S, *obs.shape).abs()).clamp(max=255).to(torch.uint8)
    distribution, state = policy.advance(every_step(history(policy, features)))
    assert isinstance(distribution, kind)
    assert distribution.mode().shape[0] == L * S
    assert state.shape == (S, policy.recurrent_state.size) == (S, UNITS * (1 if cell == "gru" else 2))


@pytest.mark.parametrize("cell", CELLS)
def test_actions_that_cannot_be_taken_have_no_probability(cell: str) -> None:
    policy = recurrent(cell)
    mask = torch.tensor([True, False, True, True]).expand(L * S, 4)
    distribution = policy(every_step(history(policy, normal(L, S, 3)), mask))
    assert isinstance(distribution, Categorical)
    assert bool((distribution.logits.softmax(-1)[:, 1] == 0).all())


def test_a_missing_history_raises() -> None:
    with pytest.raises(ValueError, match=r"Observations\.history"):
        recurrent("gru")(Observations(normal(2, 3), torch.zeros(2, dtype=torch.int64)))


@pytest.mark.parametrize("cell", CELLS)
def test_unrolling_equals_single_steps_that_pass_the_state_on(cell: str) -> None:
    policy = recurrent(cell)
    seen = history(policy, normal(L, S, 3), begins=[(0, 1), (4, 0), (5, 2)])
    whole, state = logits(policy, seen), seen.recurrent_state
    for t in range(L):
        empty = torch.where(seen.begins[t].unsqueeze(-1), torch.zeros_like(state), state)
        step = replace(history(policy, seen.features[t : t + 1]), recurrent_state=empty)
        distribution, state = policy.advance(every_step(step))
        assert torch.allclose(distribution.params[0], whole[t], atol=1e-6)
    assert torch.allclose(state, policy.advance(every_step(seen))[1], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_earlier_episodes_change_nothing_and_earlier_steps_do(cell: str) -> None:
    policy, features = recurrent(cell), normal(L, S, 3)
    other = features.clone()
    other[:5] += normal(5, S, 3, seed=1)
    begins = [(5, 0)]
    one, two = (logits(policy, history(policy, x, begins)) for x in (features, other))
    assert torch.equal(one[5:, 0], two[5:, 0])
    assert bool((one[5:, 1:] - two[5:, 1:]).abs().amax(-1).gt(1e-4).all())
    emptied = replace(
        history(policy, features, begins), recurrent_state=torch.zeros(S, policy.recurrent_state.size)
    )
    assert torch.equal(one[5:, 0], logits(policy, emptied)[5:, 0])


@pytest.mark.parametrize("cell", CELLS)
def test_sequences_do_not_see_each_other_nor_what_comes_later(cell: str) -> None:
    policy, features = recurrent(cell), normal(L, S, 3)
    other = features.clone()
    other[4, 1] += 1.0
    one, two = (logits(policy, history(policy, x)) for x in (features, other))
    assert torch.equal(one[:, [0, 2]], two[:, [0, 2]])
    assert torch.equal(one[:4, 1], two[:4, 1])
    assert bool((one[4:, 1] - two[4:, 1]).abs().amax(-1).gt(1e-5).all())


def burnt(seen: History, steps: list[int]) -> History:
    """The same with the first steps of each sequence for warming up alone."""
    mask = torch.arange(len(seen.begins)).unsqueeze(-1) < torch.tensor(steps)
    rows = ~mask[seen.step, seen.sequence]
    return replace(seen, burn_in=mask, step=seen.step[rows], sequence=seen.sequence[rows])


def rows_of(seen: History) -> Observations:
    features = seen.features[seen.step, seen.sequence]
    return Observations(features, torch.zeros(len(features), dtype=torch.int64), None, seen)


@pytest.mark.parametrize("cell", CELLS)
def test_burn_in_leaves_the_distributions_as_they_are(cell: str) -> None:
    policy = recurrent(cell)
    seen = history(policy, normal(L, S, 3), begins=[(2, 1)])
    warm = burnt(seen, [0, 4, 7])
    whole = logits(policy, seen)[warm.step, warm.sequence]
    assert torch.allclose(policy(rows_of(warm)).params[0], whole, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_no_gradient_comes_out_of_burn_in_steps(cell: str) -> None:
    policy = recurrent(cell)
    steps = [0, 4, 7]
    warm = burnt(history(policy, normal(L, S, 3).requires_grad_(), begins=[(9, 0)]), steps)
    weights = list(policy.parameters())

    def objective(seen: History) -> Tensor:
        return policy(rows_of(seen)).params[0].square().sum()

    loss = objective(warm)
    *gradient, of_features = torch.autograd.grad(loss, [*weights, warm.features])
    learned = ~warm.burn_in
    assert bool((of_features[warm.burn_in] == 0).all())
    assert bool((of_features[learned].abs().amax(-1) > 0).all())

    # One sequence after the other: state warmed up without gradients, then a plain unroll from there.
    total = torch.zeros(())
    for s, k in enumerate(steps):
        one = replace(history(policy, warm.features[:, s : s + 1].detach()), begins=warm.begins[:, s : s + 1])
        one = replace(one, recurrent_state=warm.recurrent_state[s : s + 1])
        state = one.recurrent_state
        if k:
            before = replace(one, features=one.features[:k], begins=one.begins[:k], burn_in=one.burn_in[:k])
            at = torch.zeros(1, dtype=torch.int64)
            with torch.no_grad():
                state = policy.advance(rows_of(replace(before, step=at, sequence=at)))[1]
        count = torch.arange(L - k)
        total = total + objective(
            History(one.features[k:], one.begins[k:], state, one.burn_in[k:], count, torch.zeros_like(count))
        )
    assert torch.allclose(loss, total, rtol=1e-5)
    for ours, explicit in zip(gradient, torch.autograd.grad(total, weights), strict=True):
        assert torch.allclose(ours, explicit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_some_of_the_rows_are_as_among_all_and_bring_their_sequences_alone(cell: str) -> None:
    policy = recurrent(cell)
    obs = every_step(history(policy, normal(L, 6, 3), begins=[(3, 2), (5, 4)]))
    index = torch.tensor([4, 65, 2, 10, 70])  # of sequences 4, 5, 2, 4, 4
    some = obs[index]
    assert some.history is not None and some.history.features.shape[1] == 3
    whole = policy(obs).rows(index).params[0]
    assert torch.allclose(policy(some).params[0], whole, atol=1e-6)
    again = some[torch.tensor([3, 0])]
    assert again.history is not None and again.history.features.shape[1] == 1
    assert torch.allclose(policy(again).params[0], whole[[3, 0]], atol=1e-6)


@pytest.mark.parametrize("cell", [GRUCell, LSTMCell])
def test_cells_can_be_differentiated_twice(cell: type[GRUCell] | type[LSTMCell]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (2, 3, generator) if cell is GRUCell else (2, 3, 1.0, generator)
    net = cell(*values).double()  # type: ignore[arg-type]
    x, state = (normal(2, n, seed=n).double().requires_grad_() for n in (2, 3 if cell is GRUCell else 6))
    assert torch.autograd.gradgradcheck(lambda x, m: net(net.drive(x), m), (x, state))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("action", [Discrete(4), Continuous((2,))], ids=["discrete", "continuous"])
def test_both_ways_to_a_fisher_product_agree(cell: str, action: ActionSpec) -> None:
    policy = recurrent(cell, action=action)
    policy, seen = in_double(policy, history(policy, normal(L, S, 3), begins=[(3, 2)]))
    obs = rows_of(burnt(seen, [0, 4, 2]))
    vector = normal(sum(p.numel() for p in policy.parameters()), seed=5).double()
    one, two = (way(policy, obs)(vector) for way in (gauss_newton_product, kl_hessian_product))
    assert torch.allclose(one, two, rtol=1e-8, atol=1e-10)
    assert float(vector @ one) > 0
