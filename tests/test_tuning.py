import dataclasses
import gc
import inspect
import math
import weakref
from pathlib import Path
from typing import Any
from typing import get_args

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_discipline import DisciplineError
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import UnsupportedStudyError
from optuna_discipline import suggest_hyperparams
from optuna_discipline import tune
from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.trainer import Trainer
from optuna_discipline.trial_record import read_curve

torch = pytest.importorskip("torch")
batches = pytest.importorskip("optuna_discipline.training.batches")
nn = torch.nn

SHORT = Recipe(stages=("lr", "confirm", "momentum"), cyclical_momentum=True)


def _data(n: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return x, (x[:, 0] + x[:, 1] ** 2 > 0.5).long()


TRAIN, VAL = _data(200, 0), _data(100, 1)


class _Two(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.net(x), x.mean()


def _model() -> Any:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


MODEL = _model()
FROM_TRIAL: dict[str, Any] = {"build_model": lambda trial: _model()}
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"train_options": {"clip_norm": -1}}, "`clip_norm` must be"),
    ({"train_options": {"accumulate": 0}}, "`accumulate` must be"),
    ({"train_options": {"amp": "x"}}, "`amp` must be one of"),
    ({"train_options": {"step": 2}}, "`step` must be callable"),
    ({"loss_fn": "mse"}, "`loss_fn` must be callable"),
]


def _tune(**settings: Any) -> optuna.Study:
    defaults: dict[str, Any] = {"n_trials": 5, "epochs": 4, "seed": 0, "device": "cpu", "batch_size": (16, 32)}
    defaults["range_test"] = True
    if "budget" in settings:
        del defaults["n_trials"]
    return tune(
        settings.pop("build_model", _model),
        settings.pop("train", TRAIN),
        settings.pop("val", VAL),
        **{**defaults, **settings},
    )


def test_a_tuned_network_learns_and_every_epoch_is_kept() -> None:
    study = _tune(n_trials=8)
    assert study.best_value < 0.5 < math.log(2)
    assert RANGE_TEST_KEY in study.trials[0].system_attrs
    for trial in study.trials:
        curve = read_curve(trial)
        assert curve is not None
        assert curve.n_classes == 2
        assert trial.state == TrialState.PRUNED or len(curve) == trial.params["epochs"]


@pytest.mark.parametrize(("epochs", "runs"), [(4, False), (143, True)])  # 7 updates an epoch, at batches of 32
def test_a_range_test_is_run_unasked_where_it_is_cheap(epochs: int, runs: bool) -> None:
    study = _tune(n_trials=1, epochs=epochs, range_test=None)
    assert (RANGE_TEST_KEY in study.trials[0].system_attrs) == runs
    assert (cost_in_full_trainings(study) > 1) == runs


def _tested(optimizer: str) -> RangeTest:
    lrs = np.geomspace(1e-4, 1, 40)
    return RangeTest(lrs, 1 + lrs, None, "end of range", 1.0, settings={"optimizer": optimizer})


@pytest.mark.parametrize("own_parameters", [False, True])
@pytest.mark.parametrize("by_a_function", [False, True])
def test_a_range_test_of_the_users_own_is_that_of_the_study(by_a_function: bool, own_parameters: bool) -> None:
    lrs = np.geomspace(1e-4, 1, 40)
    own = RangeTest(lrs, np.where(lrs < 1e-2, 1 - np.log10(lrs / 1e-4) / 3, 100 * lrs), None, "end of range", 1.0)
    others: dict[str, Any] = FROM_TRIAL if own_parameters else {}
    study = _tune(n_trials=1, range_test=(lambda: own) if by_a_function else own, **others)
    assert RangeTest.from_dict(study.trials[0].system_attrs[RANGE_TEST_KEY]) == own
    assert study.trials[0].params["lr"] == pytest.approx(own.max_lr)


def test_the_seed_fixes_the_study_and_leaves_the_callers_random_state() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again = _tune(), _tune()
    assert torch.equal(torch.get_rng_state(), before)
    assert [t.value for t in first.trials] == [t.value for t in again.trials]


