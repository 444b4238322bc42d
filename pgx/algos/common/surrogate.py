"""Surrogate objective, its gradient and the KL divergence of a policy on a batch."""

from torch import Tensor

from pgx.core.agent import Distribution, Metrics, Policy
from pgx.core.data import Batch
from pgx.core.metrics import Metric
from pgx.ops.losses import surrogate
from pgx.ops.params import gradient

# Metrics of rules with a natural-gradient step: of conjugate gradient, and reasons for an update without a step.
CG_METRICS = (
    Metric("cg_steps", "count", "products with the Fisher matrix that conjugate gradient took"),
    Metric(
        "cg_residual",
        "1",
        "norm of g - H x left by conjugate gradient, relative to the norm of g",
        healthy="below 0.5",
    ),
)
NO_STEP_METRICS = (
    Metric(
        "zero_gradient",
        "0 or 1",
        "1: the gradient of the surrogate is zero, so there is no step",
        healthy="0; 1 until the first reward where all advantages are equal",
    ),
    Metric(
        "no_curvature",
        "0 or 1",
        "1: x^T H x of the direction x = H^-1 g is not positive, so there is no step along the gradient g",
        healthy="0",
    ),
)


def surrogate_and_gradient(policy: Policy, batch: Batch, now: Distribution) -> tuple[Tensor, Tensor]:
    """Compute the surrogate on a batch and its gradient in the policy's parameters, over the rows of all ranks.

    Args:
        policy: π.
        batch: B rows.
        now: distributions of π at these rows, not detached.

    Returns:
        The surrogate, scalar, and its gradient, [P]; detached.
    """
    log_ratio = now.log_prob(batch.action) - batch.log_prob
    objective = surrogate(log_ratio, batch.advantage)
    objective, slope = batch.averaged(objective.detach(), gradient(objective, list(policy.parameters())))
    return objective, slope


def surrogate_and_kl(policy: Policy, batch: Batch, old: Distribution) -> tuple[Tensor, Tensor]:
    """Compute the surrogate on a batch and the mean KL(π_old || π), over the rows of all ranks.

    Args:
        policy: π.
        batch: B rows.
        old: distributions of π_old at these rows, detached.

    Returns:
        The surrogate and the KL in nats, scalars, detached.
    """
    new = policy(batch.obs)
    gain = surrogate(new.log_prob(batch.action) - batch.log_prob, batch.advantage)
    gain, kl = batch.averaged(gain.detach(), old.kl(new).mean().detach())
    return gain, kl


def no_step_metrics(gradient: Tensor, curvature: float) -> Metrics:
    """Return the reason for an update without a step, as metrics that are 0 if there is a step.

    Args:
        gradient: gradient g of the surrogate, [P].
        curvature: xᵀHx of the direction x = H⁻¹g; the step is √(2δ / xᵀHx) x.
    """
    zero = not bool(gradient.any())
    return {"zero_gradient": float(zero), "no_curvature": float(not zero and not curvature > 0)}
