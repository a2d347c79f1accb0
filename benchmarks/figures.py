"""Make the README's pictures from the study that `scripts/demo` left: `python -m benchmarks.figures`.

Two plots of the study beside each other, optuna-dashboard and the report, as a visitor sees them. `scripts/screenshots`
tunes the study first if it is not there. Needs Playwright and a Chromium; says how to install them.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna

from benchmarks import browser
from optuna_discipline import plot_cost
from optuna_discipline import plot_recipe
from optuna_discipline import write_report

FIGURES = Path(__file__).parent / "figures"
STUDY, DASHBOARD, REPORT = "digits_study.png", "dashboard.png", "report.png"
WIDTH = 1280
PATIENCE = 60_000  # milliseconds: a cold browser takes its time


def main() -> int:
    """Write the pictures into `benchmarks/figures`; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="sqlite:///discipline-demo/study.db")
    parser.add_argument("--study-name", default="discipline")
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    command = browser.missing()
    if command is not None:
        print(f"no browser: {command}", file=sys.stderr)
        return 1
    study = optuna.load_study(study_name=arguments.study_name, storage=arguments.storage)
    arguments.out.mkdir(exist_ok=True)
    with browser.chromium() as chromium:
        shoot_plots(chromium, [plot_recipe(study), plot_cost(study)], arguments.out / STUDY)
        shoot_report(chromium, study, arguments.out / REPORT)
        with browser.dashboard(arguments.storage) as address:
            page = f"{address}/dashboard/studies/{study._study_id}"
            shoot_dashboard(chromium, page, arguments.out / DASHBOARD)
    for name in (STUDY, REPORT, DASHBOARD):
        print(arguments.out / name)
    return 0


def shoot_plots(chromium: Any, figures: list[Any], target: Path) -> None:
    """Write plotly figures beside each other, on white."""
    width = WIDTH // len(figures)
    parts = []
    for index, figure in enumerate(figures):
        figure.update_layout(width=width, font={"color": "#333"})
        inner = figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displayModeBar": False})
        parts.append(f'<div style="width:{width}px">{inner}</div>')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plots.html"
        file.write_text(
            f'<body style="margin:0;background:#fff"><div style="display:flex">{"".join(parts)}</div>', "utf-8"
        )
        page = chromium.new_page(viewport={"width": WIDTH, "height": 450})
        page.goto(browser.file_url(file))
        page.locator(".main-svg").nth(3 * (len(figures) - 1)).wait_for(timeout=PATIENCE)
        page.screenshot(path=target)


def shoot_report(chromium: Any, study: optuna.Study, target: Path) -> None:
    """Write the top of the report: verdict, best configuration, range test."""
    with tempfile.TemporaryDirectory() as folder:
        page = chromium.new_page(viewport={"width": 1100, "height": 1000})
        page.goto(browser.file_url(write_report(study, Path(folder) / "report.html")))
        page.locator(".main-svg").first.wait_for(timeout=PATIENCE)
        page.screenshot(path=target)


def shoot_dashboard(chromium: Any, address: str, target: Path) -> None:
    """Write the four pictures on the dashboard's history page, in dark."""
    page = chromium.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="dark").new_page()
    page.goto(address)
    for title in ("1. ", "2. ", "3. ", "4. "):
        page.locator(".gtitle", has_text=title).first.wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1000)  # the dashboard's own plots above move ours down
    boxes = [plot.bounding_box() for plot in page.locator(".js-plotly-plot").all() if _is_ours(plot)]
    top, bottom = min(box["y"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
    clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top}
    page.screenshot(path=target, full_page=True, clip=clip)


def _is_ours(plot: Any) -> bool:
    return any(plot.locator(".gtitle", has_text=f"{number}. ").count() for number in range(1, 5))


if __name__ == "__main__":
    sys.exit(main())
