from dataclasses import replace

import pytest

from optuna_discipline import Recipe
from optuna_discipline import Run
from optuna_discipline import next_params
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.stages import Search

SHORT = Recipe(short=0.25)
SPACE: dict[Role, Bounds] = {
    "lr": Bounds(1e-5, 10.0),
    "momentum": Bounds(0.8, 0.99),
    "weight_decay": Bounds(0.0, 1e-1),
    "epochs": Bounds(1, 16),
}
START: dict[Role, float] = {"lr": 0.1, "momentum": 0.95, "weight_decay": 1e-4, "epochs": 4}


def lr_stage(best: float = 0.5) -> list[Run]:
    """Return a decided ladder with its best at the start."""
    losses = {"lr0:1": best, "lr0:3": best + 0.1, "lr0:0.3333": best + 0.1, "lr0:0.5773": best + 0.05}
    multiples = {slot: float(slot.split(":")[1]) for slot in losses}
    return [
        Run(i, "complete", {**START, "lr": 0.1 * multiples[slot]}, loss, slot)
        for i, (slot, loss) in enumerate(losses.items())
    ]


def _next(runs: list[Run], recipe: Recipe | None = None, skip: int = 0) -> tuple[str, dict[Role, float]]:
    proposal = next_params(recipe or SHORT, runs, space=SPACE, skip=skip)
    return proposal.slot, dict(proposal.values)


def test_a_decided_ladder_is_confirmed_at_full_length_and_the_confirmation_blocks_nobody() -> None:
    runs = lr_stage()
    assert _next(runs)[0] == "confirm:1"
    runs.append(Run(4, "running", {}, slot="confirm:1"))
    assert _next(runs)[0] == "replicate:1"
    runs.append(Run(5, "running", {}, slot="replicate:1"))
    assert _next(runs)[0] == "model"


def test_momentum_is_compared_at_one_effective_rate_unless_it_cycles() -> None:
    runs = lr_stage()
    runs += [
        Run(4, "complete", {**START, "epochs": 16}, 0.3, "confirm:1"),
        Run(5, "complete", START, 0.5, "replicate:1"),
    ]
    slot, values = _next(runs)
    assert slot == "momentum:0.99"
    assert values["lr"] == pytest.approx(0.1 * 0.01 / 0.05)
    assert _next(runs, Recipe(cyclical_momentum=True))[1]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("momentum", [1.0, 1.5])
def test_a_best_momentum_of_1_or_more_has_no_effective_rate_to_compare_at(momentum: float) -> None:
    recipe = Recipe(short=0.25, stages=("lr", "momentum"))
    runs = [replace(run, params={**run.params, "momentum": momentum}) for run in lr_stage()]
    proposal = next_params(recipe, runs, space={**SPACE, "momentum": Bounds(0.5, momentum)})
    assert (proposal.slot, proposal.values["lr"]) == ("momentum:0.99", 0.1)
    assert proposal.reason == f"momentum 0.99 against {momentum:g}"


@pytest.mark.parametrize("size", [16_384, 1_048_576])
def test_large_batch_sizes_are_compared_and_named_as_they_are(size: int) -> None:
    recipe = Recipe(short=0.25, stages=("lr", "batch_size"))
    space = {**SPACE, "batch_size": Bounds(1024, 2**24)}
    runs = [replace(run, params={**run.params, "batch_size": size}) for run in lr_stage()]
    proposal = next_params(recipe, runs, space=space)
    assert (proposal.slot, proposal.values["batch_size"]) == (f"batch_size:{2 * size}", 2 * size)
    assert proposal.reason.startswith(f"batch size {2 * size} against {size} with")


def test_complex_nets_try_no_weight_decay_at_all() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "weight_decay"), complexity="complex")
    slots = [_next(lr_stage(), recipe, skip)[0] for skip in range(3)]
    assert slots == ["weight_decay:1e-05", "weight_decay:1e-06", "weight_decay:0"]


def test_workers_take_different_open_candidates() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "momentum"))
    assert len({_next(lr_stage(), recipe, skip)[0] for skip in range(3)}) == 3


def test_the_rate_is_refitted_at_full_length_around_the_better_confirmation() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "confirm", "refine"))
    runs = [*lr_stage(), Run(4, "complete", {**START, "epochs": 16}, 0.3, "confirm:1")]
    slots = [_next(runs, recipe, skip) for skip in (0, 1)]
    assert [slot for slot, _ in slots] == ["refine:lr*0.5", "refine:lr*2"]
    assert [values["lr"] for _, values in slots] == pytest.approx([0.05, 0.2])


