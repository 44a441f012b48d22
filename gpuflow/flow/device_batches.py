"""What a device does for several requests at once, by kind of media."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gpuflow.codecs.images import gpu_decoder
from gpuflow.flow.audio_batches import AudioBatches
from gpuflow.flow.image_batches import ImageBatches
from gpuflow.observe import Counters
from gpuflow.ops.audio_gpu import place_on_gpu


@dataclass(frozen=True, slots=True)
class DeviceBatches:
    """The batches of one GPU; ``close`` them."""

    images: ImageBatches
    sounds: AudioBatches

    @classmethod
    def of(cls, device_index: int, counters: Counters) -> Self:
        """Those of that GPU."""
        return cls(ImageBatches(gpu_decoder(device_index), counters), AudioBatches(place_on_gpu, counters))

    def close(self) -> None:
        """Do what waits, then end; harmless when repeated."""
        self.images.close()
        self.sounds.close()
