"""`report_epoch` in a callback of Hugging Face's Trainer, in an objective of your own.

    pip install 'transformers[torch]' scikit-learn; python examples/with_hugging_face.py

`Trainer.hyperparameter_search` wants no callback: it reports each evaluation itself.
"""

import tempfile
from typing import Any

import optuna
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from transformers import Trainer
from transformers import TrainerCallback
from transformers import TrainerState
from transformers import TrainingArguments

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import report_epoch

EPOCHS = 8


class Report(TrainerCallback):
    """Reports, and may prune, at each evaluation; both losses are those of the epoch."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: Any, **found: Any) -> None:
        """Report the evaluation, and what was logged last of the training."""
        last = next(log for log in reversed(state.log_history) if "loss" in log)
        losses = {"val_loss": found["metrics"]["eval_loss"], "train_loss": last["loss"]}
        n_epochs = int(args.num_train_epochs)
        report_epoch(self.trial, round(state.epoch) - 1, **losses, lr=last["learning_rate"], n_epochs=n_epochs)


class Net(torch.nn.Module):
    """A network as Trainer wants it: it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return loss and outputs."""
        outputs = self.net(x)
        return {"loss": functional.cross_entropy(outputs, labels), "logits": outputs}


def objective(trial: optuna.Trial) -> float:
    """Train on scikit-learn's digits."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    data = [{"x": x, "labels": y} for x, y in zip(images, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-6, 1, log=True),
            num_train_epochs=EPOCHS,
            eval_strategy="epoch",
            logging_strategy="epoch",  # else no training loss by the epoch
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(Net(), args, train_dataset=data[:1200], eval_dataset=data[1200:], callbacks=[Report(trial)])
        trainer.train()
    return next(log["eval_loss"] for log in reversed(trainer.state.log_history) if "eval_loss" in log)


if __name__ == "__main__":
    study = optuna.create_study(sampler=DisciplinedSampler(), pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=4)
    print(study.best_params)  # noqa: T201
