"""A study written by somebody else: its text is shown as text, its records are read as data, nothing in it is run."""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
from optuna.trial import create_trial

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import SnapshotRestarts
from optuna_discipline import TrialReporter
from optuna_discipline import diagnose_study
from optuna_discipline import suggest_hyperparams
from optuna_discipline import write_report
from optuna_discipline.cli import main
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.snapshots import FILE_NAME
from optuna_discipline.trial_record import CLAIM_KEY
from optuna_discipline.trial_record import ROW_PREFIX
from optuna_discipline.trial_record import RUN_KEY
from optuna_discipline.trial_record import SETTINGS_KEY
from optuna_discipline.trial_record import SNAPSHOT_KEY
from optuna_discipline.visualization import terminal
from optuna_discipline.visualization.dashboard import publish
from optuna_discipline.visualization.note import study_note
from optuna_discipline.visualization.story import collect

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LINK = '<a href="javascript:alert(3)">[click](javascript:alert(4)) ![x](http://evil/p.png) http://evil www.evil.com'
ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e"
EVIL = f"'\"><{SCRIPT}{LINK}{ESCAPES}</pre></td>| `x` & &lt;b&gt;\n# heading"

ARTIFACT = {"filename": FILE_NAME, "mimetype": EVIL, "encoding": EVIL}
RESTART = {"restart_from": [EVIL], "keep_snapshot": {}}


def evil_study(storage: str | None = None, lr: Any = 0.1) -> optuna.Study:
    """Return a study that bears evil text wherever a study can bear text."""
    study = optuna.create_study(study_name=EVIL[:500], storage=storage)
    curve = [0.1, 2.3, 2.3, 0.5, None, 0]
    test = {
        "lrs": [1e-4 * 1.3**i for i in range(40)],
        "train_loss": [2.3 - 0.05 * i for i in range(40)],
        "stop_reason": EVIL,
        "settings": {"optimizer": EVIL},
    }
    study.set_user_attr(SETTINGS_KEY, {"recipe": EVIL, "roles": {EVIL: "weight_decay", "a": EVIL}})
    for number in range(3):
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=0.5 - number / 10,
                params={"lr": lr, "batch_size": EVIL, EVIL[:400]: 1e-3, "choice" + EVIL[:100]: EVIL, "epochs": 4},
                distributions={
                    "lr": FloatDistribution(1e-3, 1) if isinstance(lr, float) else CategoricalDistribution([lr]),
                    "batch_size": CategoricalDistribution([EVIL]),
                    EVIL[:400]: FloatDistribution(1e-3, 1),
                    "choice" + EVIL[:100]: CategoricalDistribution([EVIL, "b"]),
                    "epochs": IntDistribution(1, 4),
                },
                user_attrs={"stage": EVIL, "reason": EVIL, "pruned_because": EVIL},
                system_attrs={
                    CLAIM_KEY: {"stage": EVIL, "slot": EVIL, "number": number, "reason": EVIL, "like": EVIL, **RESTART},
                    "artifacts:1": json.dumps({"artifact_id": "../precious", **ARTIFACT}),
                    "artifacts:2": "null" if number == 1 else json.dumps({"artifact_id": "/precious", **ARTIFACT}),
                    RUN_KEY: {"n_epochs": 4, "metric": EVIL, "n_classes": 10},
                    RANGE_TEST_KEY: test,
                    **{f"{ROW_PREFIX}{epoch}": [*curve[:-1], number] for epoch in range(4)},
                },
                intermediate_values=dict.fromkeys(range(4), 0.5),
            )
        )
    return study


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and its text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.scripts = 0
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.lasttag != "script":
            self.text += data


