"""Batched augmentation of image tensors, keyed by episode: no state, no worker seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot import philox
from kshot.errors import EpisodeError
from kshot.types import Episode, Examples

Augmentation = Callable[[Tensor, Tensor], Tensor]
"""From images `(rows, channels, height, width)` and uniforms `(rows, 4)` in [0, 1) to images."""


def augment(episode: Episode, augmentations: Sequence[Augmentation], seed: int = 0) -> Episode:
    """Change every image of the episode; the same episode is always changed in the same way.

    Args:
        episode: with images `(tasks, examples, channels, height, width)`.
        augmentations: applied in this order.
        seed: of the changes.

    Raises:
        EpisodeError: if the features are not images.
    """
    if not augmentations:
        return episode
    key = philox.key_of("augment", seed)
    support = _augment(episode.support, augmentations, key, episode.key, 0)
    query = _augment(episode.query, augmentations, key, episode.key, 1)
    return replace(episode, support=support, query=query)


def _augment(
    examples: Examples,
    augmentations: Sequence[Augmentation],
    key: int,
    index: Tensor,
    part: int,
) -> Examples:
    if not isinstance(examples.x, Tensor) or examples.x.dim() != 5:
        raise EpisodeError(
            "augmentation takes images (tasks, examples, channels, height, width); "
            "train without it on other features."
        )
    rows = examples.x.flatten(0, 1)
    for number, change in enumerate(augmentations):
        raw = [
            philox.words(key, int(i), examples.size * 4, 2 * number + part) for i in index.tolist()
        ]
        unit = torch.from_numpy(philox.uniform(np.concatenate(raw))).to(rows).reshape(-1, 4)
        rows = change(rows, unit)
    return examples.with_x(rows.reshape(examples.x.shape))


def random_affine(
    *, degrees: float = 10.0, translate: float = 0.1, scale: float = 0.1
) -> Augmentation:
    """Rotate up to `degrees`, shift up to `translate` of the side, zoom up to `scale`."""

    def change(x: Tensor, unit: Tensor) -> Tensor:
        signed = 2 * unit - 1
        angle = signed[:, 0] * (degrees * torch.pi / 180)
        zoom = 1 + signed[:, 1] * scale
        shift = 2 * signed[:, 2:] * translate
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).reshape(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    return change


def random_flip() -> Augmentation:
    """Mirror left and right with probability one half."""

    def change(x: Tensor, unit: Tensor) -> Tensor:
        return torch.where((unit[:, 0] < 0.5)[:, None, None, None], x.flip(-1), x)

    return change
