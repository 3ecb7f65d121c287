"""Exported models say what the model says, without kshot and without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError, MissingExtraError
from kshot.estimators.export import export_onnx, export_torch, facts_of
from kshot.estimators.forms import load
from kshot.estimators.inputs import read_inputs
from tests.estimators.test_classifier import blobs

onnxruntime = pytest.importorskip("onnxruntime")


def network():
    torch.manual_seed(0)
    return nn.Sequential(kshot.nn.MLP(5, hidden=(8,), norm=True), nn.Linear(8, 4))


LEARNERS = {
    "protonet": lambda: "protonet",
    "rfs": lambda: "rfs",
    "r2d2": lambda: "r2d2",
    "nearest_neighbour": lambda: "nearest_neighbour",
    "tip_adapter": lambda: "tip_adapter",
    "matching": lambda: "matching",
    "fine_tuning": lambda: {"name": "fine_tuning", "inner_steps": 3},
    "maml": lambda: kshot.MAML(network(), inner_lr=0.1),
    "reptile": lambda: kshot.Reptile(network(), inner_steps=2, test_steps=2),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_onnx_of_every_learner(name, tmp_path):
    x, y = blobs()
    model = kshot.FewShotClassifier(LEARNERS[name](), standardize=True).fit(x, y)
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for rows in (1, 3, len(x)):  # any batch
        found, _ = session.run(None, {"vectors": x[:rows]})
        assert found == pytest.approx(model.predict_proba(x[:rows]), abs=1e-4)


def test_values(tmp_path):
    x, y = blobs()
    model = kshot.FewShotRegressor(standardize=True).fit(x, 100.0 * y)
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {"vectors": x})
    assert found[:, 0] == pytest.approx(model.predict(x), rel=1e-4, abs=1e-2)


@pytest.fixture(scope="module")
def characters():
    digits = kshot.load("digits")["test"]
    rows = torch.cat([torch.arange(o, o + 3) for o in digits.offsets[:4].tolist()])
    images, labels = digits.x[rows, 0].numpy(), digits.labels()[rows].numpy()
    return kshot.FewShotClassifier().fit(images, np.array([*"abcd"])[labels]), images


def test_images_in_a_program_without_kshot(characters, tmp_path):
    """The consumer of docs/practice.md, where neither kshot nor torch can be imported."""
    model, images = characters
    export_onnx(model, tmp_path / "m.onnx")
    x = load(model.ready_.form, read_inputs(images)).numpy()
    np.save(tmp_path / "x.npy", x)
    consumer = """
import json, sys
sys.modules["kshot"] = sys.modules["torch"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("m.onnx")
facts = json.loads(session.get_modelmeta().custom_metadata_map["kshot.json"])
probabilities, familiarity = session.run(None, {"images": np.load("x.npy")})
print(json.dumps([facts["classes"][i] for i in probabilities.argmax(1)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", consumer], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == model.predict(images).tolist()


def test_a_torch_program(characters, tmp_path):
    model, images = characters
    export_torch(model, tmp_path / "m.pt2")
    files = {"kshot.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=files).module()
    x = load(model.ready_.form, read_inputs(images))
    found, familiarity = program(x[:5])
    assert np.allclose(found.detach().numpy(), model.predict_proba(images[:5]), atol=1e-4)
    assert json.loads(files["kshot.json"])["classes"] == [*"abcd"]
    assert facts_of(model)["inputs"] == {
        "size": 28,
        "channels": 1,
        "characters": True,
        "kind": "images",
    }
    assert familiarity.shape == (5,)


def test_texts(tmp_path):
    pytest.importorskip("tokenizers")
    texts = ["the cat sleeps", "a dog barks", "stocks fell", "the bank raised rates"]
    model = kshot.FewShotClassifier(encoder="minilm").fit(texts, [0, 0, 1, 1])
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    tokens = load(model.ready_.form, read_inputs(texts[:3]))
    found, _ = session.run(None, {name: v.numpy() for name, v in tokens.items()})
    assert found == pytest.approx(model.predict_proba(texts[:3]), abs=1e-4)


def test_without_the_extra(characters, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"kshot\[export\]"):
        export_onnx(characters[0], tmp_path / "m.onnx")


class Unexportable(nn.Module):
    def forward(self, x):
        return x * int(x.sum().item() > 0)


def test_what_cannot_be_exported_says_so(tmp_path):
    x, y = blobs()
    model = kshot.FewShotClassifier(kshot.ProtoNet(Unexportable())).fit(x, y)
    with pytest.raises(ConfigError, match="cannot be exported"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(cli, characters, tmp_path):
    characters[0].save(tmp_path / "m.kshot")
    done = cli("export", "m.kshot", "--onnx", "m.onnx", "--torch", "m.pt2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.onnx").stat().st_size > 100_000
    assert (tmp_path / "m.pt2").exists()
    assert "say what to write" in cli("export", "m.kshot").stderr
