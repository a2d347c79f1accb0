import json
import math
from collections.abc import Callable
from dataclasses import asdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from optuna_discipline import Recipe
from optuna_discipline import Run
from optuna_discipline import next_params
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.recipe import restart_sources
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

SHORT = Recipe(short=0.25)
SPACE: dict[Role, Bounds] = {
    "lr": Bounds(1e-5, 10.0),
    "momentum": Bounds(0.8, 0.99),
    "weight_decay": Bounds(1e-7, 1e-1),
    "batch_size": Bounds.of_choices([16, 32, 64, 128, 256]),
    "epochs": Bounds(1, 16),
}
Loss = Callable[[dict[Role, float]], float]


def _valley(params: dict[Role, float]) -> float:
    """A plausible objective: best at an lr / (1 - momentum) of 4, momentum .97, weight decay 3e-4, batch 64."""
    step = math.log10(params["lr"] / (1 - params["momentum"]) / 4)
    if step > 0.8:
        return math.inf
    short = 0.3 * (1 - params.get("epochs", 16) / 16)
    momentum = (math.log10(1 - params["momentum"]) - math.log10(0.03)) ** 2
    decay = (math.log10(params["weight_decay"]) + 3.5) ** 2
    batch = math.log2(params.get("batch_size", 64) / 64) ** 2
    return 0.2 + short + 0.2 * step**2 + 0.1 * momentum + 0.05 * decay + 0.03 * batch


def _finish(proposal: Proposal, number: int, loss: Loss, space: dict[Role, Bounds], **extra: Any) -> Run:
    params = {role: proposal.value_of(role, bounds, extra.get("choice")) for role, bounds in space.items()}
    return Run(number, "complete", params, loss(params), proposal.slot)


def _play(
    recipe: Recipe, count: int, loss: Loss = _valley, space: dict[Role, Bounds] = SPACE, **extra: Any
) -> list[Any]:
    """Run `count` proposals one after another, the first without knowing the space, as a study does."""
    runs: list[Run] = []
    played = []
    for number in range(count):
        proposal = next_params(recipe, runs, space=space if runs else {}, **extra)
        runs.append(_finish(proposal, number, loss, space, **extra))
        played.append((proposal, runs[-1]))
    return played


def test_the_stages_come_in_order_and_none_is_left_out() -> None:
    played = _play(SHORT, 30)
    stages = list(dict.fromkeys(proposal.stage for proposal, _ in played))
    assert stages == ["lr", "confirm", "replicate", "momentum", "weight_decay", "batch_size", "refine"]
    assert played[-1][0].slot == MODEL_SLOT


def test_stages_use_short_cycles_and_confirm_and_refine_full_ones() -> None:
    for proposal, run in _play(SHORT, 30):
        full = proposal.stage in ("confirm", "refine")
        assert run.params["epochs"] == (16 if full else 4), proposal


def test_a_full_length_result_exists_after_about_two_trainings() -> None:
    cost = 0.0
    for proposal, run in _play(SHORT, 12):
        cost += run.params["epochs"] / 16
        if proposal.stage == "confirm":
            break
    assert proposal.stage == "confirm"
    assert cost <= 2.5


def test_the_stages_find_the_valley() -> None:
    played = _play(SHORT, 25)
    best = min((run for proposal, run in played if proposal.fidelity == 1), key=lambda run: run.score)
    assert best.params["momentum"] == 0.97
    assert best.params["batch_size"] == 64
    assert best.params["weight_decay"] == pytest.approx(3e-4, rel=0.5)
    assert best.params["lr"] / (1 - best.params["momentum"]) == pytest.approx(4, rel=0.8)


def test_the_same_history_gives_the_same_proposal() -> None:
    played = _play(SHORT, 20)
    for length in (0, 3, 7, 12, 19):
        runs = [run for _, run in played[:length]]
        assert next_params(SHORT, runs[::-1], space=SPACE if runs else {}) == played[length][0]


def test_slots_never_repeat_but_the_models() -> None:
    slots = [proposal.slot for proposal, _ in _play(SHORT, 40) if proposal.slot != MODEL_SLOT]
    assert len(slots) == len(set(slots))


