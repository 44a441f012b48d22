"""Which device work runs on, and why. Standard library only, so that ``gpuflow env`` works when all else is broken.

``auto`` takes ``cuda:0`` when the driver, a GPU and the libraries are there; otherwise the CPU, with the reason.
``cuda`` never falls back.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from dataclasses import dataclass

from gpuflow.errors import BackendUnavailable, InvalidOptions

_CUDA_LIBRARIES = ("cupy",)
_DEVICE = re.compile(r"^(auto|cpu|cuda(?::(\d+))?)$")


@dataclass(frozen=True, slots=True)
class Driver:
    """What the NVIDIA driver answered: ``count`` GPUs, or 0 and the reason."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was chosen, ``"cpu"`` or ``"cuda:N"``, and why it was."""

    name: str
    reason: str

    @property
    def is_cuda(self) -> bool:
        """True on a GPU."""
        return self.name != "cpu"

    @property
    def index(self) -> int:
        """The GPU's number; 0 on the CPU."""
        return int(self.name.partition(":")[2] or 0)


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether a backend can be used here; if not, why and what mends it (the pip or driver line)."""

    available: bool
    reason: str = ""
    version: str = ""

    def __bool__(self) -> bool:
        return self.available


@functools.cache
def driver() -> Driver:
    """Ask the driver once. It is asked through ctypes before any vendor library, because some of those end the process
    when ``cuInit`` fails."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(0, "no NVIDIA driver: libcuda.so.1 is not found")
    status = cuda.cuInit(0)
    if status != 0:
        return Driver(0, f"the NVIDIA driver does not start: cuInit answered {status}")
    count = ctypes.c_int(0)
    status = cuda.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return Driver(0, "the NVIDIA driver sees no GPU")
    return Driver(count.value, f"{count.value} GPU{'s' if count.value > 1 else ''}")


def choose(wanted: str = "auto") -> Device:
    """The device for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        InvalidOptions: no such name.
        BackendUnavailable: a GPU was asked for and cannot be used; the message says what mends it.
    """
    match = _DEVICE.match(wanted) if isinstance(wanted, str) else None
    if match is None:
        raise InvalidOptions(f"device is 'auto', 'cpu', 'cuda' or 'cuda:N'; got {wanted!r}")
    if wanted == "cpu":
        return Device("cpu", "asked for")
    index = int(match[2] or 0)
    obstacle = _obstacle(index)
    if obstacle is None:
        return Device(f"cuda:{index}", driver().reason)
    if wanted == "auto":
        return Device("cpu", obstacle)
    raise BackendUnavailable(f"device {wanted!r} cannot be used: {obstacle}")


def _obstacle(index: int) -> str | None:
    found = driver()
    if found.count == 0:
        return found.reason
    if index >= found.count:
        return f"there is no GPU {index}: the driver sees {found.count}"
    for library in _CUDA_LIBRARIES:
        if importlib.util.find_spec(library) is None:
            return f"{library} is not installed: pip install 'gpuflow[cu13]'"
    return None
