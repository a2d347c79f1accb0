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


def test_a_broken_module_says_what_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(_imports.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"OSError: libcudart\.so"):
        _imports.require("torch", extra="torch")
