"""The embedded data set "glyphs": letters of many scripts, from the fonts matplotlib ships.

The fonts (DejaVu Sans, Sans Mono and Serif, STIX) come with matplotlib, so the data set needs no
download. ``render`` draws it in some ten seconds on two cores, the same on every run:

* A class is a shape, whatever the scripts that write it: the Latin A, the Greek Alpha and the
  Cyrillic A are one class. Of 1,727 letters and digits without diacritics, 606 differ clearly
  from every turn of the others.
* Quarter turns make further classes, as is usual with Omniglot, but only where they are new: a
  symmetric shape has fewer, and a turn that equals another letter has none. The classes are 2,313
  in all.
* Whole scripts are held out. Training has 1,596 classes (digits, Latin, Cyrillic, Canadian
  syllabics, Arabic), validation 269 (Greek, Coptic, N'Ko, Old Italic, Ogham, Tifinagh) and test
  448 (Hebrew, Armenian, Georgian, Lao). A shape that several scripts share, and all its turns,
  belong to the first of them in the order of ``_SPLIT``.
* A class has 20 images of 28 x 28 pixels, from several fonts and weights and with handwriting-like
  distortion (see ``strokes``). It is strong enough that raw pixels do not do: in test episodes of
  20 ways and one shot, the nearest neighbour is right about one time in three.

The counts are those of matplotlib 3.11 and may differ by a few with other versions of the fonts.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from .strokes import distort

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

# Scripts by how the Unicode name begins, with their split. The order is the priority: a shape
# of several scripts belongs to the first one, so the training scripts come first and what is left
# in validation and test is new.
_SPLIT = {
    "DIGIT": "train",
    "LATIN": "train",
    "CYRILLIC": "train",
    "CANADIAN SYLLABICS": "train",
    "ARABIC": "train",
    "GREEK": "val",
    "COPTIC": "val",
    "NKO": "val",
    "OLD ITALIC": "val",
    "OGHAM": "val",
    "TIFINAGH": "val",
    "HEBREW": "test",
    "ARMENIAN": "test",
    "GEORGIAN": "test",
    "LAO": "test",
}

# Letters with and without case and digits; modifier letters are small copies of other letters.
_CATEGORIES = {"Lu", "Ll", "Lt", "Lo", "Nd"}

# Clean images: side, and the longer side of the character in them. The margin leaves room for
# the distortion to move, turn and enlarge the character. Marks with less ink than the minimum
# (superscript-like finals, points) would be blobs at that size and are no classes. The blur is
# what the distortion turns into strokes of different thickness.
_SIDE = 64
_EXTENT = 40
_POINT_SIZE = 96
_MIN_INK = 0.4 * _POINT_SIZE
_BLUR = 1.5

# Two shapes are one when the cosine between their thumbnails is above the limit (set by eye) for
# any of some small changes of one of them, each a row-major 2x3 affine map: none, shifts,
# stretches, and shears. What the distortion changes at random cannot tell two classes apart.
_THUMB = 20
_SAME_SHAPE = 0.92
_SAME_LETTER = 0.76  # between fonts: lower only where a font draws another letter form
_TOLERATED = (
    (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    *((1.0, 0.0, x, 0.0, 1.0, y) for x, y in ((-0.06, 0), (0.06, 0), (0, -0.06), (0, 0.06))),
    *((x, 0.0, 0.0, 0.0, y, 0.0) for x, y in ((0.87, 1), (1.15, 1), (1, 0.87), (1, 1.15))),
    *((1.0, x, 0.0, y, 1.0, 0.0) for x, y in ((-0.17, 0), (0.17, 0), (0, -0.17), (0, 0.17))),
)

# Thumbnails are sampled at twice their size, from the part of the image that has the character.
_TOLERATED_GRID = F.affine_grid(
    torch.tensor(_TOLERATED).view(-1, 2, 3) * (1.2 * _EXTENT / _SIDE),
    [len(_TOLERATED), 1, 2 * _THUMB, 2 * _THUMB],
    align_corners=False,
)

_SEED = 20_240_615
_CLASSES_A_BATCH = 64

_Image = NDArray[np.float32]


@dataclass(frozen=True)
class Glyphs:
    """The rendered data set; entry ``i`` of each list describes class ``i``.

    Attributes:
        images: uint8, shape ``(classes * SAMPLES, 28, 28)``, grouped by class, ink 255 on 0.
        names: Script and code point, as in "greek/U+03B1"; "@90" marks a quarter turn.
        scripts: Script of the class, as in "old-italic".
        split: "train", "val" or "test".
    """

    images: NDArray[np.uint8]
    names: list[str]
    scripts: list[str]
    split: list[str]


@dataclass(frozen=True)
class _Shape:
    """A class: a character turned anticlockwise by a number of quarters."""

    prefix: str
    char: str
    quarters: int

    @property
    def script(self) -> str:
        return self.prefix.lower().replace(" ", "-")

    @property
    def name(self) -> str:
        turn = f"@{90 * self.quarters}" if self.quarters else ""
        return f"{self.script}/U+{ord(self.char):04X}{turn}"


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
        """Draw the character at the common extent, centred; None where it is missing or tiny."""
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
        if max(ink.size) < _MIN_INK:
            return None
        factor = _EXTENT / max(ink.size)
        width, height = (max(1, round(factor * side)) for side in ink.size)
        canvas = Image.new("L", (_SIDE, _SIDE))
        small = ink.resize((width, height), Image.Resampling.BOX)
        canvas.paste(small, ((_SIDE - width) // 2, (_SIDE - height) // 2))
        blurred = canvas.filter(ImageFilter.GaussianBlur(_BLUR))
        return np.asarray(blurred, dtype=np.float32) / np.float32(255)


def render(progress: Callable[[float], None] | None = None) -> Glyphs:
    """Render the data set; the same images on every run.

    Args:
        progress: Called with the fraction done, from 0 to 1.
    """
    report = progress or (lambda fraction: None)
    report(0.0)
    fonts = [_Font(name) for name in _FONTS]
    shapes = _distinct_shapes(fonts[0])
    faces = functools.cache(lambda char: _faces(char, fonts))
    rng = np.random.Generator(np.random.Philox(_SEED))
    batches = []
    for start in range(0, len(shapes), _CLASSES_A_BATCH):
        batch = shapes[start : start + _CLASSES_A_BATCH]
        clean = np.concatenate([_clean_samples(s, faces(s.char), rng) for s in batch])
        batches.append(distort(torch.from_numpy(clean), rng).numpy())
        report((start + len(batch)) / len(shapes))
    return Glyphs(
        images=np.concatenate(batches),
        names=[shape.name for shape in shapes],
        scripts=[shape.script for shape in shapes],
        split=[_SPLIT[shape.prefix] for shape in shapes],
    )


def _candidates(font: _Font) -> Iterator[tuple[str, str]]:
    """Pairs of script and character, by priority of the script and then by code point."""
    by_script: dict[str, list[str]] = {script: [] for script in _SPLIT}
    for char in font.chars:
        # A decomposition means an accented letter, a ligature or another style of a letter.
        if unicodedata.category(char) in _CATEGORIES and not unicodedata.decomposition(char):
            name = unicodedata.name(char, "")
            for script in by_script:
                if name.startswith(script):
                    by_script[script].append(char)
    return ((script, char) for script, chars in by_script.items() for char in chars)


def _distinct_shapes(font: _Font) -> list[_Shape]:
    """Every shape once, in all the quarter turns in which it differs from every other shape."""
    candidates = list(_candidates(font))
    shapes: list[_Shape] = []
    # All turns of all characters so far, merged ones too: 0 is merged with a narrow O, and a
    # circle with the O, though a circle is not that near to a 0.
    seen = torch.zeros(4 * len(candidates), _THUMB * _THUMB)
    count = 0
    for script, char in candidates:
        clean = font.clean(char)
        if clean is None:
            continue
        turns = [_thumbnails(np.rot90(clean, quarters)) for quarters in range(4)]
        # A character equal to a turn of an earlier one brings no turn that is new.
        merged = _any_same(seen[:count], turns[0])
        for quarters, thumbs in enumerate(turns):
            if not merged and not _any_same(seen[:count], thumbs):
                shapes.append(_Shape(script, char, quarters))
            seen[count] = thumbs[0]
            count += 1
    return shapes


def _any_same(seen: Tensor, thumbs: Tensor) -> bool:
    return bool((seen @ thumbs.T > _SAME_SHAPE).any())


def _thumbnails(clean: _Image) -> Tensor:
    """Unit vectors of the thumbnails after each tolerated change; the first one is unchanged."""
    image = torch.from_numpy(clean.copy()).expand(len(_TOLERATED), 1, -1, -1)
    thumbs = F.avg_pool2d(F.grid_sample(image, _TOLERATED_GRID, align_corners=False), 2)
    return F.normalize(thumbs.flatten(1), dim=1)


def _faces(char: str, fonts: list[_Font]) -> _Image:
    """Clean images of a character in every font that draws it in the shape of the first font."""
    images = [clean for font in fonts if (clean := font.clean(char)) is not None]
    shape = _thumbnails(images[0])[0]
    alike = [(_thumbnails(image) @ shape).max() > _SAME_LETTER for image in images]
    return np.stack(images)[alike]


def _clean_samples(shape: _Shape, faces: _Image, rng: np.random.Generator) -> _Image:
    """Clean images of one class, spread evenly over the faces of its character."""
    turned = np.rot90(faces, shape.quarters, axes=(1, 2))
    samples: _Image = turned[rng.permutation(np.arange(SAMPLES) % len(faces))]
    return samples