def figure_texts(part: Any) -> Iterator[str]:
    """Yield every text of a figure."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from figure_texts(key)
            yield from figure_texts(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from figure_texts(value)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return evil_study()


def test_the_report_shows_evil_text_as_text(study: optuna.Study, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    plain = optuna.create_study()
    plain.add_trial(create_trial(value=1.0, params={"lr": 0.1}, distributions={"lr": FloatDistribution(1e-3, 1)}))
    page, harmless = (
        Page(write_report(one, tmp_path / "report.html").read_text(encoding="utf-8")) for one in (study, plain)
    )
    assert SCRIPT in page.text
    own = {one: one.scripts - one.attributes.count(("class", "figure")) for one in (page, harmless)}  # a figure has one
    assert own[page] == own[harmless] == 1
    assert page.tags <= harmless.tags | {"ul", "li", "pre"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src")]
    assert links == ["data:,"] * len(links)


def test_no_figure_holds_a_tag_of_the_study(study: optuna.Study) -> None:
    pytest.importorskip("plotly")
    from optuna_discipline import plot_cost
    from optuna_discipline import plot_loss_curve
    from optuna_discipline import plot_range_test
    from optuna_discipline import plot_recipe

    for made in (plot_recipe(study), plot_cost(study), plot_range_test(study), plot_loss_curve(study.trials)):
        for text in figure_texts(json.loads(made.to_json())):
            assert set(re.findall(r"<\s*/?\s*(\w+)", text)) <= {"br", "span", "extra"}, text


def test_the_note_holds_no_html_no_link_and_no_table_cell_of_the_study(study: optuna.Study) -> None:
    pytest.importorskip("plotly")
    note = study_note(collect(study))
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", note)  # all that is not escaped
    assert "alert(1)" in bare
    assert not re.search(r"[<>\[\]`]|https?:|www\.|\n# heading", bare)
    for line in note.splitlines():
        if line.startswith("| parameter"):
            columns = line.count("|")
        elif line.startswith("| ") and "stage" not in line and "lr" in line[:5]:
            assert len(re.findall(r"(?<!\\)\|", line)) == columns
    assert "\x1b" not in note


def test_the_terminal_gets_no_escape_code(study: optuna.Study) -> None:
    best = study.best_trial
    lines = [terminal.trial_line(best), *terminal.decision_lines(study), *terminal.best_lines(study, best)]
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b" in line for line in lines)


def test_the_command_line_reads_an_evil_storage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    url = f"sqlite:///{tmp_path}/evil.db"
    evil_study(url)
    assert main(["report", "--storage", url, "--out", str(tmp_path / "report.html")]) == 0
    assert main(["diagnose", "--storage", url]) == 0
    assert main(["diagnose", "--storage", url, "--study-name", "other"]) == 2
    shown = capsys.readouterr()
    assert "the storage holds: '\\\"><<script>" in shown.err or "<script>alert(1)</script>" in shown.err
    for text in (*shown.out.splitlines(), *shown.err.splitlines()):
        assert text.isprintable()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".db"] == ["report.html"]


def test_publishing_and_diagnosing_an_evil_study_works(study: optuna.Study) -> None:
    pytest.importorskip("optuna_dashboard")
    publish(study)
    assert diagnose_study(study).advice


class Bomb:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.file}",))


def restarting_trial(artifact_id: object, content: bytes) -> optuna.Trial:
    """Return a trial that is told to go on from the snapshot of trial 0, whose checksum is right."""
    study = optuna.create_study()
    snapshot = {"number": 0, "artifact_id": artifact_id, "sha256": hashlib.sha256(content).hexdigest()}
    study.add_trial(create_trial(value=1.0, system_attrs={SNAPSHOT_KEY: snapshot}))
    trial = study.ask()
    claim = {"stage": "weight_decay", "slot": "weight_decay:1", "number": 1, "restart_from": 0}
    study._storage.set_trial_system_attr(trial._trial_id, CLAIM_KEY, claim)
    return trial


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_an_artifact_that_is_a_pickle_is_not_executed(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    store, made = tmp_path / "store", tmp_path / "made"
    store.mkdir()
    if kind == "pickle":
        (store / "bomb").write_bytes(pickle.dumps(Bomb(made), protocol=2))
    else:
        torch.save({"format": 1, "logs": Bomb(made)}, store / "bomb")
    trial = restarting_trial("bomb", (store / "bomb").read_bytes())
    with pytest.warns(UserWarning, match="Trial 1 trains from the start, because .* cannot be used"):
        assert SnapshotRestarts(store).of(trial).load() is None
    assert not made.exists()
    pickle.loads(pickle.dumps(Bomb(made)))
    assert made.exists()  # the bomb was one


@pytest.mark.parametrize("artifact_id", ["../outside", "a/../../outside", "{}/outside", "", ".", 3, None, ["x"]])
def test_an_artifact_cannot_lie_outside_its_folder(tmp_path: Path, artifact_id: Any) -> None:
    pytest.importorskip("torch")
    store, outside = tmp_path / "store", tmp_path / "outside"
    store.mkdir()
    outside.write_bytes(b"secret")
    place = artifact_id.format(tmp_path) if isinstance(artifact_id, str) else artifact_id
    trial = restarting_trial(place, b"secret")
    with pytest.warns(UserWarning, match="cannot be used: (?!.*cannot be read)"):
        assert SnapshotRestarts(store).of(trial).load() is None


def test_nothing_outside_the_artifact_folder_is_removed(tmp_path: Path) -> None:
    store, precious = tmp_path / "store", tmp_path / "precious"
    precious.write_text("mine")
    study = evil_study()
    study.set_user_attr(SETTINGS_KEY, {"recipe": {"stages": ["weight_decay", EVIL]}})
    for bearer in (study, evil_study()):  # with settings, and with some that are none
        with pytest.warns(UserWarning, match=r"The snapshot of trial \d cannot be removed: Invalid artifact_id"):
            SnapshotRestarts(store)(bearer, bearer.trials[-1])
    assert precious.read_text() == "mine"


@pytest.mark.filterwarnings("ignore:The study .* was begun with other settings:UserWarning")
def test_the_sampler_goes_on_with_an_evil_study_and_obeys_the_bounds(tmp_path: Path) -> None:
    study = evil_study()
    study.sampler, study.pruner = DisciplinedSampler(seed=0), DisciplinedPruner()

    def objective(trial: optuna.Trial) -> float:
        p = suggest_hyperparams(trial, lr=(1e-3, 1), epochs=(1, 4))
        assert 1e-3 <= p.max_lr <= 1
        TrialReporter(trial, n_epochs=4).report(EpochLog(0, p.max_lr, 0.5, 0.5))
        return 0.5

    study.optimize(objective, n_trials=3)
    assert [trial.state for trial in study.trials[3:]] == [TrialState.COMPLETE] * 3


TEST = {"lrs": [0.1] * 40, "train_loss": [1.0] * 40, "stop_reason": "", "settings": {"optimizer": [{}]}}


@pytest.mark.parametrize(
    "damage",
    [
        3,
        "text",
        [],
        {},
        {"stage": [], "slot": {}},
        {"stage": "lr", "slot": 3},
        None,
        True,
        TEST,
        {**TEST, "settings": 3},
        {**TEST, "planned_steps": "x"},
    ],
)
@pytest.mark.filterwarnings("ignore:The study:UserWarning")
def test_records_of_any_shape_are_read_as_damaged(damage: object) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0), pruner=DisciplinedPruner())
    study.set_user_attr(SETTINGS_KEY, damage)
    attributes = dict.fromkeys((CLAIM_KEY, RUN_KEY, RANGE_TEST_KEY, f"{ROW_PREFIX}0", f"{ROW_PREFIX}x"), damage)
    study.add_trial(
        create_trial(
            value=0.5,
            params={"lr": 0.1},
            distributions={"lr": FloatDistribution(1e-3, 1)},
            user_attrs={"stage": damage, "reason": damage, "pruned_because": damage},
            system_attrs=attributes,
        )
    )
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-3, 1), n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert list(terminal.decision_lines(study))
    assert study_note(collect(study))
