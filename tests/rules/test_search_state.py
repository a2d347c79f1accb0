from dataclasses import replace

import pytest

from optuna_discipline import Recipe
from optuna_discipline import Run
from optuna_discipline import next_params
from optuna_discipline.rules import search_state
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.search_state import WIDEST_LEFT
from optuna_discipline.rules.search_state import SearchState
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.stages import Search
from optuna_discipline.rules.standstill import far_slot
from tests.rules.test_stages import SHORT
from tests.rules.test_stages import SPACE
from tests.rules.test_stages import START
from tests.rules.test_stages import lr_stage


def test_levels_are_the_short_cycle_doubled_until_full() -> None:
    assert SearchState(SHORT, [], SPACE, None).levels == (0.25, 0.5, 1.0)
    assert SearchState(SHORT, [], {**SPACE, "epochs": Bounds(1, 3)}, None).levels == (1 / 3, 2 / 3, 1.0)
    assert SearchState(Recipe(short=1.0), [], SPACE, None).levels == (1.0,)
    assert SearchState(SHORT, [], {"lr": SPACE["lr"]}, None).levels == (1.0,)


def test_a_rung_asks_for_no_best_full_run() -> None:
    search = Search(Recipe(), [Run(0, "complete", START, 0.1, "lr0:1")], SPACE, None)
    assert search.plan("lr", 0)
    assert "_full" not in vars(search)


def test_the_models_box_lies_around_the_best_full_run() -> None:
    runs = [Run(0, "complete", {**START, "lr": 0.2, "epochs": 16}, 0.3), Run(1, "complete", START, 0.1)]
    proposal = next_params(Recipe(short=0.25, stages=("refine",)), runs, space=SPACE)
    assert proposal.slot == "model"
    low, high = proposal.box["lr"]
    assert low < 0.2 < high
    assert proposal.like == 0


@pytest.mark.parametrize(("late", "high"), [(0.39, 1e-3), (0.2, 3e-3)], ids=["it stands", "it still learns"])
def test_the_first_look_at_the_weight_decay_goes_up_where_the_best_run_stands(late: float, high: float) -> None:
    reports = (1.0, 0.6, 0.41, 0.4, late, late)
    run = Run(0, "complete", {**START, "weight_decay": 1e-4, "epochs": 16}, late, "lr0:1", reports=reports)
    proposal = next_params(Recipe(stages=("weight_decay", "refine")), [run], space=SPACE)
    assert proposal.slot == "weight_decay:model"
    assert proposal.box["weight_decay"][1] == pytest.approx(high)


def test_the_reason_names_a_run_that_is_better_but_for_the_time_of_its_epochs() -> None:
    first = Run(0, "complete", {**START, "batch_size": 64, "epochs": 16}, 0.5, seconds=100)
    slow = replace(first, number=1, params={**first.params, "batch_size": 16}, loss=0.45, seconds=400)
    short = replace(slow, number=2, params={**slow.params, "epochs": 8}, loss=0.4)
    told = next_params(Recipe(stages=("refine",)), [first, slow, short], space=SPACE)
    assert told.like == 0
    assert told.reason.endswith("the best full run at equal time, as trial 1, though better, has longer epochs")


def test_the_first_reason_says_that_a_range_test_is_not_sure_of_its_rate() -> None:
    sure = LrChoice(4.83, 0.483, (0.48, 10.0), "OK", "", confident=True)
    guess, none = replace(sure, confident=False), replace(sure, max_lr=None, confident=False)
    start = "learning-rate ladder: where to start"
    said = f"{start}, no higher than usual, as the range test is not sure of its 4.83"
    for choice, reason in ((None, start), (sure, start), (none, start), (guess, said)):
        for space in (SPACE, {}):  # the first trial's objective has not shown its bounds yet
            assert next_params(SHORT, [], space=space, choice=choice).reason == reason


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


@pytest.mark.parametrize("reports", [(), (1.0, 0.7, 0.6, 0.5)], ids=["without reports", "though its curve fell"])
def test_the_model_moves_the_epochs_once_it_has_repeated_a_run(reports: tuple[float, ...]) -> None:
    runs = [Run(0, "complete", {**START, "epochs": 16.0}, 0.5, reports=reports, others={"act": "relu"})]
    runs += [Run(1 + i, "complete", runs[0].params, 0.6, MODEL_SLOT, others={"act": "tanh"}) for i in range(2)]
    recipe = Recipe(stages=("refine",))
    assert next_params(recipe, runs, space=SPACE).any_length
    assert not next_params(recipe, runs[:2], space=SPACE).any_length
    replicate = [*runs[:2], replace(runs[2], slot="confirm:replicate")]
    assert not next_params(recipe, replicate, space=SPACE).any_length


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
    assert (proposal.slot, proposal.values["lr"]) == ("lr0:0.3333", pytest.approx(0.1 / 3, rel=1e-3))


