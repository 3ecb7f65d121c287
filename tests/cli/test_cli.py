"""The command line, as a person meets it."""

import json
import resource
import shlex
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import kshot
from kshot.cli import listing
from kshot.datasets.features import save_features
from kshot.training import load_run
from kshot.training.config import read_recipe, validate
from tests.conftest import SMALL


def test_help_is_quick(program):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = program("--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy():
    code = "import sys, kshot.cli.app; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_listings(cli):
    datasets = cli("datasets").stdout
    assert all(name in datasets for name in ("glyphs", "digits", "sinusoid"))
    assert "protonet-glyphs" in cli("recipes").stdout
    env = cli("env").stdout
    assert all(word in env for word in ("kshot", "torch", "python", "cores"))
    assert cli("--version").stdout.startswith("kshot 0.")


def test_train_then_evaluate(program, tmp_path):
    trained = program("train", *SMALL, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    assert "1-NN, raw inputs" in trained.stdout
    assert "kshot evaluate run" in trained.stdout
    scored = program("evaluate", "run", "--episodes", 4, "--way", 10, "--json", "record.json")
    assert scored.returncode == 0, scored.stderr
    records = json.loads((tmp_path / "record.json").read_text())
    assert [r["task"] for r in records] == ["10-way 1-shot"] * 2
    other = program("evaluate", "run", "--dataset", "digits", "--episodes", 4)
    assert "digits/test" in other.stdout


def test_default_folders_are_numbered(cli, tmp_path):
    for number in ("001", "002"):
        assert cli("train", *SMALL, "--set=evaluation=[]").returncode == 0
        assert (tmp_path / "runs" / f"protonet-glyphs-{number}" / "run.json").exists()


@pytest.mark.parametrize("learner", ["maml", "reptile", "meta_lstm", "snail", "tim"])
def test_every_classifier_trains_from_a_recipe(cli, learner):
    options = {"tim": ["--set=learner.steps=5"], "snail": ["--set=learner.filters=8"]}
    result = cli(
        "train",
        *SMALL,
        f"--set=learner.name={learner}",
        "--set=train.meta_batch=2",
        *options.get(learner, []),
        "--out",
        "run",
    )
    assert result.returncode == 0, result.stderr
    kind = "transductive" if learner in ("maml", "reptile", "tim") else "inductive"
    assert kind in result.stdout


def test_regression_trains_from_a_recipe(cli):
    for recipe in ("maml-sinusoid", "cnp-sinusoid"):
        result = cli(
            "train",
            recipe,
            "--set=train.steps=3",
            "--set=validation.episodes=3",
            "--set=evaluation=[{shot=5, episodes=3}]",
            "--quiet",
            "--out",
            recipe,
        )
        assert result.returncode == 0, result.stderr
        assert "squared error" in result.stdout


def test_episodes_draws_a_picture(cli, tmp_path):
    assert cli("episodes", "digits", "--count", 2, "--out", "e.png").returncode == 0
    assert (tmp_path / "e.png").read_bytes()[:4] == b"\x89PNG"


def test_episodes_take_options_of_the_data_set(cli, tmp_path):
    save_features(tmp_path / "f", (data := kshot.load("digits")), data.splits, "nothing")
    drawn = cli("episodes", "features", "--set", "path=f", "--out", "new/e.png")
    assert drawn.returncode == 0, drawn.stderr
    assert "(path=f)" in drawn.stdout
    assert (tmp_path / "new" / "e.png").exists()


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{shlex.quote(sys.executable)} -m kshot recipes | head -0; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_to_do_next_fits_the_run(cli):
    result = cli("train", *SMALL, "--set=evaluation.way=3", "--out", "my run")
    assert "  kshot evaluate 'my run' --episodes 5000" in result.stdout
    assert "  kshot episodes glyphs --way 3" in result.stdout
    assert "  kshot train maml-glyphs" in result.stdout
    alone = cli("train", *SMALL, "--set=evaluation=[]", "--out", "alone")
    assert "Report: alone/report.html" in alone.stdout


def test_seeds_have_one_header(cli):
    result = cli("train", *SMALL, "--seeds", 2, "--out", "all")
    assert result.stdout.count("kshot train protonet-glyphs on") == 1


def test_a_relative_path_holds_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_recipe("protonet-folder", ["dataset.path=photos"])
    assert config.datasets[0].options["path"] == str(tmp_path / "photos")
    for name in ("2024", "2024.10"):
        config = read_recipe("protonet-folder", [f"dataset.path={name}"])
        assert config.datasets[0].options["path"] == str(tmp_path / name)
    config = validate({"dataset": {"name": "folder", "path": 2024}, "learner": "protonet"})
    assert config.datasets[0].options["path"] == str(tmp_path / "2024")


def test_photos_of_ones_own(cli, tmp_path):
    save_photos(tmp_path / "photos", classes=20)
    few = ["--set=train.steps=2", "--set=validation.episodes=4", "--set=evaluation.episodes=4"]
    result = cli("train", "protonet-folder", "--set", "dataset.path=photos", *few, "--out", "run")
    assert result.returncode == 0, result.stderr
    assert "folder/test (path=photos, size=64, lanczos" in result.stdout


def test_all_that_is_too_wide_is_named_at_once(cli, tmp_path):
    save_photos(tmp_path / "photos", classes=6)
    result = cli("train", "protonet-folder", "--set", "dataset.path=photos")
    assert result.returncode == 2
    for setting in ("train.way=5", "validation.way=3", "evaluation.way=3"):
        assert result.stderr.count(setting) == 1
    assert len(result.stderr.strip().splitlines()) == 1


def save_photos(folder, classes):
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (16, 16), (10 * label, 20 * number, 0))
            image.save(folder / f"class{label}" / f"{number}.png")


BAD = {
    "unknown recipe": (["train", "protonet-glyph"], "did you mean 'protonet-glyphs'"),
    "unknown key": (["train", "--set", "train.step=3"], "did you mean 'steps'"),
    "unknown data set": (["train", "--set", "dataset.name=glyfs"], "did you mean 'glyphs'"),
    "unknown learner": (["train", "--set", "learner.name=protonets"], "did you mean 'protonet'"),
    "unknown option": (["train", "--set", "learner.dist=cosine"], "'distance'"),
    "unknown encoder": (["train", "--set", "encoder.name=conv"], "did you mean 'conv4'"),
    "option of the wrong kind": (["train", "--set", "encoder.channels=[1]"], "valid integer"),
    "unknown split": (["train", "--set", "evaluation=[{split='tset'}]"], "did you mean 'test'"),
    "way": (["train", "--set", "train.way=5000"], "needs 5000 classes"),
    "evaluation way": (["train", "--set", "evaluation=[{way=5000}]"], "needs 5000 classes"),
    "validation way": (["train", "--set", "validation.way=5000"], "needs 5000 classes"),
    "shot + query": (["train", "--set", "train.query=20"], "shot + query = 21"),
    "no query": (["train", "--set", "train.query=0", *SMALL], "at least 1 per class"),
    "negative clip": (["train", "--set", "train.clip=-1"], "greater than 0"),
    "no patience": (["train", "--set", "validation.patience=0"], "greater than or equal to 1"),
    "patience without validation": (
        ["train", *SMALL, "--set=train.split=train+val", "--set=validation.patience=2"],
        "no effect",
    ),
    "negative steps": (["train", "--set", "train.steps=-1"], "greater than or equal to 0"),
    "infinite rate": (["train", "--set", "train.lr=inf"], "finite"),
    "negative test steps": (
        ["train", "maml-glyphs", "--set", "evaluation=[{test_steps=[-1]}]"],
        "equal to 0",
    ),
    "test steps of a learner without": (
        ["train", *SMALL, "--set", "evaluation=[{test_steps=[1]}]"],
        "inner steps",
    ),
    "a name that is a path": (["train", "--set", "name=../evil"], "name"),
    "an empty folder name": (["train", *SMALL, "--out", ""], "names no new folder"),
    "half a channel": (["train", "--set", "encoder.channels=1.5"], "valid integer"),
    "schedule": (["train", *SMALL, "--set", "train.schedule=halve:0"], "schedule"),
    "huge seed": (["train", "--set", "seed=99999999999999999999"], "seed"),
    "inner rate": (
        ["train", "--set", "learner.name=maml", "--set", "learner.inner_lr=0"],
        "greater than 0",
    ),
    "no train split": (["train", "--set", "dataset.name=digits"], "no split 'train'"),
    "device": (["train", "--device", "tpu"], "auto, cpu, cuda or mps"),
    "learner for other tasks": (
        ["train", "--set", "learner.name=cnp", "--set", "encoder={name='none'}"],
        "regression",
    ),
    "encoder of a learner that brings its own": (
        ["train", "--set", "learner.name=cnp"],
        "brings its own encoder",
    ),
    "wider evaluation than the learner": (
        ["train", "maml-glyphs", "--set", "evaluation=[{way=10}]"],
        "way=10",
    ),
    "longer evaluation than the learner": (
        ["train", *SMALL, "--set=learner.name=snail", "--set=evaluation=[{shot=5}]"],
        "at most 5",
    ),
    "augmented numbers": (
        ["train", "maml-sinusoid", "--set", "train.augment=['flip']"],
        "augmentation takes images",
    ),
    "encoder for other data": (
        ["train", "maml-sinusoid", "--set", "encoder={name='conv4'}"],
        "encoder.name=mlp",
    ),
    "a name alone of the wrong kind": (["train", "--set=name=a/b"], "letters, digits"),
    "lots of shots": (["train", "--set=train.shot=lots"], "a range such as [1, 5], or 'any'"),
    "shot of no size": (["train", "--set=train.shot=0"], "train.shot=0"),
    "option of a data set without": (["train", "--set=dataset.size=9"], "has no options"),
    "no encoder": (["train", "--set=encoder={name='none'}"], "set encoder.name=conv4"),
    "no encoder of MAML": (["train", "maml-glyphs", "--set=encoder={name='none'}"], "an encoder"),
    "a list for a word": (
        ["episodes", "omniglot", "--set", "protocol=[1]"],
        "protocol=[1] of the data set omniglot: give one value",
    ),
    "a path that is a number": (["episodes", "folder", "--set", "path=2024"], "nothing at 2024"),
    "no path": (["train", "protonet-folder"], "--set dataset.path=photos"),
    "picture of another kind": (["episodes", "digits", "--out", "e.pdf"], "ends in .png"),
    "missing run": (["evaluate", "nowhere"], "there is no run folder"),
    "folder of something else": (["evaluate", "."], "not a kshot run"),
    "no images": (["episodes", "sinusoid"], "no images"),
    "unwritable picture": (["episodes", "digits", "--out", "/proc/e.png"], "cannot write"),
    "unwritable folder": (["train", *SMALL, "--out", "/proc/run"], "cannot write"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(cli, tmp_path, case):
    arguments, says = BAD[case]
    result = cli(*arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--query", 0], "at least 1 query"),
        (["--episodes", 0], "at least 2"),
        (["--json", "/proc/x.json"], "cannot write"),
        (["--way", 5000], "needs 5000 classes"),
        (["--split", "testt"], "did you mean 'test'"),
        (["--dataset", "glyph"], "did you mean 'glyphs'"),
        (["--dataset", "sinusoid"], "classification"),
    ],
)
def test_bad_evaluations(cli, small_run, arguments, says):
    result = cli("evaluate", small_run, *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_an_occupied_folder_is_left_alone(cli, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = cli("train", *SMALL, "--out", "mine")
    assert result.returncode == 2
    assert "already holds something" in result.stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_no_half_written_file(program, tmp_path):
    """Files may not grow beyond 4 KB, which stops the weights."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = program("train", *SMALL, "--out", "run", preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert not list(tmp_path.glob("run/.*"))


def test_nan_is_one_line(cli, tmp_path):
    result = cli(
        "train", *SMALL, "--set=train.lr=1e30", "--set=train.optimizer=sgd", "--out", "run"
    )
    assert result.returncode == 2, result.stderr
    assert "NaN or infinite at step" in result.stderr
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_debug_shows_the_traceback(program):
    assert "Traceback" in program("--debug", "evaluate", "nowhere").stderr


def test_an_interrupt_after_the_training_tells_how_to_go_on(tmp_path):
    endless = ["--set=train.steps=2", "--set=evaluation=[{episodes=10000000}]"]
    command = [sys.executable, "-m", "kshot", "train", *SMALL, *endless, "--out", "my run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "kept the weights" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "kshot train --resume 'my run'" in out
    assert "Traceback" not in err


def test_an_interrupt_of_another_command_says_that_nothing_was_kept(cli, monkeypatch):
    monkeypatch.setattr(listing, "_version", lambda package: signal.raise_signal(signal.SIGINT))
    result = cli("env")
    assert result.returncode == 130
    assert result.stderr == "interrupted: no file was written; give the command again.\n"


def test_interrupt_keeps_what_was_learned_and_tells_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "kshot", "train", *SMALL, "--set=train.steps=100000"]
    process = subprocess.Popen(
        [*command, "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 90
    while not (tmp_path / "run" / "checkpoint.safetensors").exists() and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in out
    assert "kshot train --resume run" in out
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert load_run(tmp_path / "run").meta_steps > 0
