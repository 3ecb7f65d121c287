"""The frozen episodes that choose the best weights, scored by all processes together."""

from __future__ import annotations

from collections.abc import Callable

from kshot.datasets.sources import Mixture, Source, Split
from kshot.engine.processes import Processes
from kshot.episodes import EpisodeSpec, FrozenEpisodes
from kshot.episodes.spec import bounds
from kshot.evaluation import mean_interval, score_episodes
from kshot.learners.base import MetaLearner


def default_validation(val: Source, spec: EpisodeSpec) -> FrozenEpisodes:
    """200 episodes shaped as in training, as far as the split allows."""
    if not isinstance(val, (Split, Mixture)) or spec.shot == "any":
        return FrozenEpisodes(val, spec, 200)
    way = min(bounds(spec.way)[1], *(len(part.sizes) for part in val.sources))
    shot = bounds(spec.shot)[0]
    query = max(1, min(15, *(min(part.sizes) - shot for part in val.sources)))
    return FrozenEpisodes(val, EpisodeSpec(way, shot, query), 200)


def validate(
    learner: MetaLearner,
    validation: FrozenEpisodes,
    processes: Processes,
    meanwhile: Callable[[], None],
) -> tuple[str, float, float]:
    """The metric, its mean and its interval.

    Args:
        learner: in any mode, which it keeps.
        validation: the episodes of all processes.
        processes: who shares them.
        meanwhile: see `Processes.sum`.
    """
    found = score_episodes(learner, validation, processes=processes, meanwhile=meanwhile)
    metric, scores = next(iter(found.items()))
    return metric, *mean_interval(scores)