def test_idle_workers_search_by_the_model_while_the_ladder_is_undecided() -> None:
    runs = [Run(0, "complete", START, 0.5, "lr0:1")]
    seen = ["lr0:1"]
    for number in range(1, 9):
        slot, _ = _next(runs)
        assert slot == "model" or slot not in seen
        assert slot == "model" or slot.startswith("lr0:")
        seen.append(slot)
        runs.append(Run(number, "running", {}, slot=slot))
    assert seen[-1] == "model"


def test_idle_workers_search_by_the_model_while_a_comparison_is_undecided() -> None:
    recipe = Recipe(stages=("lr", "momentum", "weight_decay"))
    runs = [replace(run, params={**run.params, "epochs": 16.0}) for run in lr_stage()]
    runs.append(Run(4, "running", {}, slot="momentum:model"))
    proposal = next_params(recipe, runs, space=SPACE)
    assert (proposal.stage, proposal.slot) == ("refine", "model")
    assert proposal.reason == "model-based search while others finish the stage momentum"
    assert proposal.like == 0


def test_a_replicate_of_another_configuration_says_nothing_about_the_noise() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "replicate", "momentum"))
    elsewhere = Run(4, "complete", {**START, "lr": 0.3}, 5.0, "replicate:1")
    assert _search_noise([*lr_stage(), elsewhere], recipe) < 0.01
    assert _search_noise([*lr_stage(), replace(elsewhere, params=START)], recipe) == pytest.approx(4.5)


def _search_noise(runs: list[Run], recipe: Recipe) -> float:
    search = Search(recipe, runs, SPACE, None)
    for index, stage in enumerate(recipe.stages):
        search.plan(stage, index)
    return search.noise


def test_a_confirmation_of_what_is_confirmed_is_skipped() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "confirm", "momentum", "confirm", "refine"), momenta=(0.9, 0.95))
    runs = [
        *lr_stage(),
        Run(4, "complete", {**START, "epochs": 16}, 0.3, "confirm:1"),
        Run(5, "complete", {**START, "momentum": 0.9, "lr": 0.2}, 0.9, "momentum:0.9"),
    ]
    assert _next(runs, recipe)[0] == "refine:lr*0.5"
    better = [*runs[:-1], Run(5, "complete", {**START, "momentum": 0.9, "lr": 0.2}, 0.2, "momentum:0.9")]
    slot, values = _next(better, recipe)
    assert slot == "confirm:2"
    assert (values["momentum"], values["lr"]) == (0.9, 0.2)


def test_the_refit_goes_around_the_better_of_two_confirmations_and_then_to_the_model() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "confirm", "momentum", "confirm", "refine"), momenta=(0.9, 0.95))
    runs = [
        *lr_stage(),
        Run(4, "complete", {**START, "epochs": 16}, 0.3, "confirm:1"),
        Run(5, "complete", {**START, "momentum": 0.9, "lr": 0.2}, 0.2, "momentum:0.9"),
        Run(6, "complete", {**START, "momentum": 0.9, "lr": 0.2, "epochs": 16}, 0.4, "confirm:2"),
    ]
    slot, values = _next(runs, recipe)
    assert (slot, values["lr"], values["momentum"]) == ("refine:lr*0.5", pytest.approx(0.05), 0.95)
    runs += [Run(7 + i, "complete", {**START, "epochs": 16}, 0.5, f"refine:lr*{x}") for i, x in enumerate((0.5, 2))]
    assert _next(runs, recipe)[0] == "model"


def test_a_refit_leaves_out_rates_outside_the_bounds() -> None:
    recipe = Recipe(short=0.25, stages=("lr", "confirm", "refine"))
    runs = [*lr_stage(), Run(4, "complete", {**START, "epochs": 16}, 0.3, "confirm:1")]
    space: dict[Role, Bounds] = {**SPACE, "lr": Bounds(0.02, 0.15)}
    slots = [next_params(recipe, runs, space=space, skip=skip).slot for skip in range(2)]
    assert "refine:lr*2" not in slots


def test_at_full_length_the_model_looks_once_for_each_role_with_all_others_held() -> None:
    space: dict[Role, Bounds] = {**SPACE, "batch_size": Bounds.of_choices([16, 32, 64, 128, 256])}
    runs = [replace(run, params={**run.params, "epochs": 16.0}) for run in lr_stage()]
    seen = []
    for _ in range(12):
        proposal = next_params(Recipe(), runs, space=space)
        seen.append((proposal.slot, proposal.free, proposal.like))
        params = {role: proposal.value_of(role, bounds) for role, bounds in space.items()}
        runs.append(Run(len(runs), "complete", params, 0.9, proposal.slot))
    assert [one for one in seen if one[1]] == [
        ("momentum:model", ("momentum", "lr"), 0),
        ("weight_decay:model", ("weight_decay", "lr"), 0),
        ("batch_size:model", ("batch_size", "lr"), 0),
    ]
    assert [slot for slot, *_ in seen].index("batch_size:model") == 12 - len(lr_stage())  # once a dozen have run