def test_without_epochs_every_run_is_full_and_nothing_is_confirmed_or_replicated() -> None:
    space = {role: bounds for role, bounds in SPACE.items() if role != "epochs"}
    stages = [proposal.stage for proposal, _ in _play(SHORT, 20, space=space)]
    assert list(dict.fromkeys(stages)) == ["lr", "momentum", "weight_decay", "refine", "batch_size"]
    assert stages.index("refine") < stages.index("batch_size") == 12


def test_a_range_test_gives_the_ladder_its_start_and_ceiling() -> None:
    choice = LrChoice(0.02, 0.002, (0.004, 0.04), "OK", "", confident=True)
    played = _play(SHORT, 8, choice=choice)
    ladder = [run.params["lr"] for proposal, run in played if proposal.stage == "lr"]
    assert ladder[0] == pytest.approx(0.02)
    assert max(ladder) <= 0.04 * 1.001


def _curve(train: list[float], n_classes: int = 10) -> LossCurve:
    logs = tuple(EpochLog(i, 0.1, loss, loss) for i, loss in enumerate(train))
    return LossCurve(logs, n_epochs=len(train), n_classes=n_classes)


def test_a_loss_that_climbed_on_the_way_sends_the_ladder_down_and_says_so() -> None:
    first = next_params(Recipe(), [])
    params = {role: first.value_of(role, bounds) for role, bounds in SPACE.items()}
    climbed = Run(0, "complete", params, 0.45, first.slot, reports=(2.0, 1.0, 1.4, 0.6, 0.45))
    second = next_params(Recipe(), [climbed], space=SPACE)
    assert second.lr_multiple < 1
    assert "got worse on the way" in second.reason
    fell = replace(climbed, reports=(2.0, 1.0, 0.7, 0.5, 0.45))
    assert next_params(Recipe(), [fell], space=SPACE).lr_multiple > 1


def test_cycles_in_which_nothing_learns_are_lengthened_not_ranked() -> None:
    runs: list[Run] = []
    lengths = []
    for number in range(14):
        proposal = next_params(SHORT, runs, space=SPACE if runs else {})
        params = {role: proposal.value_of(role, bounds) for role, bounds in SPACE.items()}
        learns = params["epochs"] >= 8
        losses = [2.30, 2.0, 1.0, _valley(params)] if learns else [2.303, 2.302, 2.302, 2.3 + 1e-4 * number]
        runs.append(replace(_finish(proposal, number, lambda _, end=losses[-1]: end, SPACE), curve=_curve(losses)))
        lengths.append((proposal.stage, params["epochs"]))
        if proposal.stage == "confirm":
            break
    assert ("lr", 8) in lengths
    assert sum(length for stage, length in lengths if (stage, length) == ("lr", 4)) <= 5 * 4
    assert lengths[-1] == ("confirm", 16)


def test_a_difference_smaller_than_the_noise_keeps_the_defaults() -> None:
    noise = iter([0.0, 0.03] * 50)

    def flat(params: dict[Role, float]) -> float:
        return 0.5 + 0.1 * math.log10(params["lr"] / 0.1) ** 2 + next(noise)

    played = _play(SHORT, 25, flat)
    confirmed = [run for proposal, run in played if proposal.stage == "confirm"]
    assert len(confirmed) == 1
    assert (confirmed[0].params["momentum"], confirmed[0].params["weight_decay"]) == (0.95, 1e-4)


def test_nothing_is_built_on_an_undecided_stage() -> None:
    runs = [run for _, run in _play(SHORT, 2)]
    pending = next_params(SHORT, runs, space=SPACE)
    assert pending.stage == "lr"
    runs.append(Run(2, "running", {}, slot=pending.slot))
    for number in range(3, 12):
        idle = next_params(SHORT, runs, space=SPACE)
        assert idle.stage == "lr" or idle.slot == "model"
        assert idle.slot == "model" or idle.slot not in {run.slot for run in runs}
        runs.append(Run(number, "running", {}, slot=idle.slot))


