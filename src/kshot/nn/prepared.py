"""A pretrained network as an encoder: with the preparation of its inputs and its pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.datasets.texts import MINILM
from kshot.errors import ConfigError, EpisodeError
from kshot.types import Features, first_tensor, is_whole

Interpolation = Literal["bilinear", "bicubic"]
Pooling = Literal["mean_tokens", "max_tokens", "cls_token"]
"""Of a sentence's tokens, as sentence-transformers call it."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImagePreparation(nn.Module):
    """Images of 0 to 1 as a network was trained on them.

    Grey images get three equal channels; then they are brought to `size` and normalised.

    Args:
        size: of the square, in pixels.
        mean: per channel.
        std: per channel.
        interpolation: of the resizing, which smooths where it shrinks.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        if not is_whole(size, 1):
            raise ConfigError(f"size={size!r}: give the side of the images in pixels.")
        self.size, self.interpolation = size, interpolation
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Prepare `(rows, 1 or 3, height, width)`."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise EpisodeError(
                f"this pretrained network takes images (1 or 3, height, width), but an example is "
                f"{tuple(x.shape[1:])}."
            )
        if x.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            x = F.interpolate(x, size, mode=self.interpolation, antialias=True)
        return (x.expand(-1, 3, -1, -1) - self.mean) / self.std


class TokenPreparation(nn.Module):
    """Checks that the examples are tokens.

    Args:
        tokenizer: what makes them of texts (see `kshot.datasets.texts.tokenize`).
    """

    def __init__(self, tokenizer: str = MINILM) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, x: Features) -> Features:
        """`{"input_ids": (rows, tokens), "attention_mask": (rows, tokens)}` as it is."""
        if not isinstance(x, dict) or set(x) != {"input_ids", "attention_mask"}:
            raise EpisodeError(
                "this pretrained network takes texts (input_ids and attention_mask), but an "
                f"example is {tuple(first_tensor(x).shape[1:])}: choose a data set of texts."
            )
        return x


class Pretrained(nn.Module):
    """A network with the preparation of its inputs, as an encoder.

    It runs as at test even in meta-training, so that the dropout and stochastic depth of its
    pre-training do not come again; batch normalisation follows the learner's policy.

    Args:
        net: from prepared rows to `(rows, features)`.
        prepare: from what data sets give to what `net` takes; such as `ImagePreparation`.
        features: size of the output.
    """

    def __init__(self, net: nn.Module, prepare: nn.Module, features: int) -> None:
        super().__init__()
        self.net, self.prepare, self.features = net.eval(), prepare, features

    def train(self, mode: bool = True) -> Pretrained:
        """Set the mode, which the network itself keeps out of."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, x: Features) -> Tensor:
        """Features of the rows."""
        out: Tensor = self.net(self.prepare(x))
        return out


class SentenceEmbedding(nn.Module):
    """A transformer's last states, pooled over the real tokens (Reimers and Gurevych 2019)."""

    def __init__(self, net: nn.Module, unit: bool, pooling: Pooling = "mean_tokens") -> None:
        super().__init__()
        self.net, self.unit, self.pooling = net, unit, pooling

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Embed `(rows, tokens)`; of length 1 where the model was trained so."""
        states: Tensor = self.net(**x).last_hidden_state
        real = x["attention_mask"].unsqueeze(-1)
        if self.pooling == "cls_token":
            pooled = states[:, 0]
        elif self.pooling == "max_tokens":
            pooled = states.masked_fill(real == 0, torch.finfo(states.dtype).min).amax(1)
        else:
            weights = real.to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1).clamp_min(1)
        return F.normalize(pooled, dim=-1) if self.unit else pooled


class ImageEmbedding(nn.Module):
    """A model's own pooled output, or its first token's last state where it pools none."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Embed `(rows, 3, height, width)`."""
        out = self.net(pixel_values=x)
        pooled: Tensor | None = getattr(out, "pooler_output", None)
        return out.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