def _enough() -> list[Run]:
    """Return so many full runs around a rate of 0.1 that the refinement takes turns, and the next is the far one."""
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
    assert {next_params(recipe, runs[:n], space=SPACE).slot for n in (8, 17, 22, 23)} == {MODEL_SLOT}


def test_of_a_list_whose_rates_have_all_run_one_is_drawn_while_nothing_has_learned() -> None:
    rates = [0.1, 0.2, 0.03, 0.01, 0.6, 0.003]
    runs = [Run(i, "complete", {"lr": lr}, 2.3, f"lr0:{lr}") for i, lr in enumerate(rates)]
    for more, values in (([1e-3], {"lr": 1e-3}), ([], {})):
        told = next_params(Recipe(), runs, space={"lr": Bounds.of_choices([*rates, *more])})
        assert told.drawn
        assert told.values == values
        assert ("at the learning rate farthest from all tried" in told.reason) == bool(more)


def test_a_study_that_may_lie_above_a_cliff_looks_far_away_early() -> None:
    recipe, runs = Recipe(stages=("refine",)), _enough()
    assert next_params(recipe, runs[:10], space=SPACE).slot == far_slot(1e-3)
    fallen = [replace(run, reports=(2.0, 1.5, 1.0, run.loss or 0.0)) for run in runs[:10]]
    assert next_params(recipe, fallen, space=SPACE).slot == MODEL_SLOT


def test_the_far_turn_is_one_question_and_the_models_proposal_none() -> None:
    recipe, runs = Recipe(stages=("refine",)), _enough()
    under_way = Run(23, "running", {}, slot=next_params(recipe, runs, space=SPACE).slot)
    assert next_params(recipe, [*runs[:23], under_way], space=SPACE).slot == MODEL_SLOT
    assert SearchState(recipe, runs, SPACE, None).model().slot == MODEL_SLOT


def _of_two_networks(best: str) -> list[Run]:
    """Return runs of which only some have a momentum, the others a weight decay; the best one is the latter's."""
    whole: dict[Role, float] = {"lr": 0.1, "epochs": 16, "weight_decay": 1e-4}
    sgd: dict[Role, float] = {"lr": 0.1, "epochs": 16, "momentum": 0.9}
    return [
        Run(0, "complete", whole, 0.3 if best == "AdamW" else 0.6, "lr0:1", others={"optimizer": "AdamW"}),
        Run(1, "complete", {**whole, "lr": 0.2}, 0.7, "lr0:2", others={"optimizer": "AdamW"}),
        Run(2, "complete", sgd, 0.5, "weight_decay:model", others={"optimizer": "SGD"}),
    ]


def test_no_stage_is_of_a_role_that_the_best_run_has_not() -> None:
    stages = [
        proposal.stage
        for proposal in (next_params(Recipe(), _of_two_networks(x), space=SPACE) for x in ("AdamW", "SGD"))
    ]
    assert stages == ["weight_decay", "momentum"]
    adam: dict[Role, float] = {role: x for role, x in START.items() if role != "momentum"}
    short = [replace(run, params={**adam, "lr": run.params["lr"]}, others={"optimizer": "AdamW"}) for run in lr_stage()]
    sgd = Run(4, "complete", {**START, "momentum": 0.9}, 0.9, "model", others={"optimizer": "SGD"})
    recipe = Recipe(short=0.25, stages=("lr", "momentum", "refine"))
    assert next_params(recipe, [*short, sgd], space=SPACE).stage == "refine"
    assert next_params(recipe, [*short, replace(sgd, others={"optimizer": "AdamW"})], space=SPACE).stage == "momentum"


def test_a_stage_whose_run_had_no_such_parameter_looks_once_more() -> None:
    runs = _of_two_networks("AdamW")
    assert next_params(Recipe(), runs, space=SPACE).slot == "weight_decay:again:model"
    runs.append(replace(runs[-1], number=3, slot="weight_decay:again:model"))
    assert next_params(Recipe(), runs, space=SPACE).slot == "model"
    looked = [*runs[:2], replace(runs[0], number=2, slot="weight_decay:model")]
    assert next_params(Recipe(), looked, space=SPACE).slot == "model"


