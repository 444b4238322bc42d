"""Objectives and losses, each a mean over the batch. Objectives are maximized, losses minimized."""

import torch
from torch import Tensor


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Objective whose gradient is the policy gradient.

    L = E[ log π(a|s) A ]; ∇L = E[ ∇ log π(a|s) A ].

    Source: Sutton et al., "Policy gradient methods for reinforcement learning with function approximation", 2000,
    theorem 1, sampled; Williams, 1992 (REINFORCE).

    Args:
        log_prob: [B] nats.
        advantage: [B].

    Returns:
        Scalar, to be maximized; only its gradient has a meaning.
    """
    return (log_prob * advantage).mean()


def surrogate(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """Surrogate objective: the importance-sampled improvement over the behavior policy.

    L = E[ π(a|s)/μ(a|s) A ]; its gradient at π = μ is the policy gradient E[ ∇ log π(a|s) A ].

    Source: Schulman et al., "Trust region policy optimization", 2015, eq. 14.

    Args:
        log_ratio: [B] log π(a|s) - log μ(a|s), nats.
        advantage: [B].

    Returns:
        Scalar, to be maximized; in the advantage's units.
    """
    return (log_ratio.exp() * advantage).mean()


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Clipped surrogate: gives no incentive to move the ratio out of [1 - ε, 1 + ε].

    L = E[ min(r A, clip(r, 1 - ε, 1 + ε) A) ], r = π(a|s)/μ(a|s). The gradient of a row vanishes where r > 1 + ε and
    A > 0, where r < 1 - ε and A < 0, and nowhere else.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 7.

    Args:
        log_ratio: [B] nats.
        advantage: [B].
        clip_range: ε > 0.

    Returns:
        Scalar, to be maximized.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage).mean()


def kl_penalized_surrogate(
    log_ratio: Tensor, advantage: Tensor, kl: Tensor, coefficient: float | Tensor
) -> Tensor:
    """Surrogate minus a penalty on the KL divergence from the policy before the update.

    L = E[ π(a|s)/μ(a|s) A ] - β E[ KL ]. At π = μ the gradient of the KL is 0 in both directions, and the gradient of L
    is the policy gradient.

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 8, with KL(μ || π); Tomar et al.,
    "Mirror descent policy optimization", 2020, section 4.1, with KL(π || μ) and β = 1/t_k.

    Args:
        log_ratio: [B] log π(a|s) - log μ(a|s), nats.
        advantage: [B].
        kl: [B] nats, KL(μ || π) or KL(π || μ), as the rule defines it.
        coefficient: β >= 0, in units of the advantage per nat.

    Returns:
        Scalar, to be maximized; in the advantage's units.
    """
    return surrogate(log_ratio, advantage) - coefficient * kl.mean()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error, 1/2 E[(V - target)²], whose gradient in V is the mean error; scalar."""
    return 0.5 * (value - target).square().mean()


def joint_loss(value: Tensor, target: Tensor, kl: Tensor, clone_coefficient: float) -> Tensor:
    """Loss of a policy's value head, with a penalty on the change of the policy.

    L = 1/2 E[(V - target)²] + β E[ KL(π_old || π) ].

    Source: Cobbe et al., "Phasic policy gradient", 2020, L_joint of the auxiliary phase, with L_aux inserted.

    Args:
        value, target: [B].
        kl: [B] nats, KL(π_old || π).
        clone_coefficient: β >= 0, value² per nat.

    Returns:
        Scalar, to be minimized; in units of value².
    """
    return value_loss(value, target) + clone_coefficient * kl.mean()


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip_range: float) -> Tensor:
    """Clipped value loss: the larger of the errors of V and of V clipped to within clip_range of its old estimate.

    L = 1/2 E[ max((V - G)², (clip(V, V_old - ε, V_old + ε) - G)²) ].

    Source: the value loss of OpenAI Baselines' ppo2; described in Engstrom et al., "Implementation matters in
    deep policy gradients", 2020, section 3, item 1. It depends on the scale of the returns.

    Args:
        value, old_value, target: [B].
        clip_range: ε > 0, in units of value.

    Returns:
        Scalar.
    """
    clipped = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((value - target).square(), (clipped - target).square()).mean()
