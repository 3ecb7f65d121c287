"""`FewShotClassifier`: what goes in, what comes out, and what is refused."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError, InputError
from kshot.learners.inner_loop import NetworkLearner


def blobs(classes=4, each=6, width=5, seed=0):
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    return generator.normal(size=(len(y), width)) + 3 * np.eye(classes, width)[y], y


class Brightness(nn.Module):
    """The mean of each channel's rows: a tiny encoder of images."""

    def forward(self, x):
        return x.mean(-1).flatten(1)


def pictures(count=8, size=16, channels=3):
    """Half of them dark above, half dark below."""
    x = np.full((count, size, size, channels), 200, np.uint8)
    x[::2, : size // 2], x[1::2, size // 2 :] = 30, 30
    return x, np.array(["above", "below"] * (count // 2))


def test_vectors_are_nearest_centroids():
    x, y = blobs()
    model = kshot.FewShotClassifier().fit(x, y)
    other, _ = blobs(seed=1)
    assert (model.predict(other) == NearestCentroid().fit(x, y).predict(other)).all()
    assert model.predict_proba(other).sum(1) == pytest.approx(1)
    assert model.score(x, y) > 0.9


def test_the_tools_of_scikit_learn():
    x, y = blobs()
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    pipeline = make_pipeline(StandardScaler(), kshot.FewShotClassifier())
    search = GridSearchCV(
        pipeline, {"fewshotclassifier__learner": ["protonet", "rfs", "nearest_neighbour"]}, cv=3
    )
    assert search.fit(x, names).best_score_ > 0.8
    copy = clone(kshot.FewShotClassifier("rfs"))
    assert copy.learner == "rfs"
    with pytest.raises(NotFittedError):
        copy.predict(x)
    again = pickle.loads(pickle.dumps(copy.fit(x, names)))
    assert (again.predict(x) == copy.predict(x)).all()


@pytest.mark.parametrize("kind", ["array", "channels first", "tensor", "floats", "grey", "pil"])
def test_images_in_memory(kind, tmp_path):
    x, y = pictures()
    given = {
        "array": x,
        "channels first": np.moveaxis(x, -1, 1),
        "tensor": torch.from_numpy(x.copy()).permute(0, 3, 1, 2),
        "floats": x / 255.0,
        "grey": x[..., 0],
        "pil": [Image.fromarray(i) for i in x],
    }[kind]
    if kind == "pil":  # an encoder that does not say its size needs arrays
        with pytest.raises(InputError, match="arrays of that size"):
            kshot.FewShotClassifier("protonet", Brightness()).fit(given, y)
        return
    model = kshot.FewShotClassifier("protonet", Brightness()).fit(given, y)
    assert model.score(given, y) == 1
    assert model.score(given[:3], y[:3]) == 1


def test_image_files_of_any_size(tmp_path):
    x, y = pictures(channels=3)
    paths = []
    for i, image in enumerate(x):
        size = (20 + 3 * i, 20 + 3 * i)
        path = tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}"
        Image.fromarray(image).resize(size).save(path)
        paths.append(path)
    encoder = kshot.nn.Pretrained(Brightness(), kshot.nn.ImagePreparation(16), 48)
    model = kshot.FewShotClassifier("protonet", encoder).fit(paths, y)
    assert model.score([str(p) for p in paths], y) == 1
    with Image.open(paths[0]) as opened:
        assert model.predict([opened]) == ["above"]


def test_a_run_folder(tmp_path, small_run):
    model = kshot.FewShotClassifier(small_run)
    digits = kshot.load("digits")["test"]
    rows = torch.cat([torch.arange(o, o + 5) for o in digits.offsets.tolist()])
    images, labels = digits.x[:, 0].numpy(), digits.labels().numpy()
    model.fit(images[rows], labels[rows])
    black_on_white = 255 - images[::20]
    assert model.score(images[::20], labels[::20]) > 0.25
    assert (model.predict(black_on_white) == model.predict(images[::20])).mean() > 0.98
    with pytest.raises(ConfigError, match="brings its encoder"):
        kshot.FewShotClassifier(small_run, "minilm").fit(images[rows], labels[rows])


def test_classes_come_and_go():
    x, y = blobs()
    whole = kshot.FewShotClassifier().fit(x, y)
    model = kshot.FewShotClassifier().fit(x[y < 3], y[y < 3])
    before = model.state_.head.means.clone()
    model.add_class(x[y == 3], 3)
    assert torch.equal(model.state_.head.means[:, :3], before)  # the others were not touched
    assert np.allclose(model.predict_proba(x), whole.predict_proba(x))
    model.remove_class(0)
    assert model.classes_.tolist() == [1, 2, 3]
    rest = kshot.FewShotClassifier().fit(x[y > 0], y[y > 0])
    assert np.allclose(model.predict_proba(x), rest.predict_proba(x))
    model.add_examples(x[:1], [0])
    assert model.predict(x[:1]) == [0]
    with pytest.raises(InputError, match="there is a class 0"):
        model.add_class(x[:2], 0)
    with pytest.raises(InputError, match="no class 7"):
        model.remove_class(7)


def test_what_fails_leaves_the_model_as_it_was():
    x, y = blobs(3, 8)
    model = kshot.FewShotClassifier(false_accepts=0.1).fit(x, y)
    before = model.predict(x - 1).tolist()
    with pytest.raises(InputError, match="3 classes"):
        model.remove_class(0)
    with pytest.raises(InputError, match="another type"):
        model.add_class(x[:2], "three")
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict(x - 1).tolist() == before


def test_a_fixed_way_stays_and_says_so():
    x, y = blobs(3)
    torch.manual_seed(0)
    net = nn.Sequential(kshot.nn.MLP(5, hidden=(8,)), nn.Linear(8, 3))
    model = kshot.FewShotClassifier(kshot.MAML(net, inner_lr=0.1)).fit(x, y)
    before = model.predict_proba(x)
    with pytest.raises(EpisodeError, match="way"):
        model.add_class(x[:2], 9)
    assert np.allclose(model.predict_proba(x), before)
    assert isinstance(model.learner_, NetworkLearner)


def test_one_answer_does_not_depend_on_the_others():
    """MAML's authors normalise the queries together; an estimator never does."""
    x, y = blobs(3)
    torch.manual_seed(0)
    net = nn.Sequential(kshot.nn.MLP(5, hidden=(8,), norm=True), nn.Linear(8, 3))
    model = kshot.FewShotClassifier(kshot.MAML(net, inner_lr=0.1)).fit(x, y)
    assert np.allclose(model.predict_proba(x)[:1], model.predict_proba(x[:1]), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (["a text", 3], [0, 1], "examples of one kind"),
        (["a text", "another"], [0, 1], "texts need an encoder"),
        (["gone.png", "lost.png"], [0, 1], "texts need an encoder"),
        (np.zeros((2, 5, 6, 7)), [0, 1], "1 or 3 channels"),
        (np.full((2, 4, 4), 7.5), [0, 1], "floats from 0 to 1"),
        (np.zeros((2, 4)), [0, 0], "1 class"),
        (np.zeros((2, 4)), [0, 1, 2], "2 examples but 3 labels"),
        (np.zeros((2, 4)), ["a", " "], "has 1 characters"),
        (np.zeros((2, 4)), ["a", "b" * 10_000], "10000 characters"),
        (np.zeros((2, 4)), None, "requires y"),
        ([], [], "no examples"),
        (np.zeros((0, 28, 28)), [], "no examples"),
        ([Path("a\0.png"), Path("b.png")], [0, 1], "cannot be used as an image"),
        ([Image.new("L", (0, 5))] * 2, [0, 1], "0 x 5 pixels"),
        ("a.png", ["a"], "X is one example, 'a.png': give a list"),
        (Path("a.png"), ["a"], "X is one example"),
        (Image.new("L", (9, 9)), ["a"], "X is one example, of type Image"),
        (iter([[1.0], [2.0]]), [0, 1], "of type list_iterator"),
        ({"a": 1}, [0], "of type dict"),
        (np.array([[1e300], [2.0]]), [0, 1], r"example 0 has 1e\+300 in column 0"),
        (np.zeros((2, 4)), ["a", None], "a label None"),
        (np.zeros((2, 4)), ["a", 1], "1 is of another type than 'a'"),
        (np.zeros((2, 4)), ["a", "b\ud800"], "cannot be shown"),
        (np.zeros((2, 4)), ["a", "b\nc"], "cannot be shown"),
        (np.array([[1.0, np.nan], [0, 1]]), [0, 1], "NaN"),
        (np.array([["a", 1], [2, 3]], object), [0, 1], "convert"),
    ],
)
def test_bad_input_is_a_value_error(x, y, says):
    with pytest.raises(ValueError, match=says):
        kshot.FewShotClassifier().fit(x, y)


def test_scores_are_of_labels_of_the_classes_type():
    x, y = blobs()
    model = kshot.FewShotClassifier().fit(x, y)
    assert model.score(x, y.tolist()) == model.score(x, y) > 0.9
    for wrong, says in (
        (None, "requires y"),
        (y[:-1], "24 examples but 23 labels"),
        (y.astype(str), "another type"),
        (np.stack([y, y], 1), "1d array"),
    ):
        with pytest.raises(ValueError, match=says):
            model.score(x, wrong)


@pytest.mark.parametrize("standardize", [False, True])
def test_an_answer_is_a_number_or_an_error(standardize):
    x, y = blobs()
    model = kshot.FewShotClassifier(standardize=standardize).fit(x, y)
    with pytest.raises(InputError, match="scale the column"):
        model.predict(x * 1e40)
    assert np.isfinite(model.predict_proba(x * 1e12)).all()
    with pytest.raises(InputError, match="scale the column"):
        kshot.FewShotRegressor().fit(x, 1e200 * y)


def test_a_column_that_is_constant_but_for_rounding():
    x, y = blobs()
    x = np.concatenate([x, np.full((len(x), 1), 0.1) + 1e-17 * y[:, None]], 1)
    model = kshot.FewShotClassifier(standardize=True).fit(x, y)
    moved = x + np.array([0, 0, 0, 0, 0, 1e-6])
    assert (model.predict(moved) == model.predict(x)).all()


def test_numbers_far_from_zero_are_warned_of():
    x, y = blobs()
    far = x + np.array([1e6, 0, 0, 0, 0])
    with pytest.warns(UserWarning, match="standardize=True"):
        kshot.FewShotClassifier().fit(far, y)
    model = kshot.FewShotClassifier(standardize=True).fit(far, y)
    assert model.score(far, y) > 0.9


def test_texts_are_fine_tuned():
    pytest.importorskip("tokenizers")
    texts = ["the cat sleeps", "a dog barks", "stocks fell", "the bank raised rates"]
    method = {"name": "fine_tuning", "fast": "last", "inner_steps": 10}
    model = kshot.FewShotClassifier(method, "minilm").fit(texts, [0, 0, 1, 1])
    assert model.predict(texts).tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="half a character"):
        model.predict(["\ud800 lone"])


