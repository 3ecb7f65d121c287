"""Encoders and the layers that know about tasks."""

from kshot.nn.adapters import ADAPTERS, add_adapter, merge_adapters, remove_adapters
from kshot.nn.encoders import IMAGE_ENCODERS, MLP, Conv4, ResNet12, build_encoder, output_size
from kshot.nn.norm import BatchNorm, convert_batch_norm
from kshot.nn.prepared import ImagePreparation, Pretrained
from kshot.nn.pretrained import pretrained_encoder

__all__ = [
    "ADAPTERS",
    "IMAGE_ENCODERS",
    "MLP",
    "BatchNorm",
    "Conv4",
    "ImagePreparation",
    "Pretrained",
    "ResNet12",
    "add_adapter",
    "build_encoder",
    "convert_batch_norm",
    "merge_adapters",
    "output_size",
    "pretrained_encoder",
    "remove_adapters",
]
