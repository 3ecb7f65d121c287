"""docs/transfer.md: every command of the road runs; what cannot be transferred is explained."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import kshot
from kshot.cli.app import app
from kshot.datasets import Split
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.evaluation.transfer import as_images, related
from kshot.training.lineage import lineage
from kshot.training.transfer import Target, _start

PAGE = Path(__file__).parents[2] / "docs" / "transfer.md"
SHORT = {
    "pretrain": "--set encoder.channels=4 --set train.steps=4 --set train.way=10 "
    "--set validation.episodes=4 --set validation.every=4 --set evaluation.episodes=4 --quiet",
    "train": "--set train.steps=2 --set learner.inner_steps=2 --set learner.inner_lr=1e-3 "
    "--set validation.episodes=4 --set validation.every=2 --set evaluation.episodes=4 --quiet",
    "transfer": "--episodes 4 --tuning 2",
}
"""What makes each command of the page a matter of seconds."""


def run(command):
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The page's commands, run in its order in one folder."""
    folder = tmp_path_factory.mktemp("road")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = [ln[2:] for ln in PAGE.read_text().splitlines() if ln.startswith("$ kshot ")]
        outputs = []
        for line in lines:
            _, command, *_ = line.split()
            outputs.append(run(f"{line.removeprefix('kshot ')} {SHORT[command]}"))
    assert len(outputs) == 3
    return folder, outputs


def test_the_road_ends_in_a_record_and_a_picture(road):
    folder, outputs = road
    assert "over" in outputs[-1]
    (cell,) = json.loads((folder / "transfer.json").read_text())
    assert (cell["run"], cell["target"]) == ("mtl", "digits")
    assert set(cell["gains"]) == {"frozen encoder", "tuned fine-tuning", "from scratch"}
    assert len({r["episode_hash"] for r in [cell["result"], *cell["rivals"].values()]}) == 1
    assert len(cell["tuned"]["tuned fine-tuning"]) == 8
    assert (folder / "transfer.png").stat().st_size > 5000


def test_the_frozen_rival_has_the_pretrained_weights(road):
    folder, _ = road
    mtl = kshot.load_run(folder / "mtl").learner
    pretrained = kshot.load_run(folder / "pretrained").learner.encoder.state_dict()
    kept = {
        n.replace("parametrizations.", "").replace(".original", ""): v
        for n, v in mtl.encoder.state_dict().items()
        if not n.endswith((".scale", ".shift"))
    }
    assert kept.keys() == pretrained.keys()
    assert all(torch.equal(v, pretrained[n]) for n, v in kept.items())


def test_a_run_starts_from_a_file_and_from_a_run_with_adapters(road, monkeypatch, tmp_path):
    folder, _ = road
    monkeypatch.chdir(tmp_path)
    run(
        f"train protonet-glyphs --from {folder / 'mtl'} --out p --set train.steps=1 "
        "--set validation.episodes=4 --set evaluation.episodes=4 --quiet"
    )
    torch.save(kshot.load_run("p").learner.encoder.state_dict(), "weights.pth")
    run(
        "train protonet-glyphs --from weights.pth --out q --set encoder.channels=4 "
        "--set train.steps=1 --set validation.episodes=4 --set evaluation.episodes=4 --quiet"
    )
    (tmp_path / "weights.pth").unlink()
    assert kshot.load_run("q").config.encoder.weights is not None  # and it is not needed again


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("transfer {mtl} --targets glyphs --shared gone", "choose refuse, drop, keep"),
        ("transfer {mtl} --targets sinusoid", "no classes to transfer to"),
        ("transfer {mtl} --targets wordnet", "choose a target of the same kind"),
        ("transfer {mtl} --targets digit", "did you mean 'digits'"),
        ("transfer {mtl} --targets digits --set size=3", "say whose option it is"),
        ("transfer {mtl} --targets digits --way 20", "way=20 needs 20 classes"),
        ("transfer {mtl} --targets digits --out map.jpg", "PNG"),
        ("transfer {mtl} --targets ,", "--targets is empty"),
        ("pretrain protonet-glyphs", "not trained by classification"),
        ("train protonet-glyphs --from nowhere", "no run folder or file"),
        ("train protonet-glyphs --from timm:resnet81", "nearest: resnet18"),
        ("train mtl-glyphs --set learner.slow=lorra", "did you mean 'lora'"),
        ("train protonet-glyphs --set train.steps=0", "would leave ProtoNet untrained"),
        ("train protonet-glyphs --set encoder.slow=none", "has only frozen weights here"),
        ("train rfs-wordnet --set train.steps=3", "takes its encoder as it is"),
    ],
)
def test_what_cannot_be_is_explained_in_a_line(road, monkeypatch, tmp_path, command, message):
    folder, _ = road
    monkeypatch.chdir(tmp_path)
    command = command.format(mtl=folder / "mtl")
    with pytest.raises((ConfigError, DataError, kshot.errors.EpisodeError), match=message):
        CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def colours(name, classes, size=8, channels=3):
    x = torch.randint(0, 256, (2 * len(classes), channels, size, size), dtype=torch.uint8)
    return Split(name, x, (2,) * len(classes), tuple(classes))


def test_shared_classes_are_refused_dropped_or_kept():
    trained, test = colours("a/train", "abc"), colours("b/test", "cdef")
    target = Target("b", test)
    with pytest.raises(ConfigError, match="share classes: c"):
        target.without([trained], "refuse")
    assert target.without([trained], "drop").test.classes == ("d", "e", "f")
    assert target.without([trained], "keep") is target


