import pytest

from optuna_discipline.visualization import noise
from tests.visualization.test_recipe import compared
from tests.visualization.test_recipe import run


def test_repeated_runs_say_what_does_not_differ_and_without_them_the_recipes_least_does() -> None:
    trials = compared(run("replicate", "replicate:1", 0.23, like=1, lr=0.3)).trials
    assert noise.spread(trials) == pytest.approx(0.03)
    assert noise.noise_around(trials[1], trials) == noise.Noise(
        pytest.approx(0.215), pytest.approx(0.03), measured=True
    )
    assert noise.noise_around(trials[0], trials) == noise.Noise(0.3, pytest.approx(0.03), measured=True)
    alone = compared().trials
    assert noise.spread(alone) is None
    assert noise.noise_around(alone[1], alone) == noise.Noise(0.2, pytest.approx(0.002), measured=False)
    assert noise.noise_around(None, alone) is None
