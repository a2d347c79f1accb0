"""Learning-rate finders against a grid: `python -m benchmarks.range_test`, then `... .range_test_table`.

For every network and seed: 15 full 1cycle trainings on a grid of learning rates, what every finder suggests, and a full
training at each suggestion. One result file a network and seed, written after every training, so an interrupted
benchmark goes on where it stopped. Foreign finders run from their own packages, those that are installed.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.range_test_nets import Net
from benchmarks.range_test_nets import Part
from benchmarks.range_test_nets import load_nets
from benchmarks.range_test_rules import FIXED
from benchmarks.range_test_rules import PACKAGES
from benchmarks.range_test_rules import foreign
from benchmarks.range_test_rules import our_curve
from benchmarks.range_test_rules import our_probes
from benchmarks.range_test_runs import Results
from optuna_discipline import RangeTest
from optuna_discipline import choose_max_lr

RESULTS = Path(__file__).parent / "results" / "range_test"


def main() -> int:
    """Run what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with FashionMNIST/raw, tabular/ and cifar10_small.npz")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nets", nargs="*", help="only these")
    parser.add_argument("--half", choices=("development", "held-out"), help="only this half")
    parser.add_argument("--no-packages", action="store_true", help="leave the foreign finders out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    nets, skipped = load_nets(arguments.data_root)
    for line in skipped:
        print("skipped", line)
    wanted = [
        net
        for name, net in nets.items()
        if (not arguments.nets or name in arguments.nets)
        and arguments.half in (None, "held-out" if net.held_out else "development")
    ]
    start = time.perf_counter()
    for seed, net in itertools.product(range(arguments.seeds), wanted):
        results = Results(arguments.out, net.name, seed)
        measure(net, net.data(arguments.data_root), seed, results, packages=not arguments.no_packages)
        print(f"{time.perf_counter() - start:.0f} s {net.name} {seed}", flush=True)
    return 0


def measure(net: Net, data: tuple[Part, Part], seed: int, results: Results, *, packages: bool) -> None:
    """Train the grid, ask every finder, and train at what it says."""
    for lr in net.grid:
        results.loss(net, data, lr)
    curve = results.get("curve", "ours", lambda: rounded(our_curve(net, data, seed)))
    probes = results.get("probes", "ours", lambda: _as_dict(our_probes(net, data, seed)))
    suggested = [FIXED[net.optimizer], choose_max_lr(RangeTest.from_dict(curve)).max_lr, probes["lr"]]
    for package in PACKAGES if packages else ():
        try:
            found = results.get("packages", package, lambda p=package: foreign(p, net, data, seed))
        except ImportError as error:
            print(f"without {package}: {error}")
            continue
        suggested += [row["lr"] for row in found.values()]
    for lr in suggested:
        if lr is not None:
            results.loss(net, data, lr)


def rounded(test: RangeTest) -> dict[str, Any]:
    """Return a range test as JSON of five figures."""
    row = test.to_dict()
    for name in ("lrs", "train_loss", "val_loss"):
        row[name] = [x if isinstance(x, str) else float(f"{x:.5g}") for x in row[name]]
    return row


def _as_dict(choice: Any) -> dict[str, Any]:
    names = ("status", "reason", "confident", "cost")
    return {"lr": choice.max_lr, **{name: getattr(choice, name) for name in names}}


if __name__ == "__main__":
    sys.exit(main())