def test_columns_are_known_by_their_names(tmp_path):
    x, y = blobs()
    table = pandas.DataFrame(x, columns=[*"abcde"])
    model = kshot.FewShotClassifier().fit(table, y)
    assert model.columns_ == [*"abcde"]
    model.save(tmp_path / "m.kshot")
    read = kshot.load_model(tmp_path / "m.kshot")
    assert (read.predict(table) == model.predict(table)).all()
    with pytest.raises(ValueError, match="feature names should match"):
        read.predict(table[[*"edcba"]])


@pytest.mark.filterwarnings("ignore:the confidence rests")
def test_strangers_have_a_name_of_their_own():
    x, y = blobs()
    names = np.array(["ant", "bee", "cat", "unknown"])[y]
    with pytest.raises(InputError, match="'unknown' is a class"):
        kshot.FewShotClassifier(false_accepts=0.1).fit(x, names)
    model = kshot.FewShotClassifier(false_accepts=0.1).fit(x[:18], names[:18])
    with pytest.raises(InputError, match="'unknown' is a class"):
        model.add_class(x[18:], "unknown")
    assert model.classes_.tolist() == ["ant", "bee", "cat"]


def test_other_inputs_than_fitted_on():
    x, y = blobs()
    model = kshot.FewShotClassifier().fit(x, y)
    with pytest.raises(ValueError, match="expecting 5 features"):
        model.predict(x[:, :3])
    with pytest.raises(InputError, match="takes vectors, but these are texts"):
        model.predict(["a text"])


