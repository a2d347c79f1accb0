"""Which parameters a configuration has, where some exist only for some values of another: read from what was run."""

from collections import Counter
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A parameter that so many of the latest configurations lack is no longer asked for.
ENOUGH_LATER = 3


@dataclass(frozen=True)
class Condition:
    """When a parameter exists.

    Attributes:
        switch: The parameter that decides; where that does not exist, neither does this one.
        exists: Whether it exists, by the values of the switch that have been run.
    """

    switch: str
    exists: Mapping[Hashable, bool]

    def holds(self, value: Hashable) -> bool:
        """Whether the parameter exists for a value of the switch; for one that nobody has run it may."""
        return self.exists.get(value, True)


def conditions_of(configurations: Sequence[Mapping[str, Hashable]], switches: Sequence[str]) -> dict[str, Condition]:
    """Return the condition of each parameter that some configurations have and others lack, as far as one explains it.

    A switch comes before what it decides: more configurations have it, all those that have the other among them.

    Args:
        configurations: What was run, by name.
        switches: Parameters that may decide, of those that equally many configurations have the most likely first.

    >>> runs = [{"optimizer": "Adam", "width": 8}, {"optimizer": "SGD", "momentum": 0.9, "width": 8}]
    >>> conditions_of(runs, ["optimizer"])["momentum"].holds("Adam")
    False
    """
    found = {}
    had = Counter(name for one in configurations for name in one)
    widest_first = sorted(switches, key=lambda switch: -had[switch])
    for name, times in had.most_common():
        candidates = (_explained(name, switch, configurations) for switch in widest_first if had[switch] > times)
        condition = next((one for one in candidates if one is not None), None)
        if condition is not None:
            found[name] = condition
    return found


def existing(params: Mapping[str, Any], conditions: Mapping[str, Condition]) -> dict[str, Any]:
    """Return what a network has of the parameters that a model gave it.

    Args:
        params: A value for every parameter that may exist.
        conditions: As `conditions_of` returns them.

    >>> existing({"kind": "tree", "units": 8}, {"units": Condition("kind", {"tree": False, "net": True})})
    {'kind': 'tree'}
    """
    found = dict(params)
    for name, condition in conditions.items():
        if not (condition.switch in found and condition.holds(found[condition.switch])):
            found.pop(name, None)
    return found


def dropped(configurations: Sequence[Mapping[str, Hashable]], switches: Sequence[str]) -> set[str]:
    """Return the parameters that the latest configurations lack, and no condition explains: the objective has changed.

    Args:
        configurations: What was run, by name, in order.
        switches: Parameters that may decide.
    """
    latest = configurations[-ENOUGH_LATER:]
    gone = {name for one in configurations for name in one} - {name for one in latest for name in one}
    return gone - set(conditions_of(configurations, switches)) if gone and len(latest) == ENOUGH_LATER else set()


def added(configurations: Sequence[Mapping[str, Hashable]], switches: Sequence[str]) -> set[str]:
    """Return the parameters that every configuration has since the first one with it, some before have not.

    Args:
        configurations: What was run, by name, in order.
        switches: Parameters that may decide.
    """
    found = set()
    for name in {name for one in configurations for name in one}:
        first = next(i for i, one in enumerate(configurations) if name in one)
        if first and all(name in one for one in configurations[first:]):
            found.add(name)
    return found - set(conditions_of(configurations, switches)) if found else found


def _explained(name: str, switch: str, configurations: Sequence[Mapping[str, Hashable]]) -> Condition | None:
    exists: dict[Hashable, bool] = {}
    for one in configurations:
        expected = exists.setdefault(one[switch], name in one) if switch in one else False
        if expected != (name in one):
            return None
    return Condition(switch, exists)
