"""The embedded data set "glyphs": letters of many scripts, from the fonts matplotlib ships.

DOC
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .strokes import blur, distort

VERSION = 1
"""Raised whenever the images change, so that caches of older ones are not used."""

SAMPLES = 20
"""Images a class, as in Omniglot."""

# The font that decides which characters there are and what their shape is: it has the widest
# coverage.
_REFERENCE = "DejaVuSans.ttf"

# Upright faces only: slant comes from the distortion, while true italics change the shape of a
# letter (Cyrillic te looks like a Latin m). The cm* fonts are left out because their character
# maps follow TeX rather than Unicode.
_FONTS = (
    _REFERENCE,
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
)

# Scripts by first word of the Unicode name, with their split. The order is the priority: a shape
# of several scripts belongs to the first one, so the training scripts come first and what is left
# in validation and test is new.
_SPLIT = {
    "DIGIT": "train",
    "LATIN": "train",
    "CYRILLIC": "train",
    "CANADIAN": "train",
    "ARABIC": "train",
    "LISU": "train",
    "GREEK": "val",
    "COPTIC": "val",
    "LAO": "val",
    "NKO": "val",
    "OLD": "val",
    "OGHAM": "val",
    "HEBREW": "test",
    "ARMENIAN": "test",
    "GEORGIAN": "test",
    "TIFINAGH": "test",
}

# Letters with and without case and digits; modifier letters are small copies of other letters.
_CATEGORIES = {"Lu", "Ll", "Lt", "Lo", "Nd"}

# Clean images: side, and the longer side of the character in them. The margin leaves room for
# the distortion to move, turn and enlarge the character.
_SIDE = 64
_EXTENT = 40
_POINT_SIZE = 96

# Two shapes are one when the cosine between their blurred thumbnails, at the best shift by up to
# a pixel, is above the limit. The value was set by eye.
_THUMB = 20
_THUMB_SIGMA = 1.0
_SAME_SHAPE = 0.93

_SEED = 20_240_615
_CLASSES_A_BATCH = 64

_Image = NDArray[np.float32]


@dataclass(frozen=True)
class Glyphs:
    """The rendered data set; entry ``i`` of each list describes class ``i``.

    Attributes:
        images: uint8, shape ``(classes * SAMPLES, 28, 28)``, grouped by class, ink 255 on 0.
        names: Script and code point, as in "greek/U+03B1"; "@90" marks a quarter turn.
        scripts: Script of the class, in lower case.
        split: "train", "val" or "test".
    """

    images: NDArray[np.uint8]
    names: list[str]
    scripts: list[str]
    split: list[str]


@dataclass(frozen=True)
class _Shape:
    """A class: a character turned anticlockwise by a number of quarters."""

    script: str
    char: str
    quarters: int

    @property
    def name(self) -> str:
        turn = f"@{90 * self.quarters}" if self.quarters else ""
        return f"{self.script.lower()}/U+{ord(self.char):04X}{turn}"


class _Font:
    """A font file as a map from characters to clean images."""

    def __init__(self, name: str) -> None:
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
        self.chars = sorted(map(chr, FT2Font(str(path)).get_charmap()))
        self._covered = frozenset(self.chars)
        # The basic layout draws the character itself, with no contextual forms.
        self._font = ImageFont.truetype(
            str(path), _POINT_SIZE, layout_engine=ImageFont.Layout.BASIC
        )

    def clean(self, char: str) -> _Image | None:
        """The character scaled to the common extent and centred; None where there is no ink."""
        if char not in self._covered:
            return None
        left, top, right, bottom = (round(edge) for edge in self._font.getbbox(char))
        if right <= left or bottom <= top:
            return None
        ink = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(ink).text((-left, -top), char, fill=255, font=self._font)
        box = ink.getbbox()
        if box is None:
            return None
        ink = ink.crop(box)
        factor = _EXTENT / max(ink.size)
        width, height = (max(1, round(factor * side)) for side in ink.size)
        canvas = Image.new("L", (_SIDE, _SIDE))
        small = ink.resize((width, height), Image.Resampling.BOX)
        canvas.paste(small, ((_SIDE - width) // 2, (_SIDE - height) // 2))
        return np.asarray(canvas, dtype=np.float32) / 255


def render(progress: Callable[[float], None] | None = None) -> Glyphs:
    """Render the data set; the same images on every run.

    Args:
        progress: Called with the fraction done, from 0 to 1.
    """
    report = progress or (lambda fraction: None)
    report(0.0)
    fonts = [_Font(name) for name in _FONTS]
    shapes = _distinct_shapes(fonts[0])
    rng = np.random.Generator(np.random.Philox(_SEED))
    batches = []
    for start in range(0, len(shapes), _CLASSES_A_BATCH):
        batch = shapes[start : start + _CLASSES_A_BATCH]
        clean = np.concatenate([_clean_samples(shape, fonts, rng) for shape in batch])
        batches.append(distort(torch.from_numpy(clean), rng).numpy())
        report((start + len(batch)) / len(shapes))
    return Glyphs(
        images=np.concatenate(batches),
        names=[shape.name for shape in shapes],
        scripts=[shape.script.lower() for shape in shapes],
        split=[_SPLIT[shape.script] for shape in shapes],
    )


def _candidates(font: _Font) -> Iterator[tuple[str, str]]:
    """Pairs of script and character, by priority of the script and then by code point."""
    by_script: dict[str, list[str]] = {script: [] for script in _SPLIT}
    for char in font.chars:
        # A decomposition means an accented letter, a ligature or another style of a letter.
        if unicodedata.category(char) in _CATEGORIES and not unicodedata.decomposition(char):
            script = unicodedata.name(char, "?").split()[0]
            if script in by_script:
                by_script[script].append(char)
    return ((script, char) for script, chars in by_script.items() for char in chars)


def _distinct_shapes(font: _Font) -> list[_Shape]:
    """Every shape once, in all the quarter turns in which it differs from every other shape."""
    shapes: list[_Shape] = []
    seen = np.empty((0, _THUMB * _THUMB), dtype=np.float32)
    for script, char in _candidates(font):
        clean = font.clean(char)
        if clean is None:
            continue
        turns = _thumbnails(np.stack([np.rot90(clean, quarters) for quarters in range(4)]))
        for quarters, shifted in enumerate(turns):
            if seen.size and (seen @ shifted.T).max() > _SAME_SHAPE:
                if quarters == 0:
                    # The character equals a turn of an earlier one, and so do all its turns.
                    break
                continue
            shapes.append(_Shape(script, char, quarters))
            seen = np.concatenate((seen, shifted[:1]))
    return shapes


def _thumbnails(images: _Image) -> _Image:
    """Unit vectors ``(n, shifts, pixels)`` of blurred thumbnails; the first shift is none."""
    thumbs = torch.nn.functional.interpolate(
        torch.from_numpy(images)[:, None], size=_THUMB, mode="area"
    )
    thumbs = blur(thumbs, _THUMB_SIGMA)[:, 0]
    steps = [(0, 0)] + [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    shifted = torch.stack([thumbs.roll(step, dims=(1, 2)) for step in steps], dim=1).flatten(2)
    unit: _Image = torch.nn.functional.normalize(shifted, dim=2).numpy()
    return unit


def _clean_samples(shape: _Shape, fonts: list[_Font], rng: np.random.Generator) -> _Image:
    """Clean images of one class, spread evenly over the fonts that have the character."""
    faces = [clean for font in fonts if (clean := font.clean(shape.char)) is not None]
    turned = np.rot90(np.stack(faces), shape.quarters, axes=(1, 2))
    return turned[rng.permutation(np.arange(SAMPLES) % len(faces))]
