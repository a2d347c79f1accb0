"""The examples of callbacks: Lightning's, Hugging Face's."""

import importlib

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.pruners import ThresholdPruner
from optuna.trial import TrialState

from optuna_discipline.trial_record import read_rows


@pytest.mark.filterwarnings("ignore")  # the frameworks' own
@pytest.mark.parametrize(("name", "package"), [("with_lightning", "lightning"), ("with_hugging_face", "transformers")])
def test_a_callback_reports_every_epoch_and_prunes(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"pip install {package}")
    example = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(example, "EPOCHS", 2)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for pruner in (NopPruner(), ThresholdPruner(lower=100.0)):
        study.pruner = pruner
        study.optimize(example.objective, n_trials=1)
    complete, pruned = study.trials
    logs = [row.log for row in read_rows(complete)]
    assert [log.epoch for log in logs] == [0, 1]
    assert logs[-1].val_loss == complete.value
    assert all(log.train_loss and log.lr for log in logs)
    assert (pruned.state, len(read_rows(pruned))) == (TrialState.PRUNED, 1)
