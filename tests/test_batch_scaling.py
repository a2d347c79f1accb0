"""The batch-size benchmark reads its files as it says."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import batch_scaling as benchmark


def result(exponent: float) -> dict[str, Any]:
    """A network whose best rate is 1/8 at batch 64 and grows as batch ** exponent."""

    def grid(size: int) -> dict[str, list[float]]:
        best = math.log(0.125 * (size / 64) ** exponent)
        return {str(lr): [math.exp((math.log(lr) - best) ** 2)] for lr in benchmark.LRS}

    runs = {mode: {str(size): grid(size) for size in benchmark.SIZES} for mode in benchmark.MODES}
    tests = {str(size): [0.125 * (size / 64) ** exponent, None] for size in benchmark.SIZES}
    return {"runs": runs, "range test": tests, "speed": {"16": 30.0, "64": 100.0, "256": 300.0}}


@pytest.mark.parametrize(("exponent", "best"), [(0.0, "none"), (0.5, "square root"), (1.0, "linear")])
def test_the_rule_that_is_true_loses_nothing(exponent: float, best: str) -> None:
    for rule in ("none", "square root", "linear"):
        excess, octaves = benchmark.carried(result(exponent), "equal epochs", 64, 256, rule)
        assert octaves == pytest.approx(0 if rule == best else 2 * abs(benchmark.RULES.index(rule) * 0.5 - exponent))
        assert (excess < 1e-9) == (rule == best)
    assert benchmark.carried(result(exponent), "equal epochs", 64, 256, "range test") == pytest.approx((0, 0))


def test_the_middle_of_a_plateau_is_its_best_rate() -> None:
    curve = np.log([3, 1.02, 1.0, 1.04, 3, 3, 3, 3, 3, 3])
    assert benchmark.best_lr(curve) == pytest.approx(benchmark.LRS[2])


def test_the_table_is_made_from_complete_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "whole.json").write_text(json.dumps(result(0.5)))
    (tmp_path / "part.json").write_text(json.dumps({"runs": {mode: {} for mode in benchmark.MODES}}))
    benchmark.show(benchmark.read(tmp_path))
    out = capsys.readouterr().out
    assert "part: not complete" in out
    assert "median exponent 0.50" in out
    assert "| 4 | square root | 1.000 | 1.00 | 0.00 |" in out
    assert "| samples a second | 0.30 | 1.00 | 3.00 |" in out
