"""Score a learner on frozen episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.datasets.sources import Mixture, Source, Split
from kshot.engine.processes import ALONE, Processes
from kshot.episodes import EpisodeSpec, FrozenEpisodes
from kshot.episodes.spec import Range, Shot, bounds
from kshot.errors import EpisodeError
from kshot.evaluation.embedding import device_of, embedded, evaluating, rows_per_forward
from kshot.evaluation.record import Result, mean_interval
from kshot.learners.base import MetaLearner
from kshot.types import (
    Episode,
    Examples,
    Gaussian,
    Output,
)

Z90 = 1.6448536269514722
"""Half-width, in standard deviations, of a Gaussian's central 90 % interval."""


def evaluate(
    learner: MetaLearner,
    source: Source,
    *,
    way: Range = 5,
    shot: Shot = 1,
    query: int = 15,
    imbalanced: bool = False,
    episodes: int = 1000,
    seed: int = 0,
    name: str | None = None,
    meta_steps: int = 0,
    training_seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Result:
    """Accuracy (or squared error) over frozen episodes, with its 95 % interval.

    Args:
        learner: left as it was; evaluated on the device of its parameters.
        source: a split of classes, a mixture of splits, or a family of tasks.
        way: classes per task.
        shot: support examples per class, or `any` (see `EpisodeSpec`).
        query: queries per class.
        imbalanced: draw the shot, where it is a range, for each class.
        episodes: how many; the same seed gives the same ones.
        seed: of the episodes.
        name: for tables; the learner's title by default.
        meta_steps: outer steps behind the learner, for the record.
        training_seed: that the learner was trained with, for the record.
        progress: called with episodes done and episodes in all.
        processes: who shares the episodes; each calls this, and all get the result.

    Raises:
        EpisodeError: if the source cannot give such episodes, or nothing would be asked.
    """
    spec = EpisodeSpec(way, shot, query, imbalanced)
    if query < 1:
        raise EpisodeError(f"query={query}: evaluation needs at least 1 query per class.")
    if episodes < 2:
        raise EpisodeError(f"episodes={episodes}: an interval needs at least 2.")
    frozen = FrozenEpisodes(source, spec, episodes, seed)
    scores = score_episodes(learner, frozen, progress, processes)
    metric = next(iter(scores))
    mean, interval = mean_interval(scores[metric])
    return Result(
        name=name or learner.title,
        metric=metric,
        mean=mean,
        interval=interval,
        std=float(scores[metric].std(ddof=1)),
        episodes=episodes,
        task=(
            spec.describe() if isinstance(source, (Split, Mixture)) else f"{bounds(shot)[0]}-shot"
        ),
        spec=spec.as_dict(),
        source=source.name,
        options=dict(getattr(source, "options", {})),
        episode_hash=frozen.hash,
        seed=seed,
        transductive=learner.transductive,
        normalization=learner.normalization if learner.normalizes else "none",
        meta_steps=meta_steps,
        training_seeds=() if training_seed is None else (training_seed,),
        extra={k: float(v.mean()) for k, v in scores.items() if k != metric},
        values=scores[metric],
    )


def score_episodes(
    learner: MetaLearner,
    frozen: FrozenEpisodes,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """One value per episode and metric; the first metric is the main one.

    Args:
        learner: in any mode, which it keeps.
        frozen: the episodes of all processes.
        progress: called with episodes done and episodes in all, of this process.
        processes: who shares the episodes.
        meanwhile: see `Processes.sum`.
    """
    parts = np.linspace(0, frozen.count, processes.size + 1).astype(int)
    start, stop = parts[processes.rank : processes.rank + 2].tolist()
    # Where there are more processes than episodes, the metrics' names need one all the same.
    part = replace(frozen, start=frozen.start + start, count=max(stop - start, 1))
    own = _score(learner, part, progress)
    scores = {metric: torch.zeros(frozen.count, dtype=torch.float64) for metric in own}
    for metric, values in own.items():
        scores[metric][start:stop] = values[: stop - start]
    processes.sum(list(scores.values()), meanwhile)
    return {metric: values.numpy() for metric, values in scores.items()}


def _score(
    learner: MetaLearner, frozen: FrozenEpisodes, progress: Callable[[int, int], None] | None
) -> dict[str, Tensor]:
    device = device_of(learner)
    per_task = bounds(frozen.spec.way)[1] * (bounds(frozen.spec.shot)[1] + frozen.spec.query)
    parts: dict[str, list[Tensor]] = {}
    done = 0
    with evaluating(learner):
        scorer, episodes = _embed_once(learner, frozen)
        size = max(1, rows_per_forward(episodes.source, device) // per_task)
        for episode in episodes.batches(size):
            output = _to_cpu(scorer(episode.to(device)))
            for metric, values in metrics(output, episode.query).items():
                parts.setdefault(metric, []).append(values.double())
            done += len(episode.key)
            if progress is not None:
                progress(done, frozen.count)
    return {metric: torch.cat(values) for metric, values in parts.items()}


def _to_cpu(output: Output) -> Output:
    if isinstance(output, Gaussian):
        return Gaussian(output.mean.cpu(), output.std.cpu())
    return output.cpu()


def metrics(output: Output, query: Examples) -> dict[str, Tensor]:
    """Each task's mean score over its real queries, by metric."""
    real = query.real

    def mean(values: Tensor) -> Tensor:
        per_query = values.flatten(2).mean(2) if values.dim() > 2 else values
        return (per_query * real).sum(1) / real.sum(1)

    if isinstance(output, Gaussian):
        error = (output.mean - query.y).abs()
        return {
            "mse": mean(error**2),
            "coverage_90": mean((error <= Z90 * output.std).to(error.dtype)),
        }
    if query.y.is_floating_point():
        return {"mse": mean((output - query.y) ** 2)}
    right = (output.argmax(-1) == query.y).float()
    # A learner that has diverged on a task answers nothing, and must not look like chance.
    return {"accuracy": mean(right.masked_fill(output.isnan().any(-1), float("nan")))}


def _embed_once(learner: MetaLearner, frozen: FrozenEpisodes) -> tuple[MetaLearner, FrozenEpisodes]:
    """Where it is cheaper, embed the source once; then an episode only indexes features."""
    if not isinstance(frozen.source, (Split, Mixture)):
        return learner, frozen
    asked = examples_asked(frozen.spec, frozen.count)
    learner, source = embedded(learner, frozen.source, asked)
    return learner, replace(frozen, source=source)


def examples_asked(spec: EpisodeSpec, episodes: int) -> int:
    """How many examples so many episodes hold, at most."""
    return episodes * bounds(spec.way)[1] * (bounds(spec.shot)[1] + spec.query)


def predictions(learner: MetaLearner, episode: Episode) -> Output:
    """What the learner answers at meta-test, on the CPU; nothing changes."""
    with evaluating(learner):
        return _to_cpu(learner(episode.to(device_of(learner))))
