"""What episodes are drawn from: splits of classes, mixtures of them, and families of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kshot import philox
from kshot.errors import DataError
from kshot.types import Episode, Features, concatenate, first_tensor, map_features


class TaskFamily(Protocol):
    """Tasks that come without classes: episode i is a function of the family, the seed and i.

    Attributes:
        name: for messages and records, for example `"sinusoid/test"`.
        fingerprint: identifies the distribution over tasks, whatever the machine.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def draw(self, key: int, index: Sequence[int], shot: int, query: int) -> Episode:
        """One episode per counter in `index`, with `shot` support and `query` query examples."""
        ...


def images_to_float(x: Features) -> Features:
    """Bytes 0..255 as floats 0..1."""
    return map_features(lambda v: v.float() / 255 if v.dtype == torch.uint8 else v, x)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """The classes of one split, the examples of each stored in one piece.

    Attributes:
        name: for messages and records, for example `"glyphs/test"`.
        x: features `(examples, *features)`, or a dict of such tensors; may be memory-mapped, and
            shared with other splits.
        sizes: number of examples of each class.
        classes: the classes' names.
        prepare: from stored to usable features (for example bytes to floats).
        source_fingerprint: set where `x` replaces other data, so that episodes stay the same.
        starts: the first row of each class in `x`; None where the split is all of `x`, class
            after class.
        variants: for each class the number of what it is a variant of (rotations of one
            character): an episode holds one variant of it at most. None where there are none.
        within: for each class the number of the group (alphabet) that a task stays within; None
            where a task may mix all classes.
        aligned: the j-th examples of all classes have one origin (a drawer): an episode takes the
            same ones of every class.
        options: the data set's, for records; episodes do not depend on them.
    """

    name: str
    x: Features
    sizes: tuple[int, ...]
    classes: tuple[Hashable, ...]
    prepare: Callable[[Features], Features] = images_to_float
    source_fingerprint: str | None = None
    starts: tuple[int, ...] | None = None
    variants: tuple[int, ...] | None = None
    within: tuple[int, ...] | None = None
    aligned: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.x.values() if isinstance(self.x, dict) else [self.x])}
        whole = self.starts is not None or lengths == {sum(self.sizes)}
        if not whole or len(self.sizes) != len(self.classes):
            raise DataError(
                f"split {self.name!r}: {len(self.classes)} classes with {sum(self.sizes)} examples "
                f"in all, but features of length {sorted(lengths)}: they must agree."
            )

    def __repr__(self) -> str:
        return (
            f"<Split {self.name}: {len(self.classes):,} classes, {sum(self.sizes):,} examples "
            f"{feature_shape(self.x)}>"
        )

    @property
    def sources(self) -> tuple[Split, ...]:
        """The split itself, as a mixture of one."""
        return (self,)

    @cached_property
    def offsets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where each class begins in `x`."""
        if self.starts is not None:
            return np.asarray(self.starts, dtype=np.int64)
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @cached_property
    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """`sizes` as an array."""
        return np.asarray(self.sizes, dtype=np.int64)

    @cached_property
    def widths(self) -> dict[int, int]:
        """The greatest way within each group (0 where there is one): variants count once."""
        within = self.within or (0,) * len(self.sizes)
        things = self.variants or range(len(self.sizes))
        members: dict[int, set[int]] = {}
        for group, thing in zip(within, things, strict=True):
            members.setdefault(group, set()).add(thing)
        return {group: len(members[group]) for group in sorted(members)}

    @cached_property
    def rows(self) -> Tensor:
        """The row in `x` of each example, class after class."""
        return torch.cat(
            [torch.arange(o, o + n) for o, n in zip(self.offsets.tolist(), self.sizes, strict=True)]
        )

    def examples(self, numbers: Tensor | slice) -> Features:
        """The usable features of the examples at these positions, counted class after class."""
        return self.prepare(self.stored(self.rows[numbers].to(first_tensor(self.x).device)))

    def stored(self, rows: Tensor) -> Features:
        """The features at these rows of `x`, as they are stored."""
        # index_select copies rows several times as fast as v[rows] does.
        flat = rows.flatten()
        return map_features(
            lambda v: v.index_select(0, flat).unflatten(0, tuple(rows.shape)), self.x
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the data itself: the same data give the same episodes, anywhere."""
        if self.source_fingerprint is not None:
            return self.source_fingerprint
        digest = hashlib.sha256(repr(self.sizes).encode())
        if self.variants or self.within or self.aligned:
            digest.update(repr((self.variants, self.within, self.aligned)).encode())
        parts = self.x if isinstance(self.x, dict) else {"": self.x}
        for name in sorted(parts):
            tensor = parts[name].detach().cpu()
            tensor = (tensor if self.starts is None else tensor[self.rows]).contiguous()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
        return digest.hexdigest()[:16]

    def with_x(self, x: Features) -> Split:
        """The same examples with other features (for example embedded): the same episodes."""
        return replace(
            self, x=x, prepare=_as_they_are, source_fingerprint=self.fingerprint, starts=None
        )

    def take(self, classes: Sequence[int]) -> Split:
        """Some of the classes, by their numbers."""

        def some(values: Sequence[int] | None) -> tuple[int, ...] | None:
            return None if values is None else tuple(values[c] for c in classes)

        return replace(
            self,
            sizes=tuple(self.sizes[c] for c in classes),
            classes=tuple(self.classes[c] for c in classes),
            source_fingerprint=f"{philox.key_of([self.fingerprint, *classes]):032x}"[:16],
            starts=some(self.offsets.tolist()),
            variants=some(self.variants),
            within=some(self.within),
        )

    def labels(self) -> Tensor:
        """The class number of each example, class after class."""
        return torch.repeat_interleave(torch.tensor(self.sizes))


