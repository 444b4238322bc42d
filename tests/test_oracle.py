"""Laws of the oracle, against which other tests compare estimators."""

from collections.abc import Callable

import gymnasium
import pytest
import torch
from torch import Tensor

from tests import oracle
from tests.oracle import TabularMDP, chain, gridworld, random_mdp

MDPS = [chain(), gridworld(), random_mdp(6, 3, seed=0)]
ENDING = [mdp for mdp in MDPS if mdp.terminal.any()]
# Discount 1 only where every policy terminates.
CASES = [(mdp, 0.9) for mdp in MDPS] + [(mdp, 1.0) for mdp in ENDING]
HORIZON = 12

over_mdps = pytest.mark.parametrize("mdp", MDPS, ids=lambda mdp: mdp.name)
over_cases = pytest.mark.parametrize(
    ("mdp", "discount"), CASES, ids=[f"{mdp.name}-{discount}" for mdp, discount in CASES]
)


def logits(mdp: TabularMDP, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(mdp.states, mdp.actions, generator=generator, dtype=torch.float64)


def policy(mdp: TabularMDP, seed: int = 1) -> Tensor:
    return oracle.softmax_policy(logits(mdp, seed))


def autograd(scalar: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    variable = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scalar(variable), variable)
    return gradient


def differences(scalar: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Return (f(x + h e_i) - f(x - h e_i)) / 2h for every entry i."""
    bumps = step * torch.eye(at.numel(), dtype=at.dtype).view(-1, *at.shape)
    slopes = [(scalar(at + bump) - scalar(at - bump)) / (2 * step) for bump in bumps]
    return torch.stack(slopes).view_as(at)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def within_errors(samples: Tensor, expected: Tensor, errors: float = 4.0) -> None:
    """Return whether the mean over the first dimension is within a number of standard errors of the expectation."""
    spread = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - expected).abs() <= errors * spread + 1e-12).all()


# --- decision processes ---


def test_chain_moves_as_chosen_and_slips_the_other_way() -> None:
    mdp = chain(4, slip=0.25, step_reward=-0.5)
    left, right = mdp.transition[1]
    close(left, torch.tensor([0.75, 0, 0.25, 0], dtype=torch.float64))
    close(right, torch.tensor([0.25, 0, 0.75, 0], dtype=torch.float64))
    close(mdp.transition[0, 0, 0], torch.tensor(0.75, dtype=torch.float64))
    # One step from the end, the expected prize is the probability of reaching it.
    close(mdp.reward[2], torch.tensor([0.25 - 0.5, 0.75 - 0.5], dtype=torch.float64))
    close(mdp.reward[:2], torch.full((2, 2), -0.5, dtype=torch.float64))


def test_gridworld_moves_slip_sideways_and_walls_hold() -> None:
    mdp = gridworld(3, 4, slip=0.2, step_reward=0.0)  # state 2 is next to the upper wall
    reached = [law.nonzero().flatten().tolist() for law in mdp.transition[2]]
    assert reached == [[1, 2, 3], [2, 3, 6], [1, 3, 6], [1, 2, 6]]
    close(mdp.transition[2, 1, [3, 2, 6]], torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64))
    assert mdp.terminal.nonzero().flatten().tolist() == [5, 11]  # the pit, the goal
    close(mdp.reward[10, 1], torch.tensor(0.8, dtype=torch.float64))
    close(mdp.reward[1, 2], torch.tensor(-0.8, dtype=torch.float64))


# --- values and visitation ---


@over_cases
def test_values_solve_the_bellman_equations(mdp: TabularMDP, discount: float) -> None:
    pi = policy(mdp)
    values = oracle.state_values(mdp, pi, discount)
    actions = oracle.action_values(mdp, pi, discount)
    advantages = oracle.advantages(mdp, pi, discount)
    close(values, torch.einsum("sa,sa->s", pi, actions))
    close(actions, mdp.reward + discount * torch.einsum("sat,t->sa", mdp.transition, values))
    close(advantages, actions - values[:, None])
    close((pi * advantages).sum(-1), torch.zeros(mdp.states, dtype=torch.float64))
    assert not values[mdp.terminal].any() and not actions[mdp.terminal].any()


@over_cases
def test_visitation_satisfies_the_flow_equations(mdp: TabularMDP, discount: float) -> None:
    """d(s') = start(s') + discount sum_{s, a} d(s) pi(a|s) P(s'|s, a) at non-terminal s'; J = sum d r."""
    pi = policy(mdp)
    visits = oracle.visitation(mdp, pi, discount)
    inflow = mdp.start + discount * torch.einsum("s,sa,sat->t", visits, pi, mdp.transition)
    close(visits[~mdp.terminal], inflow[~mdp.terminal])
    assert not visits[mdp.terminal].any() and (visits >= 0).all()
    rewards = (visits[:, None] * pi * mdp.reward).sum()
    close(rewards, oracle.objective(mdp, pi, discount))


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99])
def test_visitation_sums_to_the_geometric_series_without_an_end(discount: float) -> None:
    mdp = random_mdp(6, 3, seed=0)
    total = oracle.visitation(mdp, policy(mdp), discount).sum()
    close(total, torch.tensor(1 / (1 - discount), dtype=torch.float64))


@pytest.mark.parametrize("mdp", ENDING, ids=lambda mdp: mdp.name)
def test_an_episode_that_always_terminates_enters_one_terminal_state(mdp: TabularMDP) -> None:
    pi = policy(mdp)
    entered = torch.einsum("s,sa,sat->t", oracle.visitation(mdp, pi, 1.0), pi, mdp.transition)
    close(entered[mdp.terminal].sum(), torch.tensor(1.0, dtype=torch.float64))


@over_cases
def test_performance_difference_lemma(mdp: TabularMDP, discount: float) -> None:
    """J(pi') - J(pi) = sum_s d_pi'(s) sum_a pi'(a|s) A_pi(s, a)."""
    old, new = policy(mdp, seed=1), policy(mdp, seed=2)
    gain = oracle.objective(mdp, new, discount) - oracle.objective(mdp, old, discount)
    advantages = oracle.advantages(mdp, old, discount)
    close(gain, (oracle.visitation(mdp, new, discount)[:, None] * new * advantages).sum())


# --- gradients ---


@over_cases
def test_policy_gradient_is_the_gradient_of_the_objective(mdp: TabularMDP, discount: float) -> None:
    def objective(theta: Tensor) -> Tensor:
        return oracle.objective(mdp, oracle.softmax_policy(theta), discount)

    theta = logits(mdp)
    gradient = oracle.policy_gradient(mdp, theta, discount)
    close(gradient, autograd(objective, theta))
    close(gradient, differences(objective, theta), tolerance=1e-7)
    assert gradient.abs().max() > 1e-2


@over_cases
def test_finite_horizon_gradient_is_the_gradient_through_the_recursion(
    mdp: TabularMDP, discount: float
) -> None:
    def objective(theta: Tensor) -> Tensor:
        return oracle.finite_horizon_objective(mdp, oracle.softmax_policy(theta), HORIZON, discount)

    theta = logits(mdp)
    gradient = oracle.finite_horizon_gradient(mdp, theta, HORIZON, discount)
    close(gradient, autograd(objective, theta))
    close(gradient, differences(objective, theta), tolerance=1e-7)
    assert gradient.abs().max() > 1e-2


@over_mdps
def test_fisher_is_the_curvature_of_the_mean_divergence(mdp: TabularMDP) -> None:
    """F = Hessian at theta' = theta of E_{s ~ w}[KL(pi_theta(.|s), pi_theta'(.|s))], w = 0 at terminal states."""
    theta, pi = logits(mdp), policy(mdp)
    visits = oracle.visitation(mdp, pi, 0.9)
    weights = visits / visits.sum()

    def divergence(other: Tensor) -> Tensor:
        change = theta.log_softmax(-1) - other.view_as(theta).log_softmax(-1)
        return (weights[:, None] * pi * change).sum()

    curvature = torch.autograd.functional.hessian(divergence, theta.flatten())
    close(oracle.fisher(mdp, theta, weights), curvature)
    everywhere = torch.ones(mdp.states, dtype=torch.float64)
    close(oracle.fisher(mdp, theta, everywhere), oracle.fisher(mdp, theta, everywhere * ~mdp.terminal))


@over_mdps
def test_fisher_times_advantages_is_the_policy_gradient(mdp: TabularMDP) -> None:
    """Advantages are the natural gradient of a tabular softmax: F A = g for F weighted by the visitation."""
    theta, pi = logits(mdp), policy(mdp)
    metric = oracle.fisher(mdp, theta, oracle.visitation(mdp, pi, 0.9))
    product = metric @ oracle.advantages(mdp, pi, 0.9).flatten()
    close(product, oracle.policy_gradient(mdp, theta, 0.9).flatten())


# --- time limits ---


@over_cases
def test_finite_horizon_values_are_zero_at_the_horizon(mdp: TabularMDP, discount: float) -> None:
    pi = policy(mdp)
    values, actions = oracle.finite_horizon_values(mdp, pi, HORIZON, discount)
    assert values.shape == (HORIZON + 1, mdp.states) and not values[HORIZON].any()
    assert actions.shape == (HORIZON, mdp.states, mdp.actions) and not values[:, mdp.terminal].any()
    close(actions[-1], mdp.reward)
    close(actions, mdp.reward + discount * torch.einsum("sau,tu->tsa", mdp.transition, values[1:]))
    close(values[:-1], (pi * actions).sum(-1))
    visits = oracle.finite_horizon_visitation(mdp, pi, HORIZON, discount)
    assert visits.shape == (HORIZON, mdp.states) and not visits[:, mdp.terminal].any()
    rewards = (visits[:, :, None] * pi * mdp.reward).sum()
    close(rewards, oracle.finite_horizon_objective(mdp, pi, HORIZON, discount))


@over_cases
def test_a_distant_time_limit_has_no_effect(mdp: TabularMDP, discount: float) -> None:
    theta, pi, far = logits(mdp), policy(mdp), 1500
    values, actions = oracle.finite_horizon_values(mdp, pi, far, discount)
    close(values[0], oracle.state_values(mdp, pi, discount), 1e-7)
    close(actions[0], oracle.action_values(mdp, pi, discount), 1e-7)
    visits = oracle.finite_horizon_visitation(mdp, pi, far, discount).sum(0)
    close(visits, oracle.visitation(mdp, pi, discount), 1e-7)
    gradient = oracle.finite_horizon_gradient(mdp, theta, far, discount)
    close(gradient, oracle.policy_gradient(mdp, theta, discount), 1e-7)


# --- optima ---


@over_cases
def test_the_optimum_is_a_fixed_point_that_no_policy_beats(mdp: TabularMDP, discount: float) -> None:
    best = oracle.optimal_value(mdp, discount)
    close(best, (mdp.reward + discount * mdp.transition @ best).amax(-1))
    pi = oracle.optimal_policy(mdp, discount)
    close(pi.amax(-1), torch.ones(mdp.states, dtype=torch.float64))
    close(best, oracle.state_values(mdp, pi, discount))
    for seed in range(20):
        assert (best >= oracle.state_values(mdp, policy(mdp, seed), discount) - 1e-12).all()


@over_cases
def test_the_optimum_under_a_time_limit(mdp: TabularMDP, discount: float) -> None:
    best, pi = oracle.finite_horizon_optimum(mdp, HORIZON, discount)
    assert not best[-1].any() and not best[:, mdp.terminal].any()
    backed_up = mdp.reward + discount * torch.einsum("sau,tu->tsa", mdp.transition, best[1:])
    close(best[:-1], backed_up.amax(-1))
    close(best[:-1], (pi * backed_up).sum(-1))
    for seed in range(20):
        values, _ = oracle.finite_horizon_values(mdp, policy(mdp, seed), HORIZON, discount)
        assert (best >= values - 1e-12).all()
    far, _ = oracle.finite_horizon_optimum(mdp, 600, discount)
    close(far[0], oracle.optimal_value(mdp, discount), 1e-7)


def test_a_chain_without_slips_is_walked_straight() -> None:
    mdp = chain(5, slip=0.0, step_reward=-0.1)
    assert oracle.optimal_policy(mdp, 1.0).argmax(-1)[:-1].tolist() == [1, 1, 1, 1]
    close(oracle.optimal_value(mdp, 1.0)[0], torch.tensor(1 - 4 * 0.1, dtype=torch.float64))


# --- samples ---


def episodes(mdp: TabularMDP, number: int = 20_000, steps: int = 30) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return oracle.simulate(mdp, policy(mdp), number, steps, generator)


def discounted(rows: dict[str, Tensor], discount: float) -> Tensor:
    """Return the discounted return of each episode."""
    return (discount ** rows["time"].double() * rows["reward"]).sum(0)


@over_cases
def test_simulated_returns_agree_with_the_objective(mdp: TabularMDP, discount: float) -> None:
    returns = discounted(episodes(mdp), discount)
    within_errors(returns, oracle.finite_horizon_objective(mdp, policy(mdp), 30, discount))


@over_mdps
def test_long_simulated_returns_agree_with_the_objective_without_a_limit(mdp: TabularMDP) -> None:
    returns = discounted(episodes(mdp, number=3000, steps=200), 0.9)
    within_errors(returns, oracle.objective(mdp, policy(mdp), 0.9))


@over_mdps
def test_score_function_estimate_agrees_with_the_gradient(mdp: TabularMDP) -> None:
    """E[sum_t grad log pi(a_t|s_t) (sum_t discount^t r_t)] = grad J, for episodes cut at the horizon."""
    pi, rows = policy(mdp), episodes(mdp, steps=HORIZON)
    scores = torch.zeros(20_000, mdp.states, mdp.actions, dtype=torch.float64)
    column = torch.arange(20_000)
    for obs, action, valid in zip(rows["obs"], rows["action"], rows["valid"], strict=True):
        scores[column, obs] -= pi[obs] * valid[:, None]
        scores[column, obs, action] += valid
    estimate = scores * discounted(rows, 0.9)[:, None, None]
    # The maximum of dozens of normal variables may exceed 4.
    within_errors(estimate, oracle.finite_horizon_gradient(mdp, logits(mdp), HORIZON, 0.9), errors=5.0)


@over_mdps
def test_a_column_is_one_episode(mdp: TabularMDP) -> None:
    rows = episodes(mdp, number=500)
    valid, terminated, truncated = rows["valid"], rows["terminated"], rows["truncated"]
    assert all(column.shape == (30, 500) for column in rows.values())
    assert torch.equal(rows["time"], torch.arange(30)[:, None].expand(30, 500))
    assert valid[0].all()
    assert torch.equal(valid[1:], valid[:-1] & ~terminated[:-1])
    assert torch.equal(rows["next_obs"][:-1][valid[1:]], rows["obs"][1:][valid[1:]])
    assert torch.equal(terminated, valid & mdp.terminal[rows["next_obs"]])
    assert not truncated[:-1].any() and torch.equal(truncated[-1], valid[-1] & ~terminated[-1])
    assert torch.equal((terminated | truncated).sum(0), torch.ones(500, dtype=torch.int64))
    assert not mdp.terminal[rows["obs"][valid]].any()
    if mdp.terminal.any():
        assert terminated.any() and truncated.any()


@over_mdps
def test_rows_carry_rewards_and_log_probabilities_of_their_pairs(mdp: TabularMDP) -> None:
    rows = episodes(mdp, number=500)
    valid, obs, action = rows["valid"], rows["obs"], rows["action"]
    assert torch.equal(rows["reward"][valid], mdp.reward[obs[valid], action[valid]])
    close(rows["log_prob"][valid], logits(mdp).log_softmax(-1)[obs[valid], action[valid]])
    for key in ("reward", "log_prob", "action"):
        assert not rows[key][~valid].any()


@over_mdps
def test_simulated_frequencies_agree_with_the_laws(mdp: TabularMDP) -> None:
    pi, rows = policy(mdp), episodes(mdp)
    within_errors(torch.eye(mdp.states, dtype=torch.float64)[rows["obs"][0]], mdp.start, 5.0)
    valid = rows["valid"]
    obs, action, following = (rows[key][valid] for key in ("obs", "action", "next_obs"))
    for state in obs.unique().tolist():
        chosen = torch.eye(mdp.actions, dtype=torch.float64)[action[obs == state]]
        within_errors(chosen, pi[state], 5.0)
        for move in range(mdp.actions):
            reached = torch.eye(mdp.states, dtype=torch.float64)[following[(obs == state) & (action == move)]]
            within_errors(reached, mdp.transition[state, move], 5.0)
    visits = oracle.finite_horizon_visitation(mdp, pi, 30, 1.0)
    for time in (1, 5, 29):
        here = torch.eye(mdp.states, dtype=torch.float64)[rows["obs"][time]] * valid[time][:, None]
        within_errors(here, visits[time], 5.0)


def test_a_generator_fixes_the_samples() -> None:
    mdp = gridworld()
    first, again = episodes(mdp, number=50), episodes(mdp, number=50)
    assert all(torch.equal(first[key], again[key]) for key in first)


# --- environments ---


@pytest.mark.parametrize("mdp", [chain(), random_mdp(3, 2, seed=1)], ids=lambda mdp: mdp.name)
def test_environment_steps_follow_the_mdp(mdp: TabularMDP) -> None:
    env = oracle.TabularEnv(mdp)
    starts = torch.tensor([env.reset(seed=seed)[0] for seed in range(1000)])
    within_errors(torch.eye(mdp.states, dtype=torch.float64)[starts], mdp.start, 5.0)
    for state in (~mdp.terminal).nonzero().flatten().tolist():
        for action in range(mdp.actions):
            reached = []
            for _ in range(500):
                env.state = state
                following, reward, terminated, truncated, _ = env.step(action)
                assert reward == mdp.reward[state, action] and not truncated
                assert terminated == mdp.terminal[following] and following == env.state
                reached.append(following)
            frequencies = torch.eye(mdp.states, dtype=torch.float64)[reached]
            within_errors(frequencies, mdp.transition[state, action], 5.0)


@pytest.mark.parametrize(("name", "mdp"), [("Gridworld-v0", gridworld()), ("Chain-v0", chain())])
def test_registered_environments_show_their_mdp_and_its_horizon(name: str, mdp: TabularMDP) -> None:
    env = gymnasium.make(f"tests.oracle:{name}")
    assert isinstance(env.unwrapped, oracle.TabularEnv)
    assert torch.equal(env.unwrapped.mdp.transition, mdp.transition)
    assert torch.equal(env.unwrapped.mdp.reward, mdp.reward)

    def walk(seed: int, moves: int) -> list[tuple[int, float, bool, bool]]:
        generator = torch.Generator().manual_seed(seed)
        obs, _ = env.reset(seed=seed)
        assert env.observation_space.contains(obs) and mdp.start[obs] > 0
        rows: list[tuple[int, float, bool, bool]] = []
        while not rows or not (rows[-1][2] or rows[-1][3]):
            action = int(torch.randint(moves, (), generator=generator))
            obs, reward, terminated, truncated, _ = env.step(action)
            rows.append((int(obs), float(reward), terminated, truncated))
        return rows

    roaming = [walk(seed, moves=mdp.actions) for seed in range(50)]
    assert roaming[7] == walk(7, moves=mdp.actions) != roaming[8]
    assert any(rows[-1][2] for rows in roaming)
    # Repeating the first move, up or left, never reaches the end before the time limit.
    stubborn = [walk(seed, moves=1) for seed in range(10)]
    assert {len(rows) for rows in stubborn if not rows[-1][2]} == {mdp.horizon}
