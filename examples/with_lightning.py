"""`report_epoch` in a callback of Lightning.

pip install lightning scikit-learn; python examples/with_lightning.py
"""

import lightning
import optuna
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import report_epoch

EPOCHS = 8


class Report(lightning.Callback):
    """Reports, and may prune, at the end of an epoch; `on_validation_end` comes before the training, too."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Report what the module has logged."""
        found, lr = trainer.callback_metrics, trainer.optimizers[0].param_groups[0]["lr"]
        losses = {"val_loss": found["val_loss"], "train_loss": found["train_loss"]}
        report_epoch(self.trial, trainer.current_epoch, **losses, lr=lr, n_epochs=trainer.max_epochs, n_classes=10)


class Net(lightning.LightningModule):
    """A module like any other: it logs both losses by the epoch."""

    def __init__(self, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        self.settings = {"lr": lr, "weight_decay": weight_decay}

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss."""
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Log the loss."""
        self.log("val_loss", functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW at the trial's settings."""
        return torch.optim.AdamW(self.parameters(), **self.settings)


def objective(trial: optuna.Trial) -> float:
    """Train on scikit-learn's digits."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=64, shuffle=True)
    val = DataLoader(TensorDataset(x[1200:], y[1200:]), batch_size=597)
    net = Net(trial.suggest_float("lr", 1e-5, 1, log=True), trial.suggest_float("weight_decay", 1e-6, 1, log=True))
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=EPOCHS, callbacks=[Report(trial)], **silent)
    trainer.fit(net, train, val)
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    study = optuna.create_study(sampler=DisciplinedSampler(), pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=4)
    print(study.best_params)  # noqa: T201
