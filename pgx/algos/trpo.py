"""Trust region policy optimization."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgx.algos.common.advantages import gae_batch
from pgx.algos.common.critic_fit import CRITIC_LOSS, critic_minibatch_conflicts, fit_critic
from pgx.algos.common.surrogate import (
    CG_METRICS,
    NO_STEP_METRICS,
    no_step_metrics,
    surrogate_and_gradient,
    surrogate_and_kl,
)
from pgx.core.agent import Agent, Distribution, Metrics, Policy
from pgx.core.algorithm import Engine, Learner, Setting, Use
from pgx.core.data import Batch, Observations, Rollout
from pgx.core.defaults import DEFAULT
from pgx.core.metrics import Metric
from pgx.core.schema import Count, Fraction, Index, NonNegative, OpenFraction, Positive, check_fields
from pgx.ops.fisher import (
    MatVec,
    damped,
    gauss_newton_product,
    kl_hessian_product,
    mean_over_chunks,
    mean_over_ranks,
)
from pgx.ops.params import assign, flatten
from pgx.ops.solvers import LineSearchResult, backtracking_line_search, conjugate_gradient

FISHER_PRODUCTS: dict[str, Callable[[Policy, Observations], MatVec]] = {
    "gauss_newton": gauss_newton_product,
    "kl_hessian": kl_hessian_product,
}


@dataclass
class TRPO:
    """Trust region policy optimization: maximize the surrogate subject to mean KL(pi_old || pi_new) <= max_kl.

    Source: Schulman et al., "Trust region policy optimization", 2015: the problem is eq. 14, the practical algorithm
    section 6 and appendix C. Advantages follow Schulman et al., 2016 (GAE); with gae_lambda = 1 they are the returns
    minus the critic's values. H is F + damping I, their A.
    """

    uses: ClassVar[frozenset[Use]] = frozenset({"critic_optimizer", "ranks"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "line_search_steps",
            "count",
            "fractions of the full step that the line search tried; 0: no search",
            healthy="1 to 3",
        ),
        Metric(
            "line_search_fraction",
            "fraction",
            "of the full step that was accepted; 0: rejected",
            healthy="above 0 in nearly all updates",
        ),
        *CG_METRICS,
        *NO_STEP_METRICS,
        CRITIC_LOSS,
    )

    discount: Fraction = DEFAULT  # gamma
    gae_lambda: Fraction = DEFAULT  # lambda
    normalize_advantage: bool = DEFAULT  # to mean 0 and standard deviation 1 over the batch
    max_kl: Positive = DEFAULT  # delta, nats: bound on the mean KL(pi_old || pi_new) of one update
    fisher: Literal["gauss_newton", "kl_hessian"] = DEFAULT  # two ways to compute the same product F v
    damping: NonNegative = DEFAULT  # added to the diagonal of F; larger is safer and slower
    cg_steps: Count = DEFAULT  # largest number of products with F
    cg_tolerance: Fraction = DEFAULT  # conjugate gradient stops at this residual relative to |g|
    # K: largest number of times that the step is shortened; at most K + 1 fractions are tried
    line_search_steps: Index = DEFAULT
    line_search_shrink: OpenFraction = DEFAULT  # ratio of a fraction to the one before
    critic_epochs: Index = DEFAULT  # passes of regression over the batch
    critic_minibatch_size: Count = DEFAULT  # rows

    def __post_init__(self) -> None:
        check_fields(self)

    def conflicts(self, setting: Setting) -> list[str]:
        return critic_minibatch_conflicts(setting, self.critic_minibatch_size)

    def estimate(self, agent: Agent, rollout: Rollout) -> Batch:
        return gae_batch(agent, rollout, self.discount, self.gae_lambda, self.normalize_advantage)

    def update(self, agent: Agent, learner: Learner, rollout: Rollout, progress: float) -> Metrics:
        policy, batch = agent.policy, self.estimate(agent, rollout)
        rates = learner.anneal(progress)
        critic_fit = learner.engine.submit(
            fit_critic, batch, learner, self.critic_epochs, self.critic_minibatch_size
        )

        now = policy(batch.obs)
        objective, g = surrogate_and_gradient(policy, batch, now)

        product = mean_over_chunks(partial(self._product, policy, learner.engine), batch.obs, learner.engine)
        product = mean_over_ranks(product, batch)
        cg = conjugate_gradient(damped(product, self.damping), g, self.cg_steps, self.cg_tolerance)
        curvature = float(cg.x.dot(cg.product))  # xᵀHx
        if curvature > 0:
            full_step = math.sqrt(2 * self.max_kl / curvature) * cg.x
            search = self._line_search(
                policy, batch, now.detach(), learner.engine, float(objective), full_step
            )
        else:  # x is 0, or xᵀHx is not positive: there is no step
            search = LineSearchResult(math.nan, 0)

        return (
            {
                "line_search_steps": float(search.steps),
                "line_search_fraction": search.fraction,
                "cg_residual": cg.residual,
                "cg_steps": float(cg.steps),
            }
            | no_step_metrics(g, curvature)
            | rates
            | critic_fit()
        )

    def _product(self, policy: Policy, engine: Engine, obs: Observations) -> MatVec:
        """Return v -> F v, averaged over these observations."""
        return engine.prepare(FISHER_PRODUCTS[self.fisher], policy, obs, rows=len(obs))

    @torch.no_grad()
    def _line_search(
        self,
        policy: Policy,
        batch: Batch,
        old: Distribution,
        engine: Engine,
        objective: float,
        full_step: Tensor,
    ) -> LineSearchResult:
        """Move the policy by the first fraction of the step that improves the surrogate within max_kl.

        If no fraction does, the policy is unchanged.
        """
        parameters = list(policy.parameters())
        start = flatten(parameters)
        found = engine.bind(surrogate_and_kl, policy, batch, old, rows=len(batch))

        def accept(fraction: float) -> bool:
            assign(parameters, start + fraction * full_step)
            improved, kl = found()
            return float(improved) > objective and float(kl) <= self.max_kl

        search = backtracking_line_search(accept, self.line_search_shrink, self.line_search_steps)
        if search.fraction == 0:
            assign(parameters, start)
        return search