def test_a_role_with_one_value_has_nothing_to_compare() -> None:
    search = Search(SHORT, [], {**SPACE, "weight_decay": Bounds(1e-4, 1e-4)}, None)
    assert search._axis("weight_decay") is None
    assert search._axis("batch_size") is None


def _restarts(losses: dict[float, float]) -> list[Run]:
    """Return a decided ladder at full length, and a restart of its best for each weight decay."""
    runs = [replace(run, params={**run.params, "epochs": 16}) for run in lr_stage()]
    for x, loss in losses.items():
        params: dict[Role, float] = {**START, "weight_decay": x, "epochs": 16}
        runs.append(Run(len(runs), "complete", params, loss, f"weight_decay:{x:g}", restarted=True))
    return runs


SNAPSHOT = Recipe(
    stages=("lr", "weight_decay", "batch_size", "refine"), weight_decay_search="snapshot", complexity="shallow"
)


def test_snapshots_make_the_papers_candidates_cheap_enough_at_full_length() -> None:
    first = next_params(SNAPSHOT, _restarts({}), space=SPACE)
    assert (first.slot, first.restart_from, first.keep_snapshot) == ("weight_decay:0.01", 0, False)
    assert _next(_restarts({1e-2: 0.9}), SNAPSHOT)[0] == "weight_decay:0.001"
    assert _next(_restarts({1e-2: 0.9, 1e-3: 0.45}), SNAPSHOT)[0] == "weight_decay:0.0003"  # bisected, to one figure
    ladder = next_params(SNAPSHOT, [], space=SPACE)
    assert (ladder.restart_from, ladder.keep_snapshot) == (None, True)


@pytest.mark.parametrize(("whole", "settled"), [(0.44, 1e-3), (2.3, 1e-4), (0.4999, 1e-4)])
def test_the_best_restart_is_taken_only_if_it_holds_as_a_whole_training(whole: float, settled: float) -> None:
    runs = _restarts({1e-2: 0.9, 1e-3: 0.42, 3e-4: 0.43})
    proposal = next_params(SNAPSHOT, runs, space=SPACE)
    assert (proposal.stage, proposal.slot, proposal.restart_from) == ("weight_decay", "whole:0.001", None)
    assert proposal.values["weight_decay"] == 1e-3
    running = Run(len(runs), "running", {}, slot="whole:0.001")
    assert _next([*runs, running], SNAPSHOT)[0] == "model"
    params: dict[Role, float] = {**START, "weight_decay": 1e-3, "epochs": 16}
    ended = Run(len(runs), "complete", params, whole, "whole:0.001")
    recipe = replace(SNAPSHOT, stages=("lr", "replicate", "weight_decay", "refine"))
    proposal = next_params(recipe, [*runs, ended], space=SPACE)
    assert proposal.stage == "refine"
    found = Search(recipe, [*runs, ended], SPACE, None)
    for index, stage in enumerate(recipe.stages[:-1]):
        assert found.plan(stage, index) == []
    assert found.incumbent.values["weight_decay"] == settled


def test_the_models_box_does_not_lie_around_a_restart() -> None:
    runs = _restarts({1e-2: 0.1})
    best = next_params(replace(SNAPSHOT, stages=("refine",)), runs, space=SPACE)
    assert best.values["weight_decay"] == 1e-4


def test_without_any_run_before_it_the_first_weight_decay_is_saved_and_restarted() -> None:
    space = {**SPACE, "lr": Bounds(0.1, 0.1)}
    recipe = replace(SNAPSHOT, stages=("lr", "weight_decay", "refine"))
    first = next_params(recipe, [], space=space)
    assert (first.slot, first.restart_from, first.keep_snapshot) == ("weight_decay:0.01", None, True)
    runs = [Run(3, "complete", {**START, "epochs": 16}, 0.5, first.slot)]
    second = next_params(recipe, runs, space=space)
    assert (second.restart_from, second.keep_snapshot) == (3, False)


