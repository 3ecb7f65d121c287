"""A source embedded once, so that an episode only indexes features."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from kshot.datasets.sources import Mixture, Source, Split
from kshot.evaluation.feature_cache import feature_file, keep_features, read_features
from kshot.learners.base import MetaLearner
from kshot.types import Examples, Features, first_tensor, map_features

ROWS_PER_FORWARD = 2000
"""Examples in one forward: enough for an accelerator, few enough for any machine."""

VECTOR_VALUES, IMAGE_VALUES = 2**20, 2**16
"""Input values in one forward on a CPU. More would push the activations, of which an image has
many, out of its cache and take twice the time."""

TOKEN_VALUES = 16
"""That a token counts for, beside the values of images."""


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are; the CPU for a module without any."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(learner: MetaLearner) -> Iterator[None]:
    """Meta-test mode without gradients; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in learner.modules()}
    learner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def embedded(
    learner: MetaLearner, source: Split | Mixture, asked: float = math.inf
) -> tuple[MetaLearner, Split | Mixture]:
    """The learner behind its encoder, and the source embedded: the same scores, much cheaper.

    Where an example's embedding depends on others (checked on the spot), where there is no encoder,
    or where fewer examples are asked for than there are, both come back as they are.
    """
    size = sum(sum(split.sizes) for split in source.sources)
    if not learner.pointwise or (asked < size and not all(_kept(learner, source))):
        return learner, source
    parts = []
    for split in source.sources:
        alone, both = (_embed(learner, split, slice(0, n)) for n in (1, 2))
        if not _alike(both[:1], alone):
            return learner, source
        parts.append(split.with_x(embed_split(learner, split)))
    twin = on_features(learner)
    if isinstance(source, Mixture):
        return twin, replace(source, sources=tuple(parts))
    return twin, parts[0]


def is_fixed(learner: MetaLearner) -> bool:
    """Whether there are weights in the encoder that no meta-training moves."""
    movable = [p.requires_grad for p in learner.encoder.parameters()]
    return learner.pointwise and bool(movable) and not (any(movable) and learner.trains)


def embed_split(learner: MetaLearner, split: Split) -> Tensor:
    """Every example of the split, embedded: `(examples, features)`, on the CPU.

    The features of an encoder that no training moves are kept on disk and read the next time.
    """
    if not is_fixed(learner):
        return _embed_all(learner, split)
    path = _feature_file(learner, split)
    kept = read_features(path)
    if kept is not None and len(kept) == sum(split.sizes):
        probe = _probe(split)
        # The name tells of layers and weights, but not of what a stranger's forward does.
        if _alike(kept[probe], _embed(learner, split, probe)):
            return kept
    made = _embed_all(learner, split, bar=True)
    keep_features(path, made)
    return made


def _kept(learner: MetaLearner, source: Split | Mixture) -> Iterator[bool]:
    for split in source.sources:
        yield is_fixed(learner) and _feature_file(learner, split).exists()


def _feature_file(learner: MetaLearner, split: Split) -> Path:
    return feature_file(learner.encoder, split.fingerprint, split.examples(_probe(split)))


def _probe(split: Split) -> Tensor:
    """A few examples that stand for all."""
    return torch.linspace(0, sum(split.sizes) - 1, 4).long()


def _embed_all(learner: MetaLearner, split: Split, *, bar: bool = False) -> Tensor:
    rows, count = max(1, rows_per_forward(split, device_of(learner))), sum(split.sizes)
    starts: Iterable[int] = range(0, count, rows)
    if bar and (console := Console()).is_terminal:
        starts = track(starts, f"embedding {split.name}", console=console, transient=True)
    return torch.cat([_embed(learner, split, slice(i, i + rows)) for i in starts])


def _embed(learner: MetaLearner, split: Split, rows: Tensor | slice) -> Tensor:
    x: Features = map_features(lambda v: v.unsqueeze(0), split.examples(rows))
    examples = Examples(x, split.labels()[rows].unsqueeze(0))
    return learner.embed(examples.to(device_of(learner)))[0][0].cpu()


def _alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def rows_per_forward(source: Source, device: torch.device) -> int:
    """How many examples go through an encoder at once."""
    if device.type != "cpu" or not isinstance(source, (Split, Mixture)):
        return ROWS_PER_FORWARD
    x = first_tensor(source.sources[0].x)
    if not x.is_floating_point() and x.dim() == 2:  # tokens, each of which becomes a vector
        return IMAGE_VALUES // (TOKEN_VALUES * x.shape[1])
    return (VECTOR_VALUES if x.dim() == 2 else IMAGE_VALUES) // x[0].numel()


def on_features(learner: MetaLearner) -> MetaLearner:
    """The same learner behind its encoder: it takes embedded examples. Weights are shared."""
    twin = copy.copy(learner)
    twin._modules = {**learner._modules, "encoder": nn.Identity()}
    return twin
