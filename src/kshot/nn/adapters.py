"""Transfer modules: a few weights that change a network's behaviour, added by one call.

    names = add_adapter(net, "lora", rank=4)    an unmodified network; its outputs stay as they were
    merge_adapters(net)                         a plain network that does the same
    remove_adapters(net)                        the network as it was

Each one is a function of a layer's own weight or bias (a parametrization of PyTorch's), so that
any learner may move it, slowly or fast, and merging is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kshot.errors import ConfigError, unknown
from kshot.nn.norm import BatchNorm, convert_batch_norm
from kshot.options import check_options

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WEIGHTED = (*_CONVOLUTIONS, nn.Linear)
_NORMS = (BatchNorm, nn.LayerNorm, nn.GroupNorm)

Layers = Sequence[str] | None
"""Names of layers, or patterns such as `blocks.3.*`; all that fit the adapter if None."""


class Change(nn.Module):
    """A function of a weight; `made` where the layer had none and got a neutral one."""

    def __init__(self, *, made: bool = False) -> None:
        super().__init__()
        self.made = made


class Scale(Change):
    """`w * phi`, where phi starts at 1."""

    def __init__(self, w: Tensor, shape: Sequence[int], *, made: bool = False) -> None:
        super().__init__(made=made)
        self.scale = nn.Parameter(w.new_ones(shape))

    def forward(self, w: Tensor) -> Tensor:
        """The scaled weight."""
        return w * self.scale


class Shift(Change):
    """`b + phi`, where phi starts at 0."""

    def __init__(self, b: Tensor, *, made: bool = False) -> None:
        super().__init__(made=made)
        self.shift = nn.Parameter(torch.zeros_like(b))

    def forward(self, b: Tensor) -> Tensor:
        """The shifted bias."""
        return b + self.shift


class LowRank(Change):
    """`W + alpha / rank * B A` (Hu et al. 2022, eq. 3), where B starts at 0."""

    def __init__(self, w: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = len(w), w[0].numel()
        self.down = nn.Parameter(w.new_empty(rank, columns))
        self.up = nn.Parameter(w.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.factor = alpha / rank

    def forward(self, w: Tensor) -> Tensor:
        """The weight with its change of low rank."""
        return w + self.factor * (self.up @ self.down).reshape(w.shape)


def scale_shift(net: nn.Module, *, layers: Layers = None) -> list[str]:
    """A factor for each kernel and an offset for each bias of convolutions and linear layers.

        SS(X; W, b) = (W * phi_1) X + (b + phi_2)       (Sun et al. 2019, eq. 5)

    phi_1 has one value for each pair of input and output channels. A layer without a bias gets one.
    """
    names = []
    for name, layer in _chosen(net, _WEIGHTED, layers, "scale_shift"):
        w = layer.weight
        shape = (*w.shape[:2], *[1] * (w.dim() - 2))
        names += _change(name, layer, "weight", Scale(w, shape))
        names += _shift(name, layer)
    return names


def film(net: nn.Module, *, layers: Layers = None) -> list[str]:
    """A factor and an offset for each channel (Perez et al. 2018), after normalisation layers.

        FiLM(z) = gamma * z + beta

    A network without normalisation layers gets them after its convolutions and linear layers.
    """
    norms = any(isinstance(m, _NORMS) for m in net.modules())
    names = []
    for name, layer in _chosen(net, _NORMS if norms else _WEIGHTED, layers, "film"):
        if made := layer.weight is None:
            layer.weight = nn.Parameter(torch.ones_like(layer.bias), requires_grad=False)
        w = layer.weight
        shape = w.shape if norms else (len(w), *[1] * (w.dim() - 1))
        # gamma (w x + b) + beta = (gamma w) x + (b + beta'): beta' is as free as beta.
        names += _change(name, layer, "weight", Scale(w, shape, made=made))
        names += _shift(name, layer)
    return names


def lora(
    net: nn.Module, *, layers: Layers = None, rank: int = 4, alpha: float | None = None
) -> list[str]:
    """A change of low rank to the weights of convolutions and linear layers (Hu et al. 2022).

        W' = W + alpha / rank * B A

    A convolution's weight is taken as a matrix of outputs by inputs times positions. Layers of at
    most 4 inputs (colours, depthwise convolutions) are small already: they are left out unless
    `layers` names them.

    Args:
        net: any network.
        layers: where.
        rank: of the change; at most the smaller side of each weight.
        alpha: the change's factor; `rank` by default, so that the factor is 1.
    """
    if rank < 1:
        raise ConfigError(f"rank={rank}: the rank of lora is at least 1.")
    names = []
    for name, layer in _chosen(net, _WEIGHTED, layers, "lora"):
        w = layer.weight
        if layers is None and w.shape[1] <= 4:
            continue
        most = min(len(w), w[0].numel())
        if rank > most:
            raise ConfigError(
                f"rank={rank} is above the rank of layer {name!r}, whose weight is "
                f"{len(w)} x {w[0].numel()}: lower it to {most}, or name other layers by layers=."
            )
        names += _change(name, layer, "weight", LowRank(w, rank, alpha or rank))
    if not names:
        raise ConfigError("no layer of this network has more than 4 inputs: name some by layers=.")
    return names


def bias(net: nn.Module, *, layers: Layers = None) -> list[str]:
    """An offset for each bias that the network has (Ben Zaken et al. 2022, BitFit)."""
    names = []
    for name, layer in _chosen(net, (*_WEIGHTED, *_NORMS), layers, "bias"):
        if layer.bias is not None:
            names += _shift(name, layer)
    if not names:
        raise ConfigError("these layers have no bias to move: choose film or scale_shift.")
    return names


def last(net: nn.Module, *, count: int = 1) -> list[str]:
    """The network's own last `count` convolutions and linear layers, and what follows the first.

    Last in the order in which the network names its layers.

    Nothing is added: these weights themselves move.
    """
    weighted = [name for name, m in net.named_modules() if isinstance(m, _WEIGHTED)]
    if not 1 <= count <= len(weighted):
        raise ConfigError(
            f"count={count}: this network has {len(weighted)} convolutions and linear layers."
        )
    order = [name for name, _ in net.named_modules()]
    tail = set(order[order.index(weighted[-count]) :])
    return [n for n, _ in net.named_parameters() if n.rpartition(".")[0] in tail]


ADAPTERS: dict[str, Callable[..., list[str]]] = {
    "scale_shift": scale_shift,
    "film": film,
    "lora": lora,
    "bias": bias,
    "last": last,
}
"""What can be slow, or fast, in place of all weights."""


def add_adapter(net: nn.Module, name: str, **options: Any) -> list[str]:
    """Add a transfer module to a network, in place; its outputs stay as they were.

    Args:
        net: any network; its batch normalisation is made `kshot.nn.BatchNorm`.
        name: `scale_shift`, `film`, `lora`, `bias` or `last`.
        options: of the function of that name in this module.

    Returns:
        The names of the parameters that the adapter moves. None is frozen here.

    Raises:
        ConfigError: for an unknown name or option, a layer that is not there, or an impossible
            rank or count.
    """
    if name not in ADAPTERS:
        raise unknown("adapter", name, ADAPTERS)
    check_options(f"adapter {name}", ADAPTERS[name], options)
    convert_batch_norm(net)
    return ADAPTERS[name](net, **options)


def freeze_all_but(net: nn.Module, names: Sequence[str]) -> None:
    """Let the named parameters alone be trained."""
    moving = set(names)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in moving)


def complete(net: nn.Module) -> None:
    """Give layers without a bias or a factor a neutral one, so that merged weights fit.

    Args:
        net: any network; its batch normalisation is made `kshot.nn.BatchNorm`.
    """
    convert_batch_norm(net)
    layers: list[Any] = [m for m in net.modules() if isinstance(m, (*_WEIGHTED, *_NORMS))]
    for layer in layers:
        if layer.weight is None and layer.bias is not None:
            layer.weight = nn.Parameter(torch.ones_like(layer.bias))
        elif layer.bias is None and layer.weight is not None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))


def merge_adapters(net: nn.Module) -> None:
    """Make a plain network that does the same: the changed weights become the weights."""
    _take_off(net, keep=True)


def remove_adapters(net: nn.Module) -> None:
    """Make the network what it was before `add_adapter`."""
    _take_off(net, keep=False)


def _take_off(net: nn.Module, *, keep: bool) -> None:
    for layer in net.modules():
        stacks: Any = layer.parametrizations if parametrize.is_parametrized(layer) else {}
        for tensor in list(stacks):
            changes = list(stacks[tensor])
            if all(isinstance(change, Change) for change in changes):
                layer.__class__ = _own_class(layer)
                # Merging writes into the weight, which another layer may share.
                own = stacks[tensor]
                if keep:
                    w = own.original
                    own.original = nn.Parameter(w.detach().clone(), w.requires_grad)
                parametrize.remove_parametrizations(layer, tensor, leave_parametrized=keep)
                if changes[0].made and not keep:
                    setattr(layer, tensor, None)


def _own_class(layer: nn.Module) -> type:
    """The layer's class, for it alone: a copied network shares them, and removal changes them."""
    cls = type(layer)
    own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    return type(cls.__name__, cls.__bases__, own)


