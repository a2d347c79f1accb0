"""The benchmark of policies and cyclical weight decay compares what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import cycles as benchmark


@pytest.mark.parametrize("policy", benchmark.POLICIES)
def test_every_policy_reaches_its_rate_and_stays_within(policy: str) -> None:
    schedule = benchmark.POLICIES[policy](0.5, 60)
    rates = [schedule.lr(step) for step in range(60)]
    assert max(rates) == pytest.approx(0.5, rel=0.02)
    assert all(0 < rate <= 0.5 + 1e-12 for rate in rates)
    assert all(0.85 - 1e-12 <= schedule.momentum(step) <= 0.95 + 1e-12 for step in range(60))


def test_cyclical_weight_decays_lie_between_a_tenth_and_the_whole_and_have_one_mean() -> None:
    assert benchmark.shaped("constant", 1e-2, 60) == 1e-2
    middle, ends = ([benchmark.shaped(shape, 1e-2, 60)(step) for step in range(60)] for shape in benchmark.SHAPES[1:])
    assert (min(middle), max(middle)) == pytest.approx((1e-3, 1e-2))
    assert (ends[0], ends[30]) == pytest.approx((1e-2, 1e-3))
    assert np.mean(middle) == pytest.approx(np.mean(ends))


def test_the_table_sets_each_policy_at_its_best_rate_beside_1cycle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grids = {policy: {"0.1": [0.4, 0.4], "0.2": [0.2 * (i + 1)] * 2} for i, policy in enumerate(benchmark.POLICIES)}
    decays = {shape: {"0.0001": [0.3, 0.3], "0.01": [0.15 * (i + 1)] * 2} for i, shape in enumerate(benchmark.SHAPES)}
    (tmp_path / "net.json").write_text(json.dumps({"policies": grids, "weight decays": decays}))
    benchmark.show(benchmark.read(tmp_path))
    out = capsys.readouterr().out
    assert "| 1cycle | 1.000 | 0 of 1 | 1.00 |" in out
    assert "| one triangle | 2.000 | 0 of 1 | 0.50 |" in out
    assert "| net | 1.000 (0.01) | 2.000 (0.0001) | 2.000 (0.0001) | 2.000 |" in out
