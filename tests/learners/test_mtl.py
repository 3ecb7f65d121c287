"""MTL: at its start it is the pretrained network; the outer loop moves factors and offsets."""

import copy

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError
from kshot.testing import gaussians


def pretrained():
    torch.manual_seed(0)
    encoder = kshot.nn.MLP(8, hidden=(16, 12), norm=True)
    for module in encoder.modules():
        if isinstance(module, kshot.nn.BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return encoder


def episode():
    return kshot.draw(gaussians()["train"], kshot.EpisodeSpec(4, 2, 5), 0, [0, 1])


def test_with_factors_of_one_and_offsets_of_zero_it_is_the_pretrained_network():
    encoder, e = pretrained(), episode()
    anil = kshot.ANIL(
        copy.deepcopy(encoder),
        features=12,
        way=4,
        inner_lr=0.1,
        inner_steps=3,
        normalization="frozen",
    )
    mtl = kshot.MTL(encoder, features=12, way=4, inner_lr=0.1, inner_steps=3)
    mtl.head.net.load_state_dict(anil.head.net.state_dict())
    torch.testing.assert_close(mtl.eval()(e), anil.eval()(e))


def test_the_outer_loop_moves_scale_shift_and_the_last_layers_start_alone():
    mtl = kshot.MTL(pretrained(), features=12, way=4, inner_steps=2)
    moved = {n.rpartition(".")[2] for n, p in mtl.named_parameters() if p.requires_grad}
    assert moved == {"scale", "shift", "weight", "bias"}
    assert all(
        n.startswith("head.net.")
        for n, p in mtl.named_parameters()
        if p.requires_grad and n.rpartition(".")[2] in ("weight", "bias")
    )
    before = {n: p.clone() for n, p in mtl.named_parameters()}
    kshot.meta_train(
        mtl, gaussians()["train"], way=4, shot=2, query=5, steps=3, lr=1e-2, progress=False
    )
    for name, value in mtl.named_parameters():
        changed = not torch.equal(value, before[name])
        assert changed == before[name].requires_grad, name


def test_merged_it_is_a_plain_encoder_with_the_same_answers():
    mtl, e = kshot.MTL(pretrained(), features=12, way=4, inner_steps=2), episode()
    kshot.meta_train(
        mtl, gaussians()["train"], way=4, shot=2, query=5, steps=3, lr=1e-2, progress=False
    )
    answer = mtl.eval()(e)
    kshot.nn.merge_adapters(mtl.encoder)
    assert not any("parametrizations" in n for n, _ in mtl.named_parameters())
    torch.testing.assert_close(mtl(e), answer)


def test_a_frozen_encoder_is_told_who_decides():
    frozen = kshot.nn.Conv4(channels=4).requires_grad_(False)
    shape = kshot.learners.TaskShape((3, 32, 32), 3, 3)
    with pytest.raises(ConfigError, match=r"learner\.slow"):
        kshot.MTL.for_tasks(frozen, shape)
