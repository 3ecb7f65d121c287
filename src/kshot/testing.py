"""One suite that every learner passes, kshot's own and those of other packages.

from kshot.testing import check_learner
check_learner(lambda shape: MyLearner.for_tasks(my_encoder(), shape))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from kshot import philox
from kshot.datasets import Dataset, Split
from kshot.datasets.sources import Source
from kshot.engine.tasks import task_slice
from kshot.episodes import EpisodeSpec, draw
from kshot.errors import ConfigError
from kshot.evaluation import evaluate
from kshot.learners.base import MetaLearner, TaskShape
from kshot.training import meta_train
from kshot.types import Episode, Examples, Gaussian, Output

Factory = Callable[[TaskShape], MetaLearner]
"""Makes a fresh learner for tasks of a shape; its weights may be random."""

FEATURES, WAY, SHOT, QUERY, TASKS = 8, 4, 3, 5, 3
CLASSES = 42
"""Of the Gaussians to train on."""
SHAPE = TaskShape((FEATURES,), WAY, WAY * SHOT, classes=CLASSES)
LEARNING_STEPS = 100


@dataclass(frozen=True)
class Planes:
    """Regression tasks y = a mean(x) + b with a, b ~ U[-2, 2] and x ~ U[-1, 1]."""

    name: str = "planes"
    features: int = FEATURES

    @property
    def fingerprint(self) -> str:
        """The name says it all."""
        return f"{self.name}:{self.features}"

    def draw(self, key: int, index: Sequence[int], shot: int, query: int) -> Episode:
        """Episodes with x `(tasks, examples, features)` and y `(tasks, examples, 1)`."""
        size = shot + query

        def uniform(count: int, stream: int) -> Tensor:
            raw = [philox.uniform(philox.words(key, i, count, stream)) for i in index]
            return torch.from_numpy(2 * np.stack(raw) - 1)

        x = uniform(size * self.features, 0).reshape(len(index), size, self.features)
        a, b = (2 * uniform(2, 1)).reshape(-1, 1, 1, 2).unbind(-1)
        y = a * x.mean(-1, keepdim=True) + b
        return Episode(
            Examples(x[:, :shot].float(), y[:, :shot].float()),
            Examples(x[:, shot:].float(), y[:, shot:].float()),
            torch.tensor(index),
        )


def gaussians(classes: int = 60, examples: int = 20) -> Dataset:
    """Classes that are Gaussian clusters far apart; splits `train` and `test`."""
    draw_from = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(classes, 1, FEATURES, generator=draw_from)
    x = centres + 0.3 * torch.randn(classes, examples, FEATURES, generator=draw_from)
    y = torch.arange(classes).repeat_interleave(examples)
    return Dataset.from_arrays(
        x.flatten(0, 1), y, name="gaussians", splits={"train": 0.7, "test": 0.3}
    )


def check_learner(make: Factory, *, lr: float = 1e-2, meta_batch: int = 8) -> None:
    """Run every check of the suite on a learner.

    Args:
        make: gives a fresh learner for tasks of a shape; it is called several times.
        lr: Adam's rate for the check that the learner learns.
        meta_batch: tasks per outer step for that check.

    Raises:
        AssertionError: that says what was found.
    """
    for check in CHECKS:
        check(make)
    check_learns(make, lr=lr, meta_batch=meta_batch)


def make_for(make: Factory) -> tuple[MetaLearner, Source]:
    """A learner with seeded weights, in float64, and a source of tasks of its kind."""
    torch.manual_seed(0)
    shape = SHAPE
    probe_kinds = _kinds(make)
    source: Source = gaussians()["train"]
    if "classification" not in probe_kinds:
        shape, source = TaskShape((FEATURES,), 0, SHOT, (1,)), Planes()
    torch.manual_seed(0)
    return make(shape).double(), source


def _kinds(make: Factory) -> tuple[str, ...]:
    """The kinds of task the learner is for; regressors may refuse a shape with classes."""
    try:
        return make(SHAPE._replace(y_shape=(1,))).tasks
    except ConfigError:
        return ("regression",)


def _episode(source: Source, tasks: int = TASKS, spec: EpisodeSpec | None = None) -> Episode:
    episode = draw(source, spec or EpisodeSpec(WAY, SHOT, QUERY), 0, range(tasks))
    return replace(episode, support=_double(episode.support), query=_double(episode.query))


def _double(part: Examples) -> Examples:
    y = part.y.double() if part.y.is_floating_point() else part.y
    return replace(part, x=part.x.double(), y=y)


def _tensors(output: Output) -> tuple[Tensor, ...]:
    return tuple(output) if isinstance(output, Gaussian) else (output,)


def _answer(learner: MetaLearner, episode: Episode) -> Tensor:
    with torch.no_grad():
        return _tensors(learner.eval()(episode))[0]


def _same(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-6) -> None:
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), (
        f"{what}: greatest difference {(found - expected).abs().max():.2e}"
    )


def check_shapes(make: Factory) -> None:
    """Outputs are `(tasks, queries, way)` or `(tasks, queries, *values)`, in the inputs' dtype."""
    learner, source = make_for(make)
    episode = _episode(source)
    expected = tuple(episode.query.y.shape)
    if episode.way:
        expected = (*expected, episode.way)
    for dtype in (torch.float64, torch.float32):
        learner.to(dtype)
        cast = task_slice((episode.support.x, episode.query.x), ...)
        support = replace(episode.support, x=cast[0].to(dtype))
        query = replace(episode.query, x=cast[1].to(dtype))
        if not episode.way:
            support, query = (replace(p, y=p.y.to(dtype)) for p in (support, query))
        cast_episode = replace(episode, support=support, query=query)
        for part in _tensors(learner.eval()(cast_episode)):
            assert part.shape == expected, f"output {tuple(part.shape)}, expected {expected}"
            assert part.dtype == dtype, f"output {part.dtype} for inputs of {dtype}"
        loss = learner.train().loss(cast_episode)
        assert loss.shape == (), f"the loss has shape {tuple(loss.shape)}, expected a scalar"
        assert loss.dtype == dtype, f"the loss is {loss.dtype} for inputs of {dtype}"


