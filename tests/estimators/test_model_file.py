"""The model file: one file, whole or refused, that runs nothing."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import kshot
from kshot.errors import CheckpointError, ConfigError
from kshot.estimators import model_file
from tests.estimators.test_classifier import blobs, pictures

GOLDEN = sorted((Path(__file__).parent / "data").glob("format-*.kshot"))


@pytest.fixture
def fitted(tmp_path):
    x, y = blobs()
    model = kshot.FewShotClassifier("rfs").fit(x, np.array(["ant", "bee", "cat", "dog"])[y])
    path = tmp_path / "model.kshot"
    model.save(path)
    return model, path


def rewritten(path, change=None, **members):
    """The file with some members replaced, the manifest changed."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()} | members
    manifest = json.loads(parts["manifest.json"])
    if change is not None:
        change(manifest)
    parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
        file.comment = hashlib.sha256(parts["manifest.json"]).hexdigest().encode()


def test_what_was_saved_answers_as_before(fitted):
    model, path = fitted
    x, _ = blobs(seed=3)
    loaded = kshot.load_model(path)
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.predict(x).tolist() == model.predict(x).tolist()
    assert loaded.n_features_in_ == 5
    loaded.add_class(x[:3], "eel")
    loaded.save(path)
    assert kshot.load_model(path).classes_.tolist() == ["ant", "bee", "cat", "dog", "eel"]


@pytest.mark.parametrize("labels", [[3, 5, 7, 9], [1.0, 2.0, 3.0, 4.0], ["é", "b", "c", "d"]])
def test_labels_keep_their_type(tmp_path, labels):
    x, y = blobs()
    model = kshot.FewShotClassifier().fit(x, np.array(labels)[y])
    model.save(tmp_path / "m.kshot")
    loaded = kshot.load_model(tmp_path / "m.kshot")
    assert loaded.classes_.dtype == model.classes_.dtype
    assert loaded.predict(x).tolist() == model.predict(x).tolist()


def test_values(tmp_path):
    x, y = blobs()
    model = kshot.FewShotRegressor().fit(x, 100.0 * y)
    model.save(tmp_path / "m.kshot")
    assert np.array_equal(kshot.load_model(tmp_path / "m.kshot").predict(x), model.predict(x))


def test_a_run_in_a_file(small_run, tmp_path):
    """The learner travels with the file; the run folder is not needed any more."""
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    x = np.asarray(kshot.load("digits")["test"].x[::40, 0])
    y = np.asarray(kshot.load("digits")["test"].labels()[::40])
    model = kshot.FewShotClassifier(folder).fit(x, y)
    model.save(tmp_path / "m.kshot")
    shutil.rmtree(folder)
    loaded = kshot.load_model(tmp_path / "m.kshot")
    assert np.allclose(loaded.predict_proba(x), model.predict_proba(x))
    again = kshot.FewShotClassifier(tmp_path / "m.kshot").fit(x, y)
    assert np.allclose(again.predict_proba(x), model.predict_proba(x))
    assert loaded.ready_.origin["run"] == "run"


def test_a_module_of_ones_own_cannot_be_saved(tmp_path):
    x, y = pictures()
    model = kshot.FewShotClassifier(kshot.NearestNeighbour()).fit(x, y)
    with pytest.raises(ConfigError, match="module of your own"):
        model.save(tmp_path / "m.kshot")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_files_of_every_format_are_read_for_ever(golden):
    """Written by the first kshot that had this format, with keys that this one may not know."""
    model = kshot.load_model(golden)
    x, y = blobs()
    assert model.classes_.tolist() == ["ant", "bee", "cat", "dog"]
    assert (model.predict(x) == np.array(["ant", "bee", "cat", "dog"])[y]).all()


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def another_manifest(path):
    with zipfile.ZipFile(path) as file:
        comment = file.comment
    rewritten(path, lambda m: m.update(classes=m["classes"][::-1]))
    with zipfile.ZipFile(path, "a") as file:
        file.comment = comment


def header_bits(path):
    data = bytearray(path.read_bytes())
    data[6] |= 1  # "encrypted"
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


