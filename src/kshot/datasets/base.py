"""Data sets: named splits whose classes are disjoint, from anywhere and from anyone's arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kshot import philox
from kshot.datasets.sources import Source, Split, join_splits
from kshot.errors import ConfigError, DataError, unknown
from kshot.types import Features, is_whole, map_features


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Named splits whose classes are disjoint (checked), or a family of tasks for each.

    Attributes:
        name: as in `kshot datasets`.
        splits: `train`, `val`, `test` or a part of them.
        about: one line.
        source: where the data come from.
        licence: under which terms.
        options: that `kshot.load` was given, and the defaults of the others.
    """

    name: str
    splits: Mapping[str, Source]
    about: str = ""
    source: str = ""
    licence: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        families = [s.fingerprint for s in self.splits.values() if not isinstance(s, Split)]
        if len(set(families)) < len(families):
            raise DataError(
                f"data set {self.name!r}: the same task family in two splits would draw the same "
                "tasks for both: give each split its own, with another name in its fingerprint."
            )
        owner: dict[Hashable, str] = {}
        for split_name, split in self.splits.items():
            for label in split.classes if isinstance(split, Split) else ():
                if owner.setdefault(label, split_name) != split_name:
                    raise DataError(
                        f"data set {self.name!r}: class {label!r} is in the splits "
                        f"{owner[label]!r} and {split_name!r}; splits must not share classes."
                    )

    def __repr__(self) -> str:
        splits = [
            f"{name} ({len(split.classes):,} classes)" if isinstance(split, Split) else name
            for name, split in self.splits.items()
        ]
        return f"<Dataset {self.name}: {', '.join(splits)}>"

    def __getitem__(self, split: str) -> Source:
        """The split of that name; `train+val` gives the classes of both."""
        names = str(split).split("+")
        for name in names:
            if name not in self.splits:
                raise unknown(f"split of {self.name}", name, self.splits)
        if len(names) == 1:
            return self.splits[split]
        parts = [self.splits[name] for name in names]
        return join_splits(f"{self.name}/{split}", [p for p in parts if isinstance(p, Split)])

    @staticmethod
    def from_arrays(
        x: Any,
        y: Sequence[Hashable] | np.ndarray[Any, Any] | Tensor,
        *,
        name: str = "arrays",
        splits: Mapping[str, Sequence[Hashable]] | Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> Dataset:
        """A data set from anyone's arrays.

        Args:
            x: features `(examples, *features)` of any shape and dtype, or a dict of such arrays.
                Arrays of float64, NumPy's default, become float32; tensors keep their dtype.
            y: one label per example, of any hashable kind.
            name: for messages and records.
            splits: the classes of each split by name, or the fraction of the classes that each
                split gets, drawn by `seed`; None puts every class into `"test"`.
            seed: of the draw of classes.

        Raises:
            DataError: for NaN or infinite features, mismatched lengths, fewer than two classes,
                or splits that name unknown classes.
        """
        features = _as_tensors(x)
        labels = y.tolist() if isinstance(y, (Tensor, np.ndarray)) else list(y)
        _check_arrays(name, features, labels)
        numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        codes = np.fromiter((numbers[label] for label in labels), dtype=np.int64)
        if splits is None:
            splits = {"test": list(numbers)}
        parts = {
            split: _take_classes(f"{name}/{split}", features, codes, chosen, numbers)
            for split, chosen in classes_per_split(splits, list(numbers), seed).items()
        }
        return Dataset(name, parts, about="arrays given by the user")


def _as_tensors(x: Any) -> Features:
    if isinstance(x, dict):
        return {name: _as_tensors(value) for name, value in x.items()}
    if isinstance(x, Tensor):
        return x
    tensor = torch.as_tensor(np.asarray(x))
    # NumPy makes float64 of everything; networks are float32. A float64 tensor was meant.
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor


def _check_arrays(name: str, x: Features, labels: Sequence[Hashable]) -> None:
    for key, tensor in x.items() if isinstance(x, dict) else [("x", x)]:
        if tensor.dim() == 0 or len(tensor) != len(labels):
            count = "a single value" if tensor.dim() == 0 else f"{len(tensor)} examples"
            raise DataError(
                f"{name}: {key} has {count} but y has {len(labels)} labels: "
                "give exactly one label per example."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            row = (
                int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
                if tensor.dim() > 1
                else int((~torch.isfinite(tensor)).nonzero()[0])
            )
            raise DataError(
                f"{name}: {key} holds NaN or infinity (first in example {row}): "
                "drop or impute such examples first."
            )
    try:
        missing = next((i for i, label in enumerate(labels) if label != label), None)
        classes = len(set(labels))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: a label must be one hashable value per example, such as 3 or 'cat', not "
            f"{labels[0]!r}: for one-hot rows give y.argmax(1)."
        ) from error
    if missing is not None:
        raise DataError(f"{name}: the label of example {missing} is NaN: drop such examples first.")
    if classes < 2:
        raise DataError(f"{name}: y has {classes} class(es), but a task needs at least 2.")


def classes_per_split(
    splits: Mapping[str, Any], classes: Sequence[Hashable], seed: int
) -> dict[str, list[Hashable]]:
    """The classes of each split: named, or drawn by `seed` where `splits` gives fractions.

    Raises:
        DataError: for fractions that are not positive or add up to more than 1.
        ConfigError: for a seed that is no whole number from 0.
    """
    check_seed(seed)
    if not all(isinstance(v, (int, float)) for v in splits.values()):
        return {split: list(chosen) for split, chosen in splits.items()}
    total = sum(splits.values())
    if total > 1 + 1e-9 or not all(v > 0 for v in splits.values()):
        raise DataError(f"split fractions {dict(splits)} must be positive and add up to 1 at most.")
    order = philox.permutation(philox.words(philox.key_of("split", seed), 0, len(classes)))
    bounds = np.rint(np.cumsum(list(splits.values())) * len(classes)).astype(int)
    starts = [0, *bounds[:-1]]
    return {
        split: [classes[i] for i in sorted(order[start:stop])]
        for split, start, stop in zip(splits, starts, bounds, strict=True)
    }


def check_seed(seed: object) -> None:
    """Raise ConfigError unless `seed` is a whole number from 0."""
    if not is_whole(seed, 0):
        raise ConfigError(f"seed={seed!r}: give a whole number from 0.")


def _take_classes(
    name: str,
    x: Features,
    codes: np.ndarray[Any, np.dtype[np.int64]],
    chosen: Sequence[Hashable],
    numbers: Mapping[Hashable, int],
) -> Split:
    missing = [label for label in chosen if label not in numbers]
    if missing or not chosen:
        raise DataError(
            f"{name}: no example has the class {missing[0]!r}; classes: {list(numbers)[:10]}"
            if missing
            else f"{name} would have no class: give it a larger fraction or name its classes."
        )
    rows = [np.flatnonzero(codes == numbers[label]) for label in chosen]
    index = torch.from_numpy(np.concatenate(rows))
    return Split(
        name,
        map_features(lambda v: v[index], x),
        tuple(len(r) for r in rows),
        tuple(chosen),
    )
