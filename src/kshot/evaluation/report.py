"""A run as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from kshot.evaluation.record import Result
from kshot.files import atomic, write_text

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.note, td.note { color: #64748b; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
div.wide { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #e2e8f0;
         vertical-align: baseline; white-space: nowrap; }
tr.example td { vertical-align: middle; }
td.matrix, th.matrix { text-align: right; padding-left: .7rem; }
td.task { white-space: normal; min-width: 11rem; overflow-wrap: anywhere; }
tr.example td, tr.example th, table.matrix th { white-space: normal; max-width: 14rem;
         overflow-wrap: anywhere; }
table.matrix th { min-width: 4rem; }
td.pair { min-width: 130px; } h3 { overflow-wrap: anywhere; }
p.key span { display: inline-block; margin-right: 1rem; overflow-wrap: anywhere; }
p.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%;
         margin-right: .4rem; }
tr.first td { border-top: 2px solid #94a3b8; } td.score { font-weight: 600; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption { color: #64748b; font-size: .9rem; }
pre { background: #f1f5f9; padding: 1rem; overflow-x: auto; font-size: .85rem; }
</style></head><body>
<h1>$title</h1><p class="note">$subtitle</p>
$body
</body></html>
""")


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        heading: above it.
        caption: below it.
        figure: itself.
    """

    heading: str
    caption: str
    figure: Figure


def write_report(
    path: Path,
    title: str,
    subtitle: str,
    results: Sequence[Result],
    pictures: Sequence[Picture],
    config: dict[str, Any],
) -> None:
    """Write the page: table first, then the pictures, then the configuration.

    Raises:
        CheckpointError: if it cannot be written.
    """
    parts = [_table(results)] if results else []
    parts += [picture_as_html(p) for p in pictures]
    dump = html.escape(json.dumps(config, indent=2))
    parts.append(f"<h2>Configuration</h2><pre>{dump}</pre>")
    write_page(path, title, subtitle, parts)


def write_page(path: Path, title: str, subtitle: str, parts: Sequence[str]) -> None:
    """Write a page of parts that are HTML already.

    Raises:
        CheckpointError: if it cannot be written.
    """
    words = {"title": html.escape(title), "subtitle": html.escape(subtitle)}
    write_text(path, _PAGE.substitute(words, body="\n".join(parts)))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic(path) as temporary:
        _write_png(figure, temporary)


def _write_png(figure: Figure, file: Path | io.BytesIO) -> None:
    # Tight, so that a text that goes beyond the figure widens the picture.
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")


def picture_as_html(picture: Picture) -> str:
    """A figure within the page."""
    buffer = io.BytesIO()
    _write_png(picture.figure, buffer)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = html.escape(picture.caption)
    return (
        f"<h2>{html.escape(picture.heading)}</h2><figure>"
        f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(results: Sequence[Result]) -> str:
    metric = "Accuracy" if results[0].metric == "accuracy" else "Mean squared error"
    extra = list(dict.fromkeys(key for result in results for key in result.extra))
    heads = ["task", "method", metric, "episodes", "protocol"]
    heads += [key.replace("_", " ") for key in extra]
    classes = ["task", "", "score", "", "note", *("note" for _ in extra)]
    rows = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in heads) + "</tr>"]
    before = ("", "")
    for result in results:
        group = result.heading, result.episode_hash
        cells = [
            "" if group == before else result.heading,
            result.name,
            str(result),
            str(result.episodes),
            result.protocol,
            *(f"{result.extra[k]:.3f}" if k in result.extra else "" for k in extra),
        ]
        tds = "".join(
            f'<td class="{c}">{html.escape(v)}</td>' for c, v in zip(classes, cells, strict=True)
        )
        rows.append(f'<tr class="{"first" if group != before else ""}">{tds}</tr>')
        before = group
    return (
        '<h2>Results on unseen tasks</h2><div class="wide"><table>' + "".join(rows) + "</table>"
        '</div><p class="note">± is the half-width of the 95 % interval over episodes '
        "(1.96 s / √n). Every method answers the same frozen episodes.</p>"
    )