def odd_checksums(path):
    rewritten(path, lambda m: m.update(sha256=[]))


def odd_estimator(path):
    rewritten(path, lambda m: m.update(estimator=["FewShotClassifier"]))


def odd_temperature(path):
    rewritten(path, lambda m: m["confidence"].update(temperature="warm"))


def no_zip(path):
    path.write_bytes(b"hello")


def newer(path):
    rewritten(path, lambda m: m.update(format=99, kshot="9.0"))


def no_format(path):
    rewritten(path, lambda m: m.pop("format"))


def tampered(path):
    with zipfile.ZipFile(path) as file:
        data = bytearray(file.read("support.safetensors"))
    data[-1] ^= 1
    rewritten(path, **{"support.safetensors": bytes(data)})


def foreign_member(path):
    rewritten(path, **{"run_me.py": b"print('no')"})


def bomb(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", "{}" + " " * 50_000_000)
    path.write_bytes(buffer.getvalue())


def fewer_classes(path):
    rewritten(path, lambda m: m.update(classes=m["classes"][:2]))


def odd_labels(path):
    rewritten(path, lambda m: m.update(labels="|O"))


def other_shape(path):
    rewritten(path, lambda m: m["blueprint"]["learner"].update(name="meta_baseline"))


def no_estimator(path):
    rewritten(path, lambda m: m.update(estimator="Exec"))


def odd_size(path):
    rewritten(path, lambda m: m["inputs"].update(width="a"))


def huge_size(path):
    rewritten(path, lambda m: m.update(inputs={"kind": "images", "size": 10**7}))


def other_width(path):
    rewritten(path, lambda m: m["inputs"].update(width=3))


def more_classes(path):
    rewritten(path, lambda m: m.update(classes=[*m["classes"], 99]))


def with_support(path, change):
    """The file with the support's tensors changed in place, and checksums that are right."""
    with zipfile.ZipFile(path) as file:
        tensors = safetensors.torch.load(file.read("support.safetensors"))
    change(tensors)
    data = safetensors.torch.save(tensors)
    with_sum = {"support.safetensors": hashlib.sha256(data).hexdigest()}
    rewritten(path, lambda m: m["sha256"].update(with_sum), **{"support.safetensors": data})


def no_number(path):
    with_support(path, lambda t: t.update({"features.": t["features."] * float("nan")}))


def other_type(path):
    with_support(path, lambda t: t.update({"features.": t["features."].double()}))


def odd_task(path):
    rewritten(path, lambda m: m["task_shape"].update(x_shape="ab"))


def cut_labels(path):
    rewritten(path, lambda m: m.update(labels="<U1"))


def line_in_label(path):
    rewritten(path, lambda m: m.update(classes=["a\nb", *m["classes"][1:]]))


def more_columns(path):
    rewritten(path, lambda m: m.update(columns=["a"]))


def odd_share(path):
    rewritten(path, lambda m: m["unknown"].update(false_accepts="a"))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (odd_size, "inputs that this kshot does not know"),
        (huge_size, "inputs that this kshot does not know"),
        (other_width, "no whole model file"),
        (more_classes, "no whole model file"),
        (no_number, "numbers that are none"),
        (cut, "no whole model file"),
        (no_zip, "no whole model file"),
        (newer, r"written by kshot 9\.0.*upgrade kshot"),
        (no_format, "no format"),
        (tampered, "another checksum"),
        (another_manifest, "another checksum"),
        (header_bits, "no whole model file"),
        (odd_checksums, "another checksum"),
        (odd_estimator, "FewShotClassifier or FewShotRegressor"),
        (odd_temperature, "confidence of 'warm'"),
        (foreign_member, r"run_me\.py"),
        (bomb, "is packed"),
        (fewer_classes, "no whole model file"),
        (odd_labels, "labels of type object"),
        (other_type, "no whole model file"),
        (odd_task, "tasks of TaskShape"),
        (cut_labels, "labels that are not of type <U1"),
        (line_in_label, "end of a line"),
        (more_columns, "1 columns for vectors of 5"),
        (odd_share, "false_accepts=a"),
        (other_shape, "does not fit its own recipe"),
        (no_estimator, "FewShotClassifier or FewShotRegressor"),
    ],
)
def test_harmed_files_are_refused(fitted, harm, says):
    _, path = fitted
    harm(path)
    with pytest.raises(CheckpointError, match=says):
        kshot.load_model(path)


