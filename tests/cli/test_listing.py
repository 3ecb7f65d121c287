"""What kshot knows, listed."""

import pytest

from kshot.learners import learner_class, learner_names


def test_every_learner_says_what_it_is():
    for name in learner_names():
        cls = learner_class(name)
        assert cls.family, name
        assert cls.fast, name


def test_learners_are_listed_with_their_papers(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("learners").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line[:1].strip()}
    assert set(learner_names()) <= set(rows)
    assert "Snell et al. 2017" in rows["protonet"]
    assert "Ravi and Larochelle 2017" in rows["meta_lstm"]
    assert "transductive*" in rows["maml"]
    assert "inductive" in rows["snail"]
    assert "transductive*" not in rows["tim"]


@pytest.mark.parametrize("name", learner_names())
def test_every_learner_can_be_cited(cli, name):
    result = cli("cite", name)
    assert result.returncode == 0
    assert result.stdout.startswith("@")
    assert result.stdout.count("{") == result.stdout.count("}")


def test_a_misspelt_learner_cannot_be_cited(cli):
    result = cli("cite", "protonets")
    assert result.returncode == 2
    assert "did you mean 'protonet'" in result.stderr
