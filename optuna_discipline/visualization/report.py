"""Write a study's report: one HTML file that opens offline, verdict first."""

import html
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.study import Study

from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.printable import printable
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.trainer import OPTIMIZERS
from optuna_discipline.trial_record import TERMS_KEY
from optuna_discipline.visualization import cost
from optuna_discipline.visualization import loss_curve
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import recipe
from optuna_discipline.visualization import schedule
from optuna_discipline.visualization import story
from optuna_discipline.visualization import style
from optuna_discipline.visualization.story import Story
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

STYLE = """
:root { --ink: #1a1a1a; --page: #fff; --line: #ccc; --soft: #f3f3f3; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --page: #161616; --line: #444; --soft: #222; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 1040px; padding: 1rem 1.5rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.verdict { font-size: 1.15rem; padding: .8rem 1rem; background: var(--soft); border-left: 4px solid #009E73; }
.wide { overflow-x: auto; overflow-wrap: normal; }
.caption { margin-bottom: 0; }
.figure text { fill: var(--ink) !important; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td:last-child { min-width: 6rem; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; }
h2 { break-after: avoid; }
@media screen { :root { color-scheme: light dark; } }
@media (hover: none), print { .modebar { display: none; } }
@page { margin: 15mm; }
@media print { body { max-width: none; padding: 0; } .verdict, .picture, tr, pre { break-inside: avoid; }
  thead { break-after: avoid; } .wide { overflow: visible; } pre { white-space: pre-wrap; } }
"""
# Of a page on which plotly does not run.
WITHOUT_SCRIPT = "<noscript><style>.figure { display: none; }</style></noscript>"
NO_PICTURES = "<noscript><p>The pictures of this report need JavaScript.</p></noscript>"

HEAD = 1024  # bytes in which HTML is told from other files


