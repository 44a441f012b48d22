"""gpuflow: images, videos and audio from URLs, files or bytes to tensors that another process can read.

Every public name is resolved on first use (PEP 562): importing the package imports neither numpy nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuflow.config import AudioOptions as AudioOptions
    from gpuflow.config import FetchPolicy as FetchPolicy
    from gpuflow.config import ImageOptions as ImageOptions
    from gpuflow.config import Limits as Limits
    from gpuflow.config import NvdecPolicy as NvdecPolicy
    from gpuflow.config import VideoOptions as VideoOptions
    from gpuflow.errors import BackendUnavailable as BackendUnavailable
    from gpuflow.errors import Closed as Closed
    from gpuflow.errors import CorruptMedia as CorruptMedia
    from gpuflow.errors import DeadlineExceeded as DeadlineExceeded
    from gpuflow.errors import DecoderCrashed as DecoderCrashed
    from gpuflow.errors import FetchFailed as FetchFailed
    from gpuflow.errors import GpuflowError as GpuflowError
    from gpuflow.errors import InvalidDescriptor as InvalidDescriptor
    from gpuflow.errors import InvalidOptions as InvalidOptions
    from gpuflow.errors import InvalidSource as InvalidSource
    from gpuflow.errors import LeaseExpired as LeaseExpired
    from gpuflow.errors import LimitExceeded as LimitExceeded
    from gpuflow.errors import NoSuchStream as NoSuchStream
    from gpuflow.errors import Overloaded as Overloaded
    from gpuflow.errors import PeerUnavailable as PeerUnavailable
    from gpuflow.errors import SectionAfterEnd as SectionAfterEnd
    from gpuflow.errors import SlabClosed as SlabClosed
    from gpuflow.errors import SlabExhausted as SlabExhausted
    from gpuflow.errors import SourceNotFound as SourceNotFound
    from gpuflow.errors import SourceUnreadable as SourceUnreadable
    from gpuflow.errors import SpillError as SpillError
    from gpuflow.errors import StaleDescriptor as StaleDescriptor
    from gpuflow.errors import TooLarge as TooLarge
    from gpuflow.errors import TransferTimeout as TransferTimeout
    from gpuflow.errors import UnsafeURL as UnsafeURL
    from gpuflow.errors import UnsupportedFormat as UnsupportedFormat
    from gpuflow.flow.ahead import plan_image as plan_image
    from gpuflow.flow.ahead import probe_image as probe_image
    from gpuflow.flow.collate import collate as collate
    from gpuflow.flow.flow import Flow as Flow
    from gpuflow.flow.sync import SyncFlow as SyncFlow
    from gpuflow.flow.sync import frames as frames
    from gpuflow.flow.sync import load as load
    from gpuflow.media import Features as Features
    from gpuflow.media import FrameChunk as FrameChunk
    from gpuflow.media import Frames as Frames
    from gpuflow.media import Image as Image
    from gpuflow.media import Media as Media
    from gpuflow.media import Outcome as Outcome
    from gpuflow.media import Source as Source
    from gpuflow.media import Waveform as Waveform
    from gpuflow.memory.file_tier import FileTier as FileTier
    from gpuflow.memory.lease import Lease as Lease
    from gpuflow.memory.slab import Slab as Slab
    from gpuflow.memory.tiered import TieredMemory as TieredMemory
    from gpuflow.memory.tiers import HostTier as HostTier
    from gpuflow.ops.streaming_mel import StreamingMel as StreamingMel
    from gpuflow.presets.image import Preset as Preset
    from gpuflow.presets.mel import MelSpec as MelSpec
    from gpuflow.transfer.descriptor import Descriptor as Descriptor
    from gpuflow.transfer.descriptor import Peer as Peer
    from gpuflow.transfer.file_publisher import FilePublisher as FilePublisher
    from gpuflow.transfer.publisher import Publisher as Publisher
    from gpuflow.transfer.reader import Reader as Reader

__version__ = "0.1.0"

_NAMES = {
    "config": ("AudioOptions", "FetchPolicy", "ImageOptions", "Limits", "NvdecPolicy", "VideoOptions"),
    "errors": (
        "BackendUnavailable", "Closed", "CorruptMedia", "DeadlineExceeded", "DecoderCrashed", "FetchFailed", "GpuflowError",
        "InvalidDescriptor", "InvalidOptions", "InvalidSource", "LeaseExpired", "LimitExceeded", "NoSuchStream",
        "Overloaded", "PeerUnavailable", "SectionAfterEnd", "SlabClosed", "SlabExhausted", "SourceNotFound", "SourceUnreadable",
        "SpillError", "StaleDescriptor", "TooLarge", "TransferTimeout", "UnsafeURL", "UnsupportedFormat",
    ),
    "flow.ahead": ("plan_image", "probe_image"),
    "flow.collate": ("collate",),
    "flow.flow": ("Flow",),
    "flow.sync": ("SyncFlow", "frames", "load"),
    "media": ("Features", "FrameChunk", "Frames", "Image", "Media", "Outcome", "Source", "Waveform"),
    "memory.lease": ("Lease",),
    "memory.slab": ("Slab",),
    "memory.tiered": ("TieredMemory",),
    "memory.file_tier": ("FileTier",),
    "memory.tiers": ("HostTier",),
    "ops.streaming_mel": ("StreamingMel",),
    "presets.image": ("Preset",),
    "presets.mel": ("MelSpec",),
    "transfer.descriptor": ("Descriptor", "Peer"),
    "transfer.file_publisher": ("FilePublisher",),
    "transfer.publisher": ("Publisher",),
    "transfer.reader": ("Reader",),
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(["__version__", *_HOME])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'gpuflow' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"gpuflow.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
