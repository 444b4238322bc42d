"""Returns, advantages and value targets over `[T, N]` rollouts.

Time is the first axis; `reward[t]` and `next_value[t]` belong to the step from s_t to its true successor s_{t+1}.
Two rules hold in every function. V(s') = 0 where `terminated`; where `truncated`, and after the last row,
V(s') = next_value is bootstrapped. No recursion crosses the end of an episode. `discount` is a float, or a [T, N]
tensor of discounts of each step.
"""

import torch
from torch import Tensor


def backward_recurrence(x: Tensor, decay: Tensor) -> Tensor:
    """Solve y_t = x_t + decay_t * y_{t+1} with y_T = 0 for all t at once.

    Recursive doubling: after k rounds y_t holds the terms up to t + 2^k - 1, and `reach` the product of their
    decays, so that log2(T) tensor operations replace a loop over T steps.

    Source: Hillis and Steele, "Data parallel algorithms", CACM 29(12), 1986.

    Args:
        x: [T, ...].
        decay: [T, ...]; 0 where y_t does not depend on y_{t+1}.

    Returns:
        y: [T, ...].
    """
    y, reach = x.clone(), decay.clone()
    shift = 1
    while shift < len(x):
        # A decay of 0 must also stop an infinite value, and 0 * inf is NaN.
        y[:-shift] += torch.where(reach[:-shift] == 0, 0.0, reach[:-shift] * y[shift:])
        reach[:-shift] = reach[:-shift] * reach[shift:]
        shift *= 2
    return y


def _one_step_target(
    reward: Tensor, next_value: Tensor, terminated: Tensor, discount: float | Tensor
) -> Tensor:
    return reward + discount * torch.where(terminated, 0.0, next_value)


def _continues(terminated: Tensor, truncated: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 where the episode continues after row t, else 0; [T, N]."""
    return (~(terminated | truncated)).to(dtype)


def discounted_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
) -> Tensor:
    """Discounted reward-to-go, bootstrapped where the data end before the task.

    R_t = r_t + γ R_{t+1} within an episode; R_t = r_t at termination; R_t = r_t + γ V(s_{t+1}) at a
    truncation and in the last row.

    Source: Sutton and Barto, Reinforcement Learning, 2nd ed., eq. 3.9 (their G_t starts at R_{t+1}, which
    is r_t here).

    Args:
        reward, next_value: [T, N]; a next_value of 0 everywhere gives the returns without bootstrapping.
        terminated, truncated: [T, N] bool.
        discount: γ in [0, 1].

    Returns:
        [T, N].
    """
    one_step = _one_step_target(reward, next_value, terminated, discount)
    bootstraps = truncated.clone()
    bootstraps[-1] = True
    x = torch.where(bootstraps, one_step, reward)
    return backward_recurrence(x, _continues(terminated, truncated, reward.dtype) * discount)


def n_step_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    n: int,
) -> Tensor:
    """Compute n-step returns: at most n rewards, then the value of the critic.

    G_t = r_t + γ r_{t+1} + ... + γ^{m-1} r_{t+m-1} + γ^m V(s_{t+m}), where m = n unless the episode or the
    rollout ends earlier. n = 1 is the TD target; n >= T equals `discounted_returns`.

    Source: Sutton and Barto, 2nd ed., eq. 7.1.

    Args:
        reward, next_value: [T, N].
        terminated, truncated: [T, N] bool.
        discount: γ in [0, 1].
        n: >= 1, steps.

    Returns:
        [T, N].
    """
    if n < 1:
        raise ValueError(f"n: expected a whole number >= 1, got {n}")
    if n >= len(reward):
        return discounted_returns(reward, next_value, terminated, truncated, discount)
    one_step = _one_step_target(reward, next_value, terminated, discount)
    onward = ~(terminated | truncated)
    onward[-1] = False
    returns = one_step
    for _ in range(n - 1):
        following = torch.cat([returns[1:], returns[-1:]])
        returns = torch.where(onward, reward + discount * following, one_step)
    return returns


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    gae_lambda: float,
) -> Tensor:
    """Generalized advantage estimation.

    A_t = Σ_l (γ λ)^l δ_{t+l} over the rest of the episode, with δ_t = r_t + γ V(s_{t+1}) - V(s_t).
    λ = 0 gives the TD error; λ = 1 gives the discounted return minus V(s_t).

    Source: Schulman et al., "High-dimensional continuous control using generalized advantage estimation",
    2016, eq. 16.

    Args:
        reward, value, next_value: [T, N].
        terminated, truncated: [T, N] bool.
        discount: γ in [0, 1].
        gae_lambda: λ in [0, 1].

    Returns:
        advantage: [T, N]; advantage + value is the λ-return, the target of a critic.
    """
    td_error = _one_step_target(reward, next_value, terminated, discount) - value
    return backward_recurrence(
        td_error, _continues(terminated, truncated, reward.dtype) * discount * gae_lambda
    )


def vtrace(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    rho_clip: float,
    c_clip: float,
    trace_lambda: float,
) -> tuple[Tensor, Tensor]:
    """V-trace value targets and advantages from trajectories of a behavior policy μ.

    v_t = V(s_t) + Σ_{k>=t} γ^{k-t} (Π_{i=t}^{k-1} c_i) ρ_k δ_k, with ρ = min(ρ̄, π/μ), c = λ min(c̄, π/μ);
    the advantage is r_t + γ v_{t+1} - V(s_t).

    Source: Espeholt et al., "IMPALA", 2018, eq. 1 and section 4.2 (their λ is in remark 2). Their policy gradient
    multiplies the advantage by ρ_t. Here the loss applies that weight, so that an advantage is a difference of values
    in every rule.

    Args:
        log_ratio: [T, N] log π(a|s) - log μ(a|s), nats.
        reward, value, next_value: [T, N].
        terminated, truncated: [T, N] bool.
        discount: γ in [0, 1].
        rho_clip: ρ̄ > 0, bound on the weight of each TD error; it determines the policy whose value is learned.
        c_clip: c̄ > 0, bound on the traces; it affects only the speed of learning.
        trace_lambda: λ in [0, 1].

    Returns:
        value_target, advantage: [T, N] each.
    """
    ratio = log_ratio.exp()
    rho = ratio.clamp(max=rho_clip)
    trace = trace_lambda * ratio.clamp(max=c_clip)
    td_error = rho * (_one_step_target(reward, next_value, terminated, discount) - value)
    correction = backward_recurrence(
        td_error, _continues(terminated, truncated, reward.dtype) * discount * trace
    )
    value_target = value + correction
    following = torch.cat([value_target[1:], next_value[-1:]])
    following = torch.where(truncated, next_value, following)
    advantage = _one_step_target(reward, following, terminated, discount) - value
    return value_target, advantage
