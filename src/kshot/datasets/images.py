"""From image files of any kind to bytes `(channels, height, width)`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kshot.datasets.raw import UnreadableError
from kshot.errors import ConfigError
from kshot.types import is_whole

Pixels = NDArray[np.uint8]

Resize = Literal["nearest", "bilinear", "lanczos"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
"""The kinds of files that are opened, whatever their names (another would start Ghostscript), and
the endings by which images are found."""


MAX_PIXELS = 80_000_000
"""Of an image: more than any camera's, and less than would fill a memory."""


def is_image(path: str) -> bool:
    """Whether the name ends as an image's."""
    return path.lower().endswith(sum(FORMATS.values(), ()))


@dataclass(frozen=True)
class ImageFormat:
    """What every image of a data set is brought to.

    Attributes:
        size: of the square, in pixels.
        channels: 1 (grey) or 3 (colour).
        resize: the filter.
    """

    size: int
    channels: int = 3
    resize: Resize = "lanczos"

    def __post_init__(self) -> None:
        if not (is_whole(self.size, 1) and self.size <= 1024):
            raise ConfigError(f"size={self.size!r}: give a number of pixels from 1 to 1024.")
        if self.channels not in (1, 3):
            raise ConfigError(f"channels={self.channels} is neither 1 (grey) nor 3 (colour).")
        if self.resize not in _FILTERS:
            raise ConfigError(f"resize={self.resize!r} is none of {', '.join(_FILTERS)}.")

    def decode(self, data: bytes) -> Pixels:
        """The image as `(channels, size, size)` bytes.

        Raises:
            UnreadableError: see `open_image`.
        """
        return self.fit(open_image(data))

    def fit(self, image: Image.Image) -> Pixels:
        """The central square of an image in a mode of 8 bits or 1."""
        # Pillow resizes 1-bit images by nearest neighbours whatever the filter asked for.
        if image.mode != "1" or self.resize != "nearest":
            image = image.convert("L" if self.channels == 1 else "RGB")
        square = (self.size, self.size)
        if image.size != square:
            image = ImageOps.fit(image, square, _FILTERS[self.resize])
        pixels: Any = np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
        return np.ascontiguousarray(
            pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)
        )


def open_image(data: bytes) -> Image.Image:
    """The image of a file, in a mode of 8 bits or 1.

    The camera's rotation is applied, transparency becomes white, 16 bits become 8.

    Raises:
        UnreadableError: if the bytes are no image, or not a whole one; if it has too many pixels,
            or several frames.
    """
    if not data:
        raise UnreadableError("zero bytes")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as opened:
            return whole_image(opened)
    except UnidentifiedImageError as error:
        raise UnreadableError(f"none of {', '.join(FORMATS)}, or cut short") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(error) from error


def whole_image(opened: Image.Image) -> Image.Image:
    """What Pillow has opened, as `open_image` gives it.

    Raises:
        UnreadableError: if it is cut short, has too many pixels, or several frames.
    """
    if not opened.width * opened.height:
        raise UnreadableError(f"{opened.width} x {opened.height} pixels are none")
    if opened.width * opened.height > MAX_PIXELS:
        raise UnreadableError(f"{opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}")
    if (frames := getattr(opened, "n_frames", 1)) > 1:
        raise UnreadableError(f"{frames} frames; save the one that you mean")
    try:
        return _plain(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> UnreadableError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UnreadableError("it is cut short" if "truncated" in said.lower() else said)


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode of 8 bits or 1, without transparency.

    Raises:
        UnreadableError: for pixels of 32 bits.
    """
    if image.mode in ("I", "F"):
        raise UnreadableError(
            "pixels of 32 bits, whose range is unknown; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):  # which Pillow cuts off at 255 instead of scaling
        return Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