def _as_they_are(x: Features) -> Features:
    return x


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several splits as one source: each episode comes whole from one of them, all as likely.

    Attributes:
        name: for messages and records.
        sources: the splits, whose usable features are alike in shape and dtype.

    Raises:
        DataError: if there are no sources, if one has no classes, or if their features differ.
    """

    name: str
    sources: tuple[Split, ...]

    def __post_init__(self) -> None:
        other = next((s.name for s in self.sources if not isinstance(s, Split)), None)
        if other is not None or not self.sources:
            raise DataError(
                f"mixture {self.name!r} needs splits with classes, such as data['train']"
                + (f", and {other} is none." if other is not None else ".")
            )
        first = self.sources[0]
        for split in self.sources[1:]:
            if (kind := _kind(split)) != _kind(first):
                raise DataError(
                    f"mixture {self.name!r}: an example of {first.name} is {_kind(first)}, but of "
                    f"{split.name} {kind}: load them with the same size, channels and dtype."
                )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all sources, in their order."""
        return f"{philox.key_of('mixture', [s.fingerprint for s in self.sources]):032x}"[:16]

    @property
    def options(self) -> dict[str, Any]:
        """Those of the sources, such as `omniglot.protocol`."""
        found: dict[str, dict[str, None]] = {}
        for split in self.sources:
            home = split.name.partition("/")[0]
            for key, value in split.options.items():
                found.setdefault(f"{home}.{key}", {})[str(value)] = None
        return {key: " + ".join(values) for key, values in found.items()}


Source = Split | Mixture | TaskFamily
"""What episodes are drawn from."""


def _kind(split: Split) -> str:
    """Shape and dtype of one example's usable features."""
    x = split.examples(slice(0, 1))
    parts = x.items() if isinstance(x, dict) else [("", x)]
    return ", ".join(f"{k} {tuple(v.shape[1:])} {v.dtype}".strip() for k, v in sorted(parts))


def join_splits(name: str, parts: Sequence[Split]) -> Split:
    """The classes of several splits of one data set as one split."""
    if len(parts) < 2 or len({p.name for p in parts}) < len(parts):
        raise DataError(f"{name}: name two different splits that have classes.")
    first = parts[0]
    if all(p.x is first.x for p in parts):
        x, shifts = first.x, [0] * len(parts)
    else:
        whole = [p.stored(p.rows) for p in parts]
        x = concatenate(whole)
        parts = [replace(p, x=w, starts=None) for p, w in zip(parts, whole, strict=True)]
        shifts = np.cumsum([0, *(sum(p.sizes) for p in parts[:-1])]).tolist()
    starts = [p.offsets + shift for p, shift in zip(parts, shifts, strict=True)]
    return replace(
        first,
        name=name,
        x=x,
        sizes=sum((p.sizes for p in parts), ()),
        classes=sum((p.classes for p in parts), ()),
        source_fingerprint=f"{philox.key_of([p.fingerprint for p in parts]):032x}"[:16],
        starts=tuple(np.concatenate(starts).tolist()),
        variants=None if first.variants is None else sum((p.variants or () for p in parts), ()),
        within=None if first.within is None else sum((p.within or () for p in parts), ()),
    )


def feature_shape(x: Features) -> tuple[int, ...]:
    """The shape of one example's features (of the first tensor, for a dict)."""
    return tuple(first_tensor(x).shape[1:])
