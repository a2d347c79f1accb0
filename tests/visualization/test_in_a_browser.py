"""The dashboard and the report in a real browser, made from real studies, one of them hostile."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks import browser as browsers
from optuna_discipline import publish
from optuna_discipline import write_report
from optuna_discipline.visualization import dashboard

pytest.importorskip("optuna_dashboard")
pytestmark = [
    pytest.mark.skipif(browsers.missing() is not None, reason=f"no browser: {browsers.missing()}"),
    # all in one process, which starts browser and dashboard once
    pytest.mark.xdist_group("browser"),
]
TITLES = ("1. What each stage compared", "2. Cost and best so far", "3. LR range test", "4. Loss curve")
PATIENCE = 60_000  # milliseconds: a cold browser takes its time
# The dashboard turns its logo until it has loaded itself, which costs more than the loading where there is no GPU.
STAND_STILL = """
new MutationObserver((_, observer) => {
  if (!document.head) return;
  observer.disconnect();
  const style = document.createElement("style");
  style.textContent = ".optuna-animation { animation: none !important }";
  document.head.append(style);
}).observe(document, { childList: true, subtree: true });
"""


def copy(study: optuna.Study, name: str, storage: str) -> optuna.Study:
    made = optuna.create_study(study_name=name, storage=storage)
    made.add_trials([trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()])
    for key, value in study.user_attrs.items():
        made.set_user_attr(key, value)
    return made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browsers.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def storage(study: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a storage of a real study, and of one that holds failed and running trials only."""
    url = f"sqlite:///{tmp_path_factory.mktemp('browser') / 'study.db'}"
    copy(study, "bowl", url)
    broken = optuna.create_study(study_name="failed and running", storage=url)
    broken.tell(broken.ask(), state=optuna.trial.TrialState.FAIL)
    broken.ask()
    return url


@pytest.fixture(scope="module")
def address(storage: str) -> Iterator[str]:
    with browsers.dashboard(storage) as address:
        yield address


class Page:
    """A page that keeps what went wrong on it."""

    def __init__(self, chromium: Any, *, touch: bool = False) -> None:
        self.context = chromium.new_context(has_touch=touch, is_mobile=touch)
        self.context.add_init_script(STAND_STILL)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.look()

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def look(self, width: int = 1440, scheme: str = "light") -> None:
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(media="screen", color_scheme=scheme)

    def boxes(self, selector: str) -> list[dict[str, float]]:
        return [box for found in self.page.locator(selector).all() if (box := found.bounding_box()) is not None]

    def background(self) -> str:
        return str(self.page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.fixture(scope="module")
def window(chromium: Any) -> Iterator[Page]:
    with Page(chromium) as window:
        yield window


@pytest.fixture
def one(window: Page, address: str) -> Page:
    """Return the one page of all tests: a new one compiles the dashboard anew, which takes longer than a test."""
    window.page.goto(f"{address}/api/studies")  # where no program runs: what the last test left has come to its end
    window.look()
    window.wrong.clear()
    window.asked.clear()
    return window


def overlap(one: dict[str, float], two: dict[str, float]) -> bool:
    wide = min(one["x"] + one["width"], two["x"] + two["width"]) - max(one["x"], two["x"])
    high = min(one["y"] + one["height"], two["y"] + two["height"]) - max(one["y"], two["y"])
    return wide > 1 and high > 1


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (800, "dark")])
def test_the_history_page_shows_the_four_pictures_whole(one: Page, address: str, width: int, scheme: str) -> None:
    one.look(width, scheme)
    one.page.goto(f"{address}/dashboard/studies/1")
    for title in TITLES:
        one.page.get_by_text(title).first.wait_for(timeout=PATIENCE)
    # the page cuts off what is higher than its frame
    frames = one.boxes(".js-plotly-plot:has(.gtitle)")
    pictures = one.boxes(".js-plotly-plot:has(.gtitle) .main-svg:has(.gtitle)")
    assert len(frames) == len(pictures) == 4
    for frame, picture in zip(frames, pictures, strict=True):
        assert picture["y"] + picture["height"] <= frame["y"] + frame["height"] + 1
        assert picture["x"] + picture["width"] <= frame["x"] + frame["width"] + 1
    assert not any(overlap(a, b) for i, a in enumerate(frames) for b in frames[i + 1 :])
    one.page.get_by_text("report.html").first.wait_for(timeout=PATIENCE)
    assert one.wrong == []


def test_the_note_page_shows_the_story_and_its_tables(one: Page, address: str) -> None:
    one.page.goto(f"{address}/dashboard/studies/1/note")
    one.page.get_by_role("heading", name="What was decided").wait_for(timeout=PATIENCE)
    tables = one.page.get_by_role("table").all()
    assert [table.get_by_role("row").count() for table in tables] == [4, 7]
    assert "compare momenta" in tables[1].inner_text()
    assert one.wrong == []


