import optuna
import pytest

from optuna_discipline.costs import read_costs
from optuna_discipline.visualization import marks


def trial(value: float | None = 1.0, *, epochs: int = 16, state: str = "COMPLETE") -> optuna.trial.FrozenTrial:
    return optuna.create_trial(
        params={"epochs": epochs},
        distributions={"epochs": optuna.distributions.IntDistribution(1, 16)},
        value=value,
        state=optuna.trial.TrialState[state],
    )


class Item:
    def __init__(self, value: float | None, kind: str = "full") -> None:
        self.value, self.kind = value, kind


def test_a_trial_is_full_short_or_stopped() -> None:
    study = optuna.create_study()
    study.add_trials([trial(), trial(epochs=4), trial(state="PRUNED")])
    kinds = [marks.kind_of(t, read_costs(study.trials, {})) for t in study.trials]
    assert kinds == ["full", "short", "stopped"]
    assert set(kinds) == set(marks.KINDS)


def test_only_ended_trials_are_shown_broken_ones_too() -> None:
    states = [("COMPLETE", 1.0), ("PRUNED", 1.0), ("PRUNED", None), ("FAIL", None), ("RUNNING", None)]
    assert [marks.has_ended(trial(value, state=state)) for state, value in states] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_a_few_values_far_off_end_at_a_limit(sign: int) -> None:
    items = [Item(sign * x) for x in (0.1, 0.12, 0.15, 0.2, 1e9)]
    limit = marks.limit_of(items, sign)
    assert limit is not None
    assert marks.shown(sign * 0.2, limit) == sign * 0.2
    assert marks.shown(sign * 1e9, limit) == marks.shown(None, limit) == limit.value
    assert 0.2 < sign * limit.value < 1
    assert limit.words(items).endswith("stand at the top" if sign > 0 else "stand at the bottom")


def test_stopped_runs_do_not_set_the_limit_and_few_or_even_values_have_none() -> None:
    items = [*(Item(x) for x in (0.1, 0.12, 0.15)), *(Item(2.3, "stopped") for _ in range(9))]
    assert marks.limit_of(items, 1) is not None
    assert marks.limit_of(items[:3], 1) is None
    assert marks.limit_of([Item(x) for x in (1.0, 1.1, 1.2, 1.3)], 1) is None
    assert marks.limit_of([Item(None)] * 5, 1) is None


def test_a_broken_run_has_a_limit_to_stand_at() -> None:
    assert marks.limit_of([Item(1.0), Item(2.0), Item(None)], 1) == marks.Limit(2.1, 1)
    assert marks.limit_of([Item(0.5), Item(None)], -1) == marks.Limit(pytest.approx(0.45), -1)
    assert marks.shown(None, None) is None


def test_the_legend_speaks_of_what_there_is() -> None:
    assert marks.legend_words([Item(1.0)], None, 0) == []
    words = marks.legend_words([Item(3.0, "short"), Item(None, "stopped")], marks.Limit(2.0, 1), 1)
    assert words == [
        "filled: full trainings",
        "open: short cycles",
        "crosses: stopped early",
        "values above 2 and broken runs stand at the top",
        "1 trial not shown",
    ]


@pytest.mark.parametrize(
    ("values", "sign", "said"),
    [
        ((1.0, 3.0), 1, ["values above 2 stand at the top"]),
        ((1.0, None), 1, ["broken runs stand at the top"]),
        ((1.0, 3.0), -1, ["values below 2 stand at the bottom"]),
        ((1.0, 1.5), 1, []),
    ],
)
def test_the_legend_speaks_of_broken_runs_only_where_one_broke(
    values: tuple[float | None, ...], sign: int, said: list[str]
) -> None:
    assert marks.legend_words([Item(value) for value in values], marks.Limit(2.0, sign), 0) == said


def test_numbers_come_before_words() -> None:
    assert sorted(["auto", 64, 16.5], key=marks.order) == [16.5, 64, "auto"]
