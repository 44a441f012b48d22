"""Whether a GPU's context still lives after an error: some errors end it, and every later call of the process fails.

Both GPU decoders run inside ``guard``. Nothing revives a lost context but a new process, so that what was found holds
until this one ends.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuflow.codecs._backends import known_good
from gpuflow.codecs._backends.nvimagecodec import NvImageCodecDecoder
from gpuflow.errors import DeviceLost, GpuflowError
from gpuflow.observe import Counters, Values, labelled, log


class Canary:
    """One GPU's. ``decode``: decodes a known picture there and waits for the device; it raises when that fails."""

    def __init__(self, device: str, decode: Callable[[], None]) -> None:
        self._device = device
        self._decode = decode
        self._counters = Counters()
        self._one_at_a_time = threading.Lock()
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the context is known to be lost."""
        return self._lost

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around calls of a GPU decoder; our own errors pass.

        Raises:
            DeviceLost: the context was lost before, or is now. Otherwise what the block raises.
        """
        self.require_alive()
        try:
            yield
        except GpuflowError:
            raise
        except Exception as error:
            self.examine(error)
            raise

    def require_alive(self) -> None:
        """Raise ``DeviceLost`` where the context is lost."""
        if self._lost:
            raise DeviceLost(f"the CUDA context of {self._device} is lost: restart this process")

    def examine(self, error: BaseException) -> None:
        """After an error on the GPU: raise ``DeviceLost`` from it when the known picture is not decoded either. A lack
        of memory says nothing."""
        with self._one_at_a_time:
            if not self._lost:
                self._lost = self._dies(error)
        if self._lost:
            raise DeviceLost(f"the CUDA context of {self._device} is lost: restart this process") from error

    def metrics(self) -> Values:
        """The canaries that were decoded, by result, and 1 where the context is lost."""
        return {
            labelled("gpuflow_gpu_lost", device=self._device): float(self._lost),
            **self._counters.snapshot(),
        }

    def _dies(self, error: BaseException) -> bool:
        try:
            self._decode()
            result = "alive"
        except MemoryError:
            result = "unknown"
        except Exception:  # noqa: BLE001 - any: what a lost context makes libraries raise is not known
            log.exception("the CUDA context of %s is lost, restart this process; first: %r", self._device, error)
            result = "lost"
        self._counters.add("gpuflow_gpu_canaries_total", device=self._device, result=result)
        return result == "lost"


@functools.cache
def canary(device_index: int) -> Canary:
    """The canary of one GPU; one a process, as the context is."""
    decoder = NvImageCodecDecoder(device_index)
    return Canary(f"cuda:{device_index}", lambda: known_good.decode(decoder, device_index))
