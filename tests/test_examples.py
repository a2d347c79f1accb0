import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import MissingExtraError
from optuna_discipline import _imports
from optuna_discipline import examples

torch = pytest.importorskip("torch")


def test_digits_are_three_disjoint_parts_and_the_network_fits_them() -> None:
    task = examples.load_digits_task()
    sizes = [len(y) for _, y in (task.train, task.val, task.test)]
    assert sizes == [1079, 359, 359]
    images, labels = task.train
    assert images.shape == (1079, 1, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert abs(float(images.mean())) < 1e-5
    assert task.build_model()(images[:2]).shape == (2, 10)


def _arguments(**changes: Any) -> Any:
    given = {"data": "digits", "task": None, "samples": None, "data_root": None, "seed": 0}
    return argparse.Namespace(**{**given, **changes})


def test_the_seed_of_a_search_draws_no_other_data() -> None:
    first, other = (examples.load_task(_arguments(seed=seed)) for seed in (0, 7))
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(first, part)[0], getattr(other, part)[0])


@pytest.mark.parametrize("changes", [{}, {"task": "my_module:my_task"}])
def test_samples_of_data_that_are_not_cut_are_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match="--samples must go with --data fashion-mnist, but got '500' without it"):
        examples.load_task(_arguments(samples="500", **changes))


def test_fashion_mnist_is_read_from_a_folder() -> None:
    root = os.environ.get(examples.DATA_ROOT_VARIABLE)
    if root is None or not (Path(root) / "FashionMNIST" / "raw").is_dir():
        pytest.skip("set OPTUNA_DISCIPLINE_DATA to the folder that holds FashionMNIST/raw")
    task = examples.load_fashion_mnist_task(root, samples=500)
    assert [len(y) for _, y in (task.train, task.val, task.test)] == [400, 100, 10_000]
    assert task.name == "500 images of Fashion-MNIST"
    assert task.build_model()(task.train[0][:2]).shape == (2, 10)


def test_a_broken_torchvision_names_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_imports.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"nms does not exist.*pip install 'optuna-discipline\[vision\]'"):
        examples.load_fashion_mnist_task(tmp_path)


def test_absent_data_that_cannot_be_downloaded_names_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def absent(root: Path, *, train: bool, download: bool) -> Any:
        raise RuntimeError("no connection" if download else "not found")

    monkeypatch.setattr(datasets, "FashionMNIST", absent)
    with pytest.raises(DisciplineError, match=r"no connection.*--data-root or OPTUNA_DISCIPLINE_DATA"):
        examples.load_fashion_mnist_task(tmp_path)


@pytest.mark.parametrize("samples", [0, 99, 60_001, 1.5, "some", True])
def test_bad_sample_counts_are_refused(samples: Any) -> None:
    with pytest.raises(ValueError, match="`samples` must be 'all' or an integer"):
        examples.load_fashion_mnist_task(samples=samples)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def task():\n    return {}['train']",
            r"'broken:task' failed when it was called: KeyError: 'train' \(broken.py, line 2\)",
        ),
        ("def task():\n    return 1 + 'a'", r"failed when it was called: TypeError: .* \(broken.py, line 2\)"),
        ("def task():\n    return 1, 2", r"must return \(build_model, train, val\), but returned \(1, 2\)"),
        ("def task(:", "must be MODULE:FUNCTION, but 'broken:task' failed: SyntaxError"),
        ("def other(): pass", "must be MODULE:FUNCTION, but 'broken:task' failed: AttributeError"),
        (
            "import no_such_thing",
            r"failed: ModuleNotFoundError: No module named 'no_such_thing' \(broken.py, line 1\)$",
        ),
        ("def task(x): pass", r"failed when it was called: TypeError: .* argument: 'x'$"),
    ],
)
def test_what_fails_in_a_users_own_task_is_told_with_its_place(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ValueError, match=message):
        examples.load_own_task("broken:task")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        *(
            (target, f"must be MODULE:FUNCTION, such as my_module:my_task, but got '{target}'$")
            for target in ("a", ":b", "a:")
        ),
        ("no_such_module:task", "failed: ModuleNotFoundError: No module named 'no_such_module'$"),
    ],
)
def test_a_task_that_names_no_function_is_told_without_a_place_in_python(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        examples.load_own_task(target)
