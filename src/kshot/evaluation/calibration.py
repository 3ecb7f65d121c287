"""Temperatures and thresholds for a learner, measured on meta-validation episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.datasets.sources import Mixture, Split
from kshot.episodes import EpisodeSpec, draw
from kshot.errors import CheckpointError, ConfigError, EpisodeError
from kshot.evaluation.confidence import familiarity, fit_temperature
from kshot.evaluation.embedding import device_of, embedded, evaluating
from kshot.learners.base import MetaLearner
from kshot.types import Episode, Examples, is_whole, map_features

WAYS, SHOTS = (2, 5, 10, 20), (1, 2, 5, 10)
"""Where a learner is calibrated, as far as it and the data allow."""

QUANTILES = np.linspace(0, 1, 101)
QUERY = 5


class Answers(NamedTuple):
    """What a learner says to queries of known classes, and of classes it was never shown.

    Attributes:
        known: logits `(answers, way)`.
        labels: of these, `(answers,)`.
        strangers: logits `(answers, way)`.
    """

    known: Tensor
    labels: Tensor
    strangers: Tensor


class Spot(NamedTuple):
    """A calibration at one way and shot.

    Attributes:
        temperature: that divides the logits.
        known: quantiles of the familiarity of queries of known classes.
        strangers: the same of queries of other classes.
    """

    temperature: float
    known: NDArray[np.float64]
    strangers: NDArray[np.float64]

    def threshold(self, false_accepts: float) -> float:
        """The familiarity below which a query is unknown, so that so few strangers are above."""
        return float(np.interp(1 - false_accepts, QUANTILES, self.strangers))

    def false_rejects(self, false_accepts: float) -> float:
        """The share of known queries that are refused then."""
        return float(np.interp(self.threshold(false_accepts), self.known, QUANTILES))


@dataclass(frozen=True)
class Calibration:
    """A learner's temperatures and thresholds over ways and shots.

    Between these they are interpolated in the logarithms; beyond them the nearest ones hold.

    Attributes:
        ways: of the grid.
        shots: of the grid.
        temperatures: `(ways, shots)`.
        known: `(ways, shots, 101)`, see `Spot`.
        strangers: `(ways, shots, 101)`, see `Spot`.
        source: where it was measured.
    """

    ways: Sequence[int]
    shots: Sequence[int]
    temperatures: NDArray[np.float64]
    known: NDArray[np.float64]
    strangers: NDArray[np.float64]
    source: str = ""

    def at(self, way: int, shot: float) -> Spot:
        """The calibration for a task of that way with so many examples of a class on average."""
        weights = np.outer(_weights(self.ways, way), _weights(self.shots, shot))
        return Spot(
            math.exp((weights * np.log(self.temperatures)).sum()),
            np.einsum("ws,wsq->q", weights, self.known),
            np.einsum("ws,wsq->q", weights, self.strangers),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Calibration:
        """The inverse of `as_dict`.

        Raises:
            CheckpointError: if the values do not fit together.
        """
        try:
            grids = {k: np.array(values[k], float) for k in ("temperatures", "known", "strangers")}
            made = Calibration(values["ways"], values["shots"], **grids, source=values["source"])
            shape = (len(made.ways), len(made.shots))
            wrong = made.temperatures.shape != shape or made.known.shape != (*shape, 101)
            if wrong or made.strangers.shape != made.known.shape:
                raise ValueError(f"tables of {made.known.shape} for {shape}")
            real = all(np.isfinite(grid).all() for grid in grids.values())
            if not real or min(made.temperatures.flat, default=0) <= 0:
                raise ValueError("impossible values")
            for points in (made.ways, made.shots):
                if not all(is_whole(p, 1) for p in points) or sorted(set(points)) != list(points):
                    raise ValueError(f"a grid of {points!r:.60}")
            if not isinstance(made.source, str):
                raise ValueError(f"a source {made.source!r:.60}")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"a calibration is damaged ({error}): measure it again."
            ) from error
        return made


FILE = "calibration.json"
"""In a run folder."""


def read_calibration(folder: Path, meta_steps: int) -> Calibration | None:
    """The calibration that `kshot calibrate` has left in a run folder, if it has.

    Args:
        folder: of the run.
        meta_steps: behind its weights.

    Raises:
        CheckpointError: if it is damaged, or was measured with other weights.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = Calibration.of_dict(values)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: measure it again by kshot calibrate.") from error
    if values.get("meta_steps") != meta_steps:
        raise CheckpointError(
            f"{path} was measured with the weights of step {values.get('meta_steps')}, but these "
            f"are of step {meta_steps}: measure it again by kshot calibrate."
        )
    return found


