"""The range-test benchmark measures once, goes on where it stopped, and makes its tables from files alone."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import range_test  # noqa: E402
from benchmarks import range_test_table  # noqa: E402
from benchmarks.duel.tasks import mlp  # noqa: E402
from benchmarks.range_test_nets import NETS  # noqa: E402
from benchmarks.range_test_nets import Net  # noqa: E402
from benchmarks.range_test_nets import load_nets  # noqa: E402
from benchmarks.range_test_rules import foreign  # noqa: E402
from benchmarks.range_test_runs import Results  # noqa: E402


@pytest.fixture(scope="module")
def net() -> Net:
    x = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))
    part = (x, (x.sum(dim=1) > 0).long())
    return Net("tiny", lambda _: (part, part), lambda: mlp(4, 2, 8), epochs=4, batch_size=20)


def test_at_least_twelve_networks_of_every_kind_are_there_in_two_halves() -> None:
    assert len(NETS) >= 12
    assert {net.optimizer for net in NETS} == {"sgd", "adamw", "adam"}
    assert {net.batch_size for net in NETS} >= {16, 64, 256}
    assert all(len(net.grid) == 15 for net in NETS)
    assert sum(net.held_out for net in NETS) == len(NETS) / 2
    nets, skipped = load_nets(None)
    assert "mlp" in nets
    assert all("no --data-root" in line for line in skipped)


def test_everything_is_trained_once_and_the_table_is_made_from_the_file(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path, net.name, 0)
    range_test.measure(net, net.data(None), 0, results, packages=False)
    known = json.loads((tmp_path / "tiny-0.json").read_text())
    assert len(known["loss 1"]) >= 15
    assert known["probes"]["ours"]["cost"] <= 1.5
    assert known["settings"]["torch"] == torch.__version__

    def fail(*_: Any) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr("benchmarks.range_test_runs.train", fail)
    range_test.measure(net, net.data(None), 0, Results(tmp_path, net.name, 0), packages=False)
    monkeypatch.setattr(range_test_table, "NETS", (net,))
    monkeypatch.setattr(sys, "argv", ["table", str(tmp_path), "--by-net", "--half", "development"])
    assert range_test_table.main() == 0
    out = capsys.readouterr().out
    assert "| **ours, with probes** |" in out
    assert "| tiny |" in out


def test_a_broken_run_counts_with_the_loss_of_the_untrained_network(net: Net) -> None:
    known = {
        "net": "tiny",
        "loss 1": {f"{lr:g}": 0.5 for lr in net.grid} | {"7": "inf"},
        "curve": {"ours": {"initial_loss": 2.0}},
    }
    assert range_test_table._row(net, known, "rule", 7.0, 0.0, None).ratio == 4.0
    assert range_test_table._row(net, known, "rule", None, 0.0, None).ratio == 4.0
    with pytest.raises(KeyError, match=r"0\.123"):
        range_test_table._row(net, known, "rule", 0.123, 0.0, None)


def test_a_package_that_fails_gives_no_suggestion_and_says_why(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("unexpected curve shape")

    monkeypatch.setattr("benchmarks.range_test_rules.PACKAGES", {"ignite": broken})
    found = foreign("ignite", net, net.data(None), 0)
    assert found["ignite"]["lr"] is None
    assert found["ignite"]["error"] == "unexpected curve shape"