@pytest.mark.parametrize("name", ["maml", "snail", "reptile", "cnp"])
def test_what_has_to_be_trained_is_refused(name):
    x, y = blobs()
    with pytest.raises(ConfigError, match=r"meta-train it|is for regression|SNAIL"):
        kshot.FewShotClassifier(name).fit(x, y)


@pytest.mark.parametrize("learner", ["protonet", "rfs"])
def test_one_example_of_each_of_many_classes_is_nothing_to_warn_of(learner):
    x, _ = blobs(8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kshot.FewShotClassifier(learner).fit(x, np.arange(len(x)))
    with pytest.raises(InputError, match="there is no class"):
        model.remove_class(np.array([1, 2]))


def test_a_transductive_learner_is_refused():
    x, y = blobs()
    with pytest.raises(ConfigError, match="choose an inductive learner"):
        kshot.FewShotClassifier("tim").fit(x, y)


def test_names_that_do_not_exist():
    x, y = blobs()
    with pytest.raises(ConfigError, match="did you mean 'protonet'"):
        kshot.FewShotClassifier("protonett").fit(x, y)
    with pytest.raises(ConfigError, match="pretrained encoder"):
        kshot.FewShotClassifier("rfs", "conv4").fit(x, y)
    with pytest.raises(ConfigError, match="name"):
        kshot.FewShotClassifier({"penalty": 2.0}).fit(x, y)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)], ids=["empty", "text", "cut"]
)
def test_files_that_are_no_images(tmp_path, content):
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    x, y = pictures(2)
    encoder = kshot.nn.Pretrained(Brightness(), kshot.nn.ImagePreparation(16), 48)
    model = kshot.FewShotClassifier("protonet", encoder).fit(x, y)
    with pytest.raises(InputError, match=r"bad\.png.*cannot be used as an image"):
        model.predict([str(bad)])


