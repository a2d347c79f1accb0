"""The tables of the range-test benchmark, from its result files: `python -m benchmarks.range_test_table [--figure]`."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import browser
from benchmarks.figures import FIGURES
from benchmarks.figures import shoot_plots
from benchmarks.range_test import RESULTS
from benchmarks.range_test_nets import NETS
from benchmarks.range_test_nets import Net
from benchmarks.range_test_rules import FIXED
from benchmarks.range_test_rules import NAMES
from optuna_discipline import RangeTest
from optuna_discipline import choose_max_lr
from optuna_discipline.visualization.style import figure

CURVE, PROBES, USUAL, ORACLE = "ours, one curve", "ours, with probes", "a fixed default", "best of the grid on average"
NAMED = {"fastai minimum": 1.75, "fastai valley": 4.0, "Lightning": 4.0}  # in the figure, at this ratio
FORWARD = 1 / 3  # of an update on as many samples


@dataclass(frozen=True)
class Row:
    """What one finder gave on one network and seed.

    Attributes:
        rule: Its name.
        net: The network.
        ratio: Loss of a full training at the suggestion over the best of the grid; a broken run or no suggestion counts
            with the loss of the untrained network.
        cost: What it cost, in full trainings.
        confident: Whether it said so; None where it does not say.
        lr: The suggestion.
    """

    rule: str
    net: Net
    ratio: float
    cost: float
    confident: bool | None
    lr: float | None


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--figure", action="store_true", help="draw benchmarks/figures/range_test.png")
    parser.add_argument("--by-net", action="store_true", help="ratios of ours by network and seed")
    parser.add_argument("--half", choices=("development", "held-out"), help="only this half")
    arguments = parser.parse_args()
    rows = read(arguments.results)
    halves = [arguments.half] if arguments.half else ["development", "held-out", "both"]
    for half in halves:
        chosen = [row for row in rows if half == "both" or row.net.held_out == (half == "held-out")]
        if chosen:
            print(table(half, chosen), end="\n\n")
            print(honesty(chosen), end="\n\n")
    if arguments.by_net:
        chosen = [row for row in rows if arguments.half is None or row.net.held_out == (arguments.half == "held-out")]
        print(by_net(chosen))
    if arguments.figure:
        with browser.chromium() as chromium:
            shoot_plots(chromium, [draw(rows)], FIGURES / "range_test.png")
    return 0


def read(folder: Path) -> list[Row]:
    """Return one row a finder, network and seed."""
    nets = {net.name: net for net in NETS}
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    grids: dict[str, dict[str, list[float]]] = {}
    for known in files:
        for lr in nets[known["net"]].grid:
            loss = known["loss 1"].get(f"{lr:g}")
            if loss is not None:
                grids.setdefault(known["net"], {}).setdefault(f"{lr:g}", []).append(_capped(known, loss))
    rows = []
    for known in files:
        grid = grids[known["net"]]
        try:
            oracle = min(grid, key=lambda lr: float(np.mean(grid[lr])))
            rows += [_row(nets[known["net"]], known, *found) for found in _suggestions(known, float(oracle), nets)]
        except KeyError as missing:
            print(f"left out, {missing} is missing (`python -m benchmarks.range_test` goes on): {known['net']}")
    return rows


def table(half: str, rows: list[Row]) -> str:
    """Return one line a finder."""
    n = len({(row.net.name) for row in rows})
    lines = [
        f"| {half}: {n} networks | median | 90 % | worst | within 1.1x | within 1.25x | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    rules = list(dict.fromkeys(row.rule for row in rows))
    for rule in rules:
        ratios = np.array([row.ratio for row in rows if row.rule == rule])
        cost = np.mean([row.cost for row in rows if row.rule == rule])
        shares = [f"{np.mean(ratios <= limit):.0%}" for limit in (1.1, 1.25)]
        numbers = [_short(x) for x in (np.median(ratios), np.quantile(ratios, 0.9), ratios.max())]
        name = f"**{rule}**" if rule.startswith("ours") else rule
        lines.append(f"| {name} | {' | '.join([*numbers, *shares])} | {cost:.2f} |")
    return "\n".join(lines)


def honesty(rows: list[Row]) -> str:
    """Return how often ours was unsure where it was wrong, and where it was right."""
    lines = []
    for rule in (CURVE, PROBES):
        mine = [row for row in rows if row.rule == rule]
        bad, good = ([r for r in mine if (r.ratio > 1.25) == wrong] for wrong in (True, False))
        unsure = [sum(not row.confident for row in part) for part in (bad, good)]
        lines.append(
            f"{rule}: not confident on {unsure[0]} of {len(bad)} bad ones and {unsure[1]} of {len(good)} good ones"
        )
    costs = [row.cost for row in rows if row.rule == PROBES]
    return "\n".join([*lines, f"cost of probes: mean {np.mean(costs):.2f}, largest {max(costs):.2f}"])


def by_net(rows: list[Row]) -> str:
    """Return the ratios of the finders that matter, network by network."""
    rules = (ORACLE, USUAL, CURVE, PROBES)
    lines = [f"| network | {' | '.join(rules)} |", "|---|" + "---|" * len(rules)]
    for name in dict.fromkeys(row.net.name for row in rows):
        cells = []
        for rule in rules:
            mine = [row for row in rows if row.rule == rule and row.net.name == name]
            cells.append(", ".join(_short(row.ratio) + ("" if row.confident in (None, True) else "?") for row in mine))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Return the figure: the share of networks and seeds within a ratio, by finder."""
    import plotly.graph_objects as go

    made = figure(
        "Full 1cycle training at the suggested learning rate",
        x="loss / best loss of the grid",
        y="share of networks and seeds",
        log_x=False,
    )
    made.update_xaxes(type="log", range=[0, 1.0], tickvals=[1, 1.1, 1.25, 1.5, 2, 3, 5, 10])
    made.update_yaxes(range=[0, 1], tickformat=".0%")
    colors = {CURVE: "#0072B2", PROBES: "#D55E00", USUAL: "#333333"}
    for rule in dict.fromkeys(row.rule for row in rows):
        if rule == ORACLE:
            continue
        ratios = sorted(max(row.ratio, 1.0) for row in rows if row.rule == rule)
        style = {"color": colors.get(rule, "#B0B0B0"), "width": 3 if rule in colors else 1.2}
        if rule == USUAL:
            style["dash"] = "dot"
        share = [(i + 1) / len(ratios) for i in range(len(ratios))]
        mine = rule in colors
        first = not mine and not any(trace.name == "the field's finders" for trace in made.data)
        name = rule if mine else "the field's finders"
        line = {**style, "shape": "hv"}
        made.add_trace(go.Scatter(x=ratios, y=share, mode="lines", line=line, name=name, showlegend=mine or first))
        if rule in NAMED:
            at = float(np.mean(np.array(ratios) <= NAMED[rule]))
            made.add_annotation(x=math.log10(NAMED[rule]), y=at, text=rule, showarrow=False, yshift=-9, xanchor="left")
    return made