TREE = Run(0, "complete", {}, 0.1, others={"model": "tree"})
NETS = [Run(1, "complete", {"lr": 0.1}, 0.3, MODEL_SLOT, others={"model": "net"})]
LR: dict[Role, Bounds] = {"lr": Bounds(1e-5, 10.0)}


@pytest.mark.parametrize(
    ("runs", "like"),
    [
        ([TREE, *NETS], 1),
        ([TREE, Run(1, "complete", {}, 0.05, "lr0:1", others={"model": "tree"}), *[replace(NETS[0], number=2)]], 2),
        ([TREE, replace(NETS[0], slot="lr0:1")], 1),
        ([replace(TREE, others={"depth": 100}), replace(NETS[0], others={"depth": 3})], 0),
        ([Run(0, "complete", {}, 0.1), replace(NETS[0], slot="lr0:1")], None),
    ],
    ids=[
        "some networks have none",
        "what should have been a rung",
        "the first rung",
        "it is new",
        "without any parameter",
    ],
)
def test_the_ladder_is_built_on_the_best_run_with_a_learning_rate_or_of_all_if_that_is_new(
    runs: list[Run], like: int | None
) -> None:
    proposal = next_params(Recipe(), runs, space=LR)
    assert (proposal.stage, proposal.like) == ("lr", like)


def test_there_is_no_ladder_where_no_run_with_a_learning_rate_has_ended_well() -> None:
    runs = [TREE, replace(NETS[0], state="failed", loss=None)]
    assert next_params(Recipe(), runs, space=LR).slot == MODEL_SLOT


@pytest.mark.parametrize(("loss", "stage"), [(0.3, "lr"), (0.4, "refine")])
def test_an_adopted_study_has_a_ladder_only_if_a_run_with_a_rate_is_no_worse_than_most_without(
    loss: float, stage: str
) -> None:
    trees = [replace(TREE, number=i, loss=x) for i, x in enumerate((0.1, 0.3, 0.5))]
    adopted = [*trees, replace(NETS[0], number=3, slot=None, loss=loss)]
    assert next_params(Recipe(), adopted, space=LR).stage == stage
    tried_again = replace(NETS[0], number=4, loss=loss - 0.01)
    assert next_params(Recipe(), [*adopted, tried_again], space=LR).stage == stage
    assert next_params(Recipe(), [*adopted, replace(tried_again, loss=0.2)], space=LR).stage == "lr"


def test_no_short_cycles_compare_momenta_of_a_network_that_has_none() -> None:
    runs = [TREE, replace(NETS[0], state="running", loss=None, params={**NETS[0].params, "momentum": 0.9})]
    assert next_params(SHORT, runs, space=SPACE).slot == MODEL_SLOT


@pytest.mark.parametrize(("model", "far"), [("net", True), ("tree", False)])
def test_the_best_run_goes_far_away_only_if_it_has_a_learning_rate(
    model: str, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_state, "ENOUGH_TO_LEARN", 8)
    runs = [Run(i, "complete", {"lr": 0.1 * (1 + i)}, 1.0 - 0.1 * i, others={"model": "net"}) for i in range(7)]
    runs.append(Run(7, "complete", {"lr": 0.1} if model == "net" else {}, 0.1, others={"model": model}))
    slot = next_params(Recipe(stages=("refine",)), runs, space=LR).slot
    assert slot.startswith("refine:lr=") is far


def test_a_run_without_epochs_beside_others_with_them_may_be_the_best_full_one() -> None:
    runs = [Run(0, "complete", {**START, "epochs": 16}, 0.3), Run(1, "complete", {"weight_decay": 1e-3}, 0.1)]
    proposal = next_params(Recipe(short=0.25, stages=("refine",)), runs, space=SPACE)
    assert proposal.like == 1


def test_while_no_run_has_ended_idle_workers_are_drawn_and_no_model_is_named() -> None:
    runs = [Run(number, "running", START, slot=f"lr0:{x}") for number, x in enumerate(("1", "2", "0.3333"))]
    proposal = next_params(Recipe(), runs, space=SPACE)
    assert proposal.slot == "model"
    assert proposal.reason == "drawn while others finish the stage lr, as no run has ended well yet"
