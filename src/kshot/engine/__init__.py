"""The only contact with `torch.func`: tasks over an engine, and the one inner loop."""

from kshot.engine.checks import explain_second_order, once_differentiable_layers
from kshot.engine.inner import (
    SGD,
    Adam,
    GradientMode,
    Momentum,
    UpdateRule,
    Weights,
    adapt_weights,
    trajectory,
)
from kshot.engine.tasks import Engine, choose_engine, even_groups, join_groups, over_tasks

__all__ = [
    "SGD",
    "Adam",
    "Engine",
    "GradientMode",
    "Momentum",
    "UpdateRule",
    "Weights",
    "adapt_weights",
    "choose_engine",
    "even_groups",
    "explain_second_order",
    "join_groups",
    "once_differentiable_layers",
    "over_tasks",
    "trajectory",
]
