"""docs/practice.md: its commands run on the images that it draws, and so does its consumer."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

import kshot
from kshot.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "practice.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the commands of the page print, in one folder, in their order."""
    folder = tmp_path_factory.mktemp("practice")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(BLOCKS[0], "practice.md", "exec"), {})
        lines = [ln[8:] for ln in PAGE.read_text().splitlines() if ln.startswith("$ kshot ")]
        found = [CliRunner().invoke(app, shlex.split(line)) for line in lines]
    assert all(done.exit_code == 0 for done in found), [done.output for done in found]
    return folder, [done.output for done in found]


def test_the_letters_are_recognised(outputs):
    fitted, predicted, *_ = outputs[1]
    assert "5 classes: ash (5), birch (5), cedar (5), elm (5), fir (5)" in fitted
    answers = [line.split("\t") for line in predicted.splitlines()]
    right = [Path(name).name.startswith(label) for name, label, _ in answers]
    assert len(right) == 15
    assert sum(right) >= 13


def test_the_consumer_needs_no_kshot(outputs):
    folder, _ = outputs
    code = next(block for block in BLOCKS if block.startswith("# file: consumer.py"))
    Image.linear_gradient("L").resize((90, 40)).save(folder / "wide.png")
    letter = Image.open(folder / "new" / "ash-5.png")
    ImageOps.invert(letter.resize((300, 200))).save(folder / "bright.png")
    letter.point(lambda v: 120 + v // 8).save(folder / "pale.png")
    images = sorted(str(path) for path in [*(folder / "new").glob("*.png"), *folder.glob("*.png")])
    blocked = 'import sys\nsys.modules["kshot"] = sys.modules["torch"] = None\n'
    done = subprocess.run(
        [sys.executable, "-c", blocked + code, *images],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [line.split(" ") for line in done.stdout.splitlines()]
    judged = kshot.load_model(folder / "letters.kshot").judge([Path(image) for image in images])
    assert [label for _, label, _ in answers] == judged.labels.tolist()
    found = [float(probability) for *_, probability in answers]
    assert found == pytest.approx(judged.probabilities.max(1), abs=1e-4)
