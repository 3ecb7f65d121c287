"""Run a per-task function over a meta-batch: a plain loop, or one vectorised call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

# The pytree functions that torch.func itself uses: the same containers work here and there.
from torch.utils import _pytree as pytree

from kshot.errors import ConfigError, EpisodeError
from kshot.types import Examples, Features, map_features

Engine = Literal["auto", "loop", "vmap"]

Tree = TypeVar("Tree")


def over_tasks(fn: Callable[..., Tree], *trees: Any, engine: Engine = "loop") -> Tree:
    """Apply `fn` to each task's slice of the arguments and stack the results.

    Args:
        fn: takes trees of tensors without the task axis, returns such a tree.
        trees: trees (tensors, dicts, tuples) whose tensors have the task axis first; None passes.
        engine: `loop` runs task after task, `vmap` all at once with `torch.func.vmap`.

    Raises:
        EpisodeError: for trees of different numbers of tasks.

    Returns:
        What `fn` returns, every tensor with the task axis first.
    """
    leaves, structure = pytree.tree_flatten(trees)
    counts = {len(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
    if len(counts) > 1:
        raise EpisodeError(
            f"tensors of {' and '.join(map(str, sorted(counts)))} tasks cannot go together: "
            "support and queries are of the same tasks."
        )
    if engine == "vmap":
        axes = tuple(None if tree is None else 0 for tree in trees)
        result: Tree = torch.func.vmap(fn, in_dims=axes, randomness="different")(*trees)
        return result
    if engine != "loop":
        raise ConfigError(f"engine={engine!r} is not a way to run tasks: 'loop' or 'vmap'.")
    # Unbound at once: the gradient of a slice would fill a tensor of all tasks for each task.
    parts = [leaf.unbind() if isinstance(leaf, Tensor) else repeat(leaf) for leaf in leaves]
    return stack_tasks(
        [fn(*pytree.tree_unflatten(list(part), structure)) for part in zip(*parts, strict=False)]
    )


def task_count(tree: Any) -> int:
    """The length of the task axis of a tree of tensors."""
    return next(len(leaf) for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))


def task_slice(tree: Any, index: Any) -> Any:
    """The task at `index` (or the tasks, for a tensor of indices) of every tensor in the tree."""
    return pytree.tree_map_only(Tensor, lambda t: t[index], tree)


def stack_tasks(trees: Sequence[Tree]) -> Tree:
    """Trees of the same structure as one, with a new task axis in front."""
    result: Tree = pytree.tree_map(lambda *leaves: torch.stack(leaves), *trees)
    return result


def choose_engine(asked: Engine, fast: Sequence[Tensor], x: Features) -> Literal["loop", "vmap"]:
    """The engine to run with: as asked, or the faster one for these fast weights and inputs.

    On a CPU a convolution with one kernel per task is memory-bound, and a loop is 3 times as fast
    as vmap; small dense networks, and everything on a GPU, gain from vmap. Networks of other
    packages for texts look at their masks' values, which vmap does not allow.
    """
    if asked != "auto":
        return asked
    if isinstance(x, dict):
        return "loop"
    on_cpu = all(p.device.type == "cpu" for p in fast)
    return "loop" if on_cpu and any(p.dim() > 2 for p in fast) else "vmap"


def even_groups(*parts: Examples) -> Iterator[tuple[Tensor, tuple[Examples, ...]]]:
    """The tasks in groups of equal sizes, without padding.

    Yields the tasks' positions in the meta-batch and, for each of `parts`, their real examples.
    Order within a task is kept. A meta-batch of even tasks is one group, as it is.
    """
    tasks = parts[0].tasks
    if all(p.mask is None for p in parts):
        yield torch.arange(tasks, device=parts[0].y.device), parts
        return
    counts = torch.stack([p.real.sum(1) for p in parts], 1)
    for count in torch.unique(counts, dim=0):
        index = (counts == count).all(1).nonzero().squeeze(1)
        yield index, tuple(_dense(p, index) for p in parts)


def _dense(part: Examples, index: Tensor) -> Examples:
    chosen = part.select(index)
    if chosen.mask is None:
        return chosen
    real, shape = chosen.mask, (len(index), int(chosen.mask[0].sum()))
    return Examples(
        map_features(lambda v: v[real].unflatten(0, shape), chosen.x),
        chosen.y[real].unflatten(0, shape),
        None,
        chosen.way,
    )


def join_groups(indices: Sequence[Tensor], trees: Sequence[Tree]) -> Tree:
    """Put the results of `even_groups` back into the meta-batch's order.

    Tensors that differ in length along axis 1 (queries) are padded with zeros at the end.
    """
    order = torch.argsort(torch.cat(list(indices)))

    def join(*leaves: Tensor) -> Tensor:
        if len(leaves) == 1:
            return leaves[0]
        if len({leaf.shape[1:] for leaf in leaves}) > 1:
            length = max(leaf.shape[1] for leaf in leaves)
            leaves = tuple(_pad(leaf, length) for leaf in leaves)
        return torch.cat(leaves)[order]

    result: Tree = pytree.tree_map(join, *trees)
    return result


def _pad(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])], 1)