def _weights(points: Sequence[float], value: float) -> NDArray[np.float64]:
    """Of linear interpolation between the logarithms of the points."""
    rows = np.eye(len(points))
    return np.array([np.interp(np.log(value), np.log(points), row) for row in rows])


def calibrate(
    learner: MetaLearner,
    source: Split | Mixture,
    *,
    widest: int | None = None,
    episodes: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Measure temperatures and thresholds on episodes of meta-validation.

    Args:
        learner: left as it was.
        source: of classes that it was not trained on.
        widest: tasks that the learner can be asked; None if any.
        episodes: for each way and shot.
        seed: of the episodes.
        progress: called with spots done and spots in all.

    Raises:
        EpisodeError: if the source has fewer than 3 classes of 6 examples.
    """
    classes = min(max(split.widths.values()) for split in source.sources)
    least = min(min(split.sizes) for split in source.sources)
    ways = [w for w in WAYS if w + _strangers(w) <= classes and w <= (widest or w)]
    shots = [shot for shot in SHOTS if shot + QUERY <= least]
    if not (ways and shots):
        raise EpisodeError(
            f"{source.name} has {classes} classes of at least {least} examples, but a calibration "
            f"needs 3 classes of {1 + QUERY}: choose another split."
        )
    with evaluating(learner):
        learner, source = embedded(learner, source)
    grid: list[list[Spot]] = []
    for i, way in enumerate(ways):
        grid.append([])
        for j, shot in enumerate(shots):
            found = answers(learner, source, way, shot, episodes=episodes, seed=seed)
            grid[-1].append(_spot(found))
            progress(i * len(shots) + j + 1, len(ways) * len(shots))
    temperatures, known, strangers = (
        np.array([[spot[k] for spot in row] for row in grid]) for k in range(3)
    )
    return Calibration(ways, shots, temperatures, known, strangers, source.name)


def _spot(found: Answers) -> Spot:
    known, strangers = (
        np.quantile(familiarity(logits).numpy(), QUANTILES)
        for logits in (found.known, found.strangers)
    )
    return Spot(fit_temperature(found.known, found.labels), known, strangers)


def check_spot(source: Split | Mixture, way: int, shot: int, widest: int | None) -> None:
    """Raise where such episodes, with strangers, cannot be had.

    Raises:
        EpisodeError: by the source.
        ConfigError: by the learner.
    """
    if widest is not None and way > widest:
        raise ConfigError(f"--way {way}: this learner was built for {widest} classes at most.")
    EpisodeSpec(way + _strangers(way), shot, 15).check(source)


def _strangers(way: int) -> int:
    """Classes that an episode asks about without having shown them."""
    return max(1, way // 2)


def answers(
    learner: MetaLearner,
    source: Split | Mixture,
    way: int,
    shot: int,
    *,
    query: int = QUERY,
    episodes: int = 100,
    seed: int = 0,
) -> Answers:
    """What the learner says in episodes some of whose queries are of classes never shown.

    Args:
        learner: left as it was.
        source: of the episodes.
        way: classes that are shown.
        shot: examples of each.
        query: per class, shown or not.
        episodes: how many.
        seed: of them.

    Raises:
        EpisodeError: if the source cannot give such episodes.
    """
    spec = EpisodeSpec(way + _strangers(way), shot, query)
    spec.check(source)
    parts = []
    with evaluating(learner):
        for first in range(0, episodes, 10):
            episode = draw(source, spec, seed, range(first, min(first + 10, episodes)))
            parts.append(_answers(learner, episode.to(device_of(learner)), way))
    return Answers(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _answers(learner: MetaLearner, episode: Episode, way: int) -> Answers:
    shown = _where(episode.support, episode.support.y < way, way)
    predictor = learner.adapt(shown, key=episode.key)
    known = _where(episode.query, episode.query.y < way, way)
    strangers = _where(episode.query, episode.query.y >= way, way)
    to_known, to_strangers = predictor(known.x), predictor(strangers.x)
    assert isinstance(to_known, Tensor)
    assert isinstance(to_strangers, Tensor)
    return Answers(to_known.flatten(0, 1), known.y.flatten(), to_strangers.flatten(0, 1))


def _where(examples: Examples, chosen: Tensor, way: int) -> Examples:
    """Some examples of each task, as many of all tasks."""
    tasks = examples.tasks
    x = map_features(lambda v: v[chosen].unflatten(0, (tasks, -1)), examples.x)
    return Examples(x, examples.y[chosen].reshape(tasks, -1), way=way)