def check_batch_equals_loop(make: Factory) -> None:
    """A meta-batch gives what its tasks give one by one, in every engine mode."""
    learner, source = make_for(make)
    episode = _episode(source)
    single = [episode.select(torch.tensor([i])) for i in range(TASKS)]
    for mode in ("loop", "vmap"):
        if hasattr(learner.head, "engine"):
            learner.head.__dict__["engine"] = mode
        one_by_one = torch.cat([_answer(learner, e) for e in single])
        _same(_answer(learner, episode), one_by_one, f"meta-batch against loop, engine {mode}")
        learner.train()
        mean = torch.stack([learner.loss(e).detach() for e in single]).mean()
        _same(learner.loss(episode).detach(), mean, f"loss of the meta-batch, engine {mode}")


def check_adapting_changes_nothing(make: Factory) -> None:
    """Adapting leaves every parameter and buffer as it was, and repeats exactly."""
    learner, source = make_for(make)
    episode = _episode(source)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    first, second = _answer(learner, episode), _answer(learner, episode)
    assert torch.equal(first, second), "adapting twice gave two answers"
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), f"adapting changed {name}"


def check_support_order(make: Factory) -> None:
    """The order of the support does not matter, unless the learner declares that it does."""
    learner, source = make_for(make)
    if not learner.order_free:
        return
    episode = _episode(source)
    order = torch.randperm(episode.support.size, generator=torch.Generator().manual_seed(1))
    support = replace(episode.support, x=episode.support.x[:, order], y=episode.support.y[:, order])
    shuffled = replace(episode, support=support)
    _same(_answer(learner, shuffled), _answer(learner, episode), "shuffled support", 1e-5)


def check_class_permutation(make: Factory) -> None:
    """Renaming the classes permutes the logits, unless the learner declares otherwise."""
    learner, source = make_for(make)
    episode = _episode(source)
    if not learner.symmetric or not episode.way:
        return
    renamed = torch.roll(torch.arange(WAY), 1)
    support = replace(episode.support, y=renamed[episode.support.y])
    answer = _answer(learner, replace(episode, support=support))
    _same(answer[..., renamed], _answer(learner, episode), "renamed classes", 1e-5)


def check_gradients(make: Factory) -> None:
    """Every slow parameter gets a gradient from the loss, apart from those declared idle."""
    learner, source = make_for(make)
    learner.train().zero_grad()
    episode = _episode(source)
    loss = learner.loss(episode)
    allowed = learner.idle(episode.support.size)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    if not parameters:
        return
    loss.backward()
    idle = [
        name
        for name, p in parameters.items()
        if (p.grad is None or not p.grad.any()) and name not in allowed
    ]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def check_query_independence(make: Factory) -> None:
    """One query's answer does not change with the others, unless the learner is transductive."""
    learner, source = make_for(make)
    episode = _episode(source)
    x = episode.query.x.clone()
    x[:, 1:] = x[:, 1:].flip(1) * 3 + 1
    changed = replace(episode, query=replace(episode.query, x=x))
    same = torch.allclose(_answer(learner, changed)[:, 0], _answer(learner, episode)[:, 0])
    if learner.transductive:
        assert not same, "declared transductive, but other queries change nothing"
    else:
        assert same, "declared inductive, but one query's answer changes with the other queries"


