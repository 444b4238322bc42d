"""Natural policy gradient."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_minibatch_conflicts, fit_critic
from pgx.algos.common.surrogate import CG_METRICS, NO_STEP_METRICS, no_step_metrics, surrogate_and_gradient
from pgx.core.agent import Agent, Metrics, Policy
from pgx.core.algorithm import Engine, Learner, Setting, Use
from pgx.core.data import Batch, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, Index, NonNegative, Positive, check_fields
from pgx.ops.fisher import (
    MatVec,
    damped,
    dense_matrix,
    empirical_fisher_product,
    gauss_newton_product,
    kl_hessian_product,
    mean_over_chunks,
    mean_over_ranks,
    scores,
)
from pgx.ops.params import assign, flatten
from pgx.ops.solvers import conjugate_gradient, ridge_regression

_MAX_MATRIX_SIZE = 20_000**2  # numbers in a matrix that a solver forms: 1.6 GB in single precision


@dataclass
class NPG:
    """Natural policy gradient: one step along F⁻¹g, scaled to max_kl in the quadratic model of the KL.

    The step is taken without a line search. F means F + damping I throughout.

    Source: Kakade, "A natural policy gradient", 2001: the direction F⁻¹g, and its theorem 1 for the solver
    compatible. Rajeswaran et al., "Towards generalization and simplicity in continuous control", 2017: the
    normalized step √(2δ / gᵀF⁻¹g) F⁻¹g of algorithm 1 (their δ is 2δ here).
    """

    metrics: ClassVar[tuple[Metric, ...]] = (*CG_METRICS, *NO_STEP_METRICS, CRITIC_LOSS)

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    max_kl: Positive = DEFAULT  # delta, nats: the quadratic model of mean KL(pi_old || pi_new) of every step
    # Computation of F⁻¹g. cg: conjugate gradient, from products with F. exact: from the matrix F, for small policies: P
    # parameters need P products and 4 P² bytes. compatible: the weights of a regression of the advantage on the scores,
    # from B scores of P numbers. euclidean: none, the step follows g (max_kl, fisher and damping are unused).
    solver: Literal["cg", "exact", "compatible", "euclidean"] = DEFAULT
    # gauss_newton and kl_hessian: two ways to compute the same matrix; empirical: from scores of the sampled actions.
    fisher: Literal["gauss_newton", "kl_hessian", "empirical"] = DEFAULT
    damping: NonNegative = DEFAULT  # added to the diagonal of F; larger is safer and slower
    cg_steps: Count = DEFAULT  # largest number of products with F (solver cg)
    cg_tolerance: Fraction = DEFAULT  # conjugate gradient stops at this residual relative to |g| (solver cg)
    euclidean_radius: Positive = DEFAULT  # 2-norm of every step in the parameters (solver euclidean)
    critic_epochs: Index = DEFAULT  # passes of regression over the batch
    critic_minibatch_size: Count = DEFAULT  # rows

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def uses(self) -> frozenset[Use]:
        # The regression of the solver compatible would need the scores of the rows of all ranks.
        return frozenset(
            {"critic_optimizer"} if self.solver == "compatible" else {"critic_optimizer", "ranks"}
        )

    def conflicts(self, setting: Setting) -> list[str]:
        found = critic_minibatch_conflicts(setting, self.critic_minibatch_size)
        if self.solver == "compatible" and self.fisher != "empirical":
            found.append(
                f"algo.fisher={self.fisher}: the solver compatible fits the advantage on the scores of the sampled "
                "actions, which gives the natural gradient of the empirical Fisher matrix only; set "
                "algo.fisher=empirical"
            )
        if self.solver == "compatible" and setting.is_recurrent:
            found.append(
                f"algo.solver=compatible: needs the scores of single rows, and with policy={setting.policy}, which is "
                "recurrent, a row depends on the rows before it; set algo.solver=cg or exact"
            )
        if self.solver in ("exact", "compatible") and self.damping == 0:
            found.append(
                f"algo.damping=0: the solver {self.solver} solves a linear system that is singular without damping "
                "(adding one number to all logits does not change the policy, so F is 0 in this direction); expected a "
                "number > 0"
            )
        return found

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, self.normalize_advantage)

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        policy, batch = agent.policy, self.estimate(agent, rollout)
        metrics = learner.anneal(progress)
        critic_fit = learner.engine.submit(
            fit_critic, batch, learner, self.critic_epochs, self.critic_minibatch_size
        )

        _, g = surrogate_and_gradient(policy, batch, policy(batch.obs))

        match self.solver:
            case "cg":
                cg = conjugate_gradient(
                    self._damped_product(policy, batch, learner.engine), g, self.cg_steps, self.cg_tolerance
                )
                x = cg.x
                metrics |= {"cg_steps": float(cg.steps), "cg_residual": cg.residual}
            case "exact":
                _check_matrix_size(len(g), len(g), "parameters squared")
                x = torch.linalg.solve(
                    dense_matrix(self._damped_product(policy, batch, learner.engine), g), g
                )
            case "compatible":
                _check_matrix_size(len(batch), len(g), "rows times parameters")
                x = ridge_regression(scores(policy, batch.obs, batch.action), batch.advantage, self.damping)
            case "euclidean":
                x = g

        slope = float(g.dot(x))
        if not slope > 0:  # x is 0, or xᵀFx is not positive: there is no step
            scale = 0.0
        elif self.solver == "euclidean":
            scale = self.euclidean_radius / math.sqrt(slope)  # gᵀg
        else:
            scale = math.sqrt(2 * self.max_kl / slope)  # gᵀF⁻¹g = xᵀFx
        parameters = list(policy.parameters())
        assign(parameters, flatten(parameters) + scale * x)

        return metrics | no_step_metrics(g, slope) | critic_fit()

    def _damped_product(self, policy: Policy, batch: Batch, engine: Engine) -> MatVec:
        """Return v -> F v + damping v."""
        if self.fisher == "empirical":
            actions = batch.action
            product = engine.prepare(empirical_fisher_product, policy, batch.obs, actions, rows=len(batch))
        else:
            exact = gauss_newton_product if self.fisher == "gauss_newton" else kl_hessian_product
            product = mean_over_chunks(
                lambda obs: engine.prepare(exact, policy, obs, rows=len(obs)), batch.obs, engine
            )
        return damped(mean_over_ranks(product, batch), self.damping)


def _check_matrix_size(rows: int, columns: int, shape: str) -> None:
    """Raise ValueError where a matrix is too large to form."""
    if rows * columns > _MAX_MATRIX_SIZE:
        gigabytes, limit = (4 * size / 1e9 for size in (rows * columns, _MAX_MATRIX_SIZE))
        raise ValueError(
            f"algo.solver: a matrix of {shape}, {rows} x {columns} x 4 bytes = {gigabytes:.1f} GB, is too large "
            f"to form (limit {limit:.1f} GB); use algo.solver=cg, which needs only products, or a smaller policy"
        )
