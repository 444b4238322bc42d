"""A table as policy: where all that theory says is exact, it is checked against the oracle."""

import pytest
import torch
from torch import Tensor, nn

from pgx.core.data import Observations
from pgx.core.errors import UserError
from pgx.core.specs import ActionSpec, Continuous, Discrete, Image, MultiDiscrete, ObsSpec
from pgx.networks import CRITICS, POLICIES
from pgx.networks.heads import CategoricalPolicy
from pgx.networks.tabular import TabularCritic, TabularPolicy
from pgx.ops.fisher import dense_matrix, gauss_newton_product, kl_hessian_product, scores
from tests import oracle
from tests.conftest import Make, as_observations
from tests.oracle import TabularMDP, chain, gridworld, random_mdp

STREAM = torch.Generator()
MDPS = [chain(), gridworld(), random_mdp(6, 3, seed=0)]
over_mdps = pytest.mark.parametrize("mdp", MDPS, ids=lambda mdp: mdp.name)


def logits(mdp: TabularMDP) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(mdp.states, mdp.actions, generator=generator, dtype=torch.float64)


def policy_at(theta: Tensor) -> nn.Module:
    states, actions = theta.shape
    policy = TabularPolicy().make(Discrete(states), Discrete(actions), STREAM).double()
    with torch.no_grad():
        policy.net.theta.copy_(theta)
    return policy


def visited(mdp: TabularMDP) -> tuple[Observations, Tensor]:
    """Every state that is no end, some more often than others; and the share [S] of each."""
    live = (~mdp.terminal).nonzero().flatten()
    times = 1 + torch.arange(len(live)) % 3
    states = live.repeat_interleave(times)
    return as_observations(states), torch.bincount(states, minlength=mdp.states).double() / len(states)


def surrogate_gradient(policy: nn.Module, obs: Observations, advantage: Tensor) -> Tensor:
    """∇ E_s Σ_a π(a|s) A(s, a), at the states of obs."""
    gain = (policy(obs).logits.softmax(-1) * advantage[obs.features]).sum(-1).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(gain, [*policy.parameters()])])


def centred(theta: Tensor) -> Tensor:
    """Without what no policy depends on: a number added to all preferences of a state."""
    return theta - theta.mean(-1, keepdim=True)


def test_a_table_starts_uniform_and_its_values_at_zero() -> None:
    policy, critic = (
        TabularPolicy().make(Discrete(5), Discrete(3), STREAM),
        TabularCritic().make(Discrete(5), Discrete(3), STREAM),
    )
    states = torch.arange(5)
    torch.testing.assert_close(policy(as_observations(states)).logits.softmax(-1), torch.full((5, 3), 1 / 3))
    assert torch.equal(critic(as_observations(states)), torch.zeros(5))
    assert [p.shape for p in policy.parameters()] == [(5, 3)]
    assert [p.shape for p in critic.parameters()] == [(5, 1)]


def test_each_state_has_a_value_of_its_own() -> None:
    critic = TabularCritic().make(Discrete(5), Discrete(3), STREAM)
    with torch.no_grad():
        critic.net.theta[3] = 7.0
    assert critic(as_observations(torch.tensor([3, 0, 3]))).tolist() == [7.0, 0.0, 7.0]


@over_mdps
def test_the_policy_is_the_softmax_of_its_row(mdp: TabularMDP) -> None:
    theta = logits(mdp)
    probs = policy_at(theta)(as_observations(torch.arange(mdp.states))).logits.softmax(-1)
    torch.testing.assert_close(probs, oracle.softmax_policy(theta))


def test_several_actions_have_a_softmax_each() -> None:
    policy = TabularPolicy().make(Discrete(4), MultiDiscrete((3, 2)), STREAM)
    with torch.no_grad():
        policy.net.theta[2] = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0])
    distribution = policy(as_observations(torch.tensor([2])))
    expected = torch.tensor([0.0, 1.0, 2.0]).log_softmax(0)[2] + torch.tensor([3.0, 5.0]).log_softmax(0)[0]
    torch.testing.assert_close(distribution.log_prob(torch.tensor([[2, 0]])).squeeze(), expected)


def test_scores_of_many_rows_at_once_are_those_of_each_row() -> None:
    policy = policy_at(logits(gridworld()))
    obs = as_observations(torch.tensor([0, 3, 3, 14]))
    for action in (torch.tensor([0, 1, 2, 3]), torch.tensor([2, 2, 0, 1])):
        together = scores(policy, obs, action)
        for row in range(4):
            one = policy(obs[torch.tensor([row])]).log_prob(action[row : row + 1]).squeeze()
            (alone,) = torch.autograd.grad(one, [*policy.parameters()])
            torch.testing.assert_close(together[row], alone.flatten())


def test_a_distribution_kept_from_before_a_step_does_not_move_with_the_table() -> None:
    policy = policy_at(logits(chain()))
    kept = policy(as_observations(torch.arange(5)))
    before = kept.logits.clone()
    with torch.no_grad():
        policy.net.theta += 1.0
    assert torch.equal(kept.logits, before)


@over_mdps
@pytest.mark.parametrize("product", [gauss_newton_product, kl_hessian_product])
def test_its_fisher_matrix_is_the_oracles(mdp: TabularMDP, product: type) -> None:
    theta = logits(mdp)
    obs, share = visited(mdp)
    actual = dense_matrix(product(policy_at(theta), obs), theta.flatten())
    torch.testing.assert_close(actual, oracle.fisher(mdp, theta, share))


