"""What an episode looks like: way, shot, query, and how uneven tasks may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kshot.datasets.base import Dataset, Split, TaskFamily
from kshot.errors import EpisodeError

Range = int | tuple[int, int]
"""A number, or the two ends (both included) between which each task draws its own."""


@dataclass(frozen=True)
class EpisodeSpec:
    """The shape of the episodes.

    Attributes:
        way: classes per task; of no meaning for task families, but part of their episodes' key.
        shot: support examples per class.
        query: query examples per class.
        imbalanced: where `shot` is a range, draw it for each class instead of for each task.
    """

    way: Range = 5
    shot: Range = 1
    query: int = 15
    imbalanced: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("way", self.way, 2),
            ("shot", self.shot, 1),
            ("query", self.query, 0),
        ):
            low, high = bounds(value)
            if not least <= low <= high:
                raise EpisodeError(
                    f"{name}={value} cannot be drawn: give a number of at least {least}, "
                    "or a range (low, high) that starts there."
                )
        if self.imbalanced and isinstance(self.shot, int):
            raise EpisodeError(
                f"imbalanced episodes need a range of shots, such as shot=(1, {self.shot + 4})."
            )

    def check(self, source: Split | TaskFamily) -> None:
        """Raise EpisodeError if `source` cannot give such episodes."""
        if isinstance(source, Dataset):
            raise EpisodeError(
                f"{source.name} is a data set: choose one of its splits, such as "
                f"data[{next(iter(source.splits))!r}]."
            )
        if not isinstance(source, Split):
            if not isinstance(self.shot, int):
                raise EpisodeError(f"{source.name} has no classes: give one shot, not {self.shot}.")
            return
        way, need = bounds(self.way)[1], bounds(self.shot)[1] + self.query
        if not wide_enough(source, way):
            raise EpisodeError(
                f"way={way} needs {way} classes, but {_widest(source)}: "
                "lower the way or choose another split."
            )
        if need > min(source.sizes):
            small = source.classes[source.sizes.index(min(source.sizes))]
            raise EpisodeError(
                f"shot + query = {need} examples per class, but class {small!r} of {source.name} "
                f"has {min(source.sizes)}: lower shot or query, or leave such classes out."
            )

    def describe(self) -> str:
        """Such as `5-way 1-shot`."""
        way, shot = ("-".join(map(str, dict.fromkeys(bounds(v)))) for v in (self.way, self.shot))
        return f"{way}-way {shot}-shot" + (" imbalanced" if self.imbalanced else "")

    def as_dict(self) -> dict[str, object]:
        """The fields, for records and keys."""
        return asdict(self)


def bounds(value: Range) -> tuple[int, int]:
    """The least and the greatest value of a number or a range."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def wide_enough(source: Split, way: int) -> list[int]:
    """The groups that a task may stay within (a single one, 0, where it may mix all classes)."""
    return [group for group, width in _widths(source).items() if width >= way]


def _widths(source: Split) -> dict[int, int]:
    """The greatest way within each group: variants of one thing count once."""
    within = source.within or (0,) * len(source.sizes)
    things = source.variants or range(len(source.sizes))
    members: dict[int, set[int]] = {}
    for group, thing in zip(within, things, strict=True):
        members.setdefault(group, set()).add(thing)
    return {group: len(members[group]) for group in sorted(members)}


def _widest(source: Split) -> str:
    width = max(_widths(source).values())
    if source.within is None and source.variants is None:
        return f"{source.name} has {width}"
    return f"a task of {source.name} can mix {width} at most"
