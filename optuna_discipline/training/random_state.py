"""Random generators borrowed and given back: Python's, NumPy's, torch's (CPU, CUDA, mps), and those of a loader."""

import random
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RandomStates:
    """The state of every global random generator at one moment.

    Attributes:
        python: `random.getstate()`.
        numpy: `numpy.random.get_state()`.
        torch_cpu: State of torch's default CPU generator.
        cuda: States of all CUDA generators; None where CUDA was not in use.
        mps: State of the generator of Apple's GPU; None where there is none.
        generators: Other torch generators, such as a loader's, with their states.
    """

    python: Any
    numpy: Any
    torch_cpu: torch.Tensor
    cuda: list[torch.Tensor] | None
    mps: torch.Tensor | None = None
    generators: tuple[tuple[torch.Generator, torch.Tensor], ...] = ()

    @classmethod
    def capture(cls, generators: Iterable[torch.Generator] = (), device: torch.device | None = None) -> "RandomStates":
        """Copy the states now.

        Args:
            generators: Further generators to keep, such as `generators_of(loader)`.
            device: A CUDA device is started, if it is not, so that its generator can be kept too.
        """
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),
            torch_cpu=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if _uses_cuda(device) else None,
            mps=torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
            generators=tuple((generator, generator.get_state()) for generator in generators),
        )

    def restore(self) -> None:
        """Put every generator back to where it was."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch_cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)
        for generator, state in self.generators:
            generator.set_state(state)

    def to_dict(self) -> dict[str, Any]:
        """Return the global states as tensors, numbers, texts and tuples, which `torch.load` reads safely."""
        name, keys, *rest = self.numpy
        return {
            "python": self.python,
            "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
            "torch_cpu": self.torch_cpu,
            "cuda": self.cuda,
            "mps": self.mps,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "RandomStates":
        """Return what `to_dict` was given; CUDA's states only where as many devices are in use, that of mps likewise.

        Raises:
            KeyError: If a state is missing.
            ValueError: If a state has another form.
        """
        version, words, gauss = stored["python"]
        name, keys, *rest = stored["numpy"]
        cuda = stored["cuda"]
        if cuda is not None and not (torch.cuda.is_available() and torch.cuda.device_count() == len(cuda)):
            cuda = None
        mps = stored.get("mps") if torch.backends.mps.is_available() else None
        return cls(
            python=(version, tuple(words), gauss),
            numpy=(name, keys.numpy().astype(np.uint32), *rest),
            torch_cpu=stored["torch_cpu"].cpu(),
            cuda=None if cuda is None else [state.cpu() for state in cuda],
            mps=None if mps is None else mps.cpu(),
        )


@contextmanager
def kept_random(*loaders: object) -> Iterator[None]:
    """Give back the random states that loaders move when they are read: the global ones, and their own."""
    states = RandomStates.capture(generators_of(*loaders))
    try:
        yield
    finally:
        states.restore()


class PrivateRandom:
    """A random stream of its own: inside `with`, the global generators run on the stream's states, outside on theirs.

    It may be entered again and again and goes on where it stopped, so that a generator function can leave it before
    each `yield`: the caller's random numbers do not depend on what happened inside.

    Args:
        seed: Start of the stream; None makes `with` do nothing (the global generators are used and move on).
        device: Device of the training; a CUDA device's generators are kept too.
        start: States with which the stream begins instead, also without a seed.
    """

    def __init__(self, seed: int | None, device: torch.device, start: RandomStates | None = None) -> None:
        self._seed = seed
        self._device = device
        self._own = start
        self._callers: RandomStates | None = None

    def __enter__(self) -> None:
        if self._seed is None and self._own is None:
            return
        self._callers = RandomStates.capture(device=self._device)
        if self._own is None:
            assert self._seed is not None
            seed_global(self._seed, self._device)
        else:
            self._own.restore()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._callers is not None:
            self._own = RandomStates.capture(device=self._device)
            self._callers.restore()
            self._callers = None


def seed_global(seed: int, device: torch.device) -> None:
    """Seed Python's, NumPy's and torch's global generators; CUDA's only if it is in use or `device` is one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed a CUDA that is not in use
    if _uses_cuda(device):
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def draw_seed() -> int:
    """Return a seed drawn from torch's global generator, as a DataLoader does."""
    return int(torch.empty((), dtype=torch.int64, device="cpu").random_().item())


def loaders_generator(seed: int | None, device: torch.device | None = None) -> torch.Generator:
    """Return a generator for a DataLoader, which draws on torch's default device unless its sampler says otherwise.

    Args:
        seed: Start of its numbers; None draws one.
        device: Where it draws; None is torch's default device.
    """
    generator = torch.Generator(device=torch.empty(0).device if device is None else device)
    return generator.manual_seed(draw_seed() if seed is None else seed)


def generators_of(*data: object) -> tuple[torch.Generator, ...]:
    """Return the torch generators on which loaders run (their own and their samplers'), each once."""
    found: dict[int, torch.Generator] = {}
    for loader in data:
        batch_sampler = getattr(loader, "batch_sampler", None)
        owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
        for owner in owners:
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                found[id(generator)] = generator
    return tuple(found.values())


def _uses_cuda(device: torch.device | None) -> bool:
    return torch.cuda.is_initialized() or (device is not None and device.type == "cuda")  # type: ignore[no-untyped-call]
