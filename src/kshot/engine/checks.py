"""Find the layers that a second-order inner loop cannot pass through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kshot.errors import DifferentiationError


def explain_second_order(
    module: nn.Module, x: Tensor, error: RuntimeError
) -> DifferentiationError | None:
    """The error that names the layers of `module` that cannot be differentiated twice.

    Args:
        module: the network of the inner loop.
        x: a batch that it takes.
        error: what the failed pass said.

    Returns:
        None if there are no such layers: the failure had another cause.
    """
    names = once_differentiable_layers(module, x)
    if not names:
        return None
    return DifferentiationError(
        f"layer {', '.join(map(repr, names))} cannot be differentiated twice "
        f"({str(error).splitlines()[0][:120]}): use first_order=True, replace the layer, or, for "
        "fused attention, run inside "
        "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)."
    )


def once_differentiable_layers(module: nn.Module, x: Tensor) -> list[str]:
    """Names of the innermost layers whose second derivative is not available."""
    inputs: dict[str, tuple[Any, Any]] = {}
    hooks = [
        child.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: inputs.update({name: (args, kwargs)}),
            with_kwargs=True,
        )
        for name, child in module.named_modules()
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    failing: list[str] = []
    for name in sorted(inputs, key=lambda n: -n.count(".") - bool(n)):
        inside = any(inner.startswith(f"{name}.") or not name for inner in failing)
        if not inside and not _twice(module.get_submodule(name), *inputs[name]):
            failing.append(name)
    return failing


def _twice(layer: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the layer's output, squared, can be differentiated twice at these inputs."""
    wrt: list[Tensor] = [p for p in layer.parameters() if p.requires_grad]

    def leaf(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        wrt.append(t.detach().requires_grad_())
        return wrt[-1]

    args, kwargs = pytree.tree_map_only(Tensor, leaf, (args, kwargs))
    with torch.enable_grad():
        out = pytree.tree_leaves(layer(*args, **kwargs))
        total = sum(
            (o.float() ** 2).sum() for o in out if isinstance(o, Tensor) and o.requires_grad
        )
        if not isinstance(total, Tensor):
            return True
        try:
            grads = torch.autograd.grad(total, wrt, create_graph=True, allow_unused=True)
            again = sum((g**2).sum() for g in grads if g is not None and g.requires_grad)
            if isinstance(again, Tensor):
                torch.autograd.grad(again, wrt, allow_unused=True)
        except RuntimeError:
            return False
    return True
