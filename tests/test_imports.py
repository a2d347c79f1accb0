import pytest

from optuna_discipline import MissingExtraError
from optuna_discipline import _imports


def test_a_module_that_is_there_is_returned() -> None:
    assert _imports.require("json", extra="all").dumps([]) == "[]"


def test_an_absent_module_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"`no_such_thing` could not be imported.*optuna-discipline\[plots\]"):
        _imports.require("no_such_thing", extra="plots")
    with pytest.raises(ImportError, match="no_such_thing"):
        _imports.require("no_such_thing.part", extra="plots")


def test_a_stand_in_asks_for_its_module_only_when_it_is_called() -> None:
    absent = _imports.stand_in("json.dumps", needs="no_such_thing", extra="torch")
    assert absent.__name__ == "dumps"
    assert "optuna-discipline[torch]" in str(absent.__doc__)
    with pytest.raises(MissingExtraError, match=r"`no_such_thing` could not .* 'optuna-discipline\[torch\]'"):
        absent([])
    assert _imports.stand_in("json.dumps", needs="json", extra="torch")([], indent=1) == "[]"


def test_a_broken_module_says_what_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(_imports.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"OSError: libcudart\.so"):
        _imports.require("torch", extra="torch")
