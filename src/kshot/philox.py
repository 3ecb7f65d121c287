"""Counter-based random numbers: the same draw whatever the worker, the order or the version.

Only the raw words of the Philox generator are used (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"), because NumPy promises their stability across versions, and no distribution's.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def key_of(*parts: Any) -> int:
    """A 128-bit Philox key from any JSON-serialisable parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def words(key: int, counter: int, size: int, stream: int = 0) -> Words:
    """`size` raw 64-bit words of the block that belongs to `counter` (and `stream`).

    The counter sits in the upper words of Philox's own, so that blocks never overlap.
    """
    return np.random.Philox(key=key, counter=[0, 0, stream, counter]).random_raw(size)


def uniform(raw: Words) -> NDArray[np.float64]:
    """Words as floats in [0, 1), by their upper 53 bits."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(raw: Words, low: int, high: int) -> NDArray[np.int64]:
    """Words as integers in [low, high], both ends included."""
    return low + (raw % np.uint64(high - low + 1)).astype(np.int64)


def permutation(raw: Words) -> NDArray[np.int64]:
    """The permutation that sorts the words (stable), along the last axis."""
    return np.argsort(raw, axis=-1, kind="stable")
