"""The outer loop."""

import os
import signal
import threading

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError, DivergedError, EpisodeError
from kshot.testing import gaussians


def learner():
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(16,), norm=True))


def test_the_best_by_validation_is_kept():
    """With a rate that ruins the weights later on, the kept ones are those of the best row."""
    data, model = gaussians(), learner()
    noise = 2 * torch.randn(data["test"].x.shape, generator=torch.Generator().manual_seed(0))
    noisy = data["test"].with_x(data["test"].x + noise)
    validation = kshot.FrozenEpisodes(noisy, kshot.EpisodeSpec(5, 1, 5), 50)
    history = kshot.meta_train(
        model,
        data["train"],
        query=5,
        steps=40,
        lr=30.0,
        optimizer="sgd",
        validate_every=10,
        validation=validation,
        progress=False,
    )
    scores = {r.step: r.validation for r in history.rows if r.validation is not None}
    assert history.best_step == max(scores, key=lambda s: (scores[s], -s))
    assert scores[40] < scores[history.best_step]
    again = kshot.evaluate(model, noisy, query=5, episodes=50)
    assert again.mean == pytest.approx(scores[history.best_step])


def test_training_reads_train_and_validates_on_val():
    data = gaussians()
    named = kshot.Dataset("d", {"train": data["train"], "val": data["test"]})
    history = kshot.meta_train(learner(), named, query=5, steps=6, validate_every=3, progress=False)
    assert [r.step for r in history.rows if r.validation is not None] == [3, 6]


def test_early_stopping():
    data = gaussians()
    history = kshot.meta_train(
        learner(),
        data["train"],
        query=5,
        steps=500,
        lr=1e-9,
        validate_every=2,
        patience=2,
        validation=kshot.FrozenEpisodes(data["test"], kshot.EpisodeSpec(5, 1, 5), 5),
        progress=False,
    )
    assert history.steps == history.best_step + 4 < 500
    assert "no better" in history.stopped


def test_nan_stops_with_the_step_and_keeps_the_last_good_weights():
    class Exploding(kshot.ProtoNet):
        calls = 0

        def loss(self, episode):
            Exploding.calls += 1
            return super().loss(episode) * (float("nan") if Exploding.calls == 5 else 1.0)

    torch.manual_seed(0)
    model, rows = Exploding(kshot.nn.MLP(8)), []
    with pytest.raises(DivergedError, match=r"NaN or infinite at step 5.*clip=10"):
        kshot.meta_train(
            model,
            gaussians()["train"],
            query=5,
            steps=20,
            progress=False,
            on_row=lambda row, best: rows.append((row.step, best)),
        )
    assert rows[-1] == (4, True)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_interrupt_ends_cleanly_with_what_it_has():
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    model = learner()
    start = model.encoder.layers[1].weight.clone()
    history = kshot.meta_train(model, gaussians()["train"], query=5, steps=10**6, progress=False)
    assert history.stopped == "interrupted"
    assert 0 < history.steps < 10**6
    assert history.best_step == history.steps
    assert not torch.equal(model.encoder.layers[1].weight, start)


def test_any_torch_optimizer_and_every_schedule():
    rates = {}
    for schedule in ("constant", "linear", "cosine", "halve:2"):
        rows = []
        kshot.meta_train(
            learner(),
            gaussians()["train"],
            query=5,
            steps=5,
            schedule=schedule,
            progress=False,
            optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
            on_row=lambda row, best, rows=rows: rows.append(row.lr),
        )
        rates[schedule] = rows
    assert rates["constant"] == [0.01] * 5
    assert rates["linear"] == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])
    assert rates["halve:2"] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025])
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)


def test_clip_bounds_the_meta_gradient():
    model = learner()
    start = {k: v.clone() for k, v in model.named_parameters()}
    kshot.meta_train(
        model,
        gaussians()["train"],
        query=5,
        steps=1,
        lr=1.0,
        optimizer="sgd",
        clip=0.01,
        progress=False,
    )
    moved = torch.sqrt(sum(((p - start[n]) ** 2).sum() for n, p in model.named_parameters()))
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"steps": 0}, ConfigError, "at least 1"),
        ({"meta_batch": 0}, ConfigError, "at least 1"),
        ({"lr": 0.0}, ConfigError, "greater than 0"),
        ({"optimizer": "adamm"}, ConfigError, "did you mean 'adam'"),
        ({"schedule": "cosin"}, ConfigError, "did you mean 'cosine'"),
        ({"schedule": "halve:0"}, ConfigError, "schedule"),
        ({"way": 100}, EpisodeError, "needs 100 classes"),
    ],
)
def test_impossible_settings(options, error, says):
    with pytest.raises(error, match=says):
        kshot.meta_train(
            learner(), gaussians()["train"], **{"query": 5, "progress": False} | options
        )


def test_a_learner_without_weights_has_nothing_to_train():
    with pytest.raises(ConfigError, match="nothing to train"):
        kshot.meta_train(kshot.ProtoNet(nn.Identity()), gaussians()["train"], progress=False)


