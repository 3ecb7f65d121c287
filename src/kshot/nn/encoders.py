"""The field's encoders: Conv4 in both of its forms, ResNet12, and MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kshot.errors import ConfigError, EpisodeError, unknown
from kshot.nn.norm import BatchNorm
from kshot.nn.pretrained import PRETRAINED
from kshot.options import check_options

IMAGE_ENCODERS = ("conv4", "resnet12")
"""Names of those that take images alone."""


class ImageEncoder(nn.Module):
    """Layers for images `(rows, in_channels, height, width)` that give `(rows, features)`.

    Args:
        in_channels: that the images must have.
        layers: applied in their order.
    """

    def __init__(self, in_channels: int, layers: nn.Sequential) -> None:
        super().__init__()
        self.in_channels, self.layers = in_channels, layers
        # The weights' layout decides that of the activations; on a CPU this one is much faster.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the rows.

        Raises:
            EpisodeError: for anything but images with the channels first.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise EpisodeError(
                f"this {type(self).__name__} takes images ({self.in_channels}, height, width), "
                f"channels first, but an example is {tuple(x.shape[1:])}: give it images of as "
                f"many channels (a data set may have the option channels={self.in_channels}), or "
                "build one for these."
            )
        out: Tensor = self.layers(x)
        return out


class Conv4(ImageEncoder):
    """Four blocks of 3x3 convolution, batch normalisation, 2x2 max-pool and ReLU.

    Input `(rows, in_channels, height, width)`, output `(rows, features)`. Pooling stands before
    the ReLU: the maximum commutes with it, so the function is the papers', and the ReLU has a
    quarter of the work.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        channels: filters per block: 64 (Vinyals et al. 2016; Snell et al. 2017), 32 (Ravi and
            Larochelle 2017; MAML on mini-ImageNet).
        strided: MAML's Omniglot variant: stride 2 instead of pooling, mean over positions.
        flatten: with `strided`, give all positions and not their mean (Reptile).
        norm_scale: learn batch normalisation's factor; MAML's own code has the offset alone.

    Raises:
        ConfigError: for fewer than one channel.
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        channels: int = 64,
        strided: bool = False,
        flatten: bool = False,
        norm_scale: bool = True,
    ) -> None:
        if not all(isinstance(c, int) and c >= 1 for c in (channels, in_channels)):
            raise ConfigError(
                f"Conv4 needs whole numbers of channels >= 1, not {channels} from {in_channels}."
            )
        blocks = [
            _block(in_channels if i == 0 else channels, channels, strided, norm_scale)
            for i in range(4)
        ]
        last = _MeanOverPositions() if strided and not flatten else nn.Flatten()
        super().__init__(in_channels, nn.Sequential(*blocks, last))


def _block(in_channels: int, channels: int, strided: bool, norm_scale: bool) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, stride=2 if strided else 1, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    pool: list[nn.Module] = [] if strided else [nn.MaxPool2d(2)]
    return nn.Sequential(conv, BatchNorm(channels, scale=norm_scale), *pool, nn.ReLU())