def test_a_failed_run_is_tried_again_and_then_given_up() -> None:
    first = next_params(SHORT, [])
    thrice = [Run(number, "failed", {"lr": 0.1}, slot=first.slot, others={"width": 64}) for number in range(3)]
    once, twice = thrice[:1], thrice[:2]
    assert next_params(SHORT, once, space=SPACE).slot == first.slot
    assert next_params(SHORT, twice, space=SPACE) == replace(first, failures=2)  # with another configuration
    assert next_params(SHORT, thrice, space=SPACE).slot != first.slot
    without_others = [replace(run, others={}) for run in twice]
    assert next_params(SHORT, without_others, space=SPACE).slot != first.slot
    trained = [Run(0, "complete", {"lr": 0.1}, 0.5), *(replace(run, number=run.number + 1) for run in twice)]
    assert next_params(SHORT, trained, space=SPACE).slot != first.slot


def test_a_divergence_is_an_answer_though_its_trial_failed() -> None:
    curve = LossCurve((EpochLog(0, 0.1, math.nan, math.nan),), n_epochs=4)
    first = next_params(SHORT, [])
    again = next_params(SHORT, [Run(0, "failed", {"lr": 0.1}, slot=first.slot, curve=curve)], space=SPACE)
    assert again.slot != first.slot


def test_a_parameter_that_somebody_else_sets_is_not_searched() -> None:
    runs: list[Run] = []
    for number in range(12):
        proposal = next_params(SHORT, runs, space=SPACE if runs else {})
        run = _finish(proposal, number, _valley, SPACE)
        params: dict[Role, float] = {**run.params, "lr": 0.1, "momentum": 0.9}
        runs.append(replace(run, params=params, loss=_valley(params)))
    stages = [str(run.slot).split(":")[0] for run in runs]
    assert stages.count("lr0") == 2
    assert stages.count("momentum") <= 1


def test_earlier_runs_of_another_sampler_are_built_upon() -> None:
    known = Run(0, "complete", {"lr": 0.4, "momentum": 0.9, "weight_decay": 1e-3, "batch_size": 32, "epochs": 16}, 0.3)
    proposal = next_params(SHORT, [known], space=SPACE)
    assert proposal.values["lr"] == pytest.approx(0.4)
    assert proposal.values["momentum"] == 0.9
    assert proposal.like == 0


def test_slower_batch_sizes_do_not_win_by_loss_alone() -> None:
    def smaller_is_better(params: dict[Role, float]) -> float:
        return 1 + _valley({**params, "batch_size": 64}) + 0.1 * math.log2(params["batch_size"] / 16)

    def play(seconds_of: Callable[[float], float]) -> set[float]:
        runs: list[Run] = []
        for number in range(30):
            proposal = next_params(SHORT, runs, space=SPACE if runs else {})
            run = _finish(proposal, number, smaller_is_better, SPACE)
            runs.append(replace(run, seconds=seconds_of(run.params["batch_size"]) * run.params["epochs"]))
        return {run.params["batch_size"] for run in runs if run.slot == "confirm:2"}

    assert play(lambda batch: 100.0) == {16}
    assert play(lambda batch: 100.0 * 64 / batch) != {16}