def write_report(study: Study, path: str | os.PathLike[str]) -> Path:
    """Write the report of a study as one HTML file of about 5 MB (plotly is inside); return its path.

    The file is written beside its place and renamed, so a former report stays whole until the new one is; who may read
    that may read this. A symbolic link stays one, and what it points to is written.

    Raises:
        TypeError: If `study` is no study, or `path` no path.
        UnsupportedStudyError: If it has several objectives.
        FileNotFoundError: If the folder of `path` does not exist.
        ValueError: If `path` is a folder, a device, a pipe or a link to itself, or a file that holds no HTML, such as
            the study's own.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be the name of a file such as 'report.html', but got {path!r}.")
    target = Path(path)
    check_place("`path`", target)
    with naming_a_lost_study(study):
        page = as_html(study)
    _replace(Path(os.path.realpath(target)), page)
    return target


def check_place(name: str, place: Path) -> None:
    """Refuse a place to which no report can be written, or where one would replace what is none.

    Args:
        name: What an error calls it, such as the option that gave it.
        place: Where the report is to lie.

    Raises:
        FileNotFoundError: If its folder does not exist.
        ValueError: If it is no file, or one that holds no HTML.
    """
    if place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "no plain file"
        raise ValueError(f"{name} must be a file such as report.html, but {str(place)!r} is {kind}.")
    if place.exists() and not _may_be_replaced(place):
        raise ValueError(
            f"{name} must be a new file or one of HTML, as a former report is, but {str(place)!r} holds something "
            "else, which would be lost: give another."
        )
    end = Path(os.path.realpath(place))
    if end.is_symlink():
        raise ValueError(f"{name} must be a file such as report.html, but {str(place)!r} is a link to itself.")
    if not end.parent.is_dir():
        raise FileNotFoundError(f"{name} must lie in an existing folder, but {str(end.parent)!r} does not exist.")


def _may_be_replaced(file: Path) -> bool:
    """Whether a file is empty or begins as HTML does."""
    with file.open("rb") as content:
        start = content.read(HEAD).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return not start or start.startswith((b"<!doctype html", b"<html"))


def _replace(place: Path, page: str) -> None:
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    file = beside.open("x", encoding="utf-8")  # not by tempfile: the user's umask says who may read it
    try:
        with file:
            if place.exists():
                shutil.copymode(place, beside)
            file.write(page)
        os.replace(beside, place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def as_html(source: Study | StudyView) -> str:
    """Return the page of a report."""
    view = view_of(source)
    told = story.collect(view)
    title = f"Report of the study {view.study.study_name}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="verdict">{_text(told.headline)}</p>',
        NO_PICTURES,
        *_list("Mind", told.warnings),
        *_best(told, view.study.user_attrs.get(TERMS_KEY)),
        "<h2>LR range test</h2>",
        f"<p>{_text(told.range_test)}</p>" if told.range_test else "",
        _figure(range_test.plot_range_test(view.study), captioned=False),
        "<h2>Stages</h2>",
        _stages(told) if told.stages else "",
        _figure(recipe.draw(recipe.collect(view))),
        "<h2>The best run</h2>",
        _figure(loss_curve.draw(loss_curve.collect(view))),
        _figure(schedule.draw(schedule.collect(view))),
        "<h2>Cost</h2>",
        f"<p>{told.cost:.1f} full trainings{marks.of_range_test(view.study)}.</p>",
        _figure(cost.draw(cost.collect(view))),
        *_list("What to try next", told.next_steps),
        *_list("How to read this", told.how_to_read),
    ]
    script = require("plotly.offline", extra="plots").get_plotlyjs()
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style>{WITHOUT_SCRIPT}<script>{script}</script></head>\n'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _best(told: Story, terms: Any) -> list[str]:
    if not told.best_params:
        return []
    rows = "".join(f"<tr><td>{_text(n)}</td><td>{_text(marks.show(v))}</td></tr>" for n, v in told.best_params.items())
    table = f"<table><thead><tr><th>parameter</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"
    code = _code(told.best_params, terms)
    return ["<h2>Best configuration</h2>", table, f"<pre>{_text(code)}</pre>" if code else ""]


def _code(params: Mapping[str, Any], terms: Any) -> str:
    """Return code that trains as `tune` did, whose terms the study keeps; "" for any other study."""
    optimizer = terms.get("optimizer") if isinstance(terms, Mapping) else None
    names = ("lr", "momentum", "weight_decay", "batch_size", "epochs")
    if optimizer not in OPTIMIZERS or not all(is_number(params.get(name)) for name in names):
        return ""
    lr, momentum, decay = (f"{params[name]:.4g}" for name in names[:3])
    batch, epochs = round(params["batch_size"]), round(params["epochs"])
    return (
        "from optuna_discipline import OneCycle, cut_anew, train_epochs\n\n"
        "train_options = {}  # as `tune` was given them, like the model, the loss and the data\n"
        f"batches = cut_anew(train_data, batch_size={batch}, shuffle=True, drop_lone=True)\n"
        'updates = -(-len(batches) // train_options.get("accumulate", 1))\n'
        f"schedule = OneCycle({lr}, total_steps={epochs} * updates, max_momentum={momentum})\n"
        "for log in train_epochs(model, loss_fn, batches, val_data, schedule, optimizer="
        f"{optimizer!r},\n"
        f"                        weight_decay={decay}, **train_options):\n"
        "    print(log)\n"
    )


def _stages(told: Story) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("stage", "purpose", "trials", "values tried", "decision", "its best")
    )
    rows = []
    for row in told.stages:
        cells = (marks.spoken(row.stage), row.purpose, str(row.n_trials), row.tried, row.decision, row.outcome)
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _list(title: str, entries: tuple[str, ...]) -> list[str]:
    if not entries:
        return []
    return [f"<h2>{title}</h2>", "<ul>", *(f"<li>{_text(entry)}</li>" for entry in entries), "</ul>"]


def _figure(figure: Any, *, captioned: bool = True) -> str:
    if not figure.data:  # its remark alone, without the empty room around it
        remarks = " ".join(annotation.text.replace("<br>", " ") for annotation in figure.layout.annotations)
        return f"<p>{_text(remarks)}</p>"
    caption = style.caption(figure)
    words = f'<p class="caption">{_text(caption)}</p>' if captioned else ""
    inner = figure.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True, "displaylogo": False})
    return f'<div class="picture">{words}<div class="figure">{inner}</div></div>'


def _text(text: str) -> str:
    return html.escape("\n".join(printable(line) for line in text.split("\n")), quote=True)
