"""The formulas as plain functions, for those who write their own loop.

Everything takes and gives tensors with the task axis first, and nothing keeps state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.engine.inner import inner_update

__all__ = [
    "class_means",
    "cosine_similarity",
    "inner_update",
    "masked_logits",
    "mean_loss",
    "prototypical_logits",
    "prototypical_loss",
    "ridge_weights",
    "squared_distances",
]


def class_means(z: Tensor, one_hot: Tensor) -> Tensor:
    """Mean embedding of each class: `c_k = 1/|S_k| sum f(x_i)` (Prototypical Networks, eq. 1).

    Args:
        z: embeddings, `(tasks, examples, features)`.
        one_hot: labels, `(tasks, examples, way)`; all-zero rows are left out.

    Returns:
        `(tasks, way, features)`; a class without examples gets zeros.
    """
    count = one_hot.sum(1).clamp_min(1).unsqueeze(-1)
    return one_hot.transpose(1, 2) @ z / count


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean, no root: `(tasks, n, d), (tasks, m, d) -> (tasks, n, m)`."""
    cross = a @ b.transpose(1, 2)
    lengths = (a * a).sum(-1).unsqueeze(2) + (b * b).sum(-1).unsqueeze(1)
    return (lengths - 2 * cross).clamp_min(0)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of the angles: `(tasks, n, d), (tasks, m, d) -> (tasks, n, m)`.

    A zero vector has no angle: its cosines are 0, and its gradient stays moderate.
    """
    return _unit(a) @ _unit(b).transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    length = x.norm(dim=-1, keepdim=True)
    return x / torch.where(length > 0, length, torch.ones_like(length))


def prototypical_logits(z_query: Tensor, prototypes: Tensor) -> Tensor:
    """`-||f(x) - c_k||^2` (Prototypical Networks, eq. 2): `(tasks, queries, way)`."""
    return -squared_distances(z_query, prototypes)


def prototypical_loss(
    z_support: Tensor, y_support: Tensor, z_query: Tensor, y_query: Tensor, way: int
) -> Tensor:
    """Cross-entropy of the queries under the prototypes of the support (the same paper, alg. 1).

    Args:
        z_support: embeddings `(tasks, examples, features)`, in any order.
        y_support: labels `(tasks, examples)`.
        z_query: embeddings `(tasks, queries, features)`.
        y_query: labels `(tasks, queries)`.
        way: number of classes.
    """
    prototypes = class_means(z_support, F.one_hot(y_support, way).to(z_support.dtype))
    logits = prototypical_logits(z_query, prototypes)
    return F.cross_entropy(logits.flatten(0, 1), y_query.flatten())


def ridge_weights(x: Tensor, y: Tensor, penalty: Tensor | float) -> Tensor:
    """Ridge regression: `W = X' (X X' + lambda I)^-1 Y` (R2-D2, eq. 5).

    Where there are more examples than features, the same by `(X' X + lambda I)^-1 X' Y`, so
    that the smaller of both matrices is solved.

    Args:
        x: `(tasks, examples, features)`; rows of zeros weigh nothing.
        y: `(tasks, examples, values)`.
        penalty: lambda, greater than 0.

    Returns:
        `(tasks, features, values)`.
    """
    turned = x.transpose(1, 2)
    ridge = penalty * torch.eye(min(x.shape[1:]), dtype=x.dtype, device=x.device)
    if x.shape[1] > x.shape[2]:
        primal: Tensor = torch.linalg.solve(turned @ x + ridge, turned @ y)
        return primal
    dual: Tensor = torch.linalg.solve(x @ turned + ridge, y)
    return turned @ dual


def masked_logits(logits: Tensor, present: Tensor) -> Tensor:
    """Logits with the ways that a task does not have at the dtype's least value.

    Args:
        logits: `(..., queries, way)`.
        present: `(..., way)`, True where the class exists. Not -inf, whose gradient is NaN.
    """
    return logits.masked_fill(~present.unsqueeze(-2), torch.finfo(logits.dtype).min)


def mean_loss(losses: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over each task's real examples, then over tasks: every task weighs the same.

    Args:
        losses: `(tasks, examples, ...)`.
        mask: `(tasks, examples)` or None.
    """
    per_example = losses.flatten(2).mean(2) if losses.dim() > 2 else losses
    if mask is None:
        return per_example.mean()
    return ((per_example * mask).sum(1) / mask.sum(1)).mean()
