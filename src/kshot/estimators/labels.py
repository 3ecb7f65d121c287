"""What classes are called: which labels there may be, and how a file keeps them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ConfigError, InputError
from kshot.files import as_text

LONGEST_LABEL = 200
"""In characters."""


def check_alike(labels: Sequence[Any]) -> None:
    """Raise InputError for labels of several types, or texts that are none to be read."""
    first = labels[0] if len(labels) else None
    for label in labels:
        if label is None:
            raise InputError("there is a label None: give each example a label, or leave it out.")
        if isinstance(label, str) != isinstance(first, str):
            raise InputError(
                f"the label {label!r} is of another type than {first!r}: labels are all texts, or "
                "all numbers."
            )
        if isinstance(label, str):
            check_label(label)


def plain_label(label: Hashable) -> Hashable:
    """A label of NumPy's as Python's own."""
    return label.item() if isinstance(label, np.generic) else label


def check_label(label: str) -> None:
    """Raise InputError for a text that is no name of a class."""
    if not 0 < len(label.strip()) <= LONGEST_LABEL:
        raise InputError(
            f"the label {label[:40]!r} has {len(label)} characters: a label has from 1 to "
            f"{LONGEST_LABEL}."
        )
    if as_text(label) != label:
        raise InputError(
            f"the label {label!r} has characters that cannot be shown, such as the end of a line "
            "or half a character: call it otherwise."
        )


def labels_as_facts(classes: NDArray[Any]) -> dict[str, Any]:
    """Labels for a manifest.

    Raises:
        ConfigError: for labels that are neither texts, numbers nor truth values.
    """
    if classes.dtype.kind == "O" and all(isinstance(c, str) for c in classes):
        classes = classes.astype(str)
    if classes.dtype.kind not in "Uiufb":
        raise ConfigError(
            f"labels such as {classes[0]!r} cannot be kept in a file: use texts or numbers."
        )
    return {"classes": classes.tolist(), "labels": classes.dtype.str}


def labels_of(manifest: Mapping[str, Any]) -> NDArray[Any]:
    """The labels of a manifest.

    Raises:
        ValueError: if they are none.
    """
    kind = np.dtype(manifest["labels"])
    labels = np.array(manifest["classes"])
    if kind.kind not in "Uiufb" or labels.ndim != 1 or labels.dtype.kind not in (kind.kind, *"iu"):
        raise ValueError(f"labels of type {kind}")
    found = labels.astype(kind)
    if found.tolist() != labels.tolist():  # such as texts that the type cuts
        raise ValueError(f"labels that are not of type {kind}")
    check_alike(found.tolist())
    return found
