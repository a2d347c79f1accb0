"""One look at a study, which all its pictures and texts share: what they derive from its trials is derived once."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from typing import TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline import costs
from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.parameters import known_distributions
from optuna_discipline.parameters import roles_of
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.runs_diagnosis import RunsDiagnosis
from optuna_discipline.rules.space import Role
from optuna_discipline.study_diagnosis import diagnose_trials
from optuna_discipline.visualization import marks

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class StudyView:
    """A study at one moment; all else is computed when it is first asked for, and kept.

    Attributes:
        study: The study, for what lies beside its trials.
        trials: Its trials, not copied: do not change them.
        sign: 1 where its objective is minimised, -1 where it is maximised.
    """

    study: Study
    trials: list[FrozenTrial]
    sign: int

    @cached_property
    def told(self) -> Mapping[str, Role | None]:
        """The roles that the sampler was told."""
        return study_record.told_roles(self.study)

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        """The role of each parameter name: those known by themselves and those that the sampler was told."""
        return roles_of(known_distributions(self.trials), self.told)

    @cached_property
    def costs(self) -> costs.Costs:
        """How long the trials were and what they have cost."""
        return costs.read_costs(self.trials, self.told)

    @cached_property
    def best(self) -> FrozenTrial | None:
        """The best finished trial, None without one."""
        return study_record.best_of(self.trials, self.sign)

    @cached_property
    def together(self) -> RunsDiagnosis | None:
        """What the curves of its trials show together, None where no trial has reported one."""
        try:
            return diagnose_trials(self.study, self.trials)
        except DisciplineError:
            return None

    @cached_property
    def metric(self) -> str:
        """What the objective is called."""
        return marks.metric_name(self.trials)

    @cached_property
    def figures(self) -> int:
        """Significant figures that tell the best objectives apart."""
        return marks.figures_of(self.trials, self.sign)

    @cached_property
    def _made(self) -> dict[Callable[..., Any], Any]:
        return {}

    def once(self, make: Callable[["StudyView"], Made]) -> Made:
        """Return what a function makes of this view, the same one to whoever asks again."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made


def view_of(source: Study | StudyView) -> StudyView:
    """Return a view as it is, or a new one of a study.

    Raises:
        TypeError: If it is neither.
        UnsupportedStudyError: If the study has several objectives.
    """
    if isinstance(source, StudyView):
        return source
    check_type("study", source, Study)
    return StudyView(source, source.get_trials(deepcopy=False), trial_record.sign_of(source))
