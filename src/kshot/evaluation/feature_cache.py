"""Features kept on disk, by what embedded them and what was embedded."""

from __future__ import annotations

import hashlib
import warnings
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kshot.errors import CheckpointError
from kshot.files import atomic, cache_folder
from kshot.types import Features

FORMAT = 1
"""Of the files; raised whenever the same network would give other features."""


def feature_file(encoder: nn.Module, fingerprint: str, probe: Features) -> Path:
    """Where the features of a split are kept.

    Args:
        encoder: its layers and weights are in the name.
        fingerprint: of the split.
        probe: a few of its examples, as the encoder gets them.
    """
    digest = hashlib.sha256(f"{FORMAT} {encoder!r} {fingerprint}".encode())
    parts = probe if isinstance(probe, dict) else {"": probe}
    for name, value in chain(
        encoder.named_parameters(), encoder.named_buffers(), sorted(parts.items())
    ):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole = value.detach().cpu().contiguous()
        digest.update(whole.flatten().view(torch.uint8).numpy().data if whole.numel() else b"")
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.safetensors"


def read_features(path: Path) -> Tensor | None:
    """The features `(examples, features)`, or None where there are none to be read."""
    try:
        with safe_open(str(path), framework="pt") as file:
            found: Tensor = file.get_tensor("features")
    except (OSError, SafetensorError):
        return None
    return found


def keep_features(path: Path, features: Tensor) -> None:
    """Write features for the next time; a cache that cannot be written is a warning."""
    try:
        with atomic(path) as temporary:
            save_file({"features": features.contiguous()}, str(temporary))
    except (CheckpointError, SafetensorError) as error:
        warnings.warn(f"the features are not kept for the next time: {error}", stacklevel=2)
