"""Embedded images: written once by `kshot embed`, then a data set like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import kshot
from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.datasets.sources import Split
from kshot.errors import ConfigError, DataError
from kshot.files import atomic, cannot_write

FORMAT = 1
"""Of the file; a greater number means a newer kshot."""


def save_features(path: Path, data: Dataset, splits: Mapping[str, Split], encoder: str) -> None:
    """Write embedded splits to a file, whole or not at all.

    Args:
        path: of the safetensors file.
        data: what was embedded.
        splits: by name; their features are tensors `(examples, *features)`.
        encoder: what embedded them, in words.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    facts = {
        "format": FORMAT,
        "kshot": kshot.__version__,
        "encoder": encoder,
        "dataset": data.name,
        "source": data.source,
        "licence": data.licence,
        "splits": {name: _facts(split) for name, split in splits.items()},
    }
    tensors = {name: split.x.contiguous() for name, split in splits.items()}
    with atomic(path) as temporary:
        try:
            save_file(tensors, str(temporary), {"features": json.dumps(facts)})
        except SafetensorError as error:
            raise cannot_write(path, OSError(str(error))) from error


def _facts(split: Split) -> dict[str, Any]:
    return {
        "name": split.name,
        "sizes": split.sizes,
        "classes": [c if isinstance(c, (str, int)) else repr(c) for c in split.classes],
        "fingerprint": split.fingerprint,
        "content": _content(split),
        "variants": split.variants,
        "within": split.within,
        "aligned": split.aligned,
        "options": dict(split.options),
    }


def _content(split: Split) -> str:
    """Hash of the features themselves, whatever they were embedded from."""
    return replace(split, source_fingerprint=None).fingerprint


def load_features(path: str | None = None) -> Dataset:
    """The features that `kshot embed` wrote; episodes are those of the images.

    Args:
        path: of the file.

    Raises:
        ConfigError: without a path.
        DataError: if the file is missing, damaged, of another kind, or of a newer kshot.
    """
    if path is None:
        raise ConfigError(
            "the data set features is read from a file that `kshot embed` wrote: name it by "
            "path=FILE, which is dataset.path in a recipe."
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("features")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} cannot be read as safetensors ({error}): give a file that `kshot embed` "
            "wrote, or embed again."
        ) from error
    if text is None:
        raise DataError(f"{path} does not hold features: give a file that `kshot embed` wrote.")
    try:
        facts = json.loads(text)
        if facts["format"] > FORMAT:
            raise DataError(
                f"{path} was written by kshot {facts['kshot']}, but this is kshot "
                f"{kshot.__version__}: upgrade kshot."
            )
        splits = {n: _split(path, f, tensors[n]) for n, f in facts["splits"].items()}
        about = f"{facts['dataset']} embedded by {facts['encoder']}"
        return Dataset("features", splits, about, facts["source"], facts["licence"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: embed again.") from error


def _split(path: str, facts: dict[str, Any], x: Tensor) -> Split:
    split = Split(
        f"features of {facts['name']}",
        x,
        tuple(facts["sizes"]),
        tuple(facts["classes"]),
        source_fingerprint=facts["fingerprint"],
        variants=None if facts["variants"] is None else tuple(facts["variants"]),
        within=None if facts["within"] is None else tuple(facts["within"]),
        aligned=facts["aligned"],
        options=facts.get("options", {}),
    )
    if _content(split) != facts["content"]:
        raise DataError(f"{path} is damaged: {facts['name']} is not what was written; embed again.")
    return split


features = Entry(
    load_features,
    about="images of another data set, embedded by `kshot embed`",
    size="as many examples as were embedded",
    splits=("as embedded",),
    source="a file of yours: the option path",
    licence="that of the images",
    present=lambda: False,
    otherwise="needs the option path",
)
