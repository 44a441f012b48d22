"""What `audio/pcm` must do, bit for bit: every encoding, interleaved and planar, one to eight channels, mixed or each for
itself, ragged clips in one launch, fewer blocks than tiles, and nothing beside its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuflow.ops.kernels import Launch
from gpuflow.ops.pcm import StoredPcm
from gpuflow.ops.pcm_kernel import SoundJob, sound_launches
from tests.kernels_host.building import HostTables
from tests.kernels_host.check_image_views import HostMemory
from tests.kernels_host.sounds import ENCODINGS, levels, mean, stored

Case = tuple[StoredPcm, bool]


def check(run: Callable[[Launch], None]) -> None:
    """Raise ``AssertionError`` unless ``run`` does what the kernel's header says."""
    clips = [
        stored(encoding, 1 + number % 3, 150 + 70 * number, interleaved=interleaved)
        for number, encoding in enumerate(ENCODINGS)
        for interleaved in (True, False)
    ]
    clips += [stored("s16", 8, 1100), stored("s24", 6, 3), stored("u8", 1, 1), stored("s16", 2, 0)]
    every_code = np.arange(256, dtype=np.uint8)
    clips += [StoredPcm(every_code, encoding, 1, 256, 8_000) for encoding in ("mulaw", "alaw")]
    expect(run, [(clip, number % 2 == 0) for number, clip in enumerate(clips)])
    expect(run, [(clip, number % 2 == 1) for number, clip in enumerate(clips)], blocks=3)


def expect(run: Callable[[Launch], None], cases: list[Case], blocks: int = 1 << 30) -> None:
    """Run all cases side by side, each with a number more on either side, and compare everything."""
    outs = [np.full((1 if mono else pcm.channels) * pcm.count + 2, 77, np.float32) for pcm, mono in cases]
    jobs = [
        SoundJob(pcm, int(out.ctypes.data) + 4, pcm.count, mono=mono)
        for (pcm, mono), out in zip(cases, outs, strict=True)
    ]
    memory = HostMemory()
    for launch in sound_launches(jobs, tables=HostTables(), upload=memory.upload, blocks=blocks):
        run(launch)
    for (pcm, mono), out in zip(cases, outs, strict=True):
        planar = levels(pcm)
        expected = np.concatenate([[77], mean(planar) if mono else planar.reshape(-1), [77]]).astype(np.float32)
        np.testing.assert_array_equal(out.view(np.int32), expected.view(np.int32), f"{pcm.encoding} {pcm.channels}")