def test_a_stored_study_goes_on_to_the_number_of_trials(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    _tune(n_trials=2, storage=url)
    study = _tune(n_trials=4, storage=url)
    assert len(study.trials) == 4
    assert [t.value for t in study.trials] == [t.value for t in _tune(n_trials=4).trials]
    assert len(_tune(n_trials=4, storage=url).trials) == 4


def test_ctrl_c_returns_a_stored_study_that_goes_on_and_does_not_count_the_interrupted_trial(tmp_path: Path) -> None:
    calls = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(output, target)

    whole: dict[str, Any] = {"n_trials": 3, "storage": f"sqlite:///{tmp_path / 'study.db'}", "loss_fn": loss}
    states = [[t.state for t in _tune(**whole).trials] for _ in range(2)]
    assert states[0][-1] == TrialState.FAIL
    assert states[1] == [*states[0], *[TrialState.COMPLETE] * (4 - len(states[0]))]


def test_a_budget_is_counted_in_full_trainings() -> None:
    study = _tune(budget=2.0)
    cost = cost_in_full_trainings(study)
    assert 2.0 <= cost <= 3.0


@pytest.mark.parametrize("limit", [{"budget": 2.0}, {"n_trials": 3}])
@pytest.mark.parametrize("failing", [range(100), range(1, 100)])
def test_a_search_ends_where_all_trials_fail(
    failing: range, limit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def build(trial: Any) -> Any:
        if trial.number in failing:
            raise MemoryError("full")
        return _model()

    optuna.logging.enable_propagation()
    try:
        study = _tune(build_model=build, **limit, catch=MemoryError)
    finally:
        optuna.logging.disable_propagation()
    assert len(study.trials) == failing[0] + 20
    assert "The last 20 trials failed" in caplog.text


def test_a_study_that_is_renamed_during_the_search_is_named(tmp_path: Path) -> None:
    def delete(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:  # as the dashboard does after its copy
        optuna.delete_study(study_name=study.study_name, storage=study._storage)

    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(DisciplineError, match=r"'old' is no longer in its storage: .* Load it by its new name"):
        _tune(n_trials=2, epochs=1, storage=url, study_name="old", callbacks=[delete])


def test_a_look_at_the_options_draws_no_random_number() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    _tune(**FROM_TRIAL, n_trials=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_may_suggest_its_own_parameters() -> None:
    def build(trial: optuna.Trial) -> Any:
        width = trial.suggest_int("width", 4, 32, log=True)
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    study = _tune(build_model=build, recipe=SHORT)
    stages = {t.user_attrs["stage"]: t.params["width"] for t in study.trials if t.user_attrs["stage"] != "refine"}
    assert stages["lr"] == 19  # held while the learning rate is searched
    assert {t.params["width"] for t in study.trials} > {19}
    assert RANGE_TEST_KEY not in study.trials[0].system_attrs


def test_one_model_for_all_trials_is_refused_and_one_kept_by_the_caller_is_not() -> None:
    made: list[Any] = []

    def build(trial: Any) -> Any:
        made.append(made[0] if trial.number == 2 else _model())
        return made[-1]

    with pytest.raises(ValueError, match="`build_model` must make a new module each time"):
        _tune(build_model=build)
    assert len(made) == 3
    assert len(_tune(build_model=lambda: made.append(_model()) or made[-1], n_trials=2).trials) == 2


def test_a_regression_takes_the_squared_error() -> None:
    (x, _), (vx, _) = TRAIN, VAL
    study = _tune(train=(x, x[:, :1]), val=(vx, vx[:, :1]), build_model=lambda: nn.Linear(4, 1))
    assert study.best_value < 0.2
    assert read_curve(study.trials[0]).n_classes is None  # type: ignore[union-attr]


def test_accuracy_is_maximised() -> None:
    study = _tune(metric="val_accuracy")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value > 0.7


@pytest.mark.parametrize(("optimizer", "decay"), [("adamw", (0.01, 1.0, 0.1)), ("adam", (1e-7, 0.1, 1e-4))])
def test_adam_type_optimizers_get_their_own_bounds(optimizer: Any, decay: tuple[float, float, float]) -> None:
    study = _tune(optimizer=optimizer)
    first = study.trials[0]
    assert first.distributions["lr"].high == 1.0  # type: ignore[attr-defined]
    bounds: Any = first.distributions["weight_decay"]
    assert (bounds.low, bounds.high, first.params["weight_decay"]) == pytest.approx(decay)
    assert study.best_value < 0.6


def test_datasets_and_arrays_are_data_too() -> None:
    dataset = torch.utils.data.TensorDataset(*TRAIN)
    arrays = tuple(part.numpy() for part in VAL)
    assert [t.value for t in _tune(train=dataset, val=arrays, n_trials=2).trials] == [
        t.value for t in _tune(n_trials=2).trials
    ]


def test_a_loss_that_turns_nan_is_a_result_and_the_study_goes_on() -> None:
    calls = []

    def loss(output: Any, target: Any) -> Any:
        calls.append(1)
        return nn.functional.cross_entropy(output, target) * (math.nan if len(calls) > 400 else 1.0)

    study = _tune(loss_fn=loss, n_trials=3, range_test=False)
    assert len(study.trials) >= 3


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_trials": None}, ValueError, "give one of `n_trials` and `budget`"),
        ({"n_trials": 0}, ValueError, "`n_trials` must be a positive integer"),
        ({"budget": math.nan}, ValueError, "`budget` must be a positive number"),
        ({"budget": -1}, ValueError, "`budget` must be a positive number"),
        ({"metric": "f1"}, ValueError, "`metric` must be one of"),
        ({"optimizer": "lion"}, ValueError, "`optimizer` must be one of 'sgd', 'adamw', 'adam', but got 'lion'"),
        ({"epochs": 0}, ValueError, "`epochs`"),
        ({"epochs": 2.5}, ValueError, "`epochs`"),
        ({"lr": (0.0, 1.0)}, ValueError, "`lr`"),
        ({"lr": 0}, ValueError, "`lr` must be one number or"),
        ({"lr": (1.0, math.nan)}, ValueError, "`lr`"),
        ({"momentum": (0.9, 1.0)}, ValueError, "`momentum` must be below 1"),
        ({"weight_decay": (-1.0, 0.1)}, ValueError, "`weight_decay`"),
        ({"batch_size": ()}, ValueError, "`batch_size`"),
        ({"batch_size": (0, 16)}, ValueError, "`batch_size`"),
        ({"build_model": None}, ValueError, "`build_model` must be a function"),
        ({"build_model": torch.nn.Linear(2, 2)}, ValueError, "each training, but got a module, Linear.*pass `lambda"),
        ({"build_model": lambda: 3}, ValueError, "`build_model` must return a torch module"),
        ({"build_model": lambda model=MODEL: model}, ValueError, "`build_model` must make a new module each time"),
        ({"train": (TRAIN[0][:0], TRAIN[1][:0])}, (ValueError, DisciplineError), "sample"),
        ({"train": (TRAIN[0], TRAIN[1][:3])}, ValueError, "train|length|samples"),
        ({"device": "cuda:99"}, ValueError, "no GPU|cuda"),
        ({"seed": -1}, ValueError, "`seed` must be an integer from 0 on"),
        ({"val": (VAL[0][:0], VAL[1][:0])}, DisciplineError, "`val` cannot be used"),
        ({"train": (TRAIN[0], TRAIN[1].tolist())}, ValueError, "but got a tuple of Tensor and list"),
        ({"train_options": {"optimizer": "adam"}}, ValueError, "`train_options` may hold .* but got 'optimizer'"),
        (
            {"metric": "val_accuracy", "val": (VAL[0], VAL[1].float()), "loss_fn": print},
            ValueError,
            "val_accuracy'` needs outputs",
        ),
        ({"train": (TRAIN[0], TRAIN[1].float())}, ValueError, r"float32 \(2,\) of `train` it raised"),
        (
            {"train": (torch.cat([TRAIN[0]] * 2, 1), TRAIN[1])},
            ValueError,
            r"of `train`, shape \(2, 8\): Runtime",
        ),
        ({"train": (TRAIN[0], TRAIN[1] + 7)}, ValueError, "of `train` it raised IndexError .*out of bounds"),
        ({"train": TRAIN[0]}, ValueError, r"float32 \(2, 4\) of `train` it raised RuntimeError"),
        ({"recipe": {"short": 0.25}}, ValueError, r"`recipe` must be one such as Recipe.* but got {'short': 0.25}"),
        ({"recipe": {}}, ValueError, "`recipe` must be one such as"),
        ({"storage": Path("a.db")}, ValueError, r"`storage` must be a URL such as 'sqlite:.* but got .*a.db"),
        ({"range_test": "no"}, ValueError, "`range_test` must be True, False, None, a RangeTest or .* but got 'no'"),
        (
            {"range_test": _tested("Adam")},
            ValueError,
            "`range_test` must be of the .* 'adam' for optimizer='sgd': run it",
        ),
        ({"range_test": _tested("SGD"), "optimizer": "adam"}, ValueError, "one of 'sgd' for optimizer='adam': run it"),
        ({"range_test": _tested("SGD"), "optimizer": "SGD"}, ValueError, "`optimizer` must .* but got 'SGD'"),
        ({"train_options": 5}, ValueError, "`train_options` must be a dict such as .* but got 5"),
        ({"train_options": {"nesterov": "no"}}, ValueError, "`nesterov` must be one of True, False"),
        ({"pruner": "median"}, ValueError, "`pruner` must be one of Optuna's"),
        ({"pruner": optuna.pruners.MedianPruner}, ValueError, "`pruner` must be one of Optuna's"),
        ({"callbacks": [3]}, ValueError, "`callbacks` must be a list of functions"),
        ({"callbacks": None}, ValueError, "`callbacks` must be a list of functions"),
        ({"n_jobs": 0}, ValueError, "`n_jobs` must be a positive integer, or -1"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, "`loss_fn` must return one number"),
        ({"loss_fn": lambda output, target: 3}, ValueError, "`loss_fn` must return a tensor with one number"),
        *((FROM_TRIAL | settings, ValueError, message) for settings, message in MISFITS),
        *((settings, ValueError, message) for settings, message in MISFITS),
        (
            {"val": (VAL[0], VAL[0][:, 0])},
            ValueError,
            r"output of torch.float32 \(2, 2\) and a target of torch.float32 \(2,\)",
        ),
        (
            {
                "metric": "val_accuracy",
                "train_options": {"step": lambda model, batch, loss: loss(model(batch[0]), batch[1])},
            },
            ValueError,
            r"needs a `step` that returns \(loss, output, target\), .* but the first samples have no output",
        ),
        ({"train_options": {"step": lambda model, batch, loss: model(batch["x"])}}, TypeError, "indices must be"),
        ({"build_model": lambda: _Two()}, ValueError, "for a tuple of Tensor and torch.int64"),
        (
            {
                "build_model": lambda: _Two(),
                "loss_fn": lambda output, target: output[0].mean(),
                "metric": "val_accuracy",
            },
            ValueError,
            "val_accuracy'` needs outputs .* have an output of a tuple of Tensor",
        ),
        ({"val": (VAL[0], VAL[1].bool())}, ValueError, "`loss_fn` must be given for targets of torch.bool"),
        ({"build_model": lambda: torch.nn.Linear(5, 2)}, ValueError, "`build_model` must .* failed on the first"),
        ({"build_model": lambda: torch.nn.LazyLinear(2)}, ValueError, "has lazy parameters"),
        ({"build_model": lambda: nn.EmbeddingBag(4, 2, sparse=True)}, ValueError, "must not make sparse gradients"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_stored(
    settings: Any, error: Any, message: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(error, match=message):
        _tune(**{"storage": url, **settings})
    assert not (tmp_path / "study.db").exists()


def test_one_sample_one_class_and_a_batch_larger_than_the_data_train() -> None:
    one = (TRAIN[0][:1], torch.zeros(1, dtype=torch.int64))
    study = _tune(train=one, val=one, n_trials=2, batch_size=64)
    assert len(study.trials) == 2
    assert np.isfinite(study.best_value)


def test_a_study_in_which_nothing_trains_says_so(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    try:
        _tune(train=(math.nan * TRAIN[0], TRAIN[1]), n_trials=2, range_test=False)
        assert "to its end; the last, 1, was stopped because the training loss is nan at epoch 0. Are" in caplog.text
        assert "Where these are fine, lower `lr`, both bounds of a range: the smallest that ran is " in caplog.text
        caplog.clear()
        _tune(val=(VAL[0], math.inf * VAL[0][:, :2]), train=(TRAIN[0], TRAIN[0][:, :2]), n_trials=1, range_test=False)
        assert "the last, 0, was stopped because the study's metric is inf at epoch 0" in caplog.text
        caplog.clear()
        _tune(n_trials=1)
        assert "No trial has trained" not in caplog.text
    finally:
        optuna.logging.disable_propagation()


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
def test_a_training_that_breaks_is_a_trial_like_any_other(metric: Any) -> None:
    study = _tune(
        train=(1e4 * TRAIN[0], TRAIN[1]), val=(1e4 * VAL[0], VAL[1]), metric=metric, lr=(10.0, 1e3), n_trials=2
    )
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2


def test_a_loss_of_the_users_own_is_not_judged_by_chance() -> None:
    ages = [(x, (50 + 20 * x[:, 0]).round().long()) for x in (TRAIN[0], VAL[0])]

    def squared(output: Any, target: Any) -> Any:
        return nn.functional.mse_loss(output[:, 0], target.float())

    study = _tune(
        build_model=lambda: nn.Linear(4, 1), train=ages[0], val=ages[1], loss_fn=squared, lr=(1e-3, 1e-2), n_trials=3
    )
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3


def test_dicts_are_tuned_by_a_step_that_reads_them() -> None:
    def rows(data: Any) -> Any:
        return [{"tokens": x, "next": y} for x, y in zip(*data, strict=True)]

    class Rows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __init__(self, data: Any) -> None:
            self.rows = rows(data)

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> Any:
            return self.rows[index]

    def step(model: Any, batch: Any, loss_fn: Any) -> Any:
        output = model(batch["tokens"])
        return loss_fn(output, batch["next"]), output, batch["next"]

    whole: dict[str, Any] = {"train": Rows(TRAIN), "val": Rows(VAL), "n_trials": 2, "epochs": 2, "range_test": False}
    study = _tune(**whole, loss_fn=nn.functional.cross_entropy, train_options={"step": step}, metric="val_accuracy")
    assert study.best_value > 0.5
    with pytest.raises(ValueError, match="`loss_fn` must be given where the target is no tensor"):
        _tune(**whole, train_options={"step": step})
    with pytest.raises(ValueError, match=r"`train` and `val` must yield \(input, target\) pairs or a `step`"):
        _tune(**whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "val_accuracy"}, "`metric` must be one to minimize, as the study 'discipline' does"),
        ({"metric": "train_loss"}, "`metric` must be that of the study 'discipline', 'val_loss'"),
        ({"optimizer": "adamw"}, "`optimizer` must be that of the study 'discipline', 'sgd'"),
        ({"batch_size": 32}, r"`batch_size` must be that of the study 'discipline', \[16, 32\]"),
    ],
)
def test_a_study_does_not_go_on_by_what_cannot_be_compared(changes: Any, message: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    before = [trial.value for trial in _tune(n_trials=1, storage=url, range_test=False).trials]
    with pytest.raises(ValueError, match=message):
        _tune(n_trials=2, storage=url, **changes)
    stored = optuna.load_study(study_name="discipline", storage=url)
    assert [trial.value for trial in stored.trials] == before


@pytest.mark.parametrize("trials", [[{"lr": 0.1}], [{"lr": 0.1, "epochs": 3}], [{}]])
def test_a_study_of_another_objective_does_not_go_on_and_stays_as_it_was(trials: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="mine", storage=url)
    for params in trials:
        study.enqueue_trial(params)
    study.optimize(lambda trial: sum(trial.suggest_float(name, 0, 10) for name in trials[0]), n_trials=len(trials))
    with pytest.raises(ValueError, match=r"the study 'mine' was not made by `tune`, but has trials: .* another"):
        _tune(n_trials=2, storage=url, study_name="mine")
    assert len(study.trials) == len(trials)
    assert study.user_attrs == {}


def test_a_study_of_several_objectives_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="two", storage=url, directions=["minimize", "minimize"])
    with pytest.raises(UnsupportedStudyError, match="`tune` optimises one objective, but the study 'two' has 2: give"):
        _tune(storage=url, study_name="two")
    assert study.user_attrs == {}


def test_a_users_own_study_goes_on_while_its_trials_only_wait(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="mine", storage=url)
    study.enqueue_trial({"lr": 0.02})
    _tune(n_trials=1, storage=url, study_name="mine", range_test=False)
    assert [trial.params["lr"] for trial in study.trials] == [0.02]
    assert len(_tune(n_trials=2, storage=url, study_name="mine", range_test=False).trials) == 2


def test_an_exception_may_fail_one_trial_only() -> None:
    def build(trial: Any) -> Any:
        if trial.number == 1:
            raise MemoryError("full")
        return _model()

    storage = optuna.storages.InMemoryStorage()
    for _ in range(2):  # an equal call counts alike, and adds nothing
        study = _tune(build_model=build, n_trials=3, catch=MemoryError, range_test=False, storage=storage)
        states = [trial.state for trial in study.trials]
        assert (states.count(TrialState.FAIL), len(states)) == (1, 4)
    with pytest.raises(MemoryError, match="full"):
        _tune(build_model=build, n_trials=3, range_test=False)


def test_a_callback_that_stops_the_study_ends_the_call() -> None:
    study = _tune(n_trials=3, epochs=1, callbacks=[lambda study, trial: study.stop()])
    assert len(study.trials) == 1


def test_a_loss_of_exactly_0_has_trained(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    try:
        same = torch.zeros(40, 4), torch.zeros(40, 2)
        study = _tune(
            build_model=lambda: nn.Linear(4, 2, bias=False), train=same, val=same, n_trials=1, range_test=False
        )
        assert study.best_value == 0
        assert "No trial has trained" not in caplog.text
    finally:
        optuna.logging.disable_propagation()


def test_one_batch_size_may_be_of_numpy() -> None:
    assert _tune(n_trials=1, epochs=1, batch_size=np.int64(16), range_test=False).best_params["batch_size"] == 16


def test_a_fixed_weight_decay_may_be_a_tensor() -> None:
    study = _tune(weight_decay=torch.tensor(1e-4), n_trials=1)
    assert study.trials[0].params["weight_decay"] == pytest.approx(1e-4)


def test_bounds_may_be_numpys() -> None:
    study = _tune(lr=np.array([1e-3, 1e-2]), batch_size=np.array([16, 32]), n_trials=1)
    assert 1e-3 <= study.trials[0].params["lr"] <= 1e-2
    assert study.trials[0].params["batch_size"] in (16, 32)


def test_what_suggest_hyperparams_may_fix_may_be_fixed_here_and_the_types_say_so() -> None:
    params = _tune(lr=0.1, momentum=0.9, weight_decay=0, n_trials=1, epochs=1).best_params
    assert (params["lr"], params["momentum"], params["weight_decay"]) == (0.1, 0.9, 0)
    wide, narrow = (inspect.signature(function).parameters for function in (tune, suggest_hyperparams))
    for name in ("lr", "momentum", "weight_decay", "batch_size"):
        assert set(get_args(narrow[name].annotation)) <= set(get_args(wide[name].annotation)), name


def test_the_data_are_moved_once_a_study_and_freed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Any] = []
    on_device = batches.on_device

    def move(data: Any, device: Any) -> Any:
        columns = tuple(column.clone() for column in on_device(data, device))  # as to a GPU
        moved.extend(weakref.ref(column) for column in columns)
        return columns

    monkeypatch.setattr(batches, "on_device", move)
    before = [column.clone() for column in (*TRAIN, *VAL)]
    study = tune(_model, TRAIN, VAL, n_trials=3, epochs=2, range_test=True, seed=0, device="cpu")
    assert len(moved) == 4
    gc.collect()
    assert [column() for column in moved] == [None] * 4
    assert RANGE_TEST_KEY in study.trials[0].system_attrs
    assert all(map(torch.equal, before, (*TRAIN, *VAL)))


@pytest.mark.parametrize(("device", "collects"), [("cpu", False), ("cuda", True)])
def test_what_a_trial_held_on_a_gpu_is_freed_before_the_next(
    device: str, collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def optimize(study: optuna.Study, *_: Any, gc_after_trial: bool, **__: Any) -> None:
        told.append(gc_after_trial)
        study._stop_flag = True

    checked = Trainer.checked
    monkeypatch.setattr(
        Trainer, "checked", lambda self: dataclasses.replace(checked(self), device=torch.device(device))
    )
    monkeypatch.setattr(optuna.Study, "optimize", optimize)
    tune(_model, TRAIN, VAL, n_trials=1, epochs=2, range_test=False, device="cpu")
    assert told == [collects]
