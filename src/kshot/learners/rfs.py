"""Logistic regression on a good embedding (Tian et al. 2020, RFS)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from kshot.engine.inner import positive
from kshot.functional import masked_logits
from kshot.learners.base import Head
from kshot.learners.transfer import TransferLearner
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class LogisticWeights(NamedTuple):
    """The state: `(tasks, features + 1, way)`, the offset last, and the classes present."""

    weights: Tensor
    present: Tensor


class LogisticHead(Head):
    """scikit-learn's logistic regression, fitted to each support set."""

    def __init__(self, penalty: float) -> None:
        super().__init__()
        self.penalty = positive("penalty", penalty)

    def fit(
        self, support: Examples, *, query: Examples | None = None, key: Tensor
    ) -> LogisticWeights:
        """Solve each task."""
        x = F.normalize(support.x.detach(), dim=-1).cpu().double().numpy()
        y, real = support.y.cpu().numpy(), support.real.cpu().numpy()
        solved = np.zeros((support.tasks, x.shape[-1] + 1, support.way))
        for task in range(support.tasks):
            rows = real[task]
            fitted = LogisticRegression(C=1 / self.penalty, max_iter=1000, tol=1e-8)
            with few_examples():
                fitted.fit(x[task, rows], y[task, rows])
            rule = np.concatenate([fitted.coef_, fitted.intercept_[:, None]], 1)
            if len(fitted.classes_) == 2:  # one row speaks for both
                rule = np.concatenate([-rule / 2, rule / 2])
            solved[task][:, fitted.classes_] = rule.T
        return LogisticWeights(torch.from_numpy(solved).to(support.x), support.present())

    def predict(self, state: LogisticWeights, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        logits = F.normalize(x, dim=-1) @ state.weights[:, :-1] + state.weights[:, -1:]
        return masked_logits(logits, state.present)


@contextmanager
def few_examples() -> Iterator[None]:
    """Without scikit-learn's doubt that labels of few examples each may be values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


class RFS(TransferLearner):
    """RFS: logistic regression on the unit embeddings of a pretrained encoder.

    Nothing is meta-trained: "a good embedding is all you need". It is the rival that learners on
    pretrained features have to beat.

        w = argmin  mean over S of  -log softmax_y( w' z(x) ) + penalty / (2 n) ||w||^2
        z(x) = f(x) / ||f(x)||

    Args:
        encoder: f, pretrained; it stays as it is.
        penalty: of the weights' squared length, beside the *sum* over the support.
        normalization: `frozen`: the statistics of the pre-training.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        Without the authors' distillation (RFS-simple), and without their copies of the support
        under augmentation.

    Example:
        >>> import kshot
        >>> learner = kshot.RFS(kshot.nn.Conv4())
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{tian2020rethinking,
          title={Rethinking Few-Shot Image Classification: A Good Embedding Is All You Need?},
          author={Tian, Yonglong and Wang, Yue and Krishnan, Dilip and Tenenbaum, Joshua B. and
                  Isola, Phillip},
          booktitle={European Conference on Computer Vision}, year={2020}}
    """

    fast: ClassVar[str] = "weights of a logistic regression"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        penalty: float = 1.0,
        normalization: Normalization = "frozen",
    ) -> None:
        super().__init__(encoder, LogisticHead(penalty), normalization=normalization)
