"""Conjugate gradients, ridge regression and backtracking line search."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConjugateGradientResult:
    """x with A x ≈ b, the norm of what is left of b relative to |b|, and the products with A it took."""

    x: Tensor  # [P]
    product: Tensor  # A x, [P]: b less what is left of it, so that nobody need ask for it again
    residual: (
        float  # |b - A x| / |b|; it may rise between steps (the error in the norm of A does not); 0 for b = 0
    )
    steps: int


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, max_steps: int, tolerance: float
) -> ConjugateGradientResult:
    """Solve A x = b for a symmetric positive definite A known by its products alone.

    Source: Hestenes and Stiefel, 1952; Nocedal and Wright, Numerical Optimization, algorithm 5.2 (their r is
    -residual here). In exact arithmetic it ends after as many steps as A has distinct eigenvalues.

    Args:
        matvec: v -> A v, [P] -> [P].
        b: [P].
        max_steps: >= 1.
        tolerance: stop once |b - A x| <= tolerance * |b|.

    Returns:
        x and how well it solves; x = 0 for b = 0.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    scale = float(b.dot(b))
    left = scale
    steps = 0
    while steps < max_steps and left > tolerance**2 * scale:
        product = matvec(direction)
        curvature = float(direction.dot(product))
        if not curvature > 0:  # A is singular along this direction: the step would be infinite
            break
        rate = left / curvature
        x = x + rate * direction
        residual = residual - rate * product
        before, left = left, float(residual.dot(residual))
        direction = residual + (left / before) * direction
        steps += 1
    return ConjugateGradientResult(x, b - residual, (left / scale) ** 0.5 if scale != 0 else 0.0, steps)


def ridge_regression(features: Tensor, target: Tensor, ridge: float) -> Tensor:
    """argmin_w of the mean over rows of (target - features · w)², plus ridge |w|².

    That is w = (ΨᵀΨ / B + ridge I)⁻¹ Ψᵀ y / B = Ψᵀ (ΨΨᵀ / B + ridge I)⁻¹ y / B; the smaller system is solved.
    There is no intercept.

    Source: Hoerl and Kennard, "Ridge regression", 1970.

    Args:
        features: Ψ, [B, P].
        target: y, [B].
        ridge: > 0, or the system may be singular.

    Returns:
        w, [P].
    """
    rows, columns = features.shape
    shift = ridge * torch.eye(min(rows, columns)).to(features)
    weights: Tensor
    if columns <= rows:
        gram = features.T @ features / rows + shift
        weights = torch.linalg.solve(gram, features.T @ target / rows)
    else:
        gram = features @ features.T / rows + shift
        weights = features.T @ torch.linalg.solve(gram, target / rows)
    return weights


@dataclass(frozen=True)
class LineSearchResult:
    """The accepted fraction of the full step (0 when none was) and how many fractions were tried."""

    fraction: float
    steps: int


def backtracking_line_search(
    accept: Callable[[float], bool], shrink: float, backtracks: int
) -> LineSearchResult:
    """Try the fractions shrink^j, j = 0, 1, ..., K, of a step until one is accepted.

    Source: Nocedal and Wright, Numerical Optimization, algorithm 3.1, with the test left to the caller.

    Args:
        accept: returns whether the step of this fraction is good. It may move parameters; after a search that fails
            the caller restores them.
        shrink: in (0, 1).
        backtracks: K >= 0, how often the step is shortened at most; K + 1 fractions are tried.

    Returns:
        The first accepted fraction, or 0.
    """
    for j in range(backtracks + 1):
        if accept(shrink**j):
            return LineSearchResult(shrink**j, j + 1)
    return LineSearchResult(0.0, backtracks + 1)