@settings(max_examples=40)
@given(st.data())
def test_any_outcomes_give_proposals_inside_the_space(data: st.DataObject) -> None:
    runs: list[Run] = []
    for number in range(15):
        proposal = next_params(SHORT, runs, space=SPACE if runs else {}, skip=data.draw(st.integers(0, 3)))
        params = {role: proposal.value_of(role, bounds) for role, bounds in SPACE.items()}
        assert all(SPACE[role].low <= x <= SPACE[role].high for role, x in params.items())
        state = data.draw(st.sampled_from(["complete", "complete", "pruned", "failed", "running"]))
        loss = data.draw(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)))
        runs.append(Run(number, state, params, loss, proposal.slot))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stages", ("lr", "refine", "momentum")),
        ("stages", ("colour",)),
        ("stages", ()),
        ("stages", None),
        ("stages", (["lr"],)),
        ("short", 0.0),
        ("short", math.nan),
        ("complexity", "huge"),
        ("complexity", ["shallow"]),
        ("momenta", (1.0,)),
        ("momenta", ()),
        ("momenta", 0.9),
        ("cyclical_momentum", "yes"),
    ],
)
def test_bad_settings_are_named(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Recipe(**{argument: value})


def test_a_list_of_stages_makes_the_same_recipe_as_a_tuple() -> None:
    given = Recipe(stages=["lr", "refine"])  # type: ignore[arg-type]
    assert given == Recipe(stages=("lr", "refine"))
    assert hash(given) == hash(Recipe(stages=("lr", "refine")))


def test_what_is_no_role_or_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`space` must hold the bounds of roles, .* but got \['learning_rate'\]"):
        next_params(Recipe(), [], space={"learning_rate": Bounds(1e-4, 1)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="`choice` must be a LrChoice, but got float"):
        next_params(Recipe(), [], choice=0.1)  # type: ignore[arg-type]


def test_a_recipe_of_numpys_numbers_is_one_of_pythons() -> None:
    recipe = Recipe(
        short=np.float32(0.25),  # type: ignore[arg-type]
        momenta=np.array([0.5, 0.75]),  # type: ignore[arg-type]
        cyclical_momentum=np.bool_(True),  # type: ignore[arg-type]
    )
    assert recipe == Recipe(short=0.25, momenta=(0.5, 0.75), cyclical_momentum=True)
    assert json.loads(json.dumps(asdict(recipe)))["momenta"] == [0.5, 0.75]


def test_by_default_every_stage_runs_at_full_length_and_the_model_starts_within_a_dozen_trainings() -> None:
    played = _play(Recipe(), 16)
    assert {run.params["epochs"] for _, run in played} == {16}
    stages = [proposal.stage for proposal, _ in played]
    assert list(dict.fromkeys(stages)) == ["lr", "momentum", "weight_decay", "refine", "batch_size"]
    assert stages.index("refine") < stages.index("batch_size") == 12


def test_the_name_may_say_where_the_ladder_starts() -> None:
    space: dict[Role, Bounds] = {"lr": Bounds(1e-5, 1.0, start=1e-3)}
    played = _play(Recipe(), 2, loss=lambda p: p["lr"], space=space)
    assert [run.params["lr"] for _, run in played] == pytest.approx([1e-3, 1e-3 / 3], rel=1e-3)


@pytest.mark.parametrize(
    ("bounds", "decays"), [(Bounds(1e-7, 0.1), {1e-4, 3e-4, 3e-5}), (Bounds(0.01, 1.0), {0.1, 0.3, 0.03})]
)
def test_larger_weight_decays_are_compared_where_they_are_decoupled(bounds: Bounds, decays: set[float]) -> None:
    recipe = Recipe(stages=("weight_decay",), weight_decay_search="snapshot")
    played = _play(recipe, 4, loss=lambda p: p["weight_decay"], space={"weight_decay": bounds})
    assert {round(run.params["weight_decay"], 9) for _, run in played} >= decays


def test_what_may_be_restarted_is_kept_until_the_weight_decay_is_decided() -> None:
    recipe = Recipe(stages=("lr", "weight_decay", "refine"), weight_decay_search="snapshot")
    space: dict[Role, Bounds] = {"lr": Bounds(1e-3, 1.0), "weight_decay": Bounds(1e-7, 0.1), "epochs": Bounds(1, 8)}
    runs: list[Run] = []
    while True:
        proposal = next_params(recipe, runs, space=space)
        sources = restart_sources(recipe, runs, space=space)
        if proposal.stage == "lr":
            assert sources == {run.number for run in sorted(runs, key=lambda run: run.score)[:3]}
        elif proposal.stage == "weight_decay" and proposal.restart_from is not None:
            assert sources == {proposal.restart_from}
        elif proposal.stage == "refine":
            assert sources == set()
            break
        params = {role: proposal.value_of(role, bounds) for role, bounds in space.items()}
        loss = 1 + abs(math.log10(params["lr"]) + 1) + abs(math.log10(params["weight_decay"]) + 3)
        restarted = proposal.restart_from is not None
        runs.append(Run(len(runs), "complete", params, loss, proposal.slot, restarted=restarted))
    assert {run.slot.split(":")[0] for run in runs if run.slot} == {"lr0", "weight_decay", "whole"}
    assert restart_sources(Recipe(), runs[:3], space=space) == set()
