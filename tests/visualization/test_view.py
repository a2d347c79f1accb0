import collections
from typing import Any

import optuna
import pytest

from optuna_discipline import costs
from optuna_discipline import publish
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import view
from tests.visualization.test_dashboard import copy


def test_a_publication_reads_the_length_of_each_trial_and_each_stage_once(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = copy(study, "counted"), collections.Counter[str]()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.update([name]) or function(*given))

    counted(costs, "roles_of")
    counted(stages, "_row")
    counted(view, "roles_of")
    publish(own)
    assert calls == {"roles_of": len(own.trials) + 1, "_row": len({stages.marks.stage_of(t) for t in own.trials})}


def test_a_view_is_of_one_moment_and_what_it_makes_is_made_once(study: optuna.Study) -> None:
    own = copy(study, "viewed")
    seen = view.view_of(own)
    own.add_trial(optuna.create_trial(value=-1.0))
    assert view.view_of(seen) is seen
    assert len(seen.trials) == len(study.trials) == len(own.trials) - 1
    assert seen.best is not None
    assert seen.best.number == study.best_trial.number
    assert stages.collect(seen) is stages.collect(seen)
