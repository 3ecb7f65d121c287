"""What a model was fitted on: features, and what people recognise their examples by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.errors import CheckpointError
from kshot.estimators.inputs import Inputs
from kshot.files import as_text
from kshot.types import Features, concatenate, map_features

SIDE = 48
"""Of a thumbnail, in pixels."""

LONGEST = 200
"""Characters that are kept of a text or name."""


@dataclass(frozen=True)
class Support:
    """The examples that a model was fitted on.

    Attributes:
        features: `(examples, *features)`, as the head takes them.
        names: a path, a text, or a number of each.
        thumbnails: of images, `(examples, channels, side, side)` bytes.
    """

    features: Features
    names: Sequence[str]
    thumbnails: Tensor | None = None

    def joined(self, other: Support) -> Support:
        """These examples, then those."""
        return Support(
            concatenate([self.features, other.features]),
            [*self.names, *other.names],
            None
            if self.thumbnails is None or other.thumbnails is None
            else torch.cat([self.thumbnails, other.thumbnails]),
        )

    def take(self, keep: Tensor) -> Support:
        """Some of the examples, by a mask."""
        return Support(
            map_features(lambda v: v[keep], self.features),
            [name for name, k in zip(self.names, keep.tolist(), strict=True) if k],
            None if self.thumbnails is None else self.thumbnails[keep],
        )

    def tensors(self) -> dict[str, Tensor]:
        """By names, for a file."""
        found = {f"features.{name}": value for name, value in parts_of(self.features).items()}
        return found if self.thumbnails is None else {**found, "thumbnails": self.thumbnails}

    @staticmethod
    def of_file(tensors: Mapping[str, Tensor], names: Sequence[Any]) -> Support:
        """The inverse of `tensors`.

        Raises:
            CheckpointError: if they do not fit together.
        """
        parts = {
            name.removeprefix("features."): value
            for name, value in tensors.items()
            if name.startswith("features.")
        }
        counts = {len(v) for v in [*parts.values(), tensors["labels"]]}
        small = tensors.get("thumbnails")
        if small is not None and not (
            small.dtype == torch.uint8
            and small.dim() == 4
            and len(small) in counts
            and small.shape[1] in (1, 3)
            and 0 < min(small.shape[2:]) <= max(small.shape[2:]) <= SIDE
        ):
            raise CheckpointError(f"thumbnails {tuple(small.shape)} of {small.dtype}")
        if len(counts) != 1 or (names and len(names) not in counts):
            raise CheckpointError(f"examples of {sorted(counts)} and {len(names)} names")
        return Support(
            parts[""] if list(parts) == [""] else parts,
            [str(name) for name in names] or [""] * len(tensors["labels"]),
            tensors.get("thumbnails"),
        )


def parts_of(features: Features) -> dict[str, Tensor]:
    """By their names; a tensor alone has none."""
    return features if isinstance(features, dict) else {"": features}


def names_of(inputs: Inputs, first: int = 0) -> list[str]:
    """What people recognise the examples by."""
    if inputs.kind == "vectors":
        return [f"row {first + i}" for i in range(inputs.size)]
    kind = inputs.kind.removesuffix("s")
    return [
        as_text(item)[:LONGEST] if isinstance(item, (str, Path)) else f"{kind} {first + i}"
        for i, item in enumerate(inputs.items)
    ]


def thumbnails(x: Tensor) -> Tensor:
    """Images from 0 to 1 as small ones of bytes."""
    if x.shape[-1] > SIDE:
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (x * 255).round().to(torch.uint8)
