"""From a configuration to data and a learner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from kshot.datasets import Dataset, Mixture, Split, load
from kshot.datasets.sources import Source
from kshot.episodes import draw
from kshot.episodes.spec import bounds
from kshot.errors import CheckpointError, ConfigError, EpisodeError
from kshot.learners import MetaLearner, TaskShape, build_learner, learner_class, learner_options
from kshot.nn import add_adapter, build_encoder, merge_adapters
from kshot.nn.adapters import complete, freeze_all_but
from kshot.nn.norm import convert_batch_norm
from kshot.nn.pretrained import fit_weights, is_pretrained, pretrained_encoder, read_weights
from kshot.options import check_options
from kshot.training.config import (
    Blueprint,
    EncoderConfig,
    EpisodesConfig,
    EvaluationConfig,
    RunConfig,
)
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


def check_episodes(
    config: RunConfig, data: Dataset, targets: Sequence[tuple[EvaluationConfig, Source]]
) -> None:
    """Whether the data can give the episodes of all sections.

    Raises:
        ConfigError: that names everything that has to be changed, at once.
    """
    asked: list[tuple[str, EpisodesConfig, Source]] = [
        ("train", config.train, source_of(data, config.train.split))
    ]
    if "val" in data.splits and config.train.split == "train":
        asked.append(("validation", config.validation, data["val"]))
    asked += [("evaluation", evaluation, source) for evaluation, source in targets]
    wrong: dict[str, None] = {}
    for section, episodes, source in asked:
        try:
            episodes.spec.check(source)
        except EpisodeError as error:
            mark = "." if str(error).startswith(("way", "shot", "query")) else ": "
            wrong[f"{section}{mark}{error}"] = None
    if wrong:
        raise ConfigError(" ".join(wrong))


def task_shape(config: RunConfig, data: Dataset) -> TaskShape:
    """What the learner has to know of the tasks.

    Raises:
        ConfigError: if the data set has no split to train on.
    """
    source = source_of(data, config.train.split)
    shot = bounds(config.train.shot)[1]
    episode = draw(source, config.train.spec, 0, [0])
    x, y = first_tensor(episode.support.x), episode.support.y
    if y.is_floating_point():
        return TaskShape(tuple(x.shape[2:]), 0, shot, tuple(y.shape[2:]))
    way = bounds(config.train.way)[1]
    parts = source.sources if isinstance(source, (Split, Mixture)) else ()
    classes = sum(len(part.sizes) for part in parts)
    return TaskShape(tuple(x.shape[2:]), way, way * shot, classes=classes)


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


def make_learner(config: Blueprint, shape: TaskShape, *, restored: bool = False) -> MetaLearner:
    """The learner with the weights that it starts from; fresh ones are drawn by the seed.

    Args:
        config: of a run, or its part.
        shape: of its tasks.
        restored: its weights will come from a run folder: none are read or downloaded here.

    Raises:
        ConfigError: for unknown names or options.
        CheckpointError: for weights that do not fit.
    """
    seed_weights(config.seed)
    encoder = make_encoder(config.encoder, shape.x_shape, restored=restored)
    options = config.learner.options
    if config.encoder.slow.name != "all":
        # Weights that stay as they are go with the statistics that they were trained with.
        known = learner_options(learner_class(config.learner.name))
        options = {**({"normalization": "frozen"} if "normalization" in known else {}), **options}
    return build_learner(config.learner.name, encoder, shape, options)


def make_encoder(
    part: EncoderConfig, x_shape: Sequence[int], *, restored: bool = False
) -> nn.Module:
    """The encoder with the weights that it starts from; what is not slow is frozen.

    Args:
        part: of the configuration.
        x_shape: of one example.
        restored: as for `make_learner`.

    Raises:
        ConfigError: for unknown names or options.
        CheckpointError: for weights that do not fit.
    """
    start = "random" if restored else part.weights
    folder = start is not None and Path(start).is_dir()
    if is_pretrained(part.name):
        check_options(f"encoder {part.name}", pretrained_encoder, part.options, {"weights"})
        weights = "random" if folder else start
        encoder: nn.Module = pretrained_encoder(part.name, weights=weights, **part.options)
        convert_batch_norm(encoder, warn=False)
    else:
        encoder = build_encoder(part.name, x_shape, part.options)
    if part.complete:
        complete(encoder)
    if start is not None and start != "random" and (folder or not is_pretrained(part.name)):
        path = Path(start)
        tensors = _encoder_weights(path) if folder else read_weights(path)
        fit_weights(encoder, tensors, start)
        if folder and (more := [name for name in tensors if name not in encoder.state_dict()]):
            raise CheckpointError(
                f"the encoder of {start} has {more[0]} and {len(more) - 1} more tensors that this "
                "one lacks, such as what its adapters left: set encoder.complete=true, or start "
                "by --from, which does."
            )
    if part.slow.name != "all":
        adapter = part.slow.name != "none"
        names = add_adapter(encoder, part.slow.name, **part.slow.options) if adapter else []
        freeze_all_but(encoder, names)
    return encoder


def _encoder_weights(folder: Path) -> dict[str, Tensor]:
    """Those of the encoder that a run has trained, its adapters merged into them."""
    from kshot.training.run import load_run  # which makes learners by this module

    body = load_run(folder).learner.body
    merge_adapters(body)
    return body.state_dict()


def seed_weights(seed: int) -> None:
    """Seed what draws the initial weights; episodes have their own, counted randomness."""
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `mps` as a device that works here; each process has its own GPU.

    Raises:
        ConfigError: if this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in available.items() if here)
    if name not in available:
        raise ConfigError(f"--device {name}: choose auto, cpu, cuda or mps.")
    if not available[name]:
        raise ConfigError(f"--device {name} is not available here: use --device auto or cpu.")
    if name == "cuda":
        return torch.device("cuda", _local_rank() % torch.cuda.device_count())
    return torch.device(name)


def _local_rank() -> int:
    """This process's number among those of a job on this machine."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if not rank.isdigit():
        raise ConfigError(f"LOCAL_RANK={rank!r} is no number: start by torchrun, or unset it.")
    return int(rank)