class _MeanOverPositions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class ResNet12(ImageEncoder):
    """Four residual blocks of three 3x3 convolutions each, then the mean over positions.

    Input `(rows, in_channels, height, width)`, output `(rows, widths[-1])`. A block is three times
    convolution and batch normalisation with leaky ReLU (0.1) between, a 1x1 convolution as
    shortcut, 2x2 max-pool, leaky ReLU (which commutes with the maximum) and dropout.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        widths: filters of the blocks: (64, 160, 320, 640) (Lee et al. 2019), (64, 128, 256, 512)
            (Oreshkin et al. 2018), (64, 96, 128, 256) (Mishra et al. 2018).
        dropout: the probability that a value is dropped after a block, in meta-training.

    Raises:
        ConfigError: for widths below 1, not four of them, or an impossible probability.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        widths: Sequence[int] = (64, 160, 320, 640),
        dropout: float = 0.0,
    ) -> None:
        sizes = [in_channels, *widths]
        if len(sizes) != 5 or not all(isinstance(c, int) and c >= 1 for c in sizes):
            raise ConfigError(
                f"ResNet12 has four blocks of whole numbers of filters >= 1, not {list(widths)} "
                f"from {in_channels} channels."
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout={dropout} must be from 0 to below 1.")
        blocks = [_ResidualBlock(i, o, dropout) for i, o in pairwise(sizes)]
        super().__init__(in_channels, nn.Sequential(*blocks, _MeanOverPositions()))


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()

        def conv(start: int, size: int) -> list[nn.Module]:
            layer = nn.Conv2d(start, channels, size, padding=size // 2, bias=False)
            nn.init.kaiming_normal_(layer.weight, a=0.1, mode="fan_out")
            return [layer, BatchNorm(channels)]

        between = [nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(
            *conv(in_channels, 3), *between, *conv(channels, 3), *between, *conv(channels, 3)
        )
        self.shortcut = nn.Sequential(*conv(in_channels, 1))
        self.out = nn.Sequential(nn.MaxPool2d(2), nn.LeakyReLU(0.1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.convolutions(x) + self.shortcut(x))
        return out


class MLP(nn.Module):
    """Linear layers, each followed by ReLU; features are flattened first.

    Input `(rows, *features)`, output `(rows, hidden[-1])`.

    Args:
        in_features: size of one flattened example.
        hidden: sizes of the layers: (40, 40) for MAML's sinusoid.
        norm: batch normalisation before each ReLU (MAML's Omniglot MLP).
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden: Sequence[int] = (40, 40),
        norm: bool = False,
    ) -> None:
        if not hidden or min([*hidden, in_features]) < 1:
            raise ConfigError(f"an MLP needs sizes >= 1, not {in_features} -> {tuple(hidden)}.")
        layers: list[nn.Module] = [nn.Flatten()]
        sizes = [in_features, *hidden]
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), *([BatchNorm(following)] if norm else [])]
            layers.append(nn.ReLU())
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the rows; whole numbers are taken as floating ones."""
        dtype = next(self.parameters()).dtype
        out: Tensor = self.layers(x if x.is_floating_point() else x.to(dtype))
        return out


def output_size(encoder: nn.Module, x_shape: Sequence[int]) -> int:
    """The number of features that `encoder` gives for one example of shape `x_shape`.

    An encoder that has an attribute `features` says it itself.

    Raises:
        ConfigError: if the encoder cannot take such an example.
    """
    if isinstance(stated := getattr(encoder, "features", None), int):
        return stated
    was_training = encoder.training
    encoder.eval()
    parameter = next(encoder.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            out = encoder(parameter.new_zeros(1, *x_shape))
    except RuntimeError as error:
        raise ConfigError(
            f"the encoder cannot take examples of shape {tuple(x_shape)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    finally:
        encoder.train(was_training)
    if out.dim() != 2 and isinstance(encoder, nn.Identity):
        raise ConfigError(
            f"examples of shape {tuple(x_shape)} need an encoder: set encoder.name=conv4 for "
            "images, or mlp."
        )
    if out.dim() != 2:
        raise ConfigError(
            f"an encoder must give (rows, features), but this one gives {tuple(out.shape)} "
            "for one example: end it with nn.Flatten()."
        )
    return int(out.shape[1])


def build_encoder(name: str, x_shape: Sequence[int], options: dict[str, Any]) -> nn.Module:
    """An encoder by name, for examples of shape `x_shape`.

    Args:
        name: `conv4`, `resnet12`, `mlp`, or `none` for learners that bring their own.
        x_shape: shape of one example's features.
        options: the encoder's keyword arguments.

    Raises:
        ConfigError: for unknown names or options, or examples that it cannot take.
    """
    kinds: dict[str, tuple[type[nn.Module], Sequence[int]]] = {
        "conv4": (Conv4, x_shape[:1]),
        "resnet12": (ResNet12, x_shape[:1]),
        "mlp": (MLP, [math.prod(x_shape)]),
        "none": (nn.Identity, []),
    }
    if name not in kinds:
        raise unknown("encoder", name, [*kinds, *PRETRAINED])
    kind, sizes = kinds[name]
    check_options(f"encoder {name}", kind, options)
    if name in IMAGE_ENCODERS and len(x_shape) != 3:
        raise ConfigError(
            f"{name} takes images (channels, height, width), but an example has shape "
            f"{tuple(x_shape)}: set encoder.name=mlp."
        )
    try:
        return kind(*sizes, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the encoder {name} cannot be built so: {error}.") from error
