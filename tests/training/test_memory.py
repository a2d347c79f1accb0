import faulthandler
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training import memory
from optuna_discipline.training.memory import free_memory
from optuna_discipline.training.memory import is_out_of_memory
from optuna_discipline.training.memory import try_here
from optuna_discipline.training.memory import try_in_child

CPU, MEGABYTE = torch.device("cpu"), 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits a child's memory as Linux does")


class UnpicklableError(Exception):
    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError("no")


def die_by(number: int) -> None:
    faulthandler.disable()  # pytest's, which would print
    os.kill(os.getpid(), number)


def fail(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("could not execute a primitive"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    "message",
    [
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_a_library_that_finds_no_way_lacks_memory_where_a_smaller_size_has_fitted(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))
    assert is_out_of_memory(RuntimeError(message), smaller_fits=True)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), smaller_fits=True)


@linux
def test_a_child_meets_its_limit_and_leaves_nothing_behind() -> None:
    before, changed = memory.address_space_used(), [0]

    def take(size: int) -> None:
        changed[0] = size
        torch.ones(size)

    assert try_in_child(lambda: take(2 * MEGABYTE), limit=64 * MEGABYTE) == "fits"
    assert try_in_child(lambda: take(64 * MEGABYTE), limit=64 * MEGABYTE) == "out of memory"
    assert changed == [0]
    assert memory.address_space_used() - before < 16 * MEGABYTE


@linux
@pytest.mark.parametrize("end", [lambda: die_by(signal.SIGKILL), lambda: die_by(signal.SIGABRT), lambda: os._exit(134)])
def test_a_child_that_is_ended_without_a_word_has_run_out_of_memory(end: Callable[[], None]) -> None:
    assert try_in_child(end, limit=64 * MEGABYTE) == "out of memory"


@linux
@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGTERM, 40])  # the last a real-time one, without a name
def test_a_child_that_crashed_has_not_run_out_of_memory_as_far_as_one_can_tell(number: int) -> None:
    with pytest.raises(DisciplineError, match=rf"by signal {int(number)} \(.+\), which is no lack of memory: run one"):
        try_in_child(lambda: die_by(number), limit=64 * MEGABYTE, smaller_fits=True)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps the child, and tells no status
    try:
        assert try_in_child(lambda: die_by(number), limit=64 * MEGABYTE) == "out of memory"
    finally:
        signal.signal(signal.SIGCHLD, before)


@linux
def test_what_a_child_prints_is_seen_and_what_was_printed_before_is_seen_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "printed").open("w", encoding="utf-8") as printed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", printed)  # which keeps a line until it is full, as a pipe does
        sys.stdout.write("parent\n")
        for size in (1, 2):
            try_in_child(lambda size=size: sys.stdout.write(f"child {size}\n"), limit=64 * MEGABYTE)
    assert (tmp_path / "printed").read_text(encoding="utf-8") == "parent\nchild 1\nchild 2\n"


@linux
def test_a_stack_that_could_not_grow_lacks_memory_where_a_smaller_size_has_fitted() -> None:
    assert try_in_child(lambda: die_by(signal.SIGSEGV), 64 * MEGABYTE, smaller_fits=True) == "out of memory"
    with pytest.raises(DisciplineError, match=r"which may be a lack of memory or a crash: give it more memory, or run"):
        try_in_child(lambda: die_by(signal.SIGSEGV), 64 * MEGABYTE)


@linux
def test_a_childs_error_comes_through() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        try_in_child(lambda: fail(ValueError("Expected more than 1 value")), limit=64 * MEGABYTE)
    with pytest.raises(DisciplineError, match="A training step failed: UnpicklableError: a secret"):
        try_in_child(lambda: fail(UnpicklableError("a secret")), limit=64 * MEGABYTE)


@linux
def test_a_child_in_which_torch_does_not_train_names_the_cure() -> None:
    message = "Unable to handle autograd's threading in combination with fork-based multiprocessing. See the wiki."
    with pytest.raises(DisciplineError, match=r"backward pass of a compiled model: search before that"):
        try_in_child(lambda: fail(RuntimeError(message)), limit=64 * MEGABYTE)


@linux
def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PATIENCE_S", 0.2)
    start = time.monotonic()
    with pytest.raises(DisciplineError, match=r"did not end within 0\.2 s: lower `high`"):
        try_in_child(lambda: time.sleep(60), limit=64 * MEGABYTE, cure="lower `high`")
    assert time.monotonic() - start < 20


def test_here_only_a_lack_of_memory_is_an_outcome() -> None:
    assert try_here(lambda: None, CPU, None) == "fits"
    assert try_here(lambda: fail(torch.cuda.OutOfMemoryError("CUDA out of memory")), CPU, None) == "out of memory"
    with pytest.raises(KeyError, match="input"):
        try_here(lambda: fail(KeyError("input")), CPU, None)


@linux
def test_the_free_memory_of_a_cpu_is_known_and_of_other_devices_not() -> None:
    free = free_memory(CPU)
    assert free is not None
    assert MEGABYTE < free < 2**50
    assert free_memory(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("entry", "folder", "limit", "used"),
    [
        ("0::/job", ".", "memory.max", "memory.current"),
        ("4:memory:/job", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("4:cpu,memory:/job", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_control_groups_of_both_versions_and_those_above_are_read(
    tmp_path: Path, entry: str, folder: str, limit: str, used: str
) -> None:
    group = tmp_path / "fs" / folder / "job"
    group.mkdir(parents=True)
    (tmp_path / "cgroup").write_text(f"9:pids:/\n{entry}\n")
    (group / limit).write_text("max\n" if entry.startswith("0") else "1000\n")
    (group / used).write_text("400\n")
    (group.parent / limit).write_text("2000\n")
    (group.parent / used).write_text("1900\n")
    left = memory._groups_left(tmp_path / "cgroup", tmp_path / "fs")
    assert left == ([100] if entry.startswith("0") else [600, 100])
    assert memory._groups_left(tmp_path / "absent", tmp_path / "fs") == []