def test_the_same_seed_gives_the_same_weights():
    weights = []
    for seed in (0, 0, 1):
        model = learner()
        kshot.meta_train(model, gaussians()["train"], query=5, steps=3, seed=seed, progress=False)
        weights.append(model.encoder.layers[1].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_functional_loop_matches_the_trainer():
    """A hand-written SGD step on the same episodes gives the same weights."""
    split, model, by_hand = gaussians()["train"], learner(), learner()
    kshot.meta_train(model, split, query=5, steps=2, lr=0.1, optimizer="sgd", progress=False)
    by_hand.train()
    for step in range(2):
        loss = by_hand.loss(kshot.draw(split, kshot.EpisodeSpec(5, 1, 5), 0, [step]))
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                p -= 0.1 * p.grad
    for a, b in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_training_goes_on_in_training_mode_after_a_validation():
    """Also where the validation embeds its split once, behind the learner's back."""
    data, modes = gaussians(), []

    class Spy(kshot.ProtoNet):
        def loss(self, episode):
            modes.append((self.training, self.encoder.training, self.frozen.training))
            return super().loss(episode)

    model = Spy(kshot.nn.MLP(8, norm=True))
    model.frozen = nn.Dropout()
    validation = kshot.FrozenEpisodes(data["test"], kshot.EpisodeSpec(5, 1, 10), 100)
    model.train()
    model.frozen.eval()
    kshot.meta_train(
        model,
        data["train"],
        query=5,
        steps=4,
        validate_every=2,
        validation=validation,
        progress=False,
    )
    assert modes == [(True, True, False)] * 4


def test_a_learner_in_evaluation_mode_is_trained_in_training_mode():
    model = learner().eval()
    kshot.meta_train(model, gaussians()["train"], query=5, steps=1, progress=False)
    assert model.encoder.layers[2].running_mean.abs().sum() > 0


def test_validations_that_are_all_nan_end_in_an_error():
    class Mute(kshot.MAML):
        def predict(self, state, x, mask=None):
            return super().predict(state, x, mask) * float("nan")

    waves = kshot.load("sinusoid")
    model = Mute(nn.Linear(1, 1), inner_lr=0.01)
    start = model.head.net.weight.clone()
    with pytest.raises(DivergedError, match=r"every validation gave a NaN or infinite mse"):
        kshot.meta_train(
            model,
            waves["train"],
            shot=5,
            query=5,
            steps=4,
            validate_every=2,
            validation=kshot.FrozenEpisodes(waves["test"], kshot.EpisodeSpec(5, 5, 5), 2),
            progress=False,
        )
    assert not torch.equal(model.head.net.weight, start)


def test_the_random_numbers_of_others_are_left_alone():
    torch.manual_seed(3)
    expected = torch.randn(2)
    model = learner()
    torch.manual_seed(3)
    kshot.meta_train(model, gaussians()["train"], query=5, steps=2, progress=False)
    assert torch.equal(torch.randn(2), expected)


def test_an_interrupt_in_the_last_validation_is_not_lost():
    data = gaussians()

    class Signalling(kshot.ProtoNet):
        def embed(self, examples, statistics=()):
            if not self.training:
                os.kill(os.getpid(), signal.SIGINT) if not sent else None
                sent.append(1)
            return super().embed(examples, statistics)

    sent = []
    history = kshot.meta_train(
        Signalling(kshot.nn.MLP(8)),
        data["train"],
        query=5,
        steps=3,
        validation=kshot.FrozenEpisodes(data["test"], kshot.EpisodeSpec(5, 1, 5), 5),
        progress=False,
    )
    assert (history.steps, history.stopped) == (3, "interrupted")


def test_nan_validation_is_never_the_best():
    from kshot.training.state import Best, Row

    best = Best(learner())
    offers = [
        best.offer(learner(), Row(step, 0.0, 0.0, 0.0, validation=value), "mse")
        for step, value in enumerate([1.0, float("nan"), 5.0, 0.5], start=1)
    ]
    assert offers == [True, False, False, True]
    assert best.step == 4


def test_a_diverged_step_leaves_no_trace_in_the_running_statistics():
    x = torch.randn(60, 8)
    data = kshot.Dataset.from_arrays(x, [i // 10 for i in range(60)])["test"]
    model, calls = learner(), []

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model.encoder

        def forward(self, rows):
            calls.append(1)
            return self.net(rows * (float("nan") if len(calls) == 3 else 1.0))

    poisoned = kshot.ProtoNet(Encoder())
    with pytest.raises(DivergedError, match="step 3"):
        kshot.meta_train(poisoned, data, query=3, steps=5, progress=False)
    assert all(torch.isfinite(b).all() for b in poisoned.buffers())
    assert all(torch.isfinite(p).all() for p in poisoned.parameters())


def test_a_frozen_pretrained_encoder_runs_once(tmp_path, monkeypatch):
    """Training on its features ends where training through it does."""
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6)).requires_grad_(False)
    images = kshot.Dataset.from_arrays(
        torch.randn(300, 1, 4, 4), [*range(30)] * 10, splits={"train": 0.5, "val": 0.5}
    )
    seen = []
    net.register_forward_hook(lambda module, args, out: seen.append(len(out)))

    def trained(augmentations):
        encoder = kshot.nn.Pretrained(net, nn.Identity(), 6)
        learner = kshot.ProtoNet(encoder, scale=2.0, normalization="frozen")
        seen.clear()
        history = kshot.meta_train(
            learner,
            images,
            query=3,
            steps=30,
            lr=0.1,
            validate_every=10,
            augmentations=augmentations,
            progress=False,
        )
        assert not learner.training
        return learner.state_dict(), history.rows[-1].validation, sum(seen)

    through, score, rows = trained([lambda x, u: x])
    once, same_score, fewer = trained([])
    assert fewer < rows / 2
    assert same_score == pytest.approx(score)
    assert all(torch.allclose(once[name], through[name], atol=1e-5) for name in through)
    assert once["head.log_scale"].exp() != pytest.approx(2.0)
