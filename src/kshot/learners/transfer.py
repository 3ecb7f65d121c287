"""Learners that take a pretrained encoder as it is: nothing is meta-trained."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from kshot.learners.base import Head, MetaLearner
from kshot.nn.norm import Normalization


class TransferLearner(MetaLearner):
    """A frozen, pretrained encoder and a head that learns from a support set alone.

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`; its weights are frozen.
        head: what learns from a support set.
        normalization: where the encoder's batch statistics come from.
    """

    family: ClassVar[str] = "transfer"
    trains: ClassVar[bool] = False

    def __init__(self, encoder: nn.Module, head: Head, *, normalization: Normalization) -> None:
        super().__init__(encoder, head, normalization=normalization)
        self.requires_grad_(False)
