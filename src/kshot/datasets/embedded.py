"""The data sets that need no download: `glyphs` (rendered) and `digits` (scikit-learn's)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from safetensors import safe_open
from safetensors.numpy import save_file

from kshot.datasets import glyphs as renderer
from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.datasets.sources import Split
from kshot.files import atomic, cache_folder

SAMPLES = renderer.SAMPLES

CONTRAST = 3.0
"""Sharpens enlarged digits until as few of their pixels are grey as in glyphs, one in twenty."""


def _glyphs_file() -> Path:
    return cache_folder() / f"glyphs-{renderer.VERSION}.safetensors"


def load_glyphs() -> Dataset:
    """Letters of many scripts, `(1, 28, 28)` bytes, ink bright; made once and cached.

    Returns:
        Splits `train`, `val` and `test`, disjoint by script; 20 samples of each class.
    """
    path = _glyphs_file()
    if not path.exists():
        with Progress(transient=True) as bar:
            task = bar.add_task("Rendering glyphs (once)", total=1.0)
            _render_to(path, lambda done: bar.update(task, completed=done))
    with safe_open(str(path), framework="pt") as file:
        images = file.get_tensor("images").unsqueeze(1)
        classes = json.loads(file.metadata()["classes"])
    splits = {}
    for name in ("train", "val", "test"):
        chosen = [i for i, split in enumerate(classes["split"]) if split == name]
        rows = (torch.tensor(chosen)[:, None] * SAMPLES + torch.arange(SAMPLES)).flatten()
        splits[name] = Split(
            f"glyphs/{name}",
            images[rows],
            (SAMPLES,) * len(chosen),
            tuple(classes["names"][i] for i in chosen),
        )
    return Dataset("glyphs", splits, glyphs.about, glyphs.source, glyphs.licence)


def _render_to(path: Path, progress: Callable[[float], None]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the images are so small that threads would wait for each other
    try:
        made = renderer.render(progress)
    finally:
        torch.set_num_threads(threads)
    classes = {"names": made.names, "scripts": made.scripts, "split": made.split}
    with atomic(path) as temporary:
        save_file({"images": made.images}, str(temporary), {"classes": json.dumps(classes)})


def load_digits(flat: bool = False) -> Dataset:
    """Handwritten digits, `(1, 28, 28)` bytes with glyphs' polarity, all in the split `test`.

    Args:
        flat: give the 64 raw grey values (0 to 1) of the 8x8 originals instead of images.
    """
    from sklearn import datasets as sklearn_datasets

    found = sklearn_datasets.load_digits()
    order = np.argsort(found.target, kind="stable")
    grey = found.images[order].astype(np.float32) / 16
    if flat:
        x = torch.from_numpy(grey.reshape(-1, 64))
    else:
        small = F.interpolate(torch.from_numpy(grey).unsqueeze(1), (20, 20), mode="bicubic")
        sharp = ((small - 0.5) * CONTRAST + 0.5).clamp(0, 1)
        # A margin as in glyphs, whose ink does not touch the border.
        x = F.pad((sharp * 255).round().to(torch.uint8), (4, 4, 4, 4))
    sizes = tuple(np.bincount(found.target).tolist())
    split = Split("digits/test", x, sizes, tuple(str(i) for i in range(10)))
    return Dataset("digits", {"test": split}, digits.about, digits.source, digits.licence)


glyphs = Entry(
    load_glyphs,
    about="letters of many scripts, one class per shape, 28x28",
    size="about 2,300 classes, 20 examples each",
    splits=("train", "val", "test"),
    source="rendered from the fonts that matplotlib ships (DejaVu, STIX)",
    licence="images made here; the fonts' licences allow it (Bitstream Vera, OFL)",
    present=lambda: _glyphs_file().exists(),
)

digits = Entry(
    load_digits,
    about="handwritten digits 0 to 9, 28x28: a real target domain without a download",
    size="10 classes, 1,797 examples",
    splits=("test",),
    source="scikit-learn's load_digits (UCI, Alpaydin and Kaynak 1998)",
    licence="CC BY 4.0 (UCI)",
)
