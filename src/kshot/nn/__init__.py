"""Encoders and the layers that know about tasks."""

from kshot.nn.encoders import IMAGE_ENCODERS, MLP, Conv4, ResNet12, build_encoder, output_size
from kshot.nn.norm import BatchNorm, convert_batch_norm

__all__ = [
    "IMAGE_ENCODERS",
    "MLP",
    "BatchNorm",
    "Conv4",
    "ResNet12",
    "build_encoder",
    "convert_batch_norm",
    "output_size",
]