def _suggestions(
    known: dict[str, Any], oracle: float, nets: dict[str, Net]
) -> Iterator[tuple[str, float | None, float, bool | None]]:
    net = nets[known["net"]]
    curve, probes = RangeTest.from_dict(known["curve"]["ours"]), known["probes"]["ours"]
    choice = choose_max_lr(curve)
    assert curve.planned_steps is not None
    assert curve.val_loss is not None
    evaluated = np.isfinite(curve.val_loss).sum() * curve.settings["val_samples"] / net.batch_size * FORWARD
    cost = (len(curve.lrs) + float(evaluated)) / curve.planned_steps
    yield ORACLE, oracle, 15.0, None
    yield PROBES, probes["lr"], probes["cost"], probes["confident"]
    yield CURVE, choice.max_lr, cost, choice.confident
    yield USUAL, FIXED[net.optimizer], 0.0, None
    for package, names in NAMES.items():
        for name in names:
            found = known.get("packages", {}).get(package, {}).get(name)
            if found is not None:
                yield name, found["lr"], found["updates"] / curve.planned_steps, None


def _row(net: Net, known: dict[str, Any], rule: str, lr: float | None, cost: float, confident: bool | None) -> Row:
    best = min(_capped(known, known["loss 1"][f"{x:g}"]) for x in net.grid)
    loss = known["curve"]["ours"]["initial_loss"]
    if lr is not None:
        loss = _capped(known, known["loss 1"][f"{float(f'{lr:.3g}'):g}"])
    return Row(rule, net, loss / best, cost, confident, lr)


def _capped(known: dict[str, Any], loss: float | str) -> float:
    worst = float(known["curve"]["ours"]["initial_loss"]) if "curve" in known else math.inf
    return min(float(loss), worst)


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