def test_animations_and_bombs_are_refused(tmp_path):
    frames = [Image.new("L", (8, 8), v) for v in (0, 100, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (12_000, 9_000)).save(tmp_path / "huge.png")
    x, y = pictures(2)
    encoder = kshot.nn.Pretrained(Brightness(), kshot.nn.ImagePreparation(16), 48)
    model = kshot.FewShotClassifier("protonet", encoder).fit(x, y)
    with pytest.raises(InputError, match="3 frames"):
        model.predict([tmp_path / "moving.gif"])
    with pytest.raises(InputError, match="12000 x 9000 pixels"):
        model.predict([tmp_path / "huge.png"])


def test_a_learner_of_tables_takes_any_width_and_others_say_theirs(tmp_path):
    x, y = blobs(4, 6, width=7)
    torch.manual_seed(0)
    learner = kshot.SetMetric()
    kshot.meta_train(learner, kshot.load("tables")["train"], shot=10, query=5, steps=20)
    model = kshot.FewShotClassifier(learner).fit(x, y)
    assert model.score(x, y) > 0.9
    assert np.allclose(
        kshot.FewShotClassifier(learner).fit(x[:, ::-1], y).predict_proba(x[:, ::-1]),
        model.predict_proba(x),
        atol=1e-5,
    )


def test_the_metric_of_tables_comes_with_its_weights(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 40)
    x = np.concatenate(
        [np.eye(3)[y] + 0.3 * rng.normal(size=(120, 3)), rng.normal(size=(120, 9))], 1
    )
    shots, rest = slice(None, None, 5), slice(1, None, 5)
    model = kshot.FewShotClassifier("set_metric").fit(x[shots], y[shots])
    plain = kshot.FewShotClassifier().fit(x[shots], y[shots])
    assert model.score(x[rest], y[rest]) > plain.score(x[rest], y[rest]) + 0.05
    model.save(tmp_path / "m.kshot")
    again = kshot.load_model(tmp_path / "m.kshot")
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))
    with pytest.raises(ConfigError, match="starts from random weights"):
        kshot.FewShotClassifier({"name": "set_metric", "hidden": 16}).fit(x, y)