def test_the_best_full_run_from_before_the_stage_is_restarted_whoever_found_it() -> None:
    found: dict[Role, float] = {**START, "lr": 0.2, "momentum": 0.97, "epochs": 16}
    runs = [*_restarts({}), Run(4, "complete", found, 0.3, "momentum:model")]
    proposal = next_params(SNAPSHOT, runs, space=SPACE)
    assert (proposal.restart_from, proposal.values["momentum"], proposal.values["lr"]) == (4, 0.97, 0.2)
    params: dict[Role, float] = {**found, "weight_decay": 1e-2}
    later = [Run(5, "complete", params, 0.35, proposal.slot, restarted=True), Run(6, "complete", found, 0.1, "model")]
    assert next_params(SNAPSHOT, [*runs, *later], space=SPACE).restart_from == 4


def test_the_ladder_goes_on_with_what_its_first_run_was_given_or_the_first_that_fitted_into_memory() -> None:
    runs = [Run(0, "complete", {**START, "lr": 0.002}, 0.5, "lr0:1")]  # its optimizer's usual rate, not the bounds'
    slot, values = _next(runs)
    assert slot == "lr0:2"
    assert values["lr"] == pytest.approx(0.004)
    too_large = [Run(i, "failed", {**START, "batch_size": 32}, slot="lr0:1") for i in range(2)]
    slot, values = _next([*too_large, Run(2, "complete", {**START, "batch_size": 8}, 0.5, "lr0:1")])
    assert (slot, values["batch_size"]) == ("lr0:2", 8)


@pytest.mark.parametrize(
    ("cyclical", "slot"), [(False, "lr0:100"), (True, "lr0:9")], ids=["SGD", "any optimizer with a cycle"]
)
def test_a_rate_far_too_low_is_left_for_the_optimizers_usual_one(cyclical: bool, slot: str) -> None:
    low = Run(0, "complete", {**START, "lr": 1e-3, "epochs": 16}, 2.0, "lr0:1", reports=(2.3, 2.29, 2.2, 2.0))
    assert _next([low], Recipe(cyclical_momentum=cyclical))[0] == slot


@pytest.mark.parametrize(("optimizer", "slot"), [("adam", "lr0:0.1111"), ("net", "lr0:9"), ("SGD", "lr0:9")])
def test_a_run_that_stands_still_far_above_its_optimizers_usual_rate_was_too_high(optimizer: str, slot: str) -> None:
    still = Run(0, "complete", {"lr": 0.02}, 2.3, "lr0:1", reports=(2.32, 2.33, 2.31), others={"kind": optimizer})
    assert _next([still], Recipe())[0] == slot
    enqueued = replace(still, slot=None)
    assert _next([enqueued], Recipe())[0] == slot
    fell = replace(still, reports=(2.32, 2.2, 2.1), loss=2.1)
    assert _next([fell], Recipe())[0] != "lr0:0.1111"
    told = next_params(Recipe(), [still], space=SPACE).reason
    assert ("far above the usual rate: far too high" in told) == (slot == "lr0:0.1111")


@pytest.mark.parametrize("first", [None, "lr0:1"], ids=["enqueued", "proposed"])
def test_rates_that_were_enqueued_or_added_are_rungs_that_have_run(first: str | None) -> None:
    losses = {1.0: 0.5, 0.3333: 0.6, 3.0: 0.6}
    runs = [
        Run(i, "complete", {**START, "lr": 0.1 * x, "epochs": 16}, loss, first if x == 1 else None)
        for i, (x, loss) in enumerate(losses.items())
    ]
    assert [_next(runs[:i], Recipe())[0] for i in (1, 2, 3)] == ["lr0:0.3333", "lr0:3", "momentum:model"]


def test_a_hundred_rates_of_another_sampler_leave_the_step_beyond_the_last() -> None:
    rates = [1e-4 * 1.04**i for i in range(100)]
    runs = [Run(i, "complete", {"lr": lr}, 1.0 - lr) for i, lr in enumerate(rates)]
    proposal = next_params(Recipe(), runs, space={"lr": Bounds(1e-5, 10.0)})
    assert (proposal.stage, proposal.values["lr"]) == ("lr", pytest.approx(3 * rates[-1], rel=1e-3))


def test_a_ladder_says_which_trial_of_another_sampler_it_starts_from() -> None:
    shorter, whole = ([Run(7, "complete", {**START, "epochs": epochs}, 0.3)] for epochs in (8, 16))
    said = [next_params(Recipe(), runs, space=SPACE).reason for runs in (shorter, whole)]
    assert said[0] == "learning-rate ladder: where to start: as trial 7, the best so far"
    assert said[1].endswith("; the start is trial 7")
