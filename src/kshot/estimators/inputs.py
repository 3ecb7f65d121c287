"""What people give: vectors, images, texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.datasets.images import is_image
from kshot.errors import InputError

Kind = Literal["vectors", "images", "texts"]


class Inputs(NamedTuple):
    """Examples of one kind, not yet loaded.

    Attributes:
        kind: of all of them.
        items: an array `(examples, features)` of vectors; a list of texts; a list of images, each
            a path, a PIL image or an array.
    """

    kind: Kind
    items: Any

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.items)

    def part(self, rows: slice) -> Inputs:
        """Some of them."""
        return Inputs(self.kind, self.items[rows])


def read_inputs(x: Any) -> Inputs:
    """Tell what the examples are.

    Strings that name existing files with an image's ending are images, and so are `Path`s, PIL
    images and arrays of more than two axes; other strings are texts; the rest is vectors.

    Raises:
        InputError: for one example in the place of several, a mix of kinds, or arrays that are no
            images.
    """
    _check_several(x)
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray) and x.ndim > 2:
        return Inputs("images", list(_pixels(x)))
    strings = isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "OUT"
    items = list(x) if strings or isinstance(x, (list, tuple)) or _is_column(x) else []
    kinds: dict[Kind, int] = {_kind(item): i for i, item in reversed(list(enumerate(items)))}
    if len(kinds) > 1:
        (one, first), (other, second) = sorted(kinds.items(), key=lambda pair: pair[1])[:2]
        raise InputError(
            f"example {first} is {shown(items[first])} ({one}), but example {second} is "
            f"{shown(items[second])} ({other}): give examples of one kind."
            + (" A file is an image if it exists." if {"images", "texts"} == {one, other} else "")
        )
    kind: Kind = next(iter(kinds), "vectors")
    if kind == "images":
        return Inputs(kind, [i[0] if isinstance(i, np.ndarray) else i for i in _unpacked(items)])
    return Inputs(kind, items if kind == "texts" else x)


def _check_several(x: Any) -> None:
    if isinstance(x, (str, bytes, Path, Image.Image)):
        raise InputError(f"X is one example, {shown(x)}: give a list of examples, such as [x].")
    if (isinstance(x, (list, tuple)) and not x) or getattr(x, "shape", ())[:1] == (0,):
        raise InputError("there are no examples: give at least one.")
    if isinstance(x, (Iterator, set, frozenset, dict)) and not hasattr(x, "shape"):
        raise InputError(f"X is of type {type(x).__name__}: give a list, tuple or array.")


def _is_column(x: Any) -> bool:
    """Whether x is a column of a table, such as a pandas Series of texts."""
    return getattr(x, "ndim", None) == 1 and hasattr(x, "iloc")


def _kind(item: Any) -> Kind:
    if isinstance(item, str):
        return "images" if is_image(item) and _exists(item) else "texts"
    picture = isinstance(item, (Path, Image.Image)) or getattr(item, "ndim", 0) > 1
    return "images" if picture else "vectors"


def _exists(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a character that none has
        return False


def _unpacked(items: Sequence[Any]) -> list[Any]:
    """Images in a list, of which each array may have a shape of its own."""
    arrays = [np.asarray(i)[None] if getattr(i, "ndim", 0) > 1 else i for i in items]
    return [_pixels(i) if isinstance(i, np.ndarray) else i for i in arrays]


def shown(item: Any) -> str:
    """An example in a message."""
    if isinstance(item, (str, Path)):
        return f"{str(item)!r}" if len(str(item)) < 200 else f"{str(item)[:60]!r}..."
    return f"of type {type(item).__name__}"


def _pixels(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Arrays of images as bytes, `(examples, height, width)` or `(examples, height, width, 3)`."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] != 3) or 0 in x.shape[1:]:
        raise InputError(
            f"an array of shape {x.shape} is neither vectors (examples, features) nor images: give "
            "(examples, height, width), with 1 or 3 channels before or after these."
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1:
        return np.asarray((x * 255).round(), dtype=np.uint8)
    if x.dtype == bool:
        return x.astype(np.uint8) * np.uint8(255)
    raise InputError(
        f"images of {x.dtype} are not understood here (their values are not all from 0 to 1): "
        "give bytes from 0 to 255, or floats from 0 to 1."
    )
