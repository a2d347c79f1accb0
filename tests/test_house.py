"""The house keeps its own rules: who imports whom, the public names, the README, the mirror of the tests."""

import ast
import inspect
import json
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optuna_discipline

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "optuna_discipline"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in MODULES]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# room -> what it may never import; the first that fits a module's path counts
FORBIDDEN = {
    "rules/": {"optuna", "torch", "plotly", "pathlib", "os", "time", "datetime"},
    "training/": {"optuna", "plotly", "optuna_discipline.sampler", "optuna_discipline.trial_record"},
    "visualization/": {"torch", "optuna_discipline.training", "optuna_discipline.sampler"},
    "shadow.py": {"plotly", "optuna_discipline.training"},  # it asks whether torch is there
    "snapshots.py": {"torch", "plotly", "optuna_discipline.sampler", "optuna_discipline.pruner"},
    "": {
        *("torch", "plotly", "optuna_discipline.training", "optuna_discipline.visualization"),
        *("optuna_discipline.sampler", "optuna_discipline.pruner"),
    },
}
# What joins the rooms may import them all.
JOINING = (
    *("__init__.py", "cli.py", "comparison.py", "dashboard_command.py", "first_look.py", "integrations/", "losses.py"),
    *("trainer.py", "tune_command.py", "tuning.py"),
)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _defined(path: Path) -> Iterator[str]:
    """Yield the names of a module's functions, classes and constants."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        for target in [*getattr(node, "targets", []), getattr(node, "target", None)]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name)) if target else ()


NOT_PUBLIC = {name for path in MODULES for name in _defined(path)} - set(optuna_discipline.__all__)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(JOINING)])
def test_each_room_imports_only_what_it_may(name: str) -> None:
    room = next(room for room in FORBIDDEN if name.startswith(room))
    for module in _imports(PACKAGE / name):
        assert not any(module == bad or module.startswith(f"{bad}.") for bad in FORBIDDEN[room]), module
        if room == "rules/" and module.startswith("optuna_discipline"):
            assert module.startswith(("optuna_discipline.rules", "optuna_discipline.exceptions")), module


def test_every_public_name_is_there_documented_and_sorted() -> None:
    assert optuna_discipline.__all__ == sorted(optuna_discipline.__all__)
    for name in optuna_discipline.__all__:
        assert getattr(optuna_discipline, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = optuna_discipline.nothing


def test_completion_offers_the_public_names_alone() -> None:
    assert [name for name in dir(optuna_discipline) if not name.startswith("__")] == optuna_discipline.__all__
    assert {"__all__", "__doc__", "__version__"} <= set(dir(optuna_discipline))


def test_examples_import_public_names_alone() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        assert not [name for name in _imports(path) if name.startswith("optuna_discipline.")], path.name


@pytest.mark.parametrize("name", optuna_discipline.__all__)
def test_a_public_docstring_names_what_is_not_public_by_its_full_path(name: str) -> None:
    value = getattr(optuna_discipline, name)
    members = [part for key, part in vars(value).items() if key[0] != "_"] if inspect.isclass(value) else []
    for part in (value, *members):
        arguments = inspect.signature(part).parameters if inspect.isfunction(part) else ()
        for word in re.findall(r"`([\w.]+)`", inspect.getdoc(part) or ""):
            assert word in arguments or word not in NOT_PUBLIC, f"{name} sends its reader to `{word}`"
            assert not word.startswith("optuna_discipline.") or pydoc.locate(word), f"{name}: there is no `{word}`"


def test_type_checkers_see_every_public_name_and_none_that_is_misspelt() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    checked = [n for n in body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    imports = [n for n in (*body, *(n for block in checked for n in block.body)) if isinstance(n, ast.ImportFrom)]
    assert {alias.name for n in imports for alias in n.names} >= set(optuna_discipline.__all__)
    assert not any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in body)


@pytest.mark.parametrize(
    "name", ["cut_anew", "find_lr", "largest_batch_size", "lr_range_test", "samples_per_second", "train_epochs"]
)
def test_without_torch_the_names_that_need_it_name_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(optuna_discipline), name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "optuna-discipline[torch]" in getattr(optuna_discipline, name).__doc__
    with pytest.raises(optuna_discipline.MissingExtraError, match=r"`torch` could not .* 'optuna-discipline\[torch\]'"):
        getattr(optuna_discipline, name)()
    monkeypatch.undo()
    assert getattr(optuna_discipline, name).__module__.startswith("optuna_discipline.training.")


def test_the_import_is_light_the_command_lines_help_loads_no_database_and_no_name_needs_torch_or_plotly() -> None:
    code = (
        "import inspect, json, pydoc, sys, optuna_discipline\n"
        "heavy = [m for m in ('torch', 'plotly', 'sklearn', 'scipy') if m in sys.modules]\n"
        "import optuna_discipline.cli\n"
        "database = 'sqlalchemy' in sys.modules\n"
        "sys.modules['torch'] = sys.modules['plotly'] = None\n"
        "from optuna_discipline import *\n"
        "helps = 'train_epochs' in pydoc.render_doc(optuna_discipline)\n"
        "seen = {name for name, _ in inspect.getmembers(optuna_discipline)} & set(globals())\n"
        "missing = sorted(set(optuna_discipline.__all__) - seen)\n"
        "print(json.dumps({'heavy': heavy, 'database': database, 'helps': helps, 'missing': missing}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"heavy": [], "database": False, "helps": True, "missing": []}


def test_every_code_block_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "__main__"})
    assert "learning-rate ladder" in capsys.readouterr().out


def test_a_loop_that_cycles_the_suggested_momentum_says_so_to_its_sampler() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    texts = [*blocks, *(path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py"))]
    cycling = [text for text in texts if re.search(r"\bmax_momentum=(?![\d.])", text)]  # a variable, whatever its name
    cycling = [text for text in cycling if "suggest" in text]  # not the training of what a study has found
    assert cycling
    assert all("Recipe(cyclical_momentum=True)" in text for text in cycling)


def test_the_readme_shows_code_on_its_first_screen_and_links_to_what_exists() -> None:
    lines = README.splitlines()
    assert any(line.startswith("```python") for line in lines[:20])
    assert any("DisciplinedSampler" in line for line in lines[:20])
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for script in re.findall(r"^(scripts/\w+)", README, flags=re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_map_of_the_code_names_every_module() -> None:
    drawn = (PACKAGE / "README.md").read_text(encoding="utf-8").split("## Where things are")[1]
    assert {p.stem for p in MODULES if not p.name.startswith("__")} <= set(re.findall(r"\w+", drawn))


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name != "__init__.py"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_module_has_its_tests(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    mirror = ROOT / "tests" / relative.parent / f"test_{relative.stem.strip('_')}.py"
    assert mirror.is_file(), f"{mirror.relative_to(ROOT)} is missing"
