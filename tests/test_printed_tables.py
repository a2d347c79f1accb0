"""The READMEs' tables of the duels, the floor, the surrogates and HPOBench are those that their result files give.

So is the front page's first table, and of its second the rows of the duels and the surrogates. Nobody checks the other
tables (fifty trainings, studies as users write them, smooth functions, range test, pruner but for its caption, workers,
batch size, cycles, weight decay, ...), nor the numbers in the text, but for the floor's.
"""

import json
import re
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
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
UNTRAINED = ("box, ", "ours, range test")  # at a cost of one training: their range test leaves less than one
ABLATION = {"ours, no refinement"}  # has a table of its own
IN_FRONT = {"ours", "ours, range test", "default", "box, gp"} | {*PEERS} - {"gp + median", "qmc"}
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


@dataclass(frozen=True)
class Printed:
    """A table of a README: the words that lead to it, and by method the name as printed and the cells."""

    where: str
    rows: Rows


def made(duel: Duel, reading: str, costs: tuple[int, ...] = COSTS) -> Rows:
    at = [COSTS.index(cost) for cost in costs]
    rows = {name: [table.cells(tasks)[i] for i in at] for name, tasks in regrets(duel, reading).items()}
    first = ["-"] if costs[0] == 1 else []
    return {name: first + row[len(first) :] if name.startswith(UNTRAINED) else row for name, row in rows.items()}


def command(duel: Duel) -> str:
    folders, seeds = duel
    words = ["benchmarks.duel.table", *(f"benchmarks/results/{name}" for name in folders)]
    return " ".join([*words, "--seeds", str(seeds)] if seeds else words)


def section(heading: str) -> str:
    return next(part for part in re.split(r"\n(?=##+ )", BENCHMARKS) if part.startswith(f"{heading}\n"))


def printed(text: str, after: str, where: str) -> Printed:
    assert after in text, f"{where}: no table follows {after!r}"
    lines = text.split(after, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines[start + 1 : end])
    names = ((row[0].replace("**", ""), row) for row in rows)
    return Printed(f"{where}, table after {after!r}", {OTHER_NAMES.get(name, name): row for name, row in names})


def in_benchmarks(heading: str, after: str) -> Printed:
    return printed(section(heading), after, f"benchmarks/README.md, {heading!r}")


def reprinted(output: str, head: str = "| method") -> Rows:
    return {name: row[1:] for name, row in printed(output, head, "output").rows.items()}


def line_of(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def compare(there: Printed, now: Rows, module: str, names: Collection[str]) -> None:
    wrong = set(there.rows) ^ set(names)
    assert not wrong, f"{there.where}: missing, or too many: the rows of {sorted(wrong)}; see `python -m {module}`"
    for name, row in there.rows.items():
        wanted = line_of([row[0], *now[name]])
        cure = f"replace it by: {wanted} (all by `python -m {module}`)"
        assert line_of(row) == wanted, f"{there.where}: the row of {name!r} is stale; {cure}"


@pytest.mark.parametrize(
    ("heading", "duel"),
    [("## The duel", DUEL), ("### The held-out duel", HELD_OUT), ("### The fresh duel", FRESH)],
)
def test_a_duels_tables_are_its_files(heading: str, duel: Duel, capsys: pytest.CaptureFixture[str]) -> None:
    for reading in READINGS:
        there, now = in_benchmarks(heading, f"**{reading}**"), made(duel, reading)
        compare(there, now, command(duel), set(now) - ABLATION)
        table._print_targets(regrets(duel, reading), list(COSTS))
        wanted = re.findall("(?m)^(?:ours / best|tasks on which).*", capsys.readouterr().out)
        wanted = wanted if duel is DUEL else wanted[:2]  # the others' say nothing of our box
        part = re.split(r"\n\*\*", section(heading).split(f"**{reading}**", 1)[1])[0]
        found = [line.strip() for line in re.findall("(?m)^(?:ours / best|tasks on which).*", part)]
        cure = "replace them by:\n" + "  \n".join(wanted)
        assert found == wanted, f"{there.where}: the lines 'ours / best ...' are stale; {cure}"


def test_the_duels_smaller_tables_are_its_files() -> None:
    for reading, head in ((SEEN, "| seen | 1 | 2 "), (RETRAINED, "| retrained | 1 | 2 ")):
        names = {"ours", "ours, range test", *ABLATION}
        compare(in_benchmarks("## The duel", head), made(DUEL, reading), command(DUEL), names)
    costs = (2, 3, 5, 10, 20)
    seen, again = (made(SILENT, reading, costs) for reading in (SEEN, RETRAINED))
    now = {name: seen[name] + again[name] for name in seen}
    there = in_benchmarks("## The duel", "Without reports (")
    compare(there, now, command(SILENT), {"ours", "ours, no reports", "gp", "tpe"})


def test_the_floor_is_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((RESULTS / "duel_floor.json").read_text(encoding="utf-8"))
    floor._print(load(*DUEL), {name: one["draws"] for name, one in found.items()})
    out = capsys.readouterr().out
    module = "benchmarks.duel.floor"
    compare(in_benchmarks("## The duel", "**The floor**"), reprinted(out, "| |"), module, {"seen"})
    ever = re.search(r"retrained, at any cost: 0(\.\d+)", out)
    assert ever
    for where, text, said in (
        ("benchmarks/README.md, 'The floor'", section("## The duel"), f"Retrained it has {ever[1]} at any cost"),
        ("README.md, the floor", FRONT, f" {ever[1]} retrained"),
    ):
        assert said in text, f"{where}: replace what it has retrained by: {said!r} (`python -m {module}`)"


@cache
def of_surrogates(few: str) -> dict[str, list[np.ndarray]]:
    found = json.loads((RESULTS / "surrogates" / f"{few}-noise-0.json").read_text(encoding="utf-8"))["regret"]
    return {name: [np.mean(runs, axis=0) for runs in tables.values()] for name, tables in found.items()}


@pytest.mark.parametrize("few", ["four", "seven"])
def test_the_tables_of_surrogates_are_their_files(few: str, capsys: pytest.CaptureFixture[str]) -> None:
    tabular.print_means("", of_surrogates(few), surrogates.COSTS)
    now = reprinted(capsys.readouterr().out)
    compare(in_benchmarks("## Surrogates", f"**{few.capitalize()} parameters**"), now, "benchmarks.surrogates", now)


def test_the_table_of_tables_is_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, list[np.ndarray]] = {method: [] for method in tabular.METHODS}
    for method, name in ((method, name) for method in found for name in tabular.DATA_SETS):
        runs = json.loads((RESULTS / "tabular" / f"{name}-{method}.json").read_text(encoding="utf-8"))["regret"]
        found[method].append(np.mean([runs[str(seed)][:20] for seed in range(20)], axis=0))
    tabular.print_means("", found, [cost for cost in tabular.COSTS if cost <= 20])
    there, now = in_benchmarks("## Tables", "data sets)."), reprinted(capsys.readouterr().out)
    compare(there, now, "benchmarks.tabular --seeds 20 --budget 20", now)


