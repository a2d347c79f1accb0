"""Super-convergence: 1cycle against a piecewise-constant schedule on a resnet, at full length and at far fewer steps.

    python -m benchmarks.super_convergence record --data-root DIR      # a tiny net, CPU; resumable
    python -m benchmarks.super_convergence record --data-root DIR --paper --device cuda --amp bf16
    python -m benchmarks.super_convergence table                       # from the files alone

`--paper` is what the author ran (arXiv 1708.07120 and 1803.09820): resnet-56 of width 16 on all of CIFAR-10, batches of
1,000, 80,000 steps whose learning rate falls to a tenth at 50,000 and 70,000, against 1cycle of 10,000. His logs: .903
after 80,000 steps of 0.35, .924 after 10,000 of one triangle from 0.1 to 3.

The tiny net is resnet-8 of width 6 on 2,000 images, averaged down to 16 x 16, for 32 epochs: the author's gain was the
larger the less data there was (.806 against .712 on 10,000 images).

Each policy gets its own learning rate at each length, the best of a grid by the validation accuracy of one seed apart
from those that are reported. Both have the same net, data, augmentation (shifts and flips), SGD with Nesterov's
momentum (0.9 for the step policy, 0.95 to 0.85 for 1cycle) and weight decay. Test accuracy is read once, at the end.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.super_convergence_tasks import Augmented
from benchmarks.super_convergence_tasks import Steps
from benchmarks.super_convergence_tasks import build
from benchmarks.super_convergence_tasks import load
from optuna_discipline import OneCycle
from optuna_discipline import train_epochs

RESULTS = Path(__file__).parent / "results" / "super_convergence"
TUNING_SEED = 1000
SHARES = {"1/8": 0.125, "1/4": 0.25, "full": 1.0}
LEVELS = (0.8, 0.9, 0.95, 0.98, 1.0)
PAPER = {
    "depth": 56,
    "width": 16,
    "pool": 1,
    "samples": 45_000,
    "val_samples": 5_000,
    "batch_size": 1000,
    "epochs": 1778,
    "lrs_1cycle": [0.3, 1.0, 3.0],
    "lrs_step": [0.03, 0.1, 0.35],
}


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "table"))
    parser.add_argument("--data-root", type=Path, default=os.environ.get("OPTUNA_DISCIPLINE_DATA"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--paper", action="store_true", help="the author's net, data and length, see above")
    parser.add_argument("--samples", type=int, default=2_000, help="training images")
    parser.add_argument("--val-samples", type=int, default=1_000, help="images cut off for validation")
    parser.add_argument("--pool", type=int, default=2, help="images are averaged over squares of this side")
    parser.add_argument("--depth", type=int, default=8, help="6 n + 2 (8, 20, 56, 110)")
    parser.add_argument("--width", type=int, default=6, help="channels of the first stage")
    parser.add_argument("--epochs", type=int, default=32, help="of the full length")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--lrs-1cycle", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--lrs-step", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", choices=("bf16", "fp16"))
    arguments = parser.parse_args()
    if arguments.paper:
        vars(arguments).update(PAPER)
    if arguments.command == "table":
        for path in sorted(arguments.out.glob("*.json")):
            show(json.loads(path.read_text(encoding="utf-8")))
        return 0
    if arguments.data_root is None:
        parser.error("--data-root (or OPTUNA_DISCIPLINE_DATA) must name the folder of the data")
    torch.set_num_threads(1)
    record(arguments)
    return 0


def record(arguments: argparse.Namespace) -> None:
    """Tune each policy at each length, then train the seeds; the file is written anew after each run."""
    kept = {k: v for k, v in vars(arguments).items() if k not in ("command", "data_root", "out", "paper")}
    name = f"cifar10-resnet{arguments.depth}x{arguments.width}-{arguments.epochs}"
    path = arguments.out / f"{name}.json"
    device = torch.device(arguments.device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else settings()["machine"]
    found: dict[str, Any] = {"name": name, "options": kept, "settings": {**settings(), "machine": machine}, "runs": {}}
    if path.exists():
        found["runs"] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    parts = load(arguments, device)
    grids = {"1cycle": arguments.lrs_1cycle, "step": arguments.lrs_step}
    for policy, grid in grids.items():
        for share in SHARES:
            for lr in grid:
                run(found, path, arguments, parts, policy, share, lr, TUNING_SEED)
            best = tuned(found, policy, share)
            for seed in range(arguments.seeds):
                run(found, path, arguments, parts, policy, share, best, seed)


def run(
    found: dict[str, Any],
    path: Path,
    arguments: argparse.Namespace,
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]],
    policy: str,
    share: str,
    lr: float,
    seed: int,
) -> None:
    """Train once, unless the file has it, and write the file."""
    key = f"{policy} {share} {lr:g} {seed}"
    if key in found["runs"]:
        return
    x, y = parts["train"]
    batches = Augmented(x, y, arguments.batch_size, seed)
    epochs = max(1, round(arguments.epochs * SHARES[share]))
    schedule = OneCycle(lr, epochs * len(batches)) if policy == "1cycle" else Steps(lr, epochs * len(batches))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(arguments.depth, arguments.width, x.shape[1]).to(x.device)
    start, accuracy = time.perf_counter(), []
    logs = train_epochs(
        model,
        nn.CrossEntropyLoss(),
        batches,
        list(zip(*(part.split(1000) for part in parts["val"]), strict=True)),
        schedule,
        weight_decay=arguments.weight_decay,
        amp=arguments.amp,
        channels_last=x.device.type == "cuda",
        seed=seed,
    )
    for log in logs:
        accuracy.append(None if log.val_accuracy is None else round(log.val_accuracy, 4))
    found["runs"][key] = {
        "steps": epochs * len(batches),
        "val": accuracy,
        "test": round(count(model, *parts["test"]), 4) if seed != TUNING_SEED else None,
        "seconds": round(time.perf_counter() - start, 1),
    }
    write(path, found)
    print(key, found["runs"][key]["steps"], accuracy[-1], found["runs"][key]["test"], flush=True)


def count(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the accuracy in eval mode."""
    model.eval()
    with torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return right / len(y)


