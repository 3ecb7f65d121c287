"""One update of the slow weights, alone or shared among processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kshot.engine import explain_second_order
from kshot.engine.processes import Processes
from kshot.errors import DivergedError
from kshot.interrupt import Stop
from kshot.learners.base import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.training.hard_tasks import HardTasks
from kshot.types import Episode


def outer_step(
    learner: MetaLearner,
    episode: Episode,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    clip: float | None,
    step: int,
    weight: float,
    processes: Processes,
    stop: Stop,
    hard: HardTasks | None = None,
) -> tuple[float, bool]:
    """Differentiate the loss of this process's tasks, join the gradients, step.

    Args:
        learner: what is trained.
        episode: this process's tasks of the meta-batch.
        optimizer: of the slow weights.
        parameters: the slow weights.
        clip: greatest norm of the meta-gradient.
        step: for messages.
        weight: this process's share of the meta-batch's tasks.
        processes: who shares the meta-batch.
        stop: the user's wish to stop, as this process knows it.
        hard: counts what is answered worst, if anything does.

    Returns:
        The meta-batch's loss, and whether any process was asked to stop.

    Raises:
        DivergedError: if loss or gradient are not finite; nothing has changed then.
        DifferentiationError: if a layer cannot be differentiated as the learner needs.
        WorkerError: if another process has ended; nothing has changed then.
        GaveUpWaitingError: if the user wants to stop and another process does not answer; nothing
            has changed then.
    """
    optimizer.zero_grad(set_to_none=True)
    # The forward moves running statistics; a step that fails must not leave its own.
    buffers = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    try:
        loss = _backward(learner, episode, weight, hard)
        counts = [hard.failures] if hard else []
        loss, asked = _join(learner, parameters, loss, weight, processes, stop, counts)
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            what = "loss" if not torch.isfinite(loss) else "gradient of the loss"
            raise DivergedError(
                f"the {what} became NaN or infinite at step {step + 1}; the last good weights are "
                "kept. Lower lr or inner_lr, or set clip (for example clip=10)."
            )
    except BaseException:
        for name, buffer in learner.named_buffers():
            buffer.copy_(buffers[name])
        raise
    optimizer.step()
    return float(loss), asked


def _backward(
    learner: MetaLearner, episode: Episode, weight: float, hard: HardTasks | None
) -> Tensor:
    try:
        if hard is None:
            loss = learner.loss(episode) * weight
        else:
            output, query = learner.answer(episode)
            hard.watch(output, query, episode.classes)
            loss = learner.head.loss(output, query) * weight
        loss.backward()
    except RuntimeError as error:
        head = learner.head
        if isinstance(head, InnerLoop) and head.gradient == "unrolled":
            with torch.no_grad():
                embedded = episode.support.with_x(learner.embed(episode.support)[0])
            explained = explain_second_order(head.net, embedded.flat(), error)
            if explained is not None:
                raise explained from error
        raise
    return loss.detach()


def _join(
    learner: MetaLearner,
    parameters: Sequence[nn.Parameter],
    loss: Tensor,
    weight: float,
    processes: Processes,
    stop: Stop,
    counts: Sequence[Tensor],
) -> tuple[Tensor, bool]:
    """Sum gradients, loss, counts and the wish to stop; average the running statistics."""
    if processes.size == 1:
        return loss, stop.asked
    used = torch.tensor([float(p.grad is not None) for p in parameters])
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    statistics = [b for b in learner.buffers() if b.is_floating_point()]
    # Weighted in double precision, so that the mean of equal values is that value.
    means = [b.cpu().double() * weight for b in statistics]
    asked = torch.tensor(float(stop.asked))
    gradients = [p.grad for p in parameters if p.grad is not None]
    processes.sum([*gradients, *means, *counts, loss, used, asked], stop.while_waiting)
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count == 0:  # zeros would let weight decay and momentum move it
            parameter.grad = None
    for buffer, mean in zip(statistics, means, strict=True):
        buffer.copy_(mean)
    return loss, bool(asked > 0)
