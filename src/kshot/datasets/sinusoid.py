"""Sinusoid regression (Finn et al. 2017, section 5.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kshot import philox
from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.types import Episode, Examples


@dataclass(frozen=True)
class Sinusoids:
    """Tasks y = A sin(x - p): A ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5] by default, no noise.

    Attributes:
        amplitude: range of A.
        phase: range of p, radians.
        domain: range of x.
        name: as in records; another name draws other tasks.
    """

    name: str = "sinusoid"
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, float(np.pi))
    domain: tuple[float, float] = (-5.0, 5.0)

    @property
    def fingerprint(self) -> str:
        """Identifies the ranges and the name."""
        return f"{self.name}:{self.amplitude}:{self.phase}:{self.domain}"

    def functions(self, key: int, index: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
        """The tasks' true functions, of inputs `(tasks, examples, 1)`."""
        amplitude, phase = self._parameters(key, index)
        return lambda x: amplitude * torch.sin(x - phase)

    def _parameters(self, key: int, index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Amplitude and phase of the tasks, each `(tasks, 1, 1)`."""
        raw = np.stack([philox.uniform(philox.words(key, i, 2)) for i in index])
        amplitude = _spread(raw[:, :1, None], self.amplitude)
        phase = _spread(raw[:, 1:, None], self.phase)
        return torch.from_numpy(amplitude).float(), torch.from_numpy(phase).float()

    def draw(self, key: int, index: Sequence[int], shot: int, query: int) -> Episode:
        """Episodes with x and y of shape `(tasks, examples, 1)`."""
        raw = np.stack([philox.uniform(philox.words(key, i, shot + query, 1)) for i in index])
        x = torch.from_numpy(_spread(raw[..., None], self.domain)).float()
        y = self.functions(key, index)(x)
        return Episode(
            Examples(x[:, :shot], y[:, :shot]),
            Examples(x[:, shot:], y[:, shot:]),
            torch.tensor(index, dtype=torch.int64),
        )


def _spread(
    unit: np.ndarray[tuple[int, ...], np.dtype[np.float64]], bounds: tuple[float, float]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    low, high = bounds
    return low + (high - low) * unit


def load_sinusoid() -> Dataset:
    """Sine waves of random amplitude and phase: an endless family, other tasks in each split."""
    return Dataset(
        "sinusoid",
        {split: Sinusoids(f"sinusoid/{split}") for split in ("train", "val", "test")},
        sinusoid.about,
        sinusoid.source,
        sinusoid.licence,
    )


sinusoid = Entry(
    load_sinusoid,
    about="sine waves, amplitude 0.1 to 5, phase 0 to pi (regression)",
    size="endless tasks",
    splits=("train", "val", "test"),
    source="generated, as in Finn et al. 2017",
    licence="none needed",
)