@pytest.mark.parametrize("size", [27, 29])
def test_images_of_another_size_than_were_kept(tmp_path, size):
    x, y = pictures()
    path = tmp_path / "m.kshot"
    kshot.FewShotClassifier().fit(x, y).save(path)
    rewritten(path, lambda m: m["inputs"].update(size=size))
    with pytest.raises(CheckpointError, match="no whole model file"):
        kshot.load_model(path)


@pytest.mark.parametrize(
    "values", [{"mean": []}, {"scale": [0.0]}, {"mean": [float("nan")]}, {"scale": ["a"]}]
)
def test_values_that_cannot_be_scaled_back(tmp_path, values):
    x, y = blobs()
    path = tmp_path / "m.kshot"
    kshot.FewShotRegressor().fit(x, y).save(path)
    rewritten(path, lambda m: m["values"].update(values))
    with pytest.raises(CheckpointError, match="no whole model file"):
        kshot.load_model(path)


@pytest.mark.parametrize("change", [{"source": float("nan")}, {"ways": [5, 2, 10, 20]}])
def test_a_calibration_that_is_none(tmp_path, change):
    x, y = pictures()
    path = tmp_path / "m.kshot"
    kshot.FewShotClassifier().fit(x, y).save(path)
    rewritten(path, lambda m: m["calibration"].update(change))
    with pytest.raises(CheckpointError, match="calibration is damaged"):
        kshot.load_model(path)


def test_a_tokenizer_is_never_a_file_of_this_machine(tmp_path):
    """Its text is taken for a path where it is no JSON: a made-up model could fetch any file."""
    pytest.importorskip("transformers")
    secret = tmp_path / "secret.txt"
    secret.write_text("{}")
    model = kshot.FewShotClassifier(encoder="minilm").fit(["a lion", "a share"], ["x", "y"])
    path = tmp_path / "m.kshot"
    model.save(path)
    member = str(secret).encode()
    checksum = hashlib.sha256(member).hexdigest()
    rewritten(
        path,
        lambda m: m["sha256"].update({"tokenizer.json": checksum}),
        **{"tokenizer.json": member},
    )
    with pytest.raises(CheckpointError, match="no whole model file"):
        kshot.load_model(path)


def test_a_device_that_is_not_there_is_not_the_files_fault(fitted):
    _, path = fitted
    with pytest.raises(ConfigError, match="choose auto, cpu"):
        kshot.load_model(path, device="gpu")


def test_how_it_was_fitted_is_kept(tmp_path):
    x, y = blobs(4, 12)
    model = kshot.FewShotClassifier("rfs", calibrate=True, standardize=True).fit(x[::2], y[::2])
    model.save(tmp_path / "m.kshot")
    loaded = kshot.load_model(tmp_path / "m.kshot")
    for one in (model, loaded):
        one.add_examples(x[1::2], y[1::2])
    assert loaded.confidence_ == model.confidence_
    assert loaded.confidence_.temperature != 1
    far = 1000 * x + 5
    assert loaded.fit(far, y).ready_.form.mean == pytest.approx(far.mean(0).tolist())


def test_too_many_names_are_refused_before_writing(fitted, monkeypatch):
    model, path = fitted
    monkeypatch.setattr(model_file, "MAX_MANIFEST", 1000)
    with pytest.raises(ConfigError, match="fit on fewer"):
        model.save(path.with_name("n.kshot"))
    assert not path.with_name("n.kshot").exists()


def test_a_missing_file_and_a_full_disk(fitted, tmp_path):
    model, _ = fitted
    with pytest.raises(CheckpointError, match="no model"):
        kshot.load_model(tmp_path / "gone.kshot")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        model.save(tmp_path / "file" / "m.kshot")
