"""Tests of NPG against its definition: direction by each solver, length of the step, invariances."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pgx.core.data import Batch, Observations, Rollout
from pgx.core.errors import UserError
from pgx.networks.distributions import Categorical
from pgx.ops.fisher import gauss_newton_product, kl_hessian_product, scores
from pgx.ops.params import flatten, gradient
from pgx.training.trainer import Trainer
from tests.conftest import Make, double

ENVS = ["env=CartPole-v1", "env=Pendulum-v1"]
SMALL = ["algo=npg", "algo.critic_minibatch_size=64", "algo.critic_epochs=1"]
TINY = [*SMALL, "policy.hidden=[3]", "policy.output_gain=1.0"]
MANY_STEPS = ["algo.cg_steps=300", "algo.cg_tolerance=1e-7"]
WAYS = {
    "cg": ["algo.solver=cg", *MANY_STEPS],
    "exact": ["algo.solver=exact"],
    "compatible": ["algo.solver=compatible", "algo.fisher=empirical"],
}


def collected(trainer: Trainer) -> tuple[Rollout, Batch]:
    rollout = trainer.runner.collect(trainer.agent)
    return rollout, trainer.algorithm.estimate(trainer.agent, rollout)


def policy_vector(trainer: Trainer) -> Tensor:
    return flatten(trainer.agent.policy.parameters())


def step(trainer: Trainer, rollout: Rollout) -> tuple[Tensor, dict[str, float]]:
    start = policy_vector(trainer)
    metrics = trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    return policy_vector(trainer) - start, metrics


def policy_gradient(trainer: Trainer, batch: Batch) -> Tensor:
    """Return E[ψ A], the gradient of REINFORCE."""
    policy = trainer.agent.policy
    return gradient(
        (policy(batch.obs).log_prob(batch.action) * batch.advantage).mean(), [*policy.parameters()]
    )


def explicit_matrix(trainer: Trainer, batch: Batch, fisher: str) -> Tensor:
    policy = trainer.agent.policy
    if fisher == "empirical":
        psi = scores(policy, batch.obs, batch.action)
        return psi.T @ psi / len(batch)
    build = {"gauss_newton": gauss_newton_product, "kl_hessian": kl_hessian_product}[fisher]
    product = build(policy, batch.obs)
    return torch.stack([product(e) for e in torch.eye(len(policy_vector(trainer)))])


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("solver", "fisher"),
    [(s, f) for s in ("cg", "exact") for f in ("gauss_newton", "kl_hessian", "empirical")]
    + [("compatible", "empirical")],
)
@pytest.mark.parametrize("env", ENVS)
def test_every_solver_takes_the_damped_natural_gradient_scaled_to_max_kl(
    make: Make, env: str, solver: str, fisher: str
) -> None:
    trainer = make(*TINY, env, *WAYS[solver], f"algo.fisher={fisher}", "algo.damping=0.1", "algo.max_kl=0.02")
    rollout, batch = collected(trainer)
    g = policy_gradient(trainer, batch)
    natural = torch.linalg.solve(explicit_matrix(trainer, batch, fisher) + 0.1 * torch.eye(len(g)), g)
    expected = (2 * 0.02 / natural.dot(g)).sqrt() * natural
    actual, metrics = step(trainer, rollout)
    assert relative(actual, expected) < 1e-3
    assert ("cg_steps" in metrics) == ("cg_residual" in metrics) == (solver == "cg")


@pytest.mark.parametrize("normalize", ["true", "false"])
@pytest.mark.parametrize("env", ENVS)
def test_the_weights_that_fit_the_advantage_on_the_scores_are_the_natural_gradient(
    make: Make, env: str, normalize: str
) -> None:
    """The fit has no intercept, so that Ψᵀ A / B is g whether advantages are centered or not."""
    steps = []
    for way in ("compatible", "exact"):
        trainer = make(
            *TINY, env, *WAYS[way], "algo.fisher=empirical", f"algo.normalize_advantage={normalize}", name=way
        )
        rollout, batch = collected(trainer)
        assert (abs(float(batch.advantage.mean())) < 1e-5) == (normalize == "true")
        steps.append(step(trainer, rollout)[0])
    assert relative(steps[0], steps[1]) < 1e-3


@pytest.mark.parametrize("fisher", ["gauss_newton", "kl_hessian", "empirical"])
@pytest.mark.parametrize("env", ENVS)
def test_without_damping_mean_kl_tends_to_max_kl_as_max_kl_tends_to_zero(
    make: Make, env: str, fisher: str
) -> None:
    """½ sᵀFs = max_kl for every step s; the KL differs from it by third order alone (in double precision).

    The empirical matrix has a quadratic form of its own, which only approaches that of the KL: there it is measured.
    """
    errors = []
    for max_kl in (1e-6, 2.5e-7, 6.25e-8):
        # Steps of conjugate gradient are few enough to leave out the directions in which F is all but 0: along
        # those the quadratic model holds for much smaller steps alone. xᵀFx = gᵀx holds after any number.
        trainer = make(
            *TINY, env, "algo.cg_steps=5", f"algo.fisher={fisher}", "algo.damping=0", f"algo.max_kl={max_kl}"
        )
        rollout, batch = collected(trainer)
        policy = trainer.agent.policy.double()
        exact = replace(batch, obs=double(batch.obs), advantage=batch.advantage.double())
        trainer.algorithm.estimate = lambda agent, rollout, exact=exact: exact
        trainer.algorithm.critic_epochs = 0
        psi, old = scores(policy, exact.obs, exact.action), policy(exact.obs).detach()
        taken, _ = step(trainer, rollout)
        if fisher == "empirical":
            assert float((psi @ taken).square().mean() / 2) == pytest.approx(max_kl, rel=1e-4)
        else:
            errors.append(abs(float(old.kl(policy(exact.obs)).mean().detach()) / max_kl - 1))
    if fisher != "empirical":
        assert errors[-1] < 0.1
        assert errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1]  # half per quarter of max_kl


@pytest.mark.parametrize("env", ENVS)
def test_damping_takes_a_part_of_max_kl(make: Make, env: str) -> None:
    shares = []
    for damping in (0.0, 0.1, 1.0):
        trainer = make(*TINY, env, *WAYS["cg"], f"algo.damping={damping}", "algo.max_kl=0.001")
        rollout, batch = collected(trainer)
        fisher = explicit_matrix(trainer, batch, "gauss_newton")
        taken, _ = step(trainer, rollout)
        model = float(taken @ fisher @ taken / 2)
        assert model + damping * float(taken.square().sum()) / 2 == pytest.approx(1e-3, rel=1e-2)
        shares.append(model)
    assert shares[0] > shares[1] > shares[2]


@pytest.mark.parametrize("solver", ["cg", "exact", "compatible"])
def test_more_products_than_cg_steps_are_not_taken_and_the_surrogate_rises(make: Make, solver: str) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", *WAYS[solver], "algo.cg_steps=3", "policy.hidden=[8]")
    rollout, batch = collected(trainer)
    g = policy_gradient(trainer, batch)
    taken, metrics = step(trainer, rollout)
    assert float(taken.dot(g)) > 0
    if solver == "cg":
        assert metrics["cg_steps"] == 3 and 0 < metrics["cg_residual"] < 1


@pytest.mark.parametrize("env", ENVS)
def test_the_euclidean_step_has_its_radius_and_the_direction_of_the_gradient(make: Make, env: str) -> None:
    trainer = make(*SMALL, env, "algo.solver=euclidean", "algo.euclidean_radius=0.3")
    rollout, batch = collected(trainer)
    g = policy_gradient(trainer, batch)
    taken, metrics = step(trainer, rollout)
    assert float(taken.norm()) == pytest.approx(0.3, rel=1e-4)
    assert float(taken.dot(g) / (taken.norm() * g.norm())) == pytest.approx(1, abs=1e-4)
    assert metrics.keys() == {"critic_loss", "critic_learning_rate", "zero_gradient", "no_curvature"}


@pytest.mark.parametrize("solver", [*WAYS, "euclidean"])
def test_without_advantage_there_is_no_step_and_no_nan(make: Make, solver: str) -> None:
    way = WAYS.get(solver, ["algo.solver=euclidean"])
    trainer = make(*TINY, "env=CartPole-v1", *way)
    rollout, batch = collected(trainer)
    flat = replace(batch, advantage=torch.zeros(len(batch)))
    trainer.algorithm.estimate = lambda agent, rollout: flat
    start = policy_vector(trainer)
    _, metrics = step(trainer, rollout)
    assert torch.equal(policy_vector(trainer), start)
    assert all(value == value for value in metrics.values())


class Reparametrised(nn.Module):
    """Softmax policy over two actions with logits (θ · [obs, 1], 0) and θ = M φ; φ is the parameter."""

    recurrent_state = None

    def __init__(self, theta: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.phi = nn.Parameter(torch.linalg.solve(matrix, theta))

    @property
    def theta(self) -> Tensor:
        return self.matrix @ self.phi

    def forward(self, obs: Observations) -> Categorical:
        features = torch.cat([obs.features.double(), torch.ones(len(obs), 1, dtype=torch.float64)], 1)
        logit = features @ self.theta
        return Categorical(torch.stack([logit, torch.zeros_like(logit)], 1))


@pytest.mark.parametrize(
    ("solver", "fisher", "invariant"),
    [
        ("cg", "gauss_newton", True),
        ("cg", "kl_hessian", True),
        ("cg", "empirical", True),
        ("exact", "gauss_newton", True),
        ("compatible", "empirical", True),
        ("euclidean", "gauss_newton", False),
    ],
)
def test_the_natural_gradient_does_not_depend_on_the_coordinates_and_the_plain_one_does(
    make: Make, solver: str, fisher: str, invariant: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    theta = 0.3 * torch.randn(5, generator=generator, dtype=torch.float64)
    skewed = torch.randn(5, 5, generator=generator, dtype=torch.float64) + 2 * torch.eye(5)
    trainer = make(*SMALL, "env=CartPole-v1", *WAYS["cg"])
    trainer.algorithm.damping, trainer.algorithm.critic_epochs = 1e-12, 0
    trainer.algorithm.solver, trainer.algorithm.fisher = solver, fisher
    trainer.agent.policy = Reparametrised(theta, torch.eye(5, dtype=torch.float64))
    rollout, batch = collected(trainer)
    exact = replace(batch, advantage=batch.advantage.double())
    trainer.algorithm.estimate = lambda agent, rollout: exact
    moved = []
    for matrix in (torch.eye(5, dtype=torch.float64), skewed):
        trainer.agent.policy = policy = Reparametrised(theta, matrix)
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
        moved.append(policy.theta.detach() - theta)
    assert float(moved[0].norm()) > 1e-3
    if invariant:
        assert relative(moved[1], moved[0]) < 1e-4
    else:
        assert relative(moved[1], moved[0]) > 0.1


def test_the_compatible_solver_asks_for_the_empirical_matrix_and_for_damping(make: Make) -> None:
    with pytest.raises(
        UserError, match=r"algo\.fisher=gauss_newton: the solver compatible .* set algo\.fisher=empirical"
    ):
        make(*SMALL, "env=CartPole-v1", "algo.solver=compatible")
    for solver in ("exact", "compatible"):
        with pytest.raises(UserError, match=r"algo\.damping=0: the solver"):
            make(*SMALL, "env=CartPole-v1", *WAYS[solver], "algo.damping=0")


@pytest.mark.parametrize("solver", ["exact", "compatible"])
def test_a_matrix_that_is_too_large_is_refused_with_the_arithmetic(
    make: Make, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgx.algos.npg._MAX_MATRIX_SIZE", 20**2)
    trainer = make(*TINY, "env=CartPole-v1", *WAYS[solver])
    rollout, _ = collected(trainer)
    start = policy_vector(trainer)
    arithmetic = "23 x 23 x 4 bytes" if solver == "exact" else r"\d+ x 23 x 4 bytes"
    with pytest.raises(ValueError, match=arithmetic):
        trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    assert torch.equal(policy_vector(trainer), start)


def test_the_critic_gets_closer_to_its_targets(make: Make) -> None:
    trainer = make(*SMALL, "env=CartPole-v1", "algo.critic_epochs=20")
    rollout, batch = collected(trainer)
    before = float((batch.value - batch.value_target).square().mean())
    trainer.algorithm.update(trainer.agent, trainer.learner, rollout, 0.0)
    after = float((trainer.agent.critic(batch.obs) - batch.value_target).square().mean().detach())
    assert after < before
