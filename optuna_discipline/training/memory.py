"""Memory of a device: what is free, whether an error means that it ran out, and a trial that may run out of it."""

import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch

from optuna_discipline.exceptions import DisciplineError

Outcome = Literal["fits", "out of memory"]
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",  # cuBLAS's, cuDNN's, cuSOLVER's, cuFFT's and hipBLAS's status
    "ALLOCATION_FAILED",
    "could not create a primitive",  # oneDNN without room for its scratchpad, before or as it computes
    "could not execute a primitive",
    "could not create a memory",
)
# Of cuDNN and cuBLAS without room for a workspace, and of those that do not fit the GPU or torch: then at any size.
_AT_A_LARGER_SIZE = (
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "_STATUS_NOT_INITIALIZED",
)
_NO_FORK = "fork-based multiprocessing"  # of torch's error where autograd's threads were left behind by the fork
_SILENT = b""  # of a child that was ended before it could answer
_PATIENCE_S = 600.0
_KEPT_FREE = 0.1  # of what is free now: a training also evaluates, loads data and fragments its memory


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a training may take now, a tenth of what is free left aside; None if nothing says it.

    On a GPU that is the driver's word and what torch has reserved without using it. On a Linux CPU it is the least of
    what the machine has available, what the control group leaves, and what the process's address space may grow.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((torch.cuda.mem_get_info(device)[0] + unused) * (1 - _KEPT_FREE))
    if device.type != "cpu" or sys.platform != "linux":
        return None
    import resource

    limits = [_machine_available(), *_groups_left()]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space - address_space_used())
    return max(0, int(min(limits) * (1 - _KEPT_FREE)))


def is_out_of_memory(error: BaseException, *, smaller_fits: bool = False) -> bool:
    """Tell whether an exception says that memory ran out, on whatever device.

    Args:
        error: Any exception.
        smaller_fits: Whether the same has worked with less: then it also counts that a GPU's library found no way.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    messages = (*_MESSAGES, *_AT_A_LARGER_SIZE) if smaller_fits else _MESSAGES
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)


def try_here(
    task: Callable[[], object], device: torch.device, limit: int | None, *, smaller_fits: bool = False
) -> Outcome:
    """Run `task` in this process and give its memory back.

    Args:
        task: What may run out of memory. Other errors come through.
        device: Whose memory it takes.
        limit: Bytes beyond what is in use now that it may take; watched on CUDA only, elsewhere the device's own
            refusal counts.
        smaller_fits: As in `is_out_of_memory`.
    """
    before = _start_peak(device)
    try:
        task()
    except Exception as error:
        if not is_out_of_memory(error, smaller_fits=smaller_fits):
            raise
        outcome: Outcome = "out of memory"
    else:
        too_much = limit is not None and device.type == "cuda" and _peak(device) - before > limit
        outcome = "out of memory" if too_much else "fits"
    if outcome == "out of memory":
        gc.collect()  # a failed step may leave cycles that hold its tensors
    give_back(device)
    return outcome


def try_in_child(
    task: Callable[[], object], limit: int, *, smaller_fits: bool = False, cure: str = "make it faster"
) -> Outcome:
    """Run `task` in a forked child that may take `limit` more bytes of address space (Linux).

    Whatever the child does to its memory, models or random generators is gone with it, also when the kernel kills it;
    what it prints is not. It computes with one thread, since a thread pool does not survive a fork.

    Args:
        task: What may run out of memory.
        limit: Bytes that it may take.
        smaller_fits: Whether the same has worked with less: then a segmentation fault counts, too, as that of a stack
            that could not grow.
        cure: What to do if it does not end.

    Raises:
        DisciplineError: If the child does not answer within 10 minutes, crashes, or fails by an error that cannot be
            passed on, or if what this process has trained before keeps torch from training in a child.
        Exception: What `task` raised, unless it means that memory ran out.
    """
    receiver, sender = Pipe(duplex=False)
    _flush()  # or the child prints it as well
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: the parent has threads
        pid = os.fork()
    if pid == 0:
        _be_the_child(task, limit, sender)
    sender.close()
    answer, status = None, 0
    try:
        if receiver.poll(_PATIENCE_S):
            answer = receiver.recv_bytes()
    except EOFError:
        answer = _SILENT
    finally:
        if answer is None:
            os.kill(pid, signal.SIGKILL)
        receiver.close()
        with suppress(ChildProcessError):  # where the program has the system reap its children
            _, status = os.waitpid(pid, 0)
    if answer is None:
        raise DisciplineError(f"A training step did not end within {_PATIENCE_S:g} s: {cure}.")
    if answer == _SILENT:
        _refuse_a_crash(status, smaller_fits=smaller_fits)
    if answer == b"fits":
        return "fits"
    if answer in (b"out of memory", _SILENT):
        return "out of memory"
    error: Exception = pickle.loads(answer)
    if _NO_FORK in str(error):
        raise DisciplineError(
            "torch trains in no child process after a training on a GPU or a backward pass of a compiled model: search "
            "before that, or in a process of its own."
        ) from error
    raise error


def give_back(device: torch.device) -> None:
    """Return to the device what torch holds without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def address_space_used() -> int:
    """Return the bytes of address space of this process (Linux), which RLIMIT_AS limits."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _refuse_a_crash(status: int, *, smaller_fits: bool) -> None:
    """Refuse a child that another signal has ended than the kernel's or a library's that has no memory to give."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL
    may_lack = number == signal.SIGSEGV
    if number in (signal.SIGKILL, signal.SIGABRT, signal.SIGBUS) or (may_lack and smaller_fits):
        return
    what = "may be a lack of memory or a crash: give it more memory, or" if may_lack else "is no lack of memory:"
    raise DisciplineError(
        f"A training step was ended by signal {number} ({signal.strsignal(number)}), which {what} run one under "
        "`python -X faulthandler`, which shows where it crashes."
    )


def _be_the_child(task: Callable[[], object], limit: int, sender: Connection) -> None:
    """Run the task under the limit, send the outcome and leave, without any of the parent's clean-up."""
    answer = b"out of memory"
    try:
        import resource

        torch.set_num_threads(1)
        with suppress(OSError):  # if the kernel must end a process, this one; some containers do not let it say so
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = address_space_used() + limit
        soft = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        task()
        answer = b"fits"
    except BaseException as error:
        if not is_out_of_memory(error):
            answer = _pickled(error)
    finally:
        try:
            _flush()
            sender.send_bytes(answer)
        finally:
            os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or none at all
            stream.flush()


def _pickled(error: BaseException) -> bytes:
    try:
        packed = pickle.dumps(error)
        if isinstance(pickle.loads(packed), Exception):
            return packed
    except Exception:  # it holds what cannot be pickled, or takes other arguments than its text
        pass
    return pickle.dumps(DisciplineError(f"A training step failed: {type(error).__name__}: {error}"))


def _machine_available() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _groups_left(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what the process's control groups leave of their memory limits, version 1 and 2."""
    left = []
    try:
        entries = [line.split(":", 2) for line in proc.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    for _, controllers, path in entries:
        if controllers == "":
            base, limit_file, used_file = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_file, used_file = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):  # a group is bound by those above it; in a container only the root shows
            if folder == base.parent:
                break
            try:
                limit = int((folder / limit_file).read_text(encoding="ascii"))  # "max" is none
                used = int((folder / used_file).read_text(encoding="ascii"))
            except (OSError, ValueError):
                continue
            left.append(limit - used)
    return left


def _start_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device)
