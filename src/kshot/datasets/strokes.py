"""Handwriting-like variation of clean character images.

Everything a pen varies between two writings of one character, and nothing else: slant, turn,
size, proportions and place (one affine map), the wobble of the strokes (a smooth elastic field)
and their thickness.  No noise is added, so a person still reads every sample.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 28
"""Side of the finished images, the size used by the few-shot literature on characters."""

# The map is sampled at twice the final size and averaged down, which keeps thin strokes smooth.
_SUPERSAMPLE = 2

# Bounds of the uniform affine parameters. Turns stay far below 45 degrees: a turn by 90 degrees
# makes another class.
_TURN = np.deg2rad(15.0)
_SHEAR = 0.28
_SCALE = (0.85, 1.15)
_ASPECT = 0.12
_SHIFT = 0.12

# Elastic field: normal displacements at a few control points, interpolated by cubic splines.
# 1 is half the side of the image; four points a side bend whole strokes rather than fray them.
_CONTROL_POINTS = 4
_WOBBLE = 0.06

# Pen: the blurred ink is cut at a level; a low level widens the strokes. The levels are low
# because a high one would break the thin strokes of the light fonts, and not lower still because
# the small holes of a letter would fill.
_PEN_LEVEL = (0.26, 0.50)
_PEN_SHARPNESS = 4.0


def distort(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary each image of ``clean`` independently.

    Args:
        clean: Square, slightly blurred images, ink 1 on ground 0, shape ``(n, side, side)``,
            float32. The blur is what the pen cuts into strokes of different thickness.
        rng: Source of all the variation.

    Returns:
        uint8 images of shape ``(n, SIZE, SIZE)``, ink 255 on ground 0.
    """
    n = clean.shape[0]
    extent = [n, 1, SIZE * _SUPERSAMPLE, SIZE * _SUPERSAMPLE]
    grid = F.affine_grid(_affine(n, rng), extent, align_corners=False) + _elastic(extent, rng)
    warped = F.grid_sample(clean[:, None], grid, mode="bilinear", align_corners=False)
    level = _uniform(rng, *_PEN_LEVEL, n).view(n, 1, 1, 1)
    inked = ((warped - level) * _PEN_SHARPNESS + 0.5).clamp(0, 1)
    return F.avg_pool2d(inked, _SUPERSAMPLE).mul(255).round().byte()[:, 0]


def _affine(n: int, rng: np.random.Generator) -> Tensor:
    """Maps from output to input coordinates, shape ``(n, 2, 3)``."""
    turn = _uniform(rng, -_TURN, _TURN, n)
    shear = _uniform(rng, -_SHEAR, _SHEAR, n)
    scale = _uniform(rng, *_SCALE, n)
    aspect = torch.exp(_uniform(rng, -_ASPECT, _ASPECT, n))
    shift = _uniform(rng, -_SHIFT, _SHIFT, (n, 2))
    cos, sin = torch.cos(turn), torch.sin(turn)
    rotate = torch.stack((cos, -sin, sin, cos), dim=1).view(n, 2, 2)
    zeros = torch.zeros(n)
    stretch = torch.stack((1 / aspect, shear, zeros, aspect), dim=1).view(n, 2, 2)
    linear = stretch @ rotate / scale.view(n, 1, 1)
    # The shift is one of the output, whatever the size of the character.
    return torch.cat((linear, linear @ shift[:, :, None]), dim=2)


def _elastic(extent: list[int], rng: np.random.Generator) -> Tensor:
    """Smooth displacement fields for ``extent``, shape ``(n, height, width, 2)``."""
    shape = (extent[0], 2, _CONTROL_POINTS, _CONTROL_POINTS)
    control = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) * _WOBBLE
    field = F.interpolate(control, size=extent[2:], mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def _uniform(
    rng: np.random.Generator, low: float, high: float, shape: int | tuple[int, ...]
) -> Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32)) * (high - low) + low
