"""The tables of the READMEs are those that the benchmarks print from their result files."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import surrogates
from benchmarks import tabular
from benchmarks.duel import equal_time
from benchmarks.duel import floor
from benchmarks.duel import table
from benchmarks.duel.methods import PEERS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FRONT = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
SEEN, RETRAINED, TESTED = "Seen", "Retrained on fresh seeds, validation loss", "Retrained, test loss"
READINGS = {SEEN: table.seen, RETRAINED: table.retrained, TESTED: table.tested}
COSTS = (1, 2, 3, 5, 8, 10, 15, 20)
Duel = tuple[tuple[str, ...], int | None]  # folders, seeds
Rows = Mapping[str, list[str]]  # by method: cells
DUEL: Duel = (("duel",), None)
HELD_OUT: Duel = (("duel_held_out",), None)
FRESH: Duel = (("duel_fresh",), 2)
SILENT: Duel = (("duel", "duel_no_reports"), 2)
OTHER_NAMES = {
    "AutoSampler (OptunaHub)": "auto",
    "ours, range test first": "ours, range test",
    "with the range test first": "ours, range test",
    "without the refinement": "ours, no refinement",
}


@cache
def files(folder: str) -> table.Results:
    return table.load([RESULTS / folder])


def load(folders: tuple[str, ...], seeds: int | None) -> table.Results:
    found = [files(folder) for folder in folders]
    merged = {task: {name: runs for one in found for name, runs in one[task].items()} for task in found[0]}
    return table._complete(merged, seeds)


@cache
def regrets(duel: Duel, reading: str) -> dict[str, dict[str, np.ndarray]]:
    return table.regrets(load(*duel), READINGS[reading], list(COSTS))


def made(duel: Duel, reading: str, costs: tuple[int, ...] = COSTS) -> Rows:
    at = [COSTS.index(cost) for cost in costs]
    return {name: [table.cells(tasks)[i] for i in at] for name, tasks in regrets(duel, reading).items()}


def command(duel: Duel) -> str:
    folders, seeds = duel
    words = ["benchmarks.duel.table", *(f"benchmarks/results/{name}" for name in folders)]
    return " ".join([*words, "--seeds", str(seeds)] if seeds else words)


def section(heading: str) -> str:
    return next(part for part in re.split(r"\n(?=##+ )", BENCHMARKS) if part.startswith(f"{heading}\n"))


def printed(text: str, after: str) -> Rows:
    assert after in text, f"no table follows {after!r}"
    lines = text.split(after, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines[start + 1 : end])
    return {OTHER_NAMES.get(name.replace("**", ""), name.replace("**", "")): cells for name, *cells in rows}


def compare(there: Rows, now: Rows, module: str) -> None:
    assert "ours" in there
    for name, cells in there.items():
        wanted = ["-" if old == "-" else new for old, new in zip(cells, now[name], strict=True)]
        assert cells == wanted, f"the row of {name!r} is stale: print its table anew, `python -m {module}`"


@pytest.mark.parametrize(
    ("heading", "duel"),
    [("## The duel", DUEL), ("### The held-out duel", HELD_OUT), ("### The fresh duel", FRESH)],
)
def test_a_duels_tables_are_its_files(heading: str, duel: Duel, capsys: pytest.CaptureFixture[str]) -> None:
    for reading in READINGS:
        there, now = printed(section(heading), f"**{reading}**"), made(duel, reading)
        assert set(there) >= {"ours", *PEERS} & set(now)
        compare(there, now, command(duel))
        table._print_targets(regrets(duel, reading), list(COSTS))
    targets = {line.strip() for line in section(heading).splitlines() if re.match("(ours / best|tasks on which)", line)}
    stale = targets - set(capsys.readouterr().out.splitlines())
    assert not stale, f"print them anew, `python -m {command(duel)}`"
    assert len(targets) >= 6


def test_the_duels_smaller_tables_are_its_files() -> None:
    text = section("## The duel")
    for reading, head in ((SEEN, "| seen | 1 | 2 "), (RETRAINED, "| retrained | 1 | 2 ")):
        compare(printed(text, head), made(DUEL, reading), command(DUEL))
    there = printed(text, "Without reports (")
    costs = (2, 3, 5, 10, 20)
    seen, again = (made(SILENT, reading, costs) for reading in (SEEN, RETRAINED))
    compare(there, {name: seen[name] + again[name] for name in there}, command(SILENT))


def test_the_floor_is_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((RESULTS / "duel_floor.json").read_text(encoding="utf-8"))
    floor._print(load(*DUEL), {name: one["draws"] for name, one in found.items()})
    out = capsys.readouterr().out
    text, stale = section("## The duel"), "the floor is stale: print it anew, `python -m benchmarks.duel.floor`"
    assert next(line for line in out.splitlines() if line.startswith("| seen")) in text, stale
    ever = re.search(r"retrained, at any cost: 0(\.\d+)", out)
    assert ever
    assert f"Retrained it has {ever[1]} at any cost" in text, stale
    assert f" {ever[1]} retrained" in FRONT, stale


@cache
def of_surrogates(few: str) -> dict[str, list[np.ndarray]]:
    found = json.loads((RESULTS / "surrogates" / f"{few}-noise-0.json").read_text(encoding="utf-8"))["regret"]
    return {name: [np.mean(runs, axis=0) for runs in tables.values()] for name, tables in found.items()}


@pytest.mark.parametrize("few", ["four", "seven"])
def test_the_tables_of_surrogates_are_their_files(few: str, capsys: pytest.CaptureFixture[str]) -> None:
    tabular.print_means("", of_surrogates(few), surrogates.COSTS)
    there = printed(section("## Surrogates"), f"**{few.capitalize()} parameters**")
    compare(there, printed(capsys.readouterr().out, "| method"), "benchmarks.surrogates")


def test_the_table_of_tables_is_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, list[np.ndarray]] = {method: [] for method in tabular.METHODS}
    for method, name in ((method, name) for method in found for name in tabular.DATA_SETS):
        runs = json.loads((RESULTS / "tabular" / f"{name}-{method}.json").read_text(encoding="utf-8"))["regret"]
        found[method].append(np.mean([runs[str(seed)][:20] for seed in range(20)], axis=0))
    tabular.print_means("", found, [cost for cost in tabular.COSTS if cost <= 20])
    there, now = printed(section("## Tables"), "data sets)."), printed(capsys.readouterr().out, "| method")
    compare(there, now, "benchmarks.tabular --seeds 20 --budget 20")


def test_the_front_pages_tables_are_the_files() -> None:
    costs = (2, 5, 10, 20)
    seen, again = (made(DUEL, reading, costs) for reading in (SEEN, RETRAINED))
    now = {name: [cell.split()[0] for cell in seen[name] + again[name]] for name in seen}
    compare(printed(FRONT, "**Against Optuna's samplers.**"), now, command(DUEL))
    for link, duel in (("#the-held-out-duel", HELD_OUT), ("#the-fresh-duel", FRESH)):
        means = [against_peers(made(duel, reading, costs), i) for reading in (SEEN, RETRAINED) for i in range(4)]
        assert " | ".join(means) in row_of(link), f"print it anew, `python -m {command(duel)}`"
    for link, few in (("#surrogates", "four"), ("the same, 7 parameters", "seven")):
        rows = {
            name: [f"{np.mean(runs, axis=0)[c - 1]:.3f}" for c in costs] for name, runs in of_surrogates(few).items()
        }
        means = [against_peers(rows, i) for i in range(4)]
        assert " | ".join(means) in row_of(link), "print it anew, `python -m benchmarks.surrogates`"


def against_peers(rows: Rows, column: int) -> str:
    best = min(rows[name][column].split()[0] for name in PEERS if name in rows)
    return f"{rows['ours'][column].split()[0]} / {best}"


def row_of(fragment: str) -> str:
    return next(line for line in FRONT.splitlines() if line.startswith("|") and fragment in line)


def test_a_trial_costs_the_time_of_its_batches() -> None:
    trials = [{"cost": c, "spent": s, "params": {"batch_size": b}} for c, s, b in ((1.0, 1.2, 16), (0.5, 1.7, 64))]
    timed = equal_time.at_equal_time({"t": {"ours": {0: {"trials": trials}}}}, {16: 0.25, 64: 1.0, 256: 2.0})
    assert [t["spent"] for t in timed["t"]["ours"][0]["trials"]] == pytest.approx([4.2, 4.7])
    assert equal_time.throughput() == pytest.approx({16: 0.29, 64: 1.0, 256: 2.65}, abs=0.005)