def check_save_and_load(make: Factory) -> None:
    """Weights saved and loaded into a fresh learner give the same answers."""
    learner, source = make_for(make)
    learner.train()
    learner.loss(_episode(source))  # moves running statistics, where there are any
    torch.manual_seed(1)
    kinds = _kinds(make)
    shape = SHAPE
    if "classification" not in kinds:
        shape = TaskShape((FEATURES,), 0, SHOT, (1,))
    other = make(shape).double()
    other.load_state_dict(load(save({k: v.contiguous() for k, v in learner.state_dict().items()})))
    episode = _episode(source)
    assert torch.equal(_answer(other, episode), _answer(learner, episode)), (
        "a loaded learner answers differently"
    )


def check_reproducible(make: Factory) -> None:
    """The same seed gives the same trained weights, bit for bit."""
    runs = []
    for _ in range(2):
        learner, source = make_for(make)
        if not any(p.requires_grad for p in learner.parameters()):
            return
        learner.float()
        meta_train(
            learner, source, way=WAY, shot=SHOT, query=QUERY, steps=3, meta_batch=2, progress=False
        )
        runs.append(learner.state_dict())
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), f"two runs with one seed differ in {name}"


def check_padding(make: Factory) -> None:
    """Uneven tasks, padded and masked in one meta-batch, give what each gives alone."""
    learner, source = make_for(make)
    if isinstance(source, Split):
        uneven = _episode(source, 6, EpisodeSpec((2, WAY), (1, SHOT), QUERY, imbalanced=True))
        assert uneven.support.mask is not None
    else:
        uneven = _pad_points(_episode(source, 4))
    together = _answer(learner, uneven)
    for i in range(len(uneven.key)):
        alone = _cut(uneven.select(torch.tensor([i])))
        answer = _answer(learner, alone)
        _same(together[i : i + 1, : answer.shape[1], : answer.shape[2]], answer, f"padded task {i}")
    learner.train()
    losses = [
        learner.loss(_cut(uneven.select(torch.tensor([i])))).detach()
        for i in range(len(uneven.key))
    ]
    _same(learner.loss(uneven).detach(), torch.stack(losses).mean(), "loss of padded tasks")


def _pad_points(episode: Episode) -> Episode:
    """Tasks with 1, 2, ... support points less, the rest masked."""
    lengths = episode.support.size - torch.arange(len(episode.key)) % (SHOT - 1)
    mask = torch.arange(episode.support.size) < lengths[:, None]
    return replace(episode, support=replace(episode.support, mask=mask))


def _cut(episode: Episode) -> Episode:
    """A single task without its padding; the ways it lacks are dropped."""

    def cut(part: Examples, way: int) -> Examples:
        keep = part.real[0]
        return Examples(part.x[:, keep], part.y[:, keep], None, way)

    present = episode.support.present()[0] if episode.way else None
    way = 0 if present is None else int(present.nonzero().max()) + 1
    classes = None if episode.classes is None else episode.classes[:, :way]
    return Episode(cut(episode.support, way), cut(episode.query, way), episode.key, classes)


def check_learns(make: Factory, *, lr: float = 1e-2, meta_batch: int = 8) -> None:
    """At least 90 % on separable Gaussians within 100 meta-steps.

    Regressors: a squared error of at most a quarter of the values' variance, from 3 points of a
    function with 2 unknowns.
    """
    learner, source = make_for(make)
    learner.float()
    if any(p.requires_grad for p in learner.parameters()):
        meta_train(
            learner,
            source,
            way=WAY,
            shot=SHOT,
            query=QUERY,
            steps=LEARNING_STEPS,
            meta_batch=meta_batch,
            lr=lr,
            schedule="cosine",
            clip=10.0,
            progress=False,
        )
    if isinstance(source, Split):
        result = evaluate(learner, gaussians()["test"], way=WAY, shot=SHOT, episodes=100)
        assert result.mean >= 0.9, f"{result} on separable Gaussians, expected 90 %"
    else:
        result = evaluate(learner, source, shot=SHOT, episodes=100, seed=1)
        variance = float(_episode(source, 200).query.y.var())
        assert result.mean <= 0.25 * variance, (
            f"squared error {result} on linear functions of variance {variance:.2f}"
        )


CHECKS: tuple[Callable[[Factory], Any], ...] = (
    check_shapes,
    check_batch_equals_loop,
    check_adapting_changes_nothing,
    check_support_order,
    check_class_permutation,
    check_gradients,
    check_query_independence,
    check_save_and_load,
    check_reproducible,
    check_padding,
)
