"""Draw the README's picture from the study that `scripts/demo` left: `python -m benchmarks.figures`.

Needs a Chromium to turn the figure into a PNG: `apt install chromium`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna

from optuna_discipline import plot_recipe

FIGURES = Path(__file__).parent / "figures"
WIDTH, HEIGHT = 900, 460


def main() -> int:
    """Write `benchmarks/figures/digits_study.png`; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="sqlite:///discipline-demo/study.db")
    parser.add_argument("--study-name", default="discipline")
    arguments = parser.parse_args()
    study = optuna.load_study(study_name=arguments.study_name, storage=arguments.storage)
    return save(plot_recipe(study), FIGURES / "digits_study.png")


def save(figure: Any, target: Path) -> int:
    """Write a plotly figure as a PNG of 900 x 460 pixels; return the exit code."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium on the path: apt install chromium", file=sys.stderr)
        return 1
    figure.update_layout(paper_bgcolor="white", width=WIDTH, height=HEIGHT, font={"color": "#333"})
    target.parent.mkdir(exist_ok=True)
    body = figure.to_html(full_html=False, config={"displayModeBar": False})
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        page.write_text(f"<body style='margin:0'>{body}</body>", encoding="utf-8")
        place = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}", page.as_uri()]
        subprocess.run([browser, *flags, *place], check=True, capture_output=True)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
