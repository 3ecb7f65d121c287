"""Meta-Baseline (Chen et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from kshot.learners.protonet import ProtoNet
from kshot.nn.norm import Normalization


class MetaBaseline(ProtoNet):
    """Meta-Baseline: a pretrained classifier's encoder, meta-trained on cosines to class means.

    First the encoder learns to classify the base classes (`kshot pretrain`). Then it is
    meta-trained as Prototypical Networks are, with cosines and a learned factor in place of
    distances, at a small rate.

        p(y = k | x) = softmax_k( tau cos(f(x), c_k) ),   c_k the mean of f over S_k

    Args:
        encoder: f, from `(rows, *features)` to `(rows, features)`; pretrained.
        scale: tau at the start; learned.
        normalization: where the encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        None in the method; the authors' encoder is a ResNet-12.

    Example:
        >>> import kshot
        >>> learner = kshot.MetaBaseline(kshot.nn.Conv4())
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{chen2021meta,
          title={Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning},
          author={Chen, Yinbo and Liu, Zhuang and Xu, Huijuan and Darrell, Trevor and Wang,
                  Xiaolong},
          booktitle={International Conference on Computer Vision}, year={2021}}
    """

    family: ClassVar[str] = "transfer"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        scale: float = 10.0,
        normalization: Normalization = "joint",
    ) -> None:
        super().__init__(encoder, distance="cosine", scale=scale, normalization=normalization)