def test_vectors_of_another_width_than_trained_on(tmp_path):
    x, y = blobs()
    kshot.FewShotClassifier("rfs").fit(x, y).save(tmp_path / "m.kshot")
    with pytest.raises(InputError, match="of 5 numbers, but these have 3"):
        kshot.FewShotClassifier(tmp_path / "m.kshot").fit(x[:, :3], y)


def test_large_offsets_do_not_blur_the_columns():
    """Unix times: float32 cannot tell 30 seconds apart at 1.7e9."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 10)
    x = 1.7e9 + 30.0 * y[:, None] + rng.normal(size=(20, 1))
    assert kshot.FewShotClassifier(standardize=True).fit(x, y).score(x, y) == 1
    values = 1.7e9 + np.arange(20.0)
    model = kshot.FewShotRegressor({"name": "r2d2", "penalty": 1e-6}, standardize=True)
    assert np.abs(model.fit(values[:, None], values).predict(values[:, None]) - values).max() < 0.1


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    x, y = blobs()
    model = kshot.FewShotClassifier().fit(x, y)
    before = model.predict(x)
    model.learner = "maml"
    with pytest.raises(ConfigError):
        model.fit(x[:, :3], np.array(["p", "q"])[y % 2])
    assert np.array_equal(model.predict(x), before)
    assert model.classes_.tolist() == [0, 1, 2, 3]


def test_numbers_as_labels_stay_numbers_beside_strangers():
    x, y = blobs(4, 10)
    strict = kshot.FewShotClassifier(false_accepts=0.5, unknown_label=-1).fit(x, y)
    answers = strict.predict(np.concatenate([x, 50 + x]))
    assert answers.dtype.kind == "i"
    assert (answers[len(x) :] == -1).any()
    default = kshot.FewShotClassifier(false_accepts=0.5).fit(x, y)
    far = np.full(len(y), "unknown", dtype=object)
    assert (
        default.score(np.concatenate([x, -50 - x]), np.concatenate([y.astype(object), far])) > 0.5
    )


def test_fitting_leaves_the_callers_random_numbers_alone():
    x, y = blobs()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    kshot.FewShotClassifier("rfs").fit(x, y)
    kshot.FewShotClassifier("set_metric").fit(x, y)
    assert torch.rand(1) == expected


def test_names_of_images_that_are_not_there_say_so():
    with pytest.raises(InputError, match=r"'a\.png' is taken for a text: there is no such file"):
        kshot.FewShotClassifier().fit(["a.png", "b.png"], [0, 1])
    with pytest.raises(InputError, match="need an encoder"):
        kshot.FewShotClassifier().fit([300 * "long" + ".png", "b"], [0, 1])


def test_a_regressor_of_images_wants_an_encoder_and_chooses_nothing():
    x, y = pictures()
    with pytest.raises(InputError, match="images need an encoder"):
        kshot.FewShotRegressor().fit(x, range(len(y)))
    with pytest.raises(ConfigError, match="chooses a classifier"):
        kshot.FewShotRegressor("auto").fit(x, range(len(y)))


def test_images_that_are_no_squares_are_not_cut():
    x = np.zeros((4, 28, 56), np.uint8)
    with pytest.raises(InputError, match="28 x 56 pixels"):
        kshot.FewShotClassifier("protonet", nn.Flatten()).fit(x, [0, 0, 1, 1])


def test_small_units_are_columns_too():
    x, y = blobs()
    plain = kshot.FewShotClassifier("set_metric").fit(x, y).predict(x)
    assert np.array_equal(
        kshot.FewShotClassifier("set_metric").fit(1e-7 * x, y).predict(1e-7 * x), plain
    )