def test_dropped_classes_leave_the_others_images():
    split = colours("b/test", "cdef")
    part = split.take([1, 3])
    assert torch.equal(part.examples(slice(None)), split.examples(torch.tensor([2, 3, 6, 7])))
    assert part.fingerprint != split.fingerprint


@pytest.mark.parametrize(("channels", "shape"), [(3, (1, 8, 8)), (1, (3, 12, 12)), (3, (3, 8, 8))])
def test_images_are_brought_to_the_learners_shape(channels, shape):
    split = colours("b/test", "cdef", channels=channels)
    changed = as_images(split, shape)
    spec = kshot.EpisodeSpec(3, 1, 1)
    episode, before = (kshot.draw(s, spec, 0, [0, 1]) for s in (changed, split))
    assert episode.support.x.shape == (2, 3, *shape)
    assert torch.equal(episode.classes, before.classes)
    if shape == (3, 8, 8):
        assert changed is split
    if shape == (1, 8, 8):
        luma = (before.support.x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(2)
        torch.testing.assert_close(episode.support.x[:, :, 0], luma)


def test_related_groups_are_found_by_their_words():
    source = colours("s", ["cyrillic/a", "latin/b", "canadian-syllabics/c"])
    target = colours(
        "t",
        ["Old_Church_Slavonic_(Cyrillic)/1", "Ojibwe_(Canadian_Aboriginal_Syllabics)/2", "Greek/3"],
    )
    assert related(source, target) == [0, 1]
    assert related(colours("s", "ab"), target) == []


def test_methods_on_texts_are_compared(cli, tmp_path):
    """Texts have no raw inputs to be compared."""
    pytest.importorskip("tokenizers")
    small = ("--set=dataset.examples=20", "--set=evaluation=[{way=5,shot=1,episodes=20}]")
    for method in ("rfs", "simpleshot"):
        done = cli("train", f"{method}-wordnet", *small, "--out", method)
        assert done.returncode == 0, done.stderr
    for arguments in (("compare", "rfs", "simpleshot"), ("evaluate", "rfs"), ("compare", "rfs")):
        done = cli(*arguments, "--episodes", 20)
        assert done.returncode == 0, done.stderr
        assert "5-way 1-shot" in done.stdout


TINY = "--set train.steps=2 --set validation.episodes=4 --set evaluation.episodes=4 --quiet"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_adapters_merged_into_a_network_without_biases_go_on(here):
    """Scale-and-shift gives ResNet12's convolutions a bias; the next run starts with it."""
    narrow = "--set encoder.name=resnet12 --set encoder.widths=[2,2,2,2]"
    run(f"train mtl-glyphs --out a {narrow} --set learner.inner_steps=1 {TINY}")
    run(f"train protonet-glyphs --from a --out b --set train.lr=1e-9 {TINY}")
    first = kshot.load_run(here / "a").learner.encoder
    kshot.nn.merge_adapters(first)
    second = kshot.load_run(here / "b")
    merged, start = first.state_dict(), second.learner.encoder.state_dict()
    assert second.config.encoder.complete
    assert merged.keys() == start.keys()
    for name, value in merged.items():
        if "running" not in name:
            torch.testing.assert_close(start[name], value, atol=1e-6, rtol=1e-5)
    with pytest.raises(CheckpointError, match=r"encoder\.complete=true"):
        run(f"train protonet-glyphs --from a --out c --set encoder.complete=false {TINY}")


def test_what_is_set_beside_from_has_the_last_word(here):
    run(
        "train simpleshot-cifar-fs-lite0 --from efficientnet_lite0 --out a --quick --quiet "
        "--set encoder.size=32 --set encoder.weights=random --set evaluation.episodes=4"
    )
    encoder = kshot.load_run(here / "a").config.encoder
    assert (encoder.name, encoder.weights) == ("efficientnet_lite0", "random")
    assert encoder.options == {"size": 32}


def test_the_rivals_of_a_packaged_network_start_from_its_own_weights(here):
    """Not from those that the run has trained."""
    run(
        f"train protonet-glyphs --from efficientnet_lite0 --out a --set encoder.size=32 {TINY} "
        "--set encoder.slow=scale_shift --set train.lr=0.1 --set train.way=5 --set train.query=2"
    )
    trained = kshot.load_run(here / "a")
    start = _start(trained, trained.shape).state_dict()
    package = kshot.nn.pretrained_encoder("efficientnet_lite0", size=32).state_dict()
    assert all(torch.equal(value, package[name]) for name, value in start.items())
    assert lineage(trained.config).unknown == ["efficientnet_lite0"]


def test_classes_of_earlier_trainings_are_found(here):
    """A start's own training counts, and is not forgotten over a chain of runs."""
    run(
        f"train protonet-glyphs --out a {TINY} --set train.split=train+val --set encoder.channels=4"
    )
    run(f"train protonet-glyphs --from a --out b {TINY}")
    run(f"train protonet-glyphs --from b --out c {TINY}")
    config = kshot.load_run("c").config
    names = [s.name for s in lineage(config).sources]
    assert names == ["glyphs/train", "glyphs/train", "glyphs/train+val"]
    assert "classes of glyphs/val" in run("evaluate c --split val --episodes 4")
    assert "classes of glyphs/test" not in run("evaluate c --episodes 4")
    with pytest.raises(ConfigError, match="was trained on classes of 'val'"):
        run("calibrate c")
    own = kshot.load("glyphs")["val"]
    with pytest.raises(ConfigError, match=r"glyphs/train\+val and glyphs/val share classes"):
        Target("glyphs", own).without(lineage(config).sources, "refuse")
    shutil.rmtree("a")
    gone = lineage(config)
    assert len(gone.sources) == 2
    assert gone.unknown == [str(here / "a")]