@over_mdps
def test_the_expected_square_of_the_score_is_the_fisher_matrix(mdp: TabularMDP) -> None:
    """F = E[ψ ψᵀ], over every state and action with its probability."""
    theta = logits(mdp)
    obs, share = visited(mdp)
    policy, pi = policy_at(theta), oracle.softmax_policy(theta)
    total = torch.zeros(theta.numel(), theta.numel(), dtype=theta.dtype)
    for action in range(mdp.actions):
        psi = scores(policy, obs, torch.full((len(obs),), action))
        total += torch.einsum("bi,bj,b->ij", psi, psi, pi[obs.features, action]) / len(obs)
    torch.testing.assert_close(total, oracle.fisher(mdp, theta, share))


@over_mdps
def test_the_natural_gradient_is_the_advantage_up_to_a_constant_in_every_state(mdp: TabularMDP) -> None:
    """F⁺ g = A(s, a) - mean_a A(s, a), however often each state is visited.

    Source: Agarwal et al., "On the theory of policy gradient methods", 2021, on the natural gradient of a softmax
    table; Kakade, "A natural policy gradient", 2001, theorem 1 for the compatible features behind it.
    """
    theta, discount = logits(mdp), 0.9
    advantage = oracle.advantages(mdp, oracle.softmax_policy(theta), discount)
    obs, _ = visited(mdp)
    policy = policy_at(theta)
    matrix = dense_matrix(gauss_newton_product(policy, obs), theta.flatten())
    natural = torch.linalg.pinv(matrix, hermitian=True, rtol=1e-9) @ surrogate_gradient(
        policy, obs, advantage
    )
    live = ~mdp.terminal
    torch.testing.assert_close(natural.view_as(theta)[live], centred(advantage)[live], atol=1e-8, rtol=1e-8)


@over_mdps
def test_the_surrogate_gradient_at_the_visitation_is_the_policy_gradient(mdp: TabularMDP) -> None:
    """Σ_s d(s) ∇ Σ_a π(a|s) A(s, a) = ∇J, state by state."""
    theta, discount = logits(mdp), 0.9
    pi = oracle.softmax_policy(theta)
    advantage, policy = oracle.advantages(mdp, pi, discount), policy_at(theta)
    weight = oracle.visitation(mdp, pi, discount)
    total = sum(
        weight[s] * surrogate_gradient(policy, as_observations(torch.tensor([s])), advantage)
        for s in (~mdp.terminal).nonzero().flatten().tolist()
    )
    torch.testing.assert_close(total.view_as(theta), oracle.policy_gradient(mdp, theta, discount))


class Reparametrised(nn.Module):
    """The table M x, with x as what is learned."""

    def __init__(self, matrix: Tensor, theta: Tensor) -> None:
        super().__init__()
        self.matrix, self.shape = matrix, theta.shape
        self.x = nn.Parameter(torch.linalg.solve(matrix, theta.flatten()))

    def forward(self, obs: Tensor) -> Tensor:
        return (self.matrix @ self.x).view(self.shape)[obs]


def test_the_natural_gradient_does_not_depend_on_the_coordinates_and_the_gradient_does() -> None:
    """With theta = M x: M F_x⁺ g_x and F_θ⁺ g_θ move the policy alike, M g_x = M Mᵀ g_θ and g_θ do not."""
    mdp = random_mdp(5, 3, seed=2)
    theta, count = logits(mdp), 15
    noise = torch.randn(count, count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    matrix = torch.eye(count, dtype=torch.float64) + 0.2 * noise
    advantage = oracle.advantages(mdp, oracle.softmax_policy(theta), 0.9)
    obs, _ = visited(mdp)
    steps = []
    for policy, back in (
        (policy_at(theta), torch.eye(count, dtype=torch.float64)),
        (CategoricalPolicy(Reparametrised(matrix, theta)), matrix),
    ):
        torch.testing.assert_close(policy(obs).logits, theta[obs.features])
        g = surrogate_gradient(policy, obs, advantage)
        fisher = dense_matrix(gauss_newton_product(policy, obs), g)
        natural = torch.linalg.pinv(fisher, hermitian=True, rtol=1e-9) @ g
        steps.append([centred((back @ step).view_as(theta)) for step in (natural, g)])
    (natural, plain), (other_natural, other_plain) = steps
    torch.testing.assert_close(natural, other_natural, atol=1e-8, rtol=1e-8)
    cosine = torch.nn.functional.cosine_similarity(plain.flatten(), other_plain.flatten(), dim=0)
    assert float(cosine) < 0.99


@pytest.mark.parametrize(
    ("obs", "action", "words"),
    [
        (
            Continuous((4,)),
            Discrete(2),
            r"needs discrete observations, got arrays of real numbers of shape \[4\]",
        ),
        (
            Image((8, 8, 1)),
            Discrete(2),
            r"needs discrete observations, got arrays of pixels of shape \[8, 8, 1\]",
        ),
        (Discrete(5), Continuous((2,)), r"needs discrete actions, got arrays of real numbers of shape \[2\]"),
    ],
)
def test_spaces_without_a_table_are_refused(obs: ObsSpec, action: ActionSpec, words: str) -> None:
    with pytest.raises(UserError, match=rf"policy=tabular: {words}; policy=linear or mlp takes these"):
        POLICIES["tabular"]().make(obs, action, STREAM)
    if not isinstance(obs, Discrete):
        with pytest.raises(UserError, match=rf"critic=tabular: {words}; critic=linear or mlp takes these"):
            CRITICS["tabular"]().make(obs, action, STREAM)


def test_a_run_is_refused_with_one_message(make: Make) -> None:
    with pytest.raises(UserError) as refused:
        make("algo=ppo", "policy=tabular", "env=CartPole-v1")
    assert len(refused.value.problems) == 1
