"""`kshot fit` and `kshot predict`: folders, tables, and what is no good."""

import csv
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kshot

pytestmark = pytest.mark.filterwarnings("ignore:the confidence rests")

NUMBERS = "width,height,label\n" + "".join(
    f"{10 * c + i / 10},{5 - c + i / 10},{name}\n" for c, name in enumerate("abc") for i in range(4)
)


@pytest.fixture
def digits(tmp_path):
    """A folder of five digits for each of three classes, black on white, and one of new ones."""
    data = kshot.load("digits")["test"]
    for digit in (0, 1, 4):
        first = int(data.offsets[digit])
        for i in range(8):
            folder = tmp_path / (f"digits/{digit}" if i < 5 else "new")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = 255 - data.x[first + i, 0].numpy()
            Image.fromarray(pixels).resize((60, 80)).save(folder / f"{digit}-{i}.png")
    return tmp_path / "digits"


def test_a_folder_of_images(cli, digits, tmp_path):
    done = cli("fit", "digits", "--out", "m.kshot")
    assert done.returncode == 0, done.stderr
    assert "3 classes: 0 (5), 1 (5), 4 (5)" in done.stdout
    assert "Left out in turn" in done.stdout
    lines = cli("predict", "m.kshot", "new").stdout.splitlines()
    assert len(lines) == 9
    right = [line.split("\t")[1] == line.split("/")[1][0] for line in lines]
    assert np.mean(right) > 0.7


def test_predictions_as_json_and_csv(cli, digits, tmp_path):
    cli("fit", "digits")
    answers = [
        json.loads(line)
        for line in cli("predict", "model.kshot", "new", "--json").stdout.splitlines()
    ]
    assert set(answers[0]) == {"input", "label", "probability", "known", "probabilities"}
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    done = cli("predict", "model.kshot", "new", "digits/0/0-0.png", "--csv", "--out", "a.csv")
    assert done.stdout == ""
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [r["label"] for r in rows[:9]] == [a["label"] for a in answers]
    assert rows[9]["input"] == "digits/0/0-0.png"


