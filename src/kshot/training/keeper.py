"""When a checkpoint is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from kshot.training.state import TrainingState

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints, validations apart, which each are followed by one."""


class Keeper:
    """Writes the checkpoint when it is due, and reads it at the start.

    Args:
        path: of the checkpoint; None keeps nothing.
        state: what is kept.
        settings: what decided the training.
        writes: whether this process is the one that writes.
    """

    def __init__(
        self,
        path: Path | None,
        state: TrainingState,
        settings: Mapping[str, str],
        *,
        writes: bool,
    ) -> None:
        self.path, self.state, self.settings, self.writes = path, state, settings, writes
        self.last = time.monotonic()

    def load(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if self.path is not None and self.path.exists():
            self.state.load(self.path, self.settings)

    def save(self, *, now: bool) -> None:
        """Write the checkpoint, if `now` or if the last one is old."""
        if self.path is None or not self.writes:
            return
        if now or time.monotonic() - self.last > CHECKPOINT_SECONDS:
            self.state.save(self.path, self.settings)
            self.last = time.monotonic()