def tuned(found: dict[str, Any], policy: str, share: str) -> float:
    """Return the learning rate with the best last validation accuracy of the tuning seed."""
    scores = {}
    for key, result in found["runs"].items():
        name, length, lr, seed = key.split()
        if (name, length, int(seed)) == (policy, share, TUNING_SEED):
            scores[float(lr)] = result["val"][-1] or 0.0
    return max(scores, key=lambda lr: scores[lr])


def show(found: dict[str, Any]) -> None:
    """Print the tables of one file."""
    print(f"\n**{found['name']}**, {found['settings']['machine']}\n")
    print("| policy | length | steps | lr | test accuracy, mean (sd) | validation |\n" + "|---" * 6 + "|")
    groups = {}
    for policy in ("step", "1cycle"):
        for share in SHARES:
            lr = tuned(found, policy, share)
            seeds = range(found["options"]["seeds"])
            runs = [found["runs"][k] for s in seeds if (k := f"{policy} {share} {lr:g} {s}") in found["runs"]]
            groups[policy, share] = runs
            test, val = (np.array([r[k] if k == "test" else r[k][-1] or 0 for r in runs]) for k in ("test", "val"))
            print(
                f"| {policy} | {share} | {runs[0]['steps']} | {lr:g} | {test.mean():.4f} ({test.std(ddof=1):.4f}) | "
                f"{val.mean():.4f} |"
            )
    final = float(np.mean([r["val"][-1] for r in groups["step", "full"]]))
    print(f"\nSteps to a share of the full step policy's last validation accuracy ({final:.4f}), median over seeds:\n")
    print("| accuracy | step, full length | step, the fastest length | 1cycle, the fastest length | speed-up |")
    print("|---" * 5 + "|")
    for level in LEVELS:
        first = {key: np.median([reached(r, level * final) for r in runs]) for key, runs in groups.items()}
        long = first["step", "full"]
        fast = {p: min((first[p, share], share) for share in SHARES) for p in ("step", "1cycle")}
        cells = [f"{steps:.0f} ({share})" if math.isfinite(steps) else "never" for steps, share in fast.values()]
        both = math.isfinite(long) and math.isfinite(fast["1cycle"][0])
        ratio = f"{long / fast['1cycle'][0]:.1f}" if both else "-"
        shown = f"{long:.0f}" if math.isfinite(long) else "never"
        print(f"| {level:g} x | {shown} | {cells[0]} | {cells[1]} | {ratio} |")


def reached(result: dict[str, Any], accuracy: float) -> float:
    """Return the steps after which a run first had the validation accuracy, inf if never."""
    per_epoch = result["steps"] / len(result["val"])
    return next((per_epoch * (i + 1) for i, now in enumerate(result["val"]) if (now or 0) >= accuracy), math.inf)


if __name__ == "__main__":
    sys.exit(main())
