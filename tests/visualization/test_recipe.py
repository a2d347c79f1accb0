from typing import Any

import optuna
import pytest

from optuna_discipline import plot_recipe
from optuna_discipline import trial_record
from optuna_discipline.visualization import recipe

LR = optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
BATCH = optuna.distributions.CategoricalDistribution([32, 64, 128])


def run(stage: str, slot: str, value: float, *, like: int | None = None, lr: float = 0.1, batch: int = 64) -> Any:
    claim = {"stage": stage, "slot": slot, "like": like, "fidelity": 1.0}
    return optuna.create_trial(
        params={"lr": lr, "batch_size": batch},
        distributions={"lr": LR, "batch_size": BATCH},
        value=value,
        user_attrs={"stage": stage},
        system_attrs={trial_record.CLAIM_KEY: claim},
    )


def compared(*more: Any) -> optuna.Study:
    study = optuna.create_study()
    study.add_trials([run("lr", "lr0:1", 0.3), run("lr", "lr0:3", 0.2, lr=0.3)])
    study.add_trials([run("batch_size", f"batch_size:{size}", 0.25, like=1, lr=0.3, batch=size) for size in (128, 32)])
    study.add_trials(list(more))
    return study


def test_a_panel_holds_the_candidates_by_value_with_the_run_that_they_are_compared_with() -> None:
    lr, batch = recipe.collect(compared(run("refine", "model", 0.1, like=1))).panels
    assert [c.x for c in lr.candidates] == [0.1, 0.3]
    assert (lr.chosen, lr.band) == (1, None)
    assert [(c.x, c.number, c.stage) for c in batch.candidates] == [
        (32, 3, "batch_size"),
        (64, 1, "lr"),
        (128, 2, "batch_size"),
    ]
    assert batch.chosen == 1


def test_stages_without_a_number_have_a_remark_in_place_of_empty_panels() -> None:
    study = optuna.create_study()
    study.add_trials([run("lr", "lr0:1", float("inf")), run("lr", "lr0:3", float("inf"), lr=0.3)])
    figure = plot_recipe(study)
    assert figure.layout.annotations[0].text.replace("<br>", " ") == recipe.NO_NUMBER
    assert not figure.data


def test_the_band_is_the_noise_where_it_was_measured_and_the_least_difference_otherwise() -> None:
    batch = recipe.collect(compared()).panels[1]
    assert (batch.band, batch.measured) == (pytest.approx((0.198, 0.202)), False)
    batch = recipe.collect(compared(run("replicate", "replicate:1", 0.23, like=1, lr=0.3))).panels[1]
    assert (batch.band, batch.measured) == (pytest.approx((0.185, 0.245)), True)  # around the mean, 0.215


def test_a_band_does_not_contradict_what_was_chosen() -> None:
    """The stage compares with the mean of the run and its repetition: 0.21, of which 0.187 is more than 0.02 away."""
    study = optuna.create_study()
    study.add_trials([run("lr", "lr0:1", 0.2), run("replicate", "replicate:1", 0.22, like=0)])
    study.add_trial(run("batch_size", "batch_size:32", 0.187, like=0, batch=32))
    study.add_trial(run("confirm", "confirm:1", 0.1, like=2, batch=32))
    panel = recipe.collect(study).panels[1]
    assert panel.chosen == 2
    assert panel.band is not None
    assert panel.band[0] > 0.187


def test_a_model_that_moved_the_learning_rate_only_says_so_on_hovering() -> None:
    study = optuna.create_study()
    study.add_trials([run("lr", "lr0:1", 0.3), run("batch_size", "batch_size:model", 0.2, like=0, lr=0.2)])
    assert [c.moved for c in recipe.collect(study).panels[1].candidates] == ["lr 0.1 to 0.2", ""]
    assert "64, lr 0.1 to 0.2: 0.2, trial 1" in plot_recipe(study).to_json()


