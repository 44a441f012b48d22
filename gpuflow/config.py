"""What is allowed (``Limits``, ``FetchPolicy``: fixed by the operator) and what is wanted (``*Options``: per request).

All are frozen values. ``from_mapping`` takes the JSON form that travels with a request (``media_io_kwargs``): a field
that it does not name keeps its default, an unknown field or a wrong type is ``InvalidOptions`` with the field's path.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal

import msgspec

from gpuflow.errors import InvalidOptions
from gpuflow.samplers import Wish, sampler_named
from gpuflow.values import Value, fields, shown

MIB = 1 << 20
MIN_RANGE_BYTES = 4_096
MAX_NVDEC_SESSIONS = 64
MIN_SPLIT_SECONDS = 1.0
_PROXY = re.compile(r"http://(?:[!-9;-?A-~]+:[!-?A-~]+@)?(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,4}")
_SPLITS = {
    "split_seconds": ("quietest", "windows"),
    "search_seconds": ("quietest",),
    "overlap_seconds": ("windows",),
}

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Limits(Value, frozen=True, kw_only=True):
    """What the operator allows. A request may ask for less, never for more.

    Source of the defaults: the anchors in DESIGN section 7 (OpenAI 20 MB images, vLLM 25 MB and 600 s audio, imgproxy
    50 MP, Dynamo 128 frames), and measurements of what decoders do with claims beyond them.

    ``max_tracks`` to ``max_box_depth`` bound the structure of containers: samples and edits of one track, boxes (of
    Matroska: elements; of RIFF: chunks) outside of fragments, and how deep they are nested. ``max_images`` to
    ``max_request_bytes`` are of one request; ``max_pending_bytes`` is what a flow holds, of all its requests together, of
    fetched media that are not decoded yet.
    """

    max_image_bytes: int = 20 * MIB
    max_audio_bytes: int = 25 * MIB
    max_video_bytes: int = 256 * MIB
    max_image_pixels: int = 50_000_000
    max_image_side: int = 16_384
    max_animation_frames: int = 1_024
    max_animation_pixels: int = 400_000_000
    max_video_side: int = 4_096
    max_video_pixels: int = 8_912_896
    max_video_frames: int = 128
    max_decoded_frames: int = 36_000
    max_video_seconds: float = 3_600.0
    max_output_bytes: int = 384 * MIB
    max_audio_seconds: float = 600.0
    max_audio_channels: int = 8
    min_sample_rate_hz: int = 4_000
    max_sample_rate_hz: int = 192_000
    max_pcm_bytes: int = 256 * MIB
    max_tracks: int = 16
    max_samples: int = 500_000
    max_edits: int = 1_024
    max_boxes: int = 20_000
    max_box_depth: int = 8
    max_jpeg_scans: int = 64
    max_jpeg_pixels_per_byte: int = 800
    image_seconds: float = 5.0
    audio_seconds: float = 20.0
    video_seconds: float = 60.0
    deadline_seconds: float = 120.0
    max_images: int = 32
    max_videos: int = 4
    max_audios: int = 4
    max_request_bytes: int = 512 * MIB
    max_pending_bytes: int = 2_048 * MIB

    def _check_together(self) -> None:
        for name, *_ in fields(type(self)):
            if not getattr(self, name) > 0:
                raise InvalidOptions(f"{name} must be above 0; got {getattr(self, name)!r}")

    def lowered(self, wanted: Mapping[str, Any] | None) -> Limits:
        """These limits, and where a field that ``wanted`` names asks for less, less: what it asks for beyond them it
        does not get.

        Raises:
            InvalidOptions: an unknown field, a wrong type, or a value that is not above 0.
        """
        if wanted is None:
            return self
        asked = Limits.from_mapping(wanted)
        stricter = {name: max if name.startswith("min_") else min for name in wanted}
        values = {name: choose(getattr(self, name), getattr(asked, name)) for name, choose in stricter.items()}
        return msgspec.structs.replace(self, **values)

    def max_parts(self, modality: str) -> int:
        """How many parts of a modality one request may have."""
        return {"image": self.max_images, "audio": self.max_audios, "video": self.max_videos}[modality]

    def max_bytes(self, modality: str | None) -> int:
        """The size cap of a modality; of the largest one while the modality is not known."""
        caps = {"image": self.max_image_bytes, "audio": self.max_audio_bytes, "video": self.max_video_bytes}
        return caps[modality] if modality in caps else max(caps.values())

    def decode_seconds(self, modality: str) -> float:
        """The wall time that one decode of this modality may take."""
        return {"image": self.image_seconds, "audio": self.audio_seconds, "video": self.video_seconds}[modality]


class FetchPolicy(Value, frozen=True, kw_only=True):
    """Where media may be fetched from. The first five fields are Dynamo's, under its names. Plain ``http``, addresses in
    place of names, other ports than 80 and 443, and files are off until the operator allows them.

    ``allowed_media_domains``: ``None`` is any public host, ``()`` is none; ``"a.example"`` matches exactly,
    ``"*.a.example"`` its subdomains. Addresses are checked even for allowed names; ``allow_private_networks`` opens
    networks (CIDR). ``local_roots``: folders whose files a request's ``file://`` URLs may name (default: none).
    ``proxy``: the only way out, ``"http://[user:password@]host:port"``; it looks names up and has to refuse private
    addresses itself (say smokescreen). Proxies that the environment names are never used. ``range_bytes``: bodies that
    are larger come in parts of that size, four at once, from servers that serve parts and name versions (strong ETag).
    """

    user_agent: str = "gpuflow"
    timeout_ms: int | None = None
    allow_direct_ip: bool = False
    allow_direct_port: bool = False
    allowed_media_domains: tuple[str, ...] | None = None
    allowed_schemes: tuple[Literal["http", "https"], ...] = ("https",)
    allow_private_networks: tuple[str, ...] = ()
    local_roots: tuple[str, ...] = ()
    max_redirects: int = 3
    dns_seconds: float = 3.0
    connect_seconds: float = 5.0
    read_seconds: float = 5.0
    image_seconds: float = 15.0
    audio_seconds: float = 30.0
    video_seconds: float = 60.0
    min_bytes_per_second: int = 1_024
    max_connections: int = 64
    max_connections_per_host: int = 8
    proxy: str | None = None
    range_bytes: int | None = None

    def _check_together(self) -> None:
        for name, value in ((name, getattr(self, name)) for name, *_ in fields(type(self))):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                least = 0 if name in ("max_redirects", "min_bytes_per_second") else 1e-6
                if value < least:
                    raise InvalidOptions(f"{name} must be {'0 or more' if least == 0 else 'above 0'}; got {value!r}")
        if not (self.user_agent.isascii() and self.user_agent.isprintable()):
            raise InvalidOptions(f"user_agent is printable ASCII; got {shown(self.user_agent)}")
        if self.range_bytes is not None and self.range_bytes < MIN_RANGE_BYTES:
            raise InvalidOptions(f"range_bytes is {MIN_RANGE_BYTES} or more; got {self.range_bytes}")
        if self.proxy is not None and not _PROXY.fullmatch(self.proxy):
            raise InvalidOptions("proxy has the form 'http://[user:password@]host:port'")

    def total_seconds(self, modality: str | None) -> float:
        """The time one fetch may take, from the first look-up to the last byte."""
        if self.timeout_ms is not None:
            return self.timeout_ms / 1000
        times = {"image": self.image_seconds, "audio": self.audio_seconds, "video": self.video_seconds}
        return times[modality] if modality in times else max(times.values())


class NvdecPolicy(Value, frozen=True, kw_only=True):
    """How NVDEC is used. ``route``: ``"packets"`` feeds it what our own demuxer read; ``"simple"`` has PyNvVideoCodec's
    ``SimpleDecoder`` read the file (clips whose frames it counts as we do); ``"auto"`` is the first, and the second
    where the library takes no packets. ``max_sessions``: decoder sessions of one GPU (``None``: one an engine); each
    takes some 100 MiB of its memory.
    """

    route: Literal["auto", "packets", "simple"] = "auto"
    max_sessions: int | None = None

    def _check_together(self) -> None:
        if self.max_sessions is not None and not 1 <= self.max_sessions <= MAX_NVDEC_SESSIONS:
            raise InvalidOptions(f"max_sessions lies in 1..{MAX_NVDEC_SESSIONS}; got {self.max_sessions}")


class ImageOptions(Value, frozen=True, kw_only=True):
    """What is wanted of an image. Without ``preset`` the result is an ``Image``, with it ``Features``.

    ``size`` is ``(height, width)``, or one number for both. ``normalize=False`` leaves uint8 where a preset would
    normalise. ``alpha="composite"`` lays transparency over ``background``; ``"drop"`` shows the hidden colour, as
    Hugging Face's processors do. ``engine`` picks the transform engine; the result names the one that ran.
    ``region``: (left, top, right, bottom) in pixels of the image as shown; what follows sees it as the image.
    ``reference``: whose resize of uint8 is reproduced, bit for bit; the preset's own, or torchvision's, by default
    (Lanczos is always Pillow's).
    ``approximate`` allows a JPEG to be decoded smaller where it is resized to a sixth or less anyway; half a level of
    mean error at most, and the result's ``backend`` says so.
    """

    preset: Any = None
    size: int | tuple[int, int] | None = None
    resample: Resample = "bicubic"
    layout: Literal["HWC", "CHW"] = "HWC"
    dtype: Literal["uint8", "float32", "float16", "bfloat16"] | None = None
    normalize: bool = True
    background: tuple[int, int, int] = (255, 255, 255)
    alpha: Literal["composite", "drop"] = "composite"
    frame: int = 0
    region: tuple[int, int, int, int] | None = None
    approximate: bool = False
    reference: Literal["torchvision", "pillow"] | None = None
    engine: Literal["auto", "exact", "dali"] = "auto"

    def _check_together(self) -> None:
        _check_size(self.size)
        _check_named("preset", self.preset, "Preset")
        if self.region is not None:
            left, top, right, bottom = self.region
            if not (0 <= left < right and 0 <= top < bottom):
                raise InvalidOptions(f"region is (left, top, right, bottom), and not empty; got {self.region!r}")
        if any(not 0 <= level <= 255 for level in self.background):
            raise InvalidOptions(f"background levels lie in 0..255; got {self.background!r}")
        if self.frame < 0:
            raise InvalidOptions(f"frame is 0 or more; got {self.frame}")
        if self.preset is not None and (self.size, self.resample, self.layout) != (None, "bicubic", "HWC"):
            raise InvalidOptions("a preset decides size, resample and layout: give it or them, not both")


class AudioOptions(Value, frozen=True, kw_only=True):
    """What is wanted of audio: a ``Waveform``, or ``Features`` where ``features`` names a spec.

    ``sample_rate`` in Hz (``None``: the file's own, or the spec's). ``mono`` takes the mean of the channels before
    any resampling. ``start_seconds`` and ``duration_seconds`` cut a section. ``stream`` names one of a container's audio
    streams, by its place among them or by its language (``"eng"``); ``None`` is the first.

    ``split`` cuts what is longer than ``split_seconds``, at least 1: ``"quietest"`` where the last ``search_seconds`` of
    each part are quietest, without overlap (vLLM's and SGLang's rule, whose values are the defaults); ``"windows"`` into
    parts of ``split_seconds``, each beginning ``overlap_seconds`` before the end of the one before it (a third of
    ``split_seconds`` is the ASR pipeline's of Hugging Face). Features have a first axis of parts then, and each part is
    a clip of its own, as if it came in a file; of a waveform the result only says where its parts lie. ``None`` leaves
    it to the spec: Audio Flamingo 3, GLM-ASR and Cohere ASR cut long clips by a rule of their own, which ``split``
    replaces; so does Voxtral, whose rule cuts features and takes no ``split``; other specs cut off what is beyond their
    window. ``gpuflow.ops.audio_parts.strides`` has what overlapping parts give up to each other. ``dtype``: of features.
    ::

        options = {"features": "whisper-128", "split": "quietest"}
        with gpuflow.load("lecture.mp3", options=options) as media:  # (parts, 128, 3000)
            media.metadata.parts  # ((0, 471200), (471200, 947200), ...): samples at 16 kHz
            media.metadata.valid_lengths  # (2945, 2975, ...): frames
    """

    sample_rate: int | None = None
    mono: bool = True
    features: Any = None
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    stream: int | str | None = None
    split: Literal["quietest", "windows"] | None = None
    split_seconds: float = 30.0
    search_seconds: float = 1.0
    overlap_seconds: float = 0.0
    dtype: Literal["float32", "float16", "bfloat16"] | None = None

    def _check_together(self) -> None:
        if self.sample_rate is not None and self.sample_rate <= 0:
            raise InvalidOptions(f"sample_rate must be above 0 Hz; got {self.sample_rate}")
        if self.start_seconds < 0:
            raise InvalidOptions(f"start_seconds is 0 or more; got {self.start_seconds}")
        if self.duration_seconds is not None and not self.duration_seconds > 0:
            raise InvalidOptions(f"duration_seconds must be above 0; got {self.duration_seconds}")
        _check_stream(self.stream)
        _check_named("features", self.features, "MelSpec")
        if self.features is not None and not self.mono:
            raise InvalidOptions("features are computed from one channel: mono=False contradicts features")
        if self.features is None and self.dtype is not None:
            raise InvalidOptions(
                f"dtype is of features, and a waveform is float32; got {self.dtype!r} without features"
            )
        self._check_split()

    def _check_split(self) -> None:
        given = {name for name, _, default in fields(type(self)) if name in _SPLITS and getattr(self, name) != default}
        for name in given:
            if self.split not in _SPLITS[name]:
                wanted = " or ".join(f"split={split!r}" for split in _SPLITS[name])
                raise InvalidOptions(f"{name} goes with {wanted}; got it with split={self.split!r}")
        if self.split is None:
            return
        if self.split_seconds < MIN_SPLIT_SECONDS:
            raise InvalidOptions(f"split_seconds is {MIN_SPLIT_SECONDS:g} or more; got {self.split_seconds}")
        half = self.split_seconds / 2
        if self.split == "quietest" and not 0 < self.search_seconds <= half:
            raise InvalidOptions(f"search_seconds is above 0, at most half of split_seconds; got {self.search_seconds}")
        if not 0 <= self.overlap_seconds <= half:
            raise InvalidOptions(
                f"overlap_seconds is 0 or more, at most half of split_seconds; got {self.overlap_seconds}"
            )


class VideoOptions(Value, frozen=True, kw_only=True):
    """What is wanted of a video: which frames, and in which form. Without ``preset`` the result is ``Frames``, with it
    ``Features``.

    ``num_frames``: at most so many, evenly spaced; exactly so many with ``strict``. ``fps``: that rate, capped by
    ``max_frames``. ``indices`` and ``timestamps_seconds``: any order, repeats allowed. ``keyframes``: only those, all or
    ``num_frames`` of them. ``start_seconds`` and ``end_seconds`` narrow the clip first. With none given:
    ``num_frames=32``. ``sampler`` names a server's own rule (``gpuflow.samplers``) for ``num_frames``, ``fps`` and
    ``max_frames``, and for what is left out; it sees the whole clip. A preset does not choose frames: a server that
    expects its processor's choice names the sampler too.

    ``engine="dali"`` decodes and resizes in one DALI pipeline where that gives the right frames and colours; elsewhere
    ``exact`` does, and the result says why.

    ``strict=False`` also gives what decoded of a damaged clip, and names the frames that it lacks and those whose damage
    the decoder concealed and says so; ``strict`` raises.

    ``audio`` also loads the sound of the clip, of the same bytes: ``media.audio``, ``None`` of a clip without any, or
    of a section without any. Its times are the clip's: the first sample is heard when the first picture is shown, or at
    ``start_seconds``, and the sound ends at ``end_seconds``, unless ``audio`` names a section of its own. A stream that
    ``audio`` names must be there. ``Flow.frames`` gives no sound.
    """

    num_frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    indices: tuple[int, ...] | None = None
    timestamps_seconds: tuple[float, ...] | None = None
    keyframes: bool = False
    start_seconds: float | None = None
    end_seconds: float | None = None
    sampler: str | None = None
    strict: bool = False
    preset: Any = None
    size: int | tuple[int, int] | None = None
    resample: Resample = "bicubic"
    layout: Literal["THWC", "TCHW"] = "THWC"
    dtype: Literal["uint8", "float32", "float16", "bfloat16"] | None = None
    normalize: bool = True
    engine: Literal["auto", "exact", "dali"] = "auto"
    audio: AudioOptions | None = None

    @property
    def wish(self) -> Wish:
        """What a sampler is told."""
        return Wish(self.num_frames, self.fps, self.max_frames)

    def _check_together(self) -> None:
        _check_size(self.size)
        _check_named("preset", self.preset, "Preset")
        ways = ("num_frames", "fps", "indices", "timestamps_seconds")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            raise InvalidOptions(f"give one of {', '.join(ways)}; got {' and '.join(given)}")
        for name in ("num_frames", "fps", "max_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidOptions(f"{name} must be above 0; got {value!r}")
        if self.indices == () or self.timestamps_seconds == ():
            raise InvalidOptions("indices and timestamps_seconds must name at least one frame")
        if self.max_frames is not None and given not in (["fps"], []):
            raise InvalidOptions(f"max_frames goes with fps; got it with {given[0]}")
        if self.keyframes and given not in (["num_frames"], []):
            raise InvalidOptions(f"keyframes goes with num_frames; got it with {given[0]}")
        _check_range(self.start_seconds, self.end_seconds)
        self._check_sampler()
        if self.preset is not None and (self.size, self.resample, self.layout) != (None, "bicubic", "THWC"):
            raise InvalidOptions("a preset decides size, resample and layout: give it or them, not both")

    def _check_sampler(self) -> None:
        if self.sampler is None:
            return
        for name in ("indices", "timestamps_seconds", "keyframes", "start_seconds", "end_seconds"):
            if getattr(self, name) not in (None, False):
                raise InvalidOptions(f"a sampler sees the whole clip and chooses itself; got it with {name}")
        sampler_named(self.sampler).check(self.wish)


Options = ImageOptions | VideoOptions | AudioOptions
OPTIONS_BY_MODALITY: dict[str, type[ImageOptions | VideoOptions | AudioOptions]] = {
    "image": ImageOptions,
    "video": VideoOptions,
    "audio": AudioOptions,
}


def made_of(values: Mapping[str, Any] | None, modality: str) -> Options:
    """The options of a modality from their JSON form; without any, the defaults, which are made once.

    Raises:
        InvalidOptions: as ``from_mapping``.
    """
    return OPTIONS_BY_MODALITY[modality].from_mapping(values) if values else _defaults(modality)


@functools.cache
def _defaults(modality: str) -> Options:
    return OPTIONS_BY_MODALITY[modality]()


def _check_size(size: int | tuple[int, int] | None) -> None:
    sides = (size,) if isinstance(size, int) else size or ()
    if any(side <= 0 for side in sides):
        raise InvalidOptions(f"a size is above 0 pixels; got {size!r}")


def _check_named(name: str, value: object, kind: str) -> None:
    """Presets and mel specs are dataclasses, which this module does not know; what JSON holds is none of them."""
    if not (value is None or isinstance(value, str) or (is_dataclass(value) and not isinstance(value, type))):
        raise InvalidOptions(f"{name} is a name or a {kind}; got {shown(value)}")


def _check_stream(stream: int | str | None) -> None:
    if isinstance(stream, int) and stream < 0:
        raise InvalidOptions(f"stream is a place, 0 or more, or a language; got {stream}")
    if isinstance(stream, str) and not _LANGUAGE.fullmatch(stream):
        raise InvalidOptions(f"stream is a language of letters, like 'eng', or a place; got {shown(stream)}")


def _check_range(start: float | None, end: float | None) -> None:
    if start is not None and start < 0:
        raise InvalidOptions(f"start_seconds is 0 or more; got {start}")
    if end is not None and end <= (start or 0.0):
        raise InvalidOptions(f"end_seconds must lie after start_seconds; got {start} .. {end}")