def test_the_front_pages_tables_are_the_files() -> None:
    costs = (2, 5, 10, 20)
    seen, again = (made(DUEL, reading, costs) for reading in (SEEN, RETRAINED))
    now = {name: [cell.split()[0] for cell in seen[name] + again[name]] for name in seen}
    compare(printed(FRONT, "**Against Optuna's samplers.**", "README.md"), now, command(DUEL), IN_FRONT)
    for link, duel in (("#the-held-out-duel", HELD_OUT), ("#the-fresh-duel", FRESH)):
        means = [against_peers(made(duel, reading, costs), i) for reading in (SEEN, RETRAINED) for i in range(4)]
        compare_front(link, means, command(duel))
    for link, few in (("#surrogates", "four"), ("the same, 7 parameters", "seven")):
        rows = {
            name: [f"{np.mean(runs, axis=0)[c - 1]:.3f}" for c in costs] for name, runs in of_surrogates(few).items()
        }
        compare_front(link, [against_peers(rows, i) for i in range(4)] + ["-"] * 4, "benchmarks.surrogates")


def against_peers(rows: Rows, column: int) -> str:
    best = min(rows[name][column].split()[0] for name in PEERS if name in rows)
    return f"{rows['ours'][column].split()[0]} / {best}"


def compare_front(link: str, means: list[str], module: str) -> None:
    rows = [line for line in FRONT.splitlines() if line.startswith("|") and link in line]
    assert len(rows) == 1, f"README.md: one row of a table must name {link!r}, but {len(rows)} do"
    wanted = line_of([rows[0].split("|")[1].strip(), *means])
    assert rows[0] == wanted, f"README.md: a row is stale; replace it by: {wanted} (by `python -m {module}`)"


TARGET = r"(\nours / best peer[^\n]*)"
TAMPERED = {
    "a dash": ("FRONT", r"(?m)^\| \*\*ours\*\* \| \S+ \| \S+", "| **ours** | - | -", r"replace it by: \| \*\*ours"),
    "no peers": ("FRONT", r"(?m)^\| (gp|cma-es|random) \|.*\n", "", "missing.*'cma-es', 'gp', 'random'"),
    "a swap": ("BENCHMARKS", f"(?s){TARGET}(.*?){TARGET}", r"\3\2\1", "replace (it|them) by"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_tampered_with_is_found(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, old, new, said = TAMPERED[case]
    monkeypatch.setitem(globals(), name, re.sub(old, new, globals()[name], count=3 if case == "no peers" else 1))
    with pytest.raises(AssertionError, match=said):  # noqa: PT012
        test_the_front_pages_tables_are_the_files()
        test_a_duels_tables_are_its_files("## The duel", DUEL, capsys)


def test_a_trial_costs_the_time_of_its_batches() -> None:
    trials = [{"cost": c, "spent": s, "params": {"batch_size": b}} for c, s, b in ((1.0, 1.2, 16), (0.5, 1.7, 64))]
    timed = equal_time.at_equal_time({"t": {"ours": {0: {"trials": trials}}}}, {16: 0.25, 64: 1.0, 256: 2.0})
    assert [t["spent"] for t in timed["t"]["ours"][0]["trials"]] == pytest.approx([4.2, 4.7])
    assert equal_time.throughput() == pytest.approx({16: 0.29, 64: 1.0, 256: 2.65}, abs=0.005)
