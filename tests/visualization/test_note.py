import optuna
import pytest

from optuna_discipline.trial_record import CLAIM_KEY
from optuna_discipline.visualization import note
from optuna_discipline.visualization import story


def test_the_note_says_what_each_stage_decided_and_how_to_read_it(study: optuna.Study) -> None:
    text = note.study_note(story.collect(study))
    assert text.startswith(note.HEADING)
    assert "| stage | trials | values tried | decision | its best | in trial |" in text
    assert "| momentum\\: compare momenta | 3 | 0.9, 0.97, 0.99 |" in text
    assert "A network that was thrown away afterwards" in text
    assert "Short cycles are complete trainings of fewer epochs" in text
    assert "History and Hyperparameter Importance, throw all stages together" in text


def test_text_of_a_study_is_shown_as_text(plain: optuna.Study) -> None:
    text = note.study_note(story.collect(plain))
    assert "<" not in text.replace(r"\<", "")
    assert r"\<b\>bold" in text
    for line in text.splitlines():
        if line.startswith("| ") and "trials" not in line and "---" not in line:
            assert line.replace(r"\|", "").count("|") == 3
    trial = note.trial_note(plain.trials[-1])
    assert "<" not in trial.replace(r"\<", "")


def test_a_study_without_stages_is_not_told_of_them(plain: optuna.Study) -> None:
    assert "Hyperparameter Importance" not in note.study_note(story.collect(plain))


def test_a_trial_is_told_with_its_stage_its_reason_and_what_its_curve_shows(study: optuna.Study) -> None:
    text = note.trial_note(next(t for t in study.trials if t.user_attrs["stage"] == "confirm"))
    assert text.startswith("**Stage:** confirm, to train the best so far at full length")
    assert "**Why these numbers:** the best configuration of the short cycles, at full length" in text
    assert "**What its curve shows:** horizontal. The validation loss has levelled off" in text
    assert "**Stopped early:**" in note.trial_note(study.trials[-1])


def test_a_value_that_a_model_chose_was_not_compared() -> None:
    claim = {"stage": "batch_size", "slot": "batch_size:model"}
    trial = optuna.create_trial(value=1.0, user_attrs={"stage": "batch_size"}, system_attrs={CLAIM_KEY: claim})
    assert note.trial_note(trial) == "**Stage:** batch size, to try a batch size that a model chose"


def test_a_trial_of_which_nothing_is_known_has_no_note() -> None:
    assert note.trial_note(optuna.create_trial(value=1.0)) == ""


@pytest.mark.parametrize(
    "own",
    [
        "",
        "Mine.",
        "# Title\n\nMine, with *stars*.",
        "## What was decided in Monday's meeting\n\nMine.",
        "# What was decided, and by whom\n\nMine.",
        "# What was decided\n\nMine.",
    ],
)
def test_what_a_user_wrote_above_stays_and_only_our_part_is_replaced(own: str) -> None:
    above = f"{own}\n\n" if own else ""
    assert note.beside(f"{above}{note.HEADING}\nold", f"{note.HEADING}\nnew") == f"{above}{note.HEADING}\nnew"


def test_a_stage_and_a_reason_of_the_users_own_are_not_told_as_ours() -> None:
    claim = {"stage": "lr", "slot": "lr:1", "reason": "where to start"}
    own = {"stage": "fold 3", "reason": {"why": 1}}
    text = note.trial_note(optuna.create_trial(value=1.0, user_attrs=own, system_attrs={CLAIM_KEY: claim}))
    assert text.startswith("**Stage:** learning rate")
    assert text.endswith("**Why these numbers:** where to start")
    assert note.trial_note(optuna.create_trial(value=1.0, user_attrs=own)) == ""
