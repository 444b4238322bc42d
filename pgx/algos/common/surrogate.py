"""What a policy gains on a batch, as functions of a policy, a batch and what was before."""

from torch import Tensor

from pgx.core.agent import Distribution, Metrics, Policy
from pgx.core.data import Batch
from pgx.core.metrics import Metric
from pgx.ops.losses import surrogate
from pgx.ops.params import gradient

# What rules with a natural-gradient step report: of conjugate gradient, and why there is no step.
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
    """The surrogate on a batch, scalar, and its gradient by the policy's parameters, [P]; detached, over all ranks.

    Args:
        policy: π.
        batch: B rows.
        now: π at each of them, from which the gradient goes back to its parameters.
    """
    log_ratio = now.log_prob(batch.action) - batch.log_prob
    objective = surrogate(log_ratio, batch.advantage)
    objective, slope = batch.averaged(objective.detach(), gradient(objective, list(policy.parameters())))
    return objective, slope


def surrogate_and_kl(policy: Policy, batch: Batch, old: Distribution) -> tuple[Tensor, Tensor]:
    """The surrogate on a batch and the mean KL(π_old || π) over it, nats; scalars, detached, over all ranks.

    Args:
        policy: π.
        batch: B rows.
        old: π_old at each of them, detached.
    """
    new = policy(batch.obs)
    gain = surrogate(new.log_prob(batch.action) - batch.log_prob, batch.advantage)
    gain, kl = batch.averaged(gain.detach(), old.kl(new).mean().detach())
    return gain, kl


def no_step_metrics(gradient: Tensor, curvature: float) -> Metrics:
    """Return why a trust region has no step, as metrics that are 0 where it has one.

    Args:
        gradient: g of the surrogate, [P].
        curvature: xᵀHx of the step's direction x = H⁻¹g; the step's length is √(2δ / xᵀHx).
    """
    zero = not bool(gradient.any())
    return {"zero_gradient": float(zero), "no_curvature": float(not zero and not curvature > 0)}