def test_a_title_is_no_wider_than_a_narrow_panel() -> None:
    titles = [note.text for note in plot_recipe(compared(run("refine", "model", 0.1, like=1))).layout.annotations]
    assert titles == ["learning rate:<br>0.3", "batch size:<br>64 kept"]


def test_a_better_run_of_the_refinement_is_said_as_the_choices_are_not_the_result_then() -> None:
    better, worse = compared(run("refine", "model", 0.1, like=1)), compared(run("refine", "model", 0.4, like=1))
    assert "the refinement has gone on since, to 0.1 in trial 4" in plot_recipe(better).layout.meta["remarks"]
    assert "refinement" not in plot_recipe(worse).layout.meta["remarks"]


def test_an_open_stage_has_no_choice() -> None:
    batch = recipe.collect(compared()).panels[1]
    assert (batch.chosen, batch.decision) == (None, "still open")


def test_a_real_study_has_a_panel_a_stage_and_names_each_mark_once(study: optuna.Study) -> None:
    plot = recipe.collect(study)
    assert [panel.stage for panel in plot.panels] == ["lr", "momentum"]
    assert all(panel.chosen in {c.number for c in panel.candidates} for panel in plot.panels)
    figure = plot_recipe(study)
    assert sorted(trace.name for trace in figure.data if trace.showlegend) == [recipe.CHOICE, recipe.BEGAN]
    assert len(figure.layout.shapes) == sum(panel.band is not None for panel in plot.panels) > 0
    assert figure.layout.yaxis.title.text == plot.metric


def test_a_band_of_noise_is_drawn_only_where_it_was_measured_or_decides() -> None:
    study = optuna.create_study()
    study.add_trials([run("lr", "lr0:1", 0.3), run("lr", "lr0:2", 0.2, lr=0.2)])
    study.add_trial(run("batch_size", "batch_size:model", 0.1, like=1, batch=32))
    assert [panel.band for panel in recipe.collect(study).panels] == [None, None]


def test_values_that_differ_by_a_rounding_error_are_one() -> None:
    study = optuna.create_study()
    study.add_trial(run("lr", "lr0:1", 0.3, lr=0.1))
    study.add_trial(run("lr", "lr0:3", 0.3, lr=0.1 + 2e-16))
    assert [candidate.x for candidate in recipe.collect(study).panels[0].candidates] == [0.1, 0.1]


def test_ticks_keep_their_distance() -> None:
    assert recipe._ticks([1, 2, 3, 4], {1: 0.0, 2: 0.1, 3: 0.5, 4: 1.0}) == [1, 3, 4]
    assert recipe._ticks([1], {1: 0.0}) == [1]


def test_values_that_no_logarithm_takes_stand_side_by_side() -> None:
    decay = optuna.distributions.FloatDistribution(0, 1)
    study = optuna.create_study()
    for wd in (0.0, 1e-3):
        told = {trial_record.TOLD_KEY: {"stage": "weight_decay", "reason": "a test"}}
        trial = optuna.create_trial(params={"wd": wd}, distributions={"wd": decay}, value=1.0, system_attrs=told)
        study.add_trial(trial)
    assert plot_recipe(study).data[0].x == (0.0, 1.0)


def test_any_study_is_shown(empty: optuna.Study, plain: optuna.Study) -> None:
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    random.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=1)
    assert "another sampler" in plot_recipe(random).layout.annotations[0].text.replace("<br>", " ")
    for nothing in (empty, plain):
        text = plot_recipe(nothing).layout.annotations[0].text.replace("<br>", " ")
        assert text == "No stage has compared anything yet."
    with pytest.raises(TypeError, match="`study` must be a Study"):
        plot_recipe(3)  # type: ignore[arg-type]


def test_a_thousand_candidates_fit_on_the_dashboard() -> None:
    study = optuna.create_study()
    study.add_trials([run(stage, "x", 0.5, lr=0.1 + i / 3000) for stage in ("lr", "batch_size") for i in range(500)])
    assert len(plot_recipe(study).to_json()) < 30_000
