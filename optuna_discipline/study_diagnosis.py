"""What the curves of a study say together."""

from collections.abc import Mapping
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.parameters import check_roles
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.runs_diagnosis import RunsDiagnosis
from optuna_discipline.rules.runs_diagnosis import diagnose_runs
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import read_trials
from optuna_discipline.study_record import told_roles


def diagnose_study(study: Study, *, roles: Mapping[str, str | None] | None = None) -> RunsDiagnosis:
    """Return what the set of trials says: how many broke or never learned, what the best shows, what to turn.

    Args:
        study: Trials that ended and reported through `TrialReporter` or `report_epoch` are read, pruned ones too; those
            of plain `trial.report` are not, since what it reports need be no loss, nor what broke a constraint, nor
            what failed without having diverged.
        roles: Roles of parameters with other names than the usual ones, beside those that the study's sampler was told
            and before them; only the learning rate's is used.

    Raises:
        TypeError: If `study` is no study.
        UnsupportedStudyError: If it has several objectives.
        DisciplineError: If no such trial has reported its losses, or the study was deleted or renamed.
        ValueError: If a role does not exist.

    Example:
        >>> import optuna
        >>> from optuna_discipline import diagnose_study, report_epoch
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def objective(trial):
        ...     lr = trial.suggest_float("lr", 0.01, 10, log=True)
        ...     for epoch in range(8):
        ...         loss = 1 - 0.1 * epoch if lr < 1 else float("nan")
        ...         report_epoch(trial, epoch, val_loss=loss, train_loss=loss, lr=lr, n_epochs=8)
        ...     return loss
        >>> study = optuna.create_study()
        >>> for lr in (0.1, 3.0, 5.0):
        ...     study.enqueue_trial({"lr": lr})
        >>> study.optimize(objective, n_trials=3)
        >>> found = diagnose_study(study)
        >>> round(found.diverged, 2), str(found.best_diagnosis.verdict)
        (0.67, 'underfitting')
    """
    check_type("study", study, Study)
    with naming_a_lost_study(study):
        return diagnose_trials(study, read_trials(study), roles)


def diagnose_trials(
    study: Study, trials: Sequence[FrozenTrial], roles: Mapping[str, str | None] | None = None
) -> RunsDiagnosis:
    """Return what `diagnose_study` does, of trials of the study that have been read."""
    told = {**told_roles(study), **check_roles(roles)}
    return diagnose_runs(StudyReader(told).runs(study, trials))
