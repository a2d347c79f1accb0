"""Where the command line writes: streams that may be missing or closed, and the places that its options name."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def make_ready() -> None:
    """See to it that printing costs no result of a long search.

    Letters that the terminal's encoding lacks are written out. What goes to a stream that the caller has closed
    (`>&-`) is lost, and no file that is opened later takes the stream's place.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, for as long as the process is
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print at once; a reader that has seen enough, as `head` has, misses the rest and stops nothing."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Write a line on stderr; where it is closed or full the exit code has to do."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")


def check_folder(option: str, folder: Path, purpose: str) -> None:
    """Make the folder that an option names; refuse one that cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{option} must be a folder for {purpose}, but {str(folder)!r} is none: {reason}") from error
