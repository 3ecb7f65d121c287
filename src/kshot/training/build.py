"""From a configuration to data and a learner."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from kshot.datasets import Dataset, Mixture, Split, load
from kshot.datasets.sources import Source
from kshot.episodes import draw
from kshot.episodes.spec import bounds
from kshot.errors import ConfigError
from kshot.learners import MetaLearner, TaskShape, build_learner
from kshot.nn import build_encoder
from kshot.training.config import RunConfig
from kshot.types import first_tensor


def load_data(config: RunConfig) -> Dataset:
    """The data set of a configuration; several become one whose episodes each have one source.

    Raises:
        ConfigError: for unknown names or options.
    """
    parts = [load(part.name, **part.options) for part in config.datasets]
    if len(parts) == 1:
        return parts[0]
    name = "+".join(part.name for part in parts)
    shared = [s for s in parts[0].splits if all(s in part.splits for part in parts)]
    if "train" not in shared:
        raise ConfigError(f"{name}: each of several data sets needs a split 'train'.")
    mixed = {s: [cast(Split, part[s]) for part in parts] for s in shared}
    return Dataset(
        name,
        {s: Mixture(f"{name}/{s}", tuple(splits)) for s, splits in mixed.items()},
        about=", ".join(part.about for part in parts),
    )


def task_shape(config: RunConfig, data: Dataset) -> TaskShape:
    """What the learner has to know of the tasks.

    Raises:
        ConfigError: if the data set has no split to train on.
    """
    source = source_of(data, "train")
    shot = bounds(config.train.shot)[1]
    episode = draw(source, config.train.spec, 0, [0])
    x, y = first_tensor(episode.support.x), episode.support.y
    if y.is_floating_point():
        return TaskShape(tuple(x.shape[2:]), 0, shot, tuple(y.shape[2:]))
    way = bounds(config.train.way)[1]
    return TaskShape(tuple(x.shape[2:]), way, way * shot)


def source_of(data: Dataset, split: str) -> Source:
    """A split to train or test on.

    Raises:
        ConfigError: if the data set has none of that name.
    """
    if split.startswith("train") and "train" not in data.splits:
        raise ConfigError(
            f"{data.name} has no split 'train' (it has {', '.join(data.splits)}): it is a target "
            "to evaluate on; train on another data set."
        )
    return data[split]


def make_learner(config: RunConfig, shape: TaskShape) -> MetaLearner:
    """The learner with fresh weights, drawn by the run's seed.

    Raises:
        ConfigError: for unknown names or options.
    """
    seed_weights(config.seed)
    encoder: nn.Module = build_encoder(config.encoder.name, shape.x_shape, config.encoder.options)
    return build_learner(config.learner.name, encoder, shape, config.learner.options)


def seed_weights(seed: int) -> None:
    """Seed what draws the initial weights; episodes have their own, counted randomness."""
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `mps` as a device that works here.

    Raises:
        ConfigError: if this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, here in available.items() if here))
    if name not in available:
        raise ConfigError(f"--device {name}: choose auto, cpu, cuda or mps.")
    if not available[name]:
        raise ConfigError(f"--device {name} is not available here: use --device auto or cpu.")
    return torch.device(name)
