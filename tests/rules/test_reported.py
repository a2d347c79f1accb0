import pytest

from optuna_discipline.rules.reported import leads_to


@pytest.mark.parametrize(
    ("loss", "reports"),
    [
        (0.4, (0.5, 0.3, 0.45, 0.35)),  # of folds
        (0.35, (0.9, 0.4, 0.8, 0.3)),  # two trainings' ends
        (0.3, (0.9, 0.2, 0.25, 0.8, 0.4, 0.45)),  # and their best
        (-0.8, (-0.82, -0.85, -0.73)),
    ],
)
def test_a_mean_of_several_trainings_is_no_curves_end(loss: float, reports: tuple[float, ...]) -> None:
    assert not leads_to(loss, reports)
    assert leads_to(reports[-1], reports)
    assert leads_to(None, reports)


@pytest.mark.parametrize("reports", [(0.98, 1.0, 1.02, 1.02), (0.1, 0.09, 0.08, 0.07)])
def test_a_loss_of_other_data_is_no_mean_of_trainings_by_chance(reports: tuple[float, ...]) -> None:
    assert leads_to((min(reports[:2]) + min(reports[2:])) / 2, reports)


def test_an_objective_far_from_the_last_report_and_the_best_is_something_else() -> None:
    assert not leads_to(-0.9, (2.0, 1.0, 0.5, 0.3))
    assert leads_to(0.5, (2.0, 1.0, 0.5, 0.3))