def test_a_table_of_numbers(cli, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    assert cli("fit", "t.csv").returncode == 0
    lines = cli("predict", "model.kshot", "t.csv").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == [*"aaaabbbbcccc"]
    (tmp_path / "new.csv").write_text("height,width\n5,0\n3,20\n")
    # By the name of the column, not by its place.
    for order in ((), ("--column", "height", "--column", "width")):
        done = cli("predict", "model.kshot", "new.csv", *order)
        assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["a", "c"]


def test_a_column_of_the_model_is_never_taken_for_the_label(cli, tmp_path):
    rows = [f"{i % 3},{10 * (i % 3)},{'abc'[i % 3]}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["label,size,kind", *rows]))
    assert cli("fit", "t.csv", "--label", "kind").returncode == 0
    lines = cli("predict", "model.kshot", "t.csv").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == [*"abcabcabcabc"]


def test_names_that_are_no_unicode(cli, tmp_path):
    for k, name in enumerate((b"caf\xe9", b"tea")):
        folder = tmp_path / "photos" / name.decode("utf-8", "surrogateescape")
        folder.mkdir(parents=True)
        Image.new("L", (9, 9), 90 * k).save(folder / "1.png")
    done = cli("fit", "photos")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.kshot").exists()


def test_values(cli, tmp_path):
    rows = [f"{x},{3 * x + 1}" for x in range(10)]
    (tmp_path / "t.csv").write_text("x,label\n" + "\n".join(rows))
    assert "values from 1 to 28" in cli("fit", "t.csv", "--values", "--learner", "r2d2").stdout
    first = cli("predict", "model.kshot", "t.csv", "--json").stdout.splitlines()[5]
    assert json.loads(first)["value"] == pytest.approx(16, abs=1.5)


def test_texts(cli, tmp_path):
    pytest.importorskip("tokenizers")
    texts = {
        "animals": ["the cat sleeps", "a dog barks at night", "horses run in the field"],
        "money": ["stocks fell today", "the bank raised its rates", "inflation is high"],
    }
    lines = [json.dumps({"text": t, "label": k}) for k, ts in texts.items() for t in ts]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert "texts need an encoder" in cli("fit", "t.jsonl").stderr
    assert cli("fit", "t.jsonl", "--encoder", "minilm").returncode == 0
    (tmp_path / "q.csv").write_text("text\nthe lion roars\nshares and bonds\n")
    done = cli("predict", "model.kshot", "q.csv")
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["animals", "money"]


def test_one_bad_image_does_not_stop_the_others(cli, digits, tmp_path):
    cli("fit", "digits")
    (tmp_path / "new" / "bad.png").write_bytes(b"no image")
    done = cli("predict", "model.kshot", "new", "--json")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 10
    assert "bad.png" in done.stderr
    assert sum("error" in json.loads(line) for line in done.stdout.splitlines()) == 1


def test_strangers(cli, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    cli("fit", "t.csv", "--false-accepts", "0.05")
    (tmp_path / "far.csv").write_text("width,height\n500,-400\n10,4\n")
    lines = cli("predict", "model.kshot", "far.csv").stdout.splitlines()
    assert lines[0] == "far.csv:2\tunknown"
    assert lines[1].startswith("far.csv:3\tb\t")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "does not exist"),
        (["empty"], "has no folders"),
        (["hollow"], "cat has no images"),
        (["single"], "has 1 class, 'cat'"),
        (["t.csv", "--label", "kind"], "no column 'kind'"),
        (["t.csv", "--column", "depth"], "no column 'depth'"),
        (["t.csv", "--out", "model.zip"], ".kshot"),
        (["t.csv", "--learner", "protonett"], "did you mean 'protonet'"),
        (["t.csv", "--set", "penalty=1"], "say whose option"),
        (["t.csv", "--set", "learner.penalty=1"], "--learner"),
        (["t.csv", "--learner", "rfs", "--set", "learner.penalty=-1"], "penalty"),
        (["t.csv", "--values"], "is no number"),
        (["t.csv", "--false-accepts", "2"], "between 0 and 1"),
        (["broken.csv"], "line 3: 1 cells"),
        (["t.csv", "--learner", "maml"], "meta-train it"),
        (["t.csv", "--learner", "runs/nope"], "there is no run folder or model file runs/nope"),
        (["hollow/dog", "--label", "kind"], "are for tables"),
        (["one.csv"], "has 1 class, 'x'"),
        (["rows.csv"], "has no rows"),
        (["labels.jsonl"], "labels.jsonl:2: the label [1] is neither a text nor a finite"),
        (["endless.jsonl"], "endless.jsonl:2: the label inf is neither a text nor a finite"),
        (["huge.csv"], "huge.csv, line 3: a is 1e+300"),
        (["thousands.csv"], "nothing between thousands"),
        (["t.csv", "--out", "m" * 250 + ".kshot"], "the name is too long"),
    ],
)
def test_bad_input_is_one_line(cli, tmp_path, arguments, says):
    (tmp_path / "t.csv").write_text(NUMBERS)
    (tmp_path / "broken.csv").write_text("a,label\n1,x\n2\n")
    (tmp_path / "one.csv").write_text("a,label\n1,x\n2,x\n")
    (tmp_path / "rows.csv").write_text("a,label\n")
    (tmp_path / "labels.jsonl").write_text('{"a": 1, "label": 1}\n{"a": 2, "label": [1]}\n')
    (tmp_path / "endless.jsonl").write_text('{"a": 1, "label": 1}\n{"a": 2, "label": 1e400}\n')
    (tmp_path / "huge.csv").write_text("a,label\n1,x\n1e300,y\n")
    (tmp_path / "thousands.csv").write_text('a,label\n"1,500",x\n"1,600",y\n')
    for folder in ("empty", "hollow/cat", "hollow/dog", "single/cat"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("hollow/dog/1.png", "single/cat/1.png", "single/cat/2.png"):
        Image.new("L", (9, 9), 255).save(tmp_path / name)
    done = cli("fit", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert len(errors) == 1
    assert not list(tmp_path.glob("*.kshot"))


def test_a_table_of_a_million_rows_is_refused(cli, tmp_path):
    with (tmp_path / "t.csv").open("w") as file:
        file.write("x,label\n")
        file.writelines(f"{i},{i % 2}\n" for i in range(1_000_000))
    done = cli("fit", "t.csv")
    assert done.returncode == 2
    assert "more than 100,000 rows" in done.stderr


def test_one_bad_row_does_not_stop_the_others(cli, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    assert cli("fit", "t.csv").returncode == 0
    (tmp_path / "new.csv").write_text("width,height\n0,5\nwide,5\n1e300,5\n20,3\n")
    done = cli("predict", "model.kshot", "new.csv", "--json")
    assert done.returncode == 2
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a.get("label") for a in answers] == ["a", None, None, "c"]
    assert done.stderr.splitlines()[0].startswith("new.csv, line 3: width is 'wide'")
    assert done.stderr.splitlines()[1].startswith("new.csv, line 4: width is 1e+300")
    assert len(done.stderr.splitlines()) == 2


def test_a_reader_that_leaves_early_ends_the_work(cli, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    assert cli("fit", "t.csv").returncode == 0
    rows = [f"{i},5" for i in range(20_000)] + ["not a number,5"]
    (tmp_path / "new.csv").write_text("\n".join(["width,height", *rows]))
    kshot_ = f"{shlex.quote(sys.executable)} -m kshot predict model.kshot new.csv"
    command = f"{kshot_} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert (done.returncode, done.stderr) == (0, "")  # the last row was never asked for


def test_inputs_of_another_kind(cli, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    assert cli("fit", "t.csv").returncode == 0
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    done = cli("predict", "model.kshot", "t.parquet")
    assert done.returncode == 2
    assert done.stderr == (
        "t.parquet is no table (.csv, .tsv, .jsonl), but this model takes vectors.\n"
    )


def test_labels_of_json_that_are_one_number_are_one_label(cli, tmp_path):
    rows = [json.dumps({"a": a, "label": k}) for a, k in ((0, 1), (1, 1.0), (9, 2), (8, 2.0))]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    assert "2 classes: 1 (2), 2 (2)" in cli("fit", "t.jsonl").stdout


def test_a_file_is_not_replaced_by_what_is_made_of_it(cli, digits, tmp_path):
    (tmp_path / "t.csv").write_text(NUMBERS)
    assert cli("fit", "digits").returncode == 0
    before = (tmp_path / "model.kshot").read_bytes()
    for arguments, says in (
        ("fit digits --learner model.kshot", "would be replaced"),
        ("export model.kshot --onnx model.kshot", "would be replaced"),
        ("export model.kshot --onnx a --torch a", "both name a"),
        ("predict model.kshot new --out model.kshot", "would be replaced"),
        ("predict model.kshot new --out new/1.png", "answers are text"),
        ("predict model.kshot t.csv --out t.csv", "would be replaced"),
        ("predict model.kshot t.csv", "has 2 columns"),
        ("predict model.kshot t.csv --column width", "takes images"),
        ("predict model.kshot new --column width", "are for tables, but new is none"),
        ("predict model.kshot new --json --csv", "choose one"),
    ):
        done = cli(*arguments.split())
        assert done.returncode == 2, arguments
        assert says in " ".join(done.stderr.split()), arguments
    assert (tmp_path / "model.kshot").read_bytes() == before
    assert (tmp_path / "t.csv").read_text() == NUMBERS


def test_a_model_that_is_none(cli, tmp_path):
    (tmp_path / "m.kshot").write_bytes(b"no zip")
    done = cli("predict", "m.kshot", "new")
    assert done.returncode == 2
    assert "no whole model file" in done.stderr
    assert "no model" in cli("predict", "gone.kshot", "new").stderr
