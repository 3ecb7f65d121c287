"""What decides a meta-training, in words that a checkpoint keeps and compares."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kshot.datasets.sources import Mixture, Source, Split
from kshot.episodes import EpisodeSpec
from kshot.episodes.sampler import SAMPLER_VERSION
from kshot.errors import CheckpointError

PLAIN = (bool, int, float, str, bytes, type(None))
NAMED = (torch.dtype, torch.device, np.dtype, Enum, PurePath)

SHOWN = 3
"""Of the settings that differ."""


def of_episodes(source: Source, spec: EpisodeSpec, seed: int) -> dict[str, str]:
    """What decides the training episodes."""
    parts = source.sources if isinstance(source, (Split, Mixture)) else ()
    return {
        "data": source.fingerprint,
        "preparation": describe([part.prepare for part in parts]),
        **{name: describe(value) for name, value in spec.as_dict().items()},
        "seed": describe(seed),
        "sampler": describe(SAMPLER_VERSION),
    }


def of_learner(learner: nn.Module) -> dict[str, str]:
    """Class, mode and plain attributes of each module, and which weights are kept as they are."""
    found = {"frozen": describe([n for n, p in learner.named_parameters() if not p.requires_grad])}
    for name, module in learner.named_modules():
        place = f"learner.{name}".rstrip(".")
        found[place] = type(module).__qualname__
        found |= {f"{place}.{key}": describe(value) for key, value in _public(module).items()}
    return found


def of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Its class, and the options of its groups of parameters."""
    groups = optimizer.state_dict()["param_groups"]
    return {"optimizer": type(optimizer).__qualname__} | {
        f"optimizer.{number}.{key}": describe(value)
        for number, group in enumerate(groups)
        for key, value in group.items()
    }


def describe(value: Any, deep: bool = True) -> str:
    """The same words for the same setting in every process: nothing that is an address in memory.

    Functions are known by their name and what they close over, lambdas also by their code and
    defaults, objects by their class and public attributes (of which objects are known by their
    class alone).
    """
    if isinstance(value, NAMED):
        return str(value)
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(describe(v, deep) for v in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(describe(v, deep) for v in value))}}}"
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{value.dtype}{list(value.shape)}#{_digest(raw.tobytes())}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype}{list(value.shape)}#{_digest(value.tobytes())}"
    if isinstance(value, CodeType):
        inside = [value.co_code, value.co_names, value.co_consts]
        return f"code#{_digest(describe(inside).encode())}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {describe(v, deep)}' for k, v in value.items())}}}"
    if isinstance(value, partial):
        return describe([value.func, value.args, value.keywords], deep)
    if inspect.ismethod(value):
        return describe([value.__func__, value.__self__], deep)
    name = str(getattr(value, "__qualname__", type(value).__qualname__))
    if not deep or isinstance(value, (type, nn.Module)):
        return name
    return f"{name}({', '.join(f'{k}={describe(v, False)}' for k, v in _inside(value).items())})"


def _inside(value: Any) -> dict[str, Any]:
    if not inspect.isfunction(value):
        return dict(sorted(_public(value).items()))
    found = dict(sorted(inspect.getclosurevars(value).nonlocals.items()))
    if value.__name__ == "<lambda>":
        found |= {"code": value.__code__, "defaults": [value.__defaults__, value.__kwdefaults__]}
    return found


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _public(value: Any) -> dict[str, Any]:
    return {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}


def check_same(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise CheckpointError if the training that wrote `path` had other settings than this one."""
    differ = [n for n in {**now, **before} if before.get(n) != now.get(n)]
    if not differ:
        return
    if "data" in differ:
        raise CheckpointError(
            f"{path} belongs to a training on other data (their fingerprint was "
            f"{before.get('data')} and is {now['data']}): give it the same data, or start anew "
            "with another checkpoint."
        )
    shown = "; ".join(
        f"{name}={before.get(name, 'nothing'):.100}, but this one has {name}="
        f"{now.get(name, 'nothing'):.100}"
        for name in differ[:SHOWN]
    )
    more = f" (and {len(differ) - SHOWN} more)" if len(differ) > SHOWN else ""
    raise CheckpointError(
        f"{path} belongs to a training with {shown}{more}: set it back, or start anew with "
        "another checkpoint."
    )
