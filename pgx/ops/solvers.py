"""Conjugate gradient, ridge regression and backtracking line search."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConjugateGradientResult:
    """Approximate solution of A x = b."""

    x: Tensor  # [P]
    product: Tensor  # A x, [P], from the recursion of the residual, without another product with A
    # |b - A x| / |b|; 0 for b = 0. It may rise between steps; the error in the norm of A does not.
    residual: float
    steps: int  # products with A


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, max_steps: int, tolerance: float
) -> ConjugateGradientResult:
    """Solve A x = b by products with A, for a symmetric positive definite A.

    Source: Hestenes and Stiefel, 1952; Nocedal and Wright, Numerical Optimization, algorithm 5.2 (their r is
    -residual here). In exact arithmetic it stops after at most as many steps as A has distinct eigenvalues.

    Args:
        matvec: v -> A v, [P] -> [P].
        b: [P].
        max_steps: >= 1.
        tolerance: stop once |b - A x| <= tolerance * |b|.

    Returns:
        x, A x and the residual; x = 0 for b = 0.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    scale = float(b.dot(b))
    left = scale
    steps = 0
    while steps < max_steps and left > tolerance**2 * scale:
        product = matvec(direction)
        curvature = float(direction.dot(product))
        if not curvature > 0:  # A is not positive definite along this direction: the step would be infinite
            break
        rate = left / curvature
        x = x + rate * direction
        residual = residual - rate * product
        before, left = left, float(residual.dot(residual))
        direction = residual + (left / before) * direction
        steps += 1
    return ConjugateGradientResult(x, b - residual, (left / scale) ** 0.5 if scale != 0 else 0.0, steps)


def ridge_regression(features: Tensor, target: Tensor, ridge: float) -> Tensor:
    """Minimize mean((target - features · w)²) + ridge |w|² over w.

    w = (ΨᵀΨ / B + ridge I)⁻¹ Ψᵀ y / B = Ψᵀ (ΨΨᵀ / B + ridge I)⁻¹ y / B; the smaller of the two systems is solved. The
    regression has no intercept.

    Source: Hoerl and Kennard, "Ridge regression", 1970.

    Args:
        features: Ψ, [B, P].
        target: y, [B].
        ridge: > 0; with 0 the system may be singular.

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
    """Result of a backtracking line search."""

    fraction: float  # of the full step that was accepted; 0: none
    steps: int  # fractions tried


def backtracking_line_search(
    accept: Callable[[float], bool], shrink: float, backtracks: int
) -> LineSearchResult:
    """Try the fractions shrink^j, j = 0, 1, ..., K, of a step until one is accepted.

    Source: Nocedal and Wright, Numerical Optimization, algorithm 3.1, with a condition supplied by the caller.

    Args:
        accept: returns True if this fraction of the step is acceptable. It may change parameters; after a failed search
            the caller restores them.
        shrink: in (0, 1).
        backtracks: K >= 0, the largest number of times that the step is shortened; at most K + 1 fractions are tried.

    Returns:
        The first accepted fraction, or 0, and the number of fractions tried.
    """
    for j in range(backtracks + 1):
        if accept(shrink**j):
            return LineSearchResult(shrink**j, j + 1)
    return LineSearchResult(0.0, backtracks + 1)
