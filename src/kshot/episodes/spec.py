"""What an episode looks like: way, shot, query, and how uneven tasks may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from kshot.datasets.base import Dataset
from kshot.datasets.sources import Mixture, Source, Split
from kshot.episodes.any_shot import MOST_PER_CLASS, MOST_SUPPORT
from kshot.errors import EpisodeError
from kshot.types import is_whole

Range = int | tuple[int, int]
"""A number, or the two ends (both included) between which each task draws its own."""

Shot = Range | Literal["any"]
"""A number or range of shots, or `any`: as many as Meta-Dataset's rule gives each class."""


@dataclass(frozen=True)
class EpisodeSpec:
    """The shape of the episodes.

    Attributes:
        way: classes per task; of no meaning for task families, but part of their episodes' key.
        shot: support examples per class; `any` for tasks whose sizes follow those of their classes,
            by the rule of Meta-Dataset: usually with `way=(5, 50)`, and `query=10`.
        query: query examples per class; in any-shot tasks half the smallest class at most.
        imbalanced: where `shot` is a range, draw it for each class instead of for each task.
    """

    way: Range = 5
    shot: Shot = 1
    query: int = 15
    imbalanced: bool = False

    def __post_init__(self) -> None:
        if not _is_range(self.way, 2):
            raise EpisodeError(
                f"way={self.way!r}: give a whole number of at least 2, or a range (low, high)."
            )
        if self.shot != "any" and not _is_range(self.shot, 1):
            raise EpisodeError(
                f"shot={self.shot!r}: give a whole number of at least 1, a range (low, high), or "
                "'any'."
            )
        if not is_whole(self.query, 0):
            raise EpisodeError(f"query={self.query!r}: give a whole number of at least 0.")
        if self.imbalanced and isinstance(self.shot, int):
            raise EpisodeError(
                f"imbalanced episodes need a range of shots, such as shot=(1, {self.shot + 4})."
            )
        if self.shot == "any" and self.imbalanced:
            raise EpisodeError(
                "imbalanced has no meaning where shot is 'any', which draws the shot of each class "
                "anyway: leave it out."
            )
        if self.shot == "any" and bounds(self.way)[1] > MOST_SUPPORT:
            raise EpisodeError(
                f"way={self.way}: any-shot tasks have at most {MOST_SUPPORT} support examples, so "
                f"give a way of at most {MOST_SUPPORT}."
            )

    @property
    def needed_way(self) -> int:
        """The classes that a source must be able to mix: where shots are `any`, ways are too."""
        return bounds(self.way)[0 if self.shot == "any" else 1]

    def check(self, source: Source) -> None:
        """Raise EpisodeError if `source` cannot give such episodes."""
        if isinstance(source, Dataset):
            raise EpisodeError(
                f"{source.name} is a data set: choose one of its splits, such as "
                f"data[{next(iter(source.splits))!r}]."
            )
        if not isinstance(source, (Split, Mixture)):
            if not isinstance(self.shot, int):
                raise EpisodeError(f"{source.name} has no classes: give one shot, not {self.shot}.")
            return
        for split in source.sources:
            self._check_split(split)

    def _check_split(self, source: Split) -> None:
        way = self.needed_way
        if not wide_enough(source, way):
            raise EpisodeError(
                f"way={way} needs {way} classes, but {_widest(source)}: "
                "lower the way or choose another split."
            )
        if self.shot == "any":
            need, what, advice = 2, "any-shot tasks need 2", "leave"
        else:
            need = bounds(self.shot)[1] + self.query
            what, advice = f"shot + query = {need}", "lower shot or query, or leave"
        if need > min(source.sizes):
            small = source.classes[source.sizes.index(min(source.sizes))]
            raise EpisodeError(
                f"{what} examples per class, but class {small!r} of {source.name} "
                f"has {min(source.sizes)}: {advice} such classes out."
            )
        if source.aligned and (self.imbalanced or self.shot == "any"):
            raise EpisodeError(
                f"{source.name} takes the same examples of every class, so that all classes of a "
                "task have one shot: leave imbalanced and 'any' out."
            )

    def describe(self) -> str:
        """Such as `5-way 1-shot`."""
        way, shot = (
            v if isinstance(v, str) else "-".join(map(str, dict.fromkeys(bounds(v))))
            for v in (self.way, self.shot)
        )
        return f"{way}-way {shot}-shot" + (" imbalanced" if self.imbalanced else "")

    def as_dict(self) -> dict[str, object]:
        """The fields, for records and keys."""
        return asdict(self)


def _is_range(value: object, least: int) -> bool:
    ends = value if isinstance(value, (tuple, list)) else (value, value)
    return len(ends) == 2 and all(is_whole(end, least) for end in ends) and ends[0] <= ends[1]


def bounds(value: Shot) -> tuple[int, int]:
    """The least and the greatest value of a number or a range.

    For `any`, way times its greatest value bounds a support set, though not the shot of one class.
    """
    if value == "any":
        return 1, MOST_PER_CLASS
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def wide_enough(source: Split, way: int) -> list[int]:
    """The groups that a task may stay within (a single one, 0, where it may mix all classes)."""
    return [group for group, width in source.widths.items() if width >= way]


def _widest(source: Split) -> str:
    width = max(source.widths.values())
    if source.within is None and source.variants is None:
        return f"{source.name} has {width}"
    return f"a task of {source.name} can mix {width} at most"