def test_a_trial_has_its_note(one: Page, address: str, study: optuna.Study) -> None:
    best = study.best_trial  # its note comes first
    one.page.goto(f"{address}/dashboard/studies/1/trials?numbers={best.number}")
    one.page.get_by_text("What its curve shows:").wait_for(timeout=PATIENCE)
    assert best.user_attrs["reason"][:40] in one.page.inner_text("body")
    assert one.wrong == []


def test_a_study_of_failed_and_running_trials_has_its_pages(one: Page, address: str) -> None:
    one.page.goto(f"{address}/dashboard/studies/2/note")
    one.page.get_by_text("2 trials have been started, 1 has not ended.").wait_for(timeout=PATIENCE)
    one.page.locator("a[href='/dashboard/studies/2']").click()
    one.page.get_by_text("No trial has ended at").wait_for(timeout=PATIENCE)
    assert one.wrong == []


def test_the_artifact_of_the_dashboard_is_the_report(address: str) -> None:
    with urllib.request.urlopen(f"{address}/api/studies/1") as answer:
        (artifact,) = json.load(answer)["artifacts"]
    with urllib.request.urlopen(f"{address}/artifacts/1/{artifact['artifact_id']}") as answer:
        assert answer.headers["Content-Type"] == "text/html"
        assert b"<title>Report of the study bowl</title>" in answer.read()


def test_a_study_that_the_dashboard_renamed_is_published_again(study: optuna.Study, storage: str, address: str) -> None:
    copy(study, "before", storage)
    publish(optuna.load_study(study_name="before", storage=storage))
    body = json.dumps({"study_name": "after"}).encode()
    header = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{address}/api/studies/3/rename", body, header), timeout=60
    ) as answer:
        renamed = json.load(answer)["study_id"]
    publish(optuna.load_study(study_name="after", storage=storage))
    with urllib.request.urlopen(f"{address}/api/studies/{renamed}") as answer:
        detail = json.load(answer)
    drawn = {graph["id"]: json.loads(graph["graph_object"]) for graph in detail["plotly_graph_objects"]}
    assert len(drawn) == len(TITLES)
    assert drawn[dashboard.RANGE_TEST_ID]["data"]
    assert detail["note"]["body"].startswith("# What was decided")
    assert sum(bool(trial["note"]["body"]) for trial in detail["trials"]) >= 1  # more where writing is quick
    assert [attribute["key"] for attribute in detail["user_attrs"]] == ["discipline:settings"]


def test_the_report_opens_offline_and_fits_its_page(one: Page, study: optuna.Study, tmp_path: Path) -> None:
    path = write_report(study, tmp_path / "report.html")
    one.page.goto(browsers.file_url(path))
    one.page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    assert one.page.locator(".js-plotly-plot").count() == 5
    assert one.page.get_by_role("table").count() == 2
    for width, scheme, background in ((1440, "light", "255, 255, 255"), (800, "dark", "22, 22, 22")):
        one.look(width, scheme)
        one.page.wait_for_function(f"document.querySelector('.main-svg').getBoundingClientRect().right <= {width}")
        assert one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert all(box["x"] + box["width"] <= width for box in one.boxes(".main-svg"))
        assert one.background() == f"rgb({background})"
    assert [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    one.page.emulate_media(media="print", color_scheme="dark")
    assert one.background() == "rgb(255, 255, 255)"
    assert one.wrong == []


def test_long_names_do_not_make_the_report_wider_than_a_phone(one: Page, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="a_long_name_" * 20)
    study.optimize(lambda trial: trial.suggest_float("a_long_name_" * 20, 0, 1), n_trials=1)
    one.look(400)
    one.page.goto(browsers.file_url(write_report(study, tmp_path / "report.html")))
    one.page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    assert one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_hostile_text_runs_nowhere(one: Page, plain: optuna.Study, storage: str, address: str, tmp_path: Path) -> None:
    hostile = copy(plain, "<script>alert(1)</script>", storage)
    publish(hostile)
    one.page.goto(browsers.file_url(write_report(hostile, tmp_path / "report.html")))
    one.page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    for page in ("", "/note", "/trials"):
        one.page.goto(f"{address}/dashboard/studies/{hostile._study_id}{page}")
        one.page.get_by_text("alert(1)").first.wait_for(timeout=PATIENCE)
        assert one.page.locator("img[src=x]").count() == 0
    assert one.wrong == []


def test_a_touch_screen_gets_the_report_without_the_buttons_that_lie_over_its_titles(
    one: Page, chromium: Any, plain: optuna.Study, tmp_path: Path
) -> None:
    path = write_report(plain, tmp_path / "report.html")
    with Page(chromium, touch=True) as touch:
        for each in (one, touch):
            each.page.goto(browsers.file_url(path))
            each.page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
        buttons = ".modebar-container .modebar"
        assert one.page.evaluate(f"getComputedStyle(document.querySelector('{buttons}')).display") != "none"
        assert touch.page.evaluate(f"getComputedStyle(document.querySelector('{buttons}')).display") == "none"
