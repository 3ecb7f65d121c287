"""The inspection of a model as one HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from kshot.errors import InputError
from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.inspection import Inspection, inspect
from kshot.evaluation import plots
from kshot.evaluation.report import Picture, picture_as_html, write_page
from kshot.types import first_tensor

MOST = 2000
"""Examples that a page can show."""

MOST_CLASSES = 20
"""On the map and in the table."""


def write_inspection(model: FewShotClassifier, path: Path, title: str) -> Inspection:
    """Inspect a model and write what is to be seen.

    Args:
        model: fitted.
        path: of the page.
        title: of the page.

    Raises:
        InputError: for more examples than a page can show.
        CheckpointError: if the page cannot be written.
    """
    count = len(model.labels_)
    if count > MOST:
        raise InputError(f"the model has {count:,} examples, but a page shows {MOST:,} at most.")
    found = inspect(model)
    learner = type(model.learner_).__name__
    subtitle = (
        f"{count} examples of {len(model.classes_)} classes, learnt by {learner}. Confidence rests "
        f"on {model.confidence_.basis}."
    )
    show = _Shown(model)
    parts = [_summary(model, found), _map(model), _confusions(model, found)]
    parts += _lists(model, found, show)
    parts.append(_gallery(model, found, show))
    write_page(path, title, subtitle, parts)
    return found


class _Shown:
    """An example as HTML: its picture, or its text."""

    def __init__(self, model: FewShotClassifier) -> None:
        self.support = model.support_
        self.names = [str(c) for c in model.classes_]
        self.labels = [self.names[code] for code in model.labels_.tolist()]

    def __call__(self, row: int, frame: str = "#e2e8f0") -> str:
        name = html.escape(self.support.names[row])
        if self.support.thumbnails is None:
            return f"<span>{name}</span>"
        data = _png(self.support.thumbnails[row])
        style = f"width:56px;height:56px;border:3px solid {frame};image-rendering:pixelated"
        return (
            f'<img alt="{name}" title="{name}" style="{style}" src="data:image/png;base64,{data}">'
        )

    def row(self, row: int, *cells: str) -> str:
        """A line of a table: the example, its name and label, and more."""
        name = html.escape(self.support.names[row])
        own = "" if self.support.thumbnails is None else f'<td class="task note">{name}</td>'
        words = [html.escape(self.labels[row]), *map(html.escape, cells)]
        rest = "".join(f"<td>{word}</td>" for word in words)
        return f'<tr class="example"><td>{self(row)}</td>{own}{rest}</tr>'


def _png(image: Tensor) -> str:
    pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _summary(model: FewShotClassifier, found: Inspection) -> str:
    asked = len(found.rows)
    if asked == 0:
        return (
            "<p>Every class has one example, so that none can be recognised by the others: add a "
            "second one of each to learn more from this page.</p>"
        )
    words = [
        f"Left out in turn, <b>{found.right} of {asked}</b> examples are recognised by the others."
    ]
    if asked < 30:
        words.append("That is few to judge by.")
    for count, what in (
        (len(found.doubts), "Labels in doubt"),
        (len(found.harms), "Examples that make the others worse"),
        (len(found.pairs), "Near duplicates"),
    ):
        if count:
            words.append(f"{what}: {count}.")
    return f"<p>{' '.join(words)}</p>"


def _map(model: FewShotClassifier) -> str:
    chosen = model.labels_ < MOST_CLASSES
    features = first_tensor(model.support_.features)[chosen].flatten(1)
    if len(features.unique(dim=0)) < 5:
        return ""
    small = model.support_.thumbnails
    images = None if small is None else small[chosen].float() / 255
    more = len(model.classes_) - MOST_CLASSES
    picture = Picture(
        "How the learner sees the examples",
        "t-SNE of their features: neighbours look alike to the learner."
        + (f" {more} more classes are left out." if more > 0 else ""),
        plots.embedding_map(features, model.labels_[chosen], images, None),
    )
    # As HTML, which has every script, and wraps on a narrow screen.
    names = [html.escape(str(name)) for name in model.classes_[:MOST_CLASSES]]
    key = "".join(
        f'<span><i style="background:{color}"></i>{name}</span>'
        for name, color in zip(names, plots.class_colors(len(names)), strict=True)
    )
    return f'{picture_as_html(picture)}<p class="key">{key}</p>'


def _confusions(model: FewShotClassifier, found: Inspection) -> str:
    names = [html.escape(str(c)) for c in model.classes_]
    if len(found.rows) == 0:
        return ""
    if len(names) > MOST_CLASSES:
        wrong = found.confusion.clone()
        wrong.fill_diagonal_(0)
        pairs = sorted(
            ((int(wrong[i, j]), i, j) for i, j in wrong.nonzero().tolist()), reverse=True
        )
        rows = [
            f"<tr><td>{names[i]}</td><td>{names[j]}</td><td>{n}</td></tr>" for n, i, j in pairs[:50]
        ]
        return _section("Confusions", _table(["label", "answered as", "times"], rows))
    cells = []
    for i, name in enumerate(names):
        row = "".join(_cell(int(n), i == j) for j, n in enumerate(found.confusion[i].tolist()))
        cells.append(f"<tr><th>{name}</th>{row}</tr>")
    head = "".join(f'<th class="matrix">{name}</th>' for name in names)
    inside = f"<tr><th></th>{head}</tr>{''.join(cells)}"
    table = f'<div class="wide"><table class="matrix">{inside}</table></div>'
    note = (
        '<p class="note">Rows: the label. Columns: what the others say, each example left out.</p>'
    )
    return _section("Confusions", table + note)


def _cell(count: int, right: bool) -> str:
    if not count:
        return '<td class="matrix note">·</td>'
    color = plots.RIGHT if right else plots.WRONG
    return f'<td class="matrix" style="color:{color};font-weight:600">{count}</td>'


def _lists(model: FewShotClassifier, found: Inspection, show: _Shown) -> list[str]:
    pictures = model.support_.thumbnails is not None
    head = ["example", "name", "label"] if pictures else ["example", "label"]
    parts = []
    if found.doubts:
        rows = [show.row(d.row, show.names[d.answer], f"{d.probability:.0%}") for d in found.doubts]
        parts.append(
            _section(
                "Labels in doubt",
                "<p>The other examples would call these something else: look whether the label is "
                "right.</p>" + _table([*head, "the others say", "sure"], rows),
            )
        )
    if found.harms:
        rows = [show.row(h.row, f"{h.loss:.3f}") for h in found.harms]
        parts.append(
            _section(
                "Examples that make the others worse",
                "<p>Without one of these the others are recognised better: it may be mislabelled, "
                "blurred, or of another kind.</p>" + _table([*head, "loss falls by"], rows),
            )
        )
    if found.pairs:
        rows = [
            f'<tr class="example"><td class="pair">{show(i)} {show(j)}</td>'
            f"<td>{html.escape(show.labels[i])}</td>"
            f"<td>{html.escape(show.labels[j])}</td><td>{distance:.1%}</td></tr>"
            for (i, j), distance, _ in found.pairs[:100]
        ]
        parts.append(
            _section(
                "Near duplicates",
                "<p>A copy teaches nothing new, and two labels for one thing are a mistake.</p>"
                + _table(["examples", "label", "label", "of the median distance"], rows),
            )
        )
    return parts


def _gallery(model: FewShotClassifier, found: Inspection, show: _Shown) -> str:
    """All examples by class; a red frame where the others would call it something else."""
    if model.support_.thumbnails is None:
        return ""
    wrong = {d.row for d in found.doubts}
    parts = []
    for code, name in enumerate(show.names):
        rows = (model.labels_ == code).nonzero().flatten().tolist()
        images = " ".join(show(r, plots.WRONG if r in wrong else "#e2e8f0") for r in rows)
        parts.append(f"<h3>{html.escape(name)} ({len(rows)})</h3><p>{images}</p>")
    return _section("All examples", "".join(parts))


def _section(heading: str, body: str) -> str:
    return f"<h2>{heading}</h2>{body}"


def _table(heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{h}</th>" for h in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
