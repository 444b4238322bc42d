"""Products with the Fisher information matrix of a policy, without ever forming it.

F = E_s[ J(s)ᵀ M(s) J(s) ], where J is the Jacobian of the distribution's coordinates with respect to the
parameters and M the Fisher metric in those coordinates. F is also the Hessian of the mean KL(π_old || π) at
π = π_old: two ways to the same product.

Source: Schulman et al., "Trust region policy optimization", 2015, appendix C.1; Martens, "New insights and
perspectives on the natural gradient method", 2020, section 9 (generalized Gauss-Newton).
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pgx.core.agent import Distribution, Policy
from pgx.core.algorithm import Engine
from pgx.core.data import Batch, Observations
from pgx.ops.params import split

MatVec = Callable[[Tensor], Tensor]
CHUNK_ROWS = 1250  # rows, at most, that `mean_over_chunks` takes at a time


def fisher_vector_product(policy: Policy, obs: Observations, vector: Tensor) -> Tensor:
    """F v, averaged over the observations.

    Args:
        policy: its parameters, in their own order, are the coordinates of `vector`.
        obs: B observations.
        vector: [P].

    Returns:
        [P].
    """
    return gauss_newton_product(policy, obs)(vector)


def gauss_newton_product(policy: Policy, obs: Observations) -> MatVec:
    """v -> Jᵀ M J v, with the forward pass done once for any number of products.

    J v is the derivative of w -> Jᵀ w, which is linear in w, in the direction v: differentiating the backward
    pass is cheaper here than a fresh forward-mode pass per product.

    Args:
        policy: parameters in their own order are the coordinates of the vectors.
        obs: B of them.

    Returns:
        [P] -> [P].
    """
    distribution = policy(obs)
    return _sandwich(distribution.params, distribution.detach().fisher, list(policy.parameters()))


def empirical_fisher_product(policy: Policy, obs: Observations, action: Tensor) -> MatVec:
    """v -> 1/B Σ ψ (ψ · v), with ψ = ∇ log π(a|s) the scores of the actions that were taken.

    It has the mean of F where the actions are drawn from π, and their noise: F itself needs no actions. No score
    is formed; B of them would be [B, P].

    Source: Kakade, "A natural policy gradient", 2001, section 2, with its expectations taken over a sample.

    Args:
        policy: parameters in their own order are the coordinates of the vectors.
        obs: B of them.
        action: [B, ...].

    Returns:
        [P] -> [P].
    """
    log_prob = policy(obs).log_prob(action)
    return _sandwich((log_prob,), lambda tangent: tangent, list(policy.parameters()))


def _sandwich(
    outputs: tuple[Tensor, ...],
    metric: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    parameters: list[nn.Parameter],
) -> MatVec:
    """v -> 1/B Jᵀ M J v, with J the Jacobian of B rows of outputs and M a metric of each row."""
    cotangent = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
    pullback = torch.autograd.grad(outputs, parameters, cotangent, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        tangent = torch.autograd.grad(pullback, cotangent, split(vector, parameters), retain_graph=True)
        weighted = tuple(m / m.shape[0] for m in metric(tangent))
        grads = torch.autograd.grad(outputs, parameters, weighted, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in grads])

    return product


def kl_hessian_product(policy: Policy, obs: Observations) -> MatVec:
    """v -> ∇(∇ mean KL(π_old || π) · v) at π = π_old, by differentiating twice.

    Args and Returns as in `gauss_newton_product`, which it equals.
    """
    parameters = list(policy.parameters())
    distribution = policy(obs)
    mean_kl = distribution.detach().kl(distribution).mean()
    grads = torch.autograd.grad(mean_kl, parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])

    def product(vector: Tensor) -> Tensor:
        second = torch.autograd.grad(flat @ vector, parameters, retain_graph=True)
        return torch.cat([g.reshape(-1) for g in second])

    return product


def mean_over_chunks(
    product_at: Callable[[Observations], MatVec], obs: Observations, engine: Engine
) -> MatVec:
    """F v as the mean over chunks of the rows, each weighted by its share of them: the same F, in less memory.

    What a product goes through for a thousand rows stays in a core's cache; for ten times as many it takes
    thirteen times as long. And chunks can be had beside each other.

    Args:
        product_at: the product F v of some of the rows.
        obs: B of them. In a history rows belong together, and there is one chunk.
        engine: runs the products.
    """
    if obs.history is not None or len(obs) <= CHUNK_ROWS:
        return product_at(obs)
    parts = torch.arange(len(obs), device=obs.time.device).tensor_split(math.ceil(len(obs) / CHUNK_ROWS))
    shares = [len(part) / len(obs) for part in parts]
    *others, last = [product_at(obs[part]) for part in parts]

    def product(vector: Tensor) -> Tensor:
        begun = [engine.submit(times, vector) for times in others]
        end = last(vector)
        products = [*(result() for result in begun), end]
        return torch.stack([share * part for share, part in zip(shares, products, strict=True)]).sum(0)

    return product


def mean_over_ranks(product: MatVec, batch: Batch) -> MatVec:
    """F v over the rows of all ranks, from the product over the rows of a batch here."""

    def mean_product(vector: Tensor) -> Tensor:
        return batch.averaged(product(vector))[0]

    return product if batch.shard is None else mean_product


def damped(product: MatVec, damping: float) -> MatVec:
    """v -> F v + damping v."""

    def damped_product(vector: Tensor) -> Tensor:
        return product(vector) + damping * vector

    return damped_product


def dense_matrix(product: MatVec, like: Tensor) -> Tensor:
    """The matrix [P, P] of a symmetric product, column by column: P products, for small policies.

    Args:
        product: [P] -> [P].
        like: [P], of the dtype and device that the matrix is to have.
    """
    return torch.stack([product(column) for column in torch.eye(len(like)).to(like)])


def scores(policy: Policy, obs: Observations, action: Tensor) -> Tensor:
    """ψ = ∇ log π(a|s) of every row, detached.

    Args:
        policy: a feed-forward module; its parameters, in their own order, are the columns.
        obs: B of them.
        action: [B, ...].

    Returns:
        [B, P].
    """
    module = cast(nn.Module, policy)
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    mask = torch.ones(len(obs), 1, dtype=torch.bool) if obs.action_mask is None else obs.action_mask

    def log_prob(
        weights: dict[str, Tensor], action: Tensor, features: Tensor, time: Tensor, mask: Tensor
    ) -> Tensor:
        one = Observations(features[None], time[None], None if obs.action_mask is None else mask[None])
        distribution: Distribution = functional_call(module, weights, (one,))
        return distribution.log_prob(action.unsqueeze(0)).squeeze(0)

    columns = (action, obs.features, obs.time, mask)
    rows = vmap(grad(log_prob), in_dims=(None, 0, 0, 0, 0))(weights, *columns)
    return torch.cat([rows[name].flatten(1) for name in weights], 1)