def _change(name: str, layer: Any, tensor: str, change: Change) -> list[str]:
    """Change a layer's tensor; the names of the parameters that do."""
    if parametrize.is_parametrized(layer, tensor):
        for other in layer.parametrizations[tensor]:
            if not isinstance(other, Change):
                raise ConfigError(
                    f"the {tensor} of layer {name!r} is a parametrization already "
                    f"({type(other).__name__}), into which no adapter merges: take it off "
                    "(torch.nn.utils.parametrize), or name other layers by layers=."
                )
    parametrize.register_parametrization(layer, tensor, change)
    number = len(layer.parametrizations[tensor]) - 1
    where = f"{name}.parametrizations.{tensor}.{number}".lstrip(".")
    return [f"{where}.{p}" for p, _ in change.named_parameters()]


def _shift(name: str, layer: Any) -> list[str]:
    """Shift a layer's bias; it gets one of zeros, which nothing else moves, if it has none."""
    if made := layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=False)
    return _change(name, layer, "bias", Shift(layer.bias, made=made))


def _chosen(
    net: nn.Module, kinds: tuple[type[nn.Module], ...], layers: Layers, adapter: str
) -> list[tuple[str, Any]]:
    """The layers of these kinds that the patterns name."""
    fit = [
        (name, m)
        for name, m in net.named_modules()
        if isinstance(m, kinds) and not (m.weight is None and m.bias is None)
    ]
    if not fit:
        raise ConfigError(
            f"{adapter} needs one of {', '.join(k.__name__ for k in kinds)}, of which this "
            f"{type(net).__name__} has none."
        )
    if layers is None:
        return fit
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for name, _ in fit):
            raise unknown(f"layer for {adapter}", pattern, [name for name, _ in fit])
    return [(name, m) for name, m in fit if any(fnmatchcase(name, p) for p in layers)]
