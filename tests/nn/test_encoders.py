"""Encoders have the papers' sizes."""

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.nn import MLP, Conv4, ResNet12, build_encoder, output_size


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_prototypical_networks_omniglot_encoder():
    assert count(Conv4()) == 111_936
    assert output_size(Conv4(), (1, 28, 28)) == 64
    assert count(Conv4(3)) == 113_088
    assert output_size(Conv4(3), (3, 84, 84)) == 1600


def test_mamls_omniglot_network():
    net = nn.Sequential(Conv4(strided=True, norm_scale=False), nn.Linear(64, 5))
    assert count(net) == 112_005
    assert output_size(net[0], (1, 28, 28)) == 64


def test_mamls_mini_imagenet_network():
    net = nn.Sequential(Conv4(3, channels=32, norm_scale=False), nn.Linear(800, 5))
    assert count(net) == 32_773
    assert output_size(net[0], (3, 84, 84)) == 800


def test_pooling_before_relu_is_the_same_function():
    torch.manual_seed(0)
    encoder = Conv4().eval()
    x = torch.randn(3, 1, 28, 28)
    papers = x
    for block in encoder.layers[:4]:
        conv, norm, pool, relu = block
        papers = pool(relu(norm(conv(papers))))
    assert torch.allclose(encoder(x), papers.flatten(1))


def test_mamls_sinusoid_network():
    assert count(nn.Sequential(MLP(1), nn.Linear(40, 1))) == 1761


@pytest.mark.parametrize(
    ("name", "shape", "options", "says"),
    [
        ("conv5", (1, 28, 28), {}, "did you mean 'conv4'"),
        ("conv4", (1, 28, 28), {"chanels": 32}, "did you mean 'channels'"),
        ("conv4", (64,), {}, "encoder.name=mlp"),
        ("conv4", (1, 28, 28), {"channels": 0}, "channels >= 1"),
        ("mlp", (8,), {"hidden": []}, "sizes >= 1"),
        ("resnet12", (64,), {}, "encoder.name=mlp"),
        ("resnet12", (3, 84, 84), {"widths": [64, 128]}, "four blocks"),
        ("resnet12", (3, 84, 84), {"dropout": 1.0}, "below 1"),
    ],
)
def test_impossible_encoders(name, shape, options, says):
    with pytest.raises(ConfigError, match=says):
        build_encoder(name, shape, options)


def test_an_image_that_is_too_small_is_explained():
    with pytest.raises(ConfigError, match="cannot take examples"):
        output_size(Conv4(), (1, 8, 8))


def test_a_batch_of_one_does_not_change_an_embedding():
    learner = kshot.ProtoNet(Conv4()).eval()
    e = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(5), 0, [0])
    with torch.no_grad():
        together = learner.embed(e.query)[0]
        alone = learner.embed(kshot.Examples(e.query.x[:, :1], e.query.y[:, :1]))[0]
    assert torch.allclose(together[:, :1], alone, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 28, 28, 1), (2, 3, 28, 28)])
def test_images_without_the_right_channels_are_explained(shape):
    with pytest.raises(EpisodeError, match="channels first"):
        Conv4()(torch.zeros(shape))


def test_whole_numbers_are_features_too():
    assert MLP(3)(torch.ones(2, 3, dtype=torch.int64)).dtype == torch.float32


def test_reptiles_network_keeps_all_positions():
    """2 x 2 x 64 = 256 features from 28 x 28 (Nichol et al. 2018)."""
    assert Conv4(strided=True, flatten=True)(torch.zeros(1, 1, 28, 28)).shape == (1, 256)


def test_metaoptnets_resnet():
    """12.4 million weights (Lee et al. 2019), 640 features."""
    encoder = ResNet12()
    assert count(encoder) == 12_424_320
    assert output_size(encoder, (3, 84, 84)) == 640


def test_a_residual_block_is_the_papers():
    """Pooling stands before the leaky ReLU here, after it in the papers."""
    torch.manual_seed(0)
    encoder = ResNet12(1, widths=(4, 6, 8, 10)).eval()
    x = papers = torch.randn(3, 1, 28, 28)
    act, pool = nn.LeakyReLU(0.1), nn.MaxPool2d(2)
    for block in encoder.layers[:4]:
        c1, n1, _, c2, n2, _, c3, n3 = block.convolutions
        body = n3(c3(act(n2(c2(act(n1(c1(papers))))))))
        papers = pool(act(body + block.shortcut(papers)))
    assert torch.allclose(encoder(x), papers.mean((2, 3)), atol=1e-6)
