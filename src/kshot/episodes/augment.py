"""Batched augmentation of image tensors, keyed by episode: no state, no worker seeds."""

from __future__ import annotations

import math
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

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue look."""


def augment(episode: Episode, augmentations: Sequence[Augmentation], seed: int = 0) -> Episode:
    """Change every image of the episode; the same episode is always changed in the same way.

    Args:
        episode: with images `(tasks, examples, channels, height, width)`.
        augmentations: applied in this order.
        seed: of the changes.

    Raises:
        EpisodeError: if the features are not images, or an augmentation is no function.
    """
    if not (isinstance(augmentations, Sequence) and all(map(callable, augmentations))):
        raise EpisodeError(
            f"augmentations={augmentations!r:.80}: give a list of functions of images, such as "
            "[random_flip()] of kshot.episodes."
        )
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
            "augmentation takes images (channels, height, width), which these examples are not: "
            "leave it out, in a recipe train.augment."
        )
    if examples.size == 0:  # nothing is asked where learners need no query
        return examples
    rows = examples.x.flatten(0, 1)
    for number, change in enumerate(augmentations):
        raw = [
            philox.words(key, int(i), examples.size * 4, 2 * number + part) for i in index.tolist()
        ]
        unit = torch.from_numpy(philox.uniform(np.concatenate(raw))).to(rows).reshape(-1, 4)
        rows = change(rows, unit)
    return examples.with_x(rows.reshape(examples.x.shape))


def uniforms(stream: str, index: Tensor, *shape: int) -> Tensor:
    """`(len(index), *shape, 4)` numbers in [0, 1), decided by each task's index."""
    base = philox.key_of(stream)
    count = math.prod(shape) * 4
    raw = [philox.uniform(philox.words(base, i, count)) for i in index.tolist()]
    return torch.from_numpy(np.stack(raw)).to(index.device).reshape(-1, *shape, 4)


def changed(x: Tensor, augmentations: Sequence[Augmentation], unit: Tensor) -> Tensor:
    """Images `(rows, channels, height, width)`, changed by `(augmentations, rows, 4)` uniforms."""
    for change, numbers in zip(augmentations, unit.to(x), strict=True):
        x = change(x, numbers)
    return x


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


def random_crop(*, padding: int = 4) -> Augmentation:
    """Surround the image with zeros, `padding` pixels wide, and cut a window of its size out.

    Zeros, not reflections, as in the code that few-shot results on CIFAR come from (MetaOptNet,
    RFS); for images of 84 pixels they take `padding=8`.
    """

    def change(x: Tensor, unit: Tensor) -> Tensor:
        padded = F.pad(x, (padding,) * 4)
        windows = padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
        top, left = (unit[:, :2] * (2 * padding + 1)).long().unbind(1)
        return windows[torch.arange(len(x), device=x.device), :, top, left]

    return change


def color_jitter(
    *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4
) -> Augmentation:
    """Multiply brightness, then contrast, then saturation by up to 1 plus or minus so much.

    Images have values in [0, 1] and keep them there; those of one channel have no saturation.
    """

    def change(x: Tensor, unit: Tensor) -> Tensor:
        strength = unit.new_tensor([brightness, contrast, saturation])
        factors = 1 + (2 * unit[:, :3] - 1) * strength
        bright, contrasty, saturated = factors[:, :, None, None, None].unbind(1)
        x = (x * bright).clamp_(0, 1)
        x = _blend(x, _grey(x).mean((2, 3), keepdim=True), contrasty)
        return _blend(x, _grey(x), saturated)

    return change


def _grey(x: Tensor) -> Tensor:
    """`(rows, 1, height, width)`; the image itself where it has one channel."""
    if x.shape[1] != len(LUMA):
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _blend(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """`x`, changed in place: pulled to `other` by weights below 1, pushed away by those above."""
    return x.mul_(weight).add_(other * (1 - weight)).clamp_(0, 1)


AUGMENTATIONS: dict[str, Augmentation] = {
    "affine": random_affine(),
    "crop": random_crop(),
    "flip": random_flip(),
    "jitter": color_jitter(),
}
"""By name, as recipes have them."""
