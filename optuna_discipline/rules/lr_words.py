"""What a curve shows of its learning rate, in words."""

from collections.abc import Collection
from collections.abc import Mapping

from optuna_discipline.rules.lr_lean import Lean
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import as_losses
from optuna_discipline.rules.lr_lean import fell_at_once
from optuna_discipline.rules.lr_lean import got_worse
from optuna_discipline.rules.lr_lean import shape_of
from optuna_discipline.rules.lr_lean import stayed
from optuna_discipline.rules.run import Run

VERDICTS: Mapping[tuple[Lean, bool], str] = {
    ("up", False): "room above",
    ("up", True): "far too low",
    ("down", False): "too high",
    ("down", True): "far too high",
}


def describe_curve(run: Run, reading: LrReading, *, sign: float = 1.0) -> str:
    """Return what a run's reports show for what was read from them.

    Args:
        run: The run.
        reading: What `read_lr` reads from it: a better rate on one side.
        sign: What turns a loss into the study's own value: -1 where that is maximised.

    >>> describe_curve(Run(0, "complete", {}, reports=(0.7, 1.9, 4.2)), LrReading("down", far=True))
    'got worse and ended worse than it began'
    >>> describe_curve(Run(0, "complete", {}, reports=(-0.68, -0.7, -0.76)), LrReading("up", far=True), sign=-1.0)
    'kept over half of what was missing to 1 at first'
    """
    losses = as_losses(run.reports)
    if reading == LrReading("down") and losses is not None and fell_at_once(losses):
        return "fell at once and then stood still"
    if not reading.far or losses is None:
        return "got worse on the way" if reading.lean == "down" else "never got clearly worse"
    if stayed(losses):
        ended = "worse than" if losses[-1] > losses[0] else "where" if losses[-1] == losses[0] else "hardly better than"
        shape = shape_of(run.reports)
        climbed = reading.lean == "down" and shape is not None and got_worse(shape)
        return f"{'got worse and ' * climbed}ended {ended} it began"
    if max(run.reports) > 0:
        return "kept over half of its first report"
    top = 1 if min(run.reports) >= -1 else 100
    return f"kept over half of what was missing to {-sign * top:g} at first"


def why_elsewhere(
    run: Run, said: LrReading | None, *, refuted: bool, running: Collection[bool], sign: float = 1.0
) -> str:
    """Return why a rung is run that the curve of the best one does not ask for, "" where nothing tells.

    Args:
        run: The run of the best rung.
        said: What its curve says.
        refuted: Whether a run on that side was clearly worse.
        running: The sides of that rung on which others run: True is above.
        sign: See `describe_curve`.

    >>> why_elsewhere(Run(0, "complete", {}), None, refuted=False, running=())
    ', whose curve does not say on which side'
    """
    if said is None:
        return ", whose curve does not say on which side"
    if said.lean is None:  # what leans to no side though it has learned is said already
        return ", which only got worse"
    shown = f", which {describe_curve(run, said, sign=sign)}"
    if refuted:
        return f"{shown}, but a {'larger' if said.lean == 'up' else 'lower'} one was worse"
    above = said.lean == "up"
    told = f"{shown}: {VERDICTS[said.lean, said.far]}; others run {'above' if above else 'below'} it"
    return told if above in running else ""
