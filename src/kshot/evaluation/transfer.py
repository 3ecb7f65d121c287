"""From a source domain to a target: what they share, images of one shape, rivals tuned fairly."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from kshot.datasets import Split
from kshot.datasets.sources import feature_shape
from kshot.episodes import FrozenEpisodes
from kshot.episodes.augment import LUMA
from kshot.errors import DataError
from kshot.evaluation.scoring import score_episodes
from kshot.learners import MetaLearner
from kshot.types import Features


@dataclass(frozen=True)
class Tried:
    """A setting of a rival, and its score on meta-validation."""

    lr: float
    steps: int
    score: float


def tune(
    make: Callable[[float, int], MetaLearner],
    validation: FrozenEpisodes,
    rates: Sequence[float],
    steps: Sequence[int],
) -> list[Tried]:
    """Every rate with every number of steps on meta-validation, the best first.

    Args:
        make: the learner with a rate and a number of inner steps.
        validation: episodes of classes that are not tested on.
        rates: of the inner loop.
        steps: of the inner loop; 0 steps have no rate.
    """
    settings = {(lr if n else rates[0], n): None for n in steps for lr in rates}
    tried = [
        Tried(lr, n, float(next(iter(score_episodes(make(lr, n), validation).values())).mean()))
        for lr, n in settings
    ]
    return sorted(tried, key=lambda t: -t.score if t.score == t.score else 1.0)


def as_images(split: Split, shape: Sequence[int]) -> Split:
    """The same episodes with images of another size or number of channels.

    Colours become their brightness, grey images get equal colours; sizes are interpolated.

    Raises:
        DataError: if one of the two is no image.
    """
    own = feature_shape(split.prepare(split.stored(split.rows[:1])))
    if own == tuple(shape):
        return split
    if len(own) != 3 or len(shape) != 3 or {own[0], shape[0]} - {1, 3}:
        raise DataError(
            f"an example of {split.name} is {own}, but the learner takes {tuple(shape)}: choose a "
            "target of the same kind."
        )
    channels, size = shape[0], tuple(shape[1:])

    def change(x: Features) -> Tensor:
        images: Tensor = split.prepare(x)
        lead = images.shape[:-3]
        rows = images.reshape(-1, *images.shape[-3:])
        if channels == 1 and rows.shape[1] == 3:
            rows = (rows * rows.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        rows = rows.expand(-1, channels, -1, -1)
        if rows.shape[-2:] != size:
            rows = F.interpolate(rows, size, mode="bilinear", antialias=True)
        return rows.reshape(*lead, *shape)

    return replace(split, prepare=change)


def related(source: Split, target: Split) -> list[int]:
    """The classes of `target` whose group, such as a script, the source has as well.

    A group is what stands before the first `/` of a class's name. The source's group `cyrillic` is
    one of `Old_Church_Slavonic_(Cyrillic)`, whose words include it.
    """
    known = {words for label in source.classes if (words := _group(str(label)))}
    return [
        number
        for number, label in enumerate(target.classes)
        if any(group <= _group(str(label)) for group in known)
    ]


def _group(label: str) -> frozenset[str]:
    """The words of a class's group; none where it has no group."""
    head, slash, _ = label.partition("/")
    return frozenset(re.findall(r"[a-z]+", head.casefold()) if slash else [])
