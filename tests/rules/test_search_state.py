from dataclasses import replace

import pytest

from optuna_discipline import Recipe
from optuna_discipline import Run
from optuna_discipline import next_params
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.search_state import WIDEST_LEFT
from optuna_discipline.rules.search_state import SearchState
from optuna_discipline.rules.space import Bounds
from tests.rules.test_stages import SHORT
from tests.rules.test_stages import SPACE
from tests.rules.test_stages import START


def test_levels_are_the_short_cycle_doubled_until_full() -> None:
    assert SearchState(SHORT, [], SPACE, None).levels == (0.25, 0.5, 1.0)
    assert SearchState(SHORT, [], {**SPACE, "epochs": Bounds(1, 3)}, None).levels == (1 / 3, 2 / 3, 1.0)
    assert SearchState(Recipe(short=1.0), [], SPACE, None).levels == (1.0,)
    assert SearchState(SHORT, [], {"lr": SPACE["lr"]}, None).levels == (1.0,)


def test_the_models_box_lies_around_the_best_full_run() -> None:
    runs = [Run(0, "complete", {**START, "lr": 0.2, "epochs": 16}, 0.3), Run(1, "complete", START, 0.1)]
    proposal = next_params(Recipe(short=0.25, stages=("refine",)), runs, space=SPACE)
    assert proposal.slot == "model"
    low, high = proposal.box["lr"]
    assert low < 0.2 < high
    assert proposal.like == 0


@pytest.mark.parametrize(
    ("reports", "of_shorter", "moves"),
    [
        ((), 0.6, True),
        ((0.6, 0.5), 0.6, True),
        ((1.0, 0.7, 0.6, 0.5), 0.6, False),
        ((1.0, 0.3, 0.4, 0.5), 0.6, True),
        ((1.0, 0.7, 0.6, 0.5), 0.4, True),
    ],
)
def test_the_model_moves_the_epochs_unless_the_best_curve_speaks_for_the_longest(
    reports: tuple[float, ...], of_shorter: float, moves: bool
) -> None:
    runs = [
        Run(0, "complete", {**START, "epochs": 16.0}, 0.5, reports=reports),
        Run(1, "complete", {**START, "epochs": 8.0}, of_shorter),
    ]
    recipe = Recipe(stages=("refine",))
    early = next_params(recipe, runs, space=SPACE).any_length
    assert early is (moves and len(reports) > 2)  # one that reports nothing is left whole at first
    runs += [Run(2 + i, "complete", {**START, "epochs": 16.0}, 0.7) for i in range(6)]
    proposal = next_params(recipe, runs, space=SPACE)
    assert proposal.any_length is moves
    assert proposal.value_of("epochs", SPACE["epochs"]) == (8 if of_shorter < 0.5 else 16)
    assert not next_params(replace(recipe, short=0.25), runs, space=SPACE).any_length
    assert not next_params(recipe, [replace(run, state="running") for run in runs], space=SPACE).any_length
    assert not next_params(recipe, runs, space={**SPACE, "epochs": Bounds(16, 16)}).any_length


def test_before_any_run_has_ended_the_models_box_lies_around_the_start() -> None:
    runs = [Run(number, "running", {}, slot=f"lr0:{x}") for number, x in enumerate((1, 2, 0.3333))]
    runs += [Run(3 + i, "running", {}, slot=f"lr0:{x}") for i, x in enumerate((6, 0.1111, 18, 0.03704))]
    proposal = next_params(Recipe(), runs, space=SPACE)
    assert proposal.slot == "model"
    low, high = proposal.box["lr"]
    assert low < 0.1 < high


def test_a_study_that_asks_for_no_length_any_more_goes_on_from_its_runs() -> None:
    known = Run(0, "complete", {"lr": 0.1, "epochs": 4}, 0.5)
    proposal = next_params(Recipe(), [known], space={"lr": SPACE["lr"]})
    assert (proposal.slot, proposal.values["lr"]) == ("lr0:2", pytest.approx(0.2))


def _enough() -> list[Run]:
    """Return so many full runs around a rate of 0.1 that the refinement takes turns, and that this one is the far turn."""
    rates = [0.1 * 1.01**i for i in range(24)]
    return [Run(i, "complete", {**START, "lr": lr, "epochs": 16}, 0.5 + lr) for i, lr in enumerate(rates)]


def test_every_eighth_trial_is_the_best_run_at_the_rate_farthest_from_all_tried() -> None:
    recipe, runs = Recipe(stages=("refine",)), _enough()
    far = next_params(recipe, runs, space=SPACE)
    assert (far.stage, far.slot, far.like) == ("refine", "refine:lr=0.001", 0)  # of 1e-5 and 0.1
    assert far.values == {"lr": 1e-3, "momentum": 0.95, "weight_decay": 1e-4}
    assert far.reason == "the best full run at the learning rate farthest from all tried"
    near = {**SPACE, "lr": Bounds(0.1 / WIDEST_LEFT * 1.1, 1.0)}
    assert next_params(recipe, runs, space=near).slot == MODEL_SLOT
    assert {next_params(recipe, runs[:n], space=SPACE).slot for n in (16, 22, 23)} == {MODEL_SLOT}


def test_the_far_turn_is_one_question_and_the_models_proposal_none() -> None:
    recipe, runs = Recipe(stages=("refine",)), _enough()
    under_way = Run(23, "running", {}, slot=next_params(recipe, runs, space=SPACE).slot)
    assert next_params(recipe, [*runs[:23], under_way], space=SPACE).slot == MODEL_SLOT
    assert SearchState(recipe, runs, SPACE, None).model().slot == MODEL_SLOT
