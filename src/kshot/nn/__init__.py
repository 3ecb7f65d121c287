"""Encoders and the layers that know about tasks."""

from kshot.nn.encoders import MLP, Conv4, build_encoder, output_size
from kshot.nn.norm import BatchNorm, convert_batch_norm

__all__ = ["MLP", "BatchNorm", "Conv4", "build_encoder", "convert_batch_norm", "output_size"]
