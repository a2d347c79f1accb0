"""The schedules and networks of the super-convergence benchmark are the author's, and its table is made from a file."""

import argparse
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import super_convergence as benchmark  # noqa: E402


def test_the_step_policy_is_that_of_the_authors_logs() -> None:
    steps = benchmark.Steps(0.35, 80_000)
    assert [steps.lr(i) for i in (0, 49_900, 50_000, 69_900, 70_000, 79_900)] == pytest.approx(
        [0.35, 0.35, 0.035, 0.035, 0.0035, 0.0035]
    )
    assert steps.momentum(0) == 0.9


@pytest.mark.parametrize(("depth", "parameters"), [(20, 0.27e6), (56, 0.85e6), (110, 1.7e6)])
def test_the_papers_resnets_have_their_depth_and_size(depth: int, parameters: float) -> None:
    model = benchmark.build(depth, 16, 3)
    weighted = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert sum(m.weight.shape[-1] != 1 for m in weighted) == depth  # the two shortcuts of 1 x 1 are not counted
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.02)


def test_depths_that_no_resnet_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`depth` must be 6 n \+ 2 \(8, 20, 56, 110\), but got depth=10"):
        benchmark.build(10, 4, 1)


def test_augmented_batches_hold_every_image_shifted_with_its_target() -> None:
    x = torch.zeros(40, 1, 16, 16)
    x[:, 0, 8, 8] = torch.arange(1.0, 41)
    batches = benchmark.Augmented(x, torch.arange(1, 41), 8, seed=0)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 5
    for images, targets in first:
        assert torch.equal(images.amax(dim=(1, 2, 3)).long(), targets)  # shifts of 2 keep a pixel 7 off the edge
    assert sorted(int(t) for _, targets in first for t in targets) == list(range(1, 41))
    assert not torch.equal(first[0][1], second[0][1])
    positions = {tuple(divmod(int(image.argmax()), 16)) for images, _ in first for image in images}
    assert len(positions) > 8
    assert all(abs(row - 8) <= 2 and 5 <= column <= 10 for row, column in positions)


def test_a_tiny_run_goes_on_where_it_stopped_and_its_table_shows_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_arguments: Any, _device: Any) -> Any:
        # three channels: one counts as channels-last, where oneDNN 3.12's strided 1x1 convolutions crash on AVX2
        x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return {name: (x, (x.mean(dim=(1, 2, 3)) > 0).long()) for name in ("train", "val", "test")}

    monkeypatch.setattr(benchmark, "load", load)
    arguments = argparse.Namespace(
        out=tmp_path,
        depth=8,
        width=2,
        epochs=8,
        batch_size=32,
        weight_decay=1e-4,
        lrs_1cycle=[0.1, 0.3],
        lrs_step=[0.1],
        seeds=2,
        device="cpu",
        amp=None,
    )
    benchmark.record(arguments)
    trained = capsys.readouterr().out.splitlines()
    assert len(trained) == 3 * (2 + 1 + 2 * 2)
    benchmark.record(arguments)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.argv", ["super_convergence", "table", "--out", str(tmp_path)])
    assert benchmark.main() == 0
    out = capsys.readouterr().out
    assert "| step | full | 16 | 0.1 |" in out
    assert "| 1cycle | 1/8 | 2 |" in out
    assert "| 1 x |" in out


def test_the_steps_to_an_accuracy_are_those_of_the_first_epoch_that_has_it() -> None:
    run = {"steps": 40, "val": [0.2, None, 0.7, 0.6]}
    assert benchmark.reached(run, 0.6) == 30
    assert math.isinf(benchmark.reached(run, 0.8))
