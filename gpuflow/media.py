"""What goes in (``Source``, ``Blob``) and what comes out (``Image``, ``Frames``, ``Waveform``, ``Features``)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, Self, cast

from gpuflow.errors import InvalidSource, SourceUnreadable
from gpuflow.metadata import AudioMetadata as AudioMetadata
from gpuflow.metadata import FeatureMetadata as FeatureMetadata
from gpuflow.metadata import ImageMetadata as ImageMetadata
from gpuflow.metadata import Metadata as Metadata
from gpuflow.metadata import VideoMetadata as VideoMetadata

Modality = Literal["image", "video", "audio"]
MODALITIES: tuple[Modality, ...] = ("image", "video", "audio")
_SOURCE_KINDS = ("url", "data", "base64", "path", "bytes", "file")
ITEM_BYTES = {
    "uint8": 1, "int8": 1, "bool": 1, "int16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "float32": 4, "int64": 8, "float64": 8,
}  # fmt: skip
ALIGN_BYTES = 256  # CUDA's own alignment; every tensor of a block starts on it


@dataclass(frozen=True, slots=True)
class Source:
    """What was asked for. ``trusted`` is true when the library's own caller named it, false for a request's string.

    ``kind``: ``"url"`` http(s), ``"data"`` a ``data:`` URI, ``"base64"`` bare base64 text (OpenAI's ``input_audio``),
    ``"path"``, ``"bytes"``, ``"file"`` an open binary file. ``modality``: ``None`` until the bytes are seen.
    """

    kind: Literal["url", "data", "base64", "path", "bytes", "file"]
    value: Any = field(repr=False)
    modality: Modality | None = None
    position: int | None = None
    trusted: bool = False

    @classmethod
    def of(
        cls,
        value: object,
        *,
        modality: Modality | None = None,
        position: int | None = None,
        trusted: bool = False,
    ) -> Source:
        """Make a source of a URL, ``data:`` URI, ``file://`` URL, path, bytes, binary file, content part or ``Source``.

        A bare string is a path only when ``trusted``; an ``os.PathLike`` always is one, for no request can hold it.

        Raises:
            InvalidSource: anything else.
        """
        if isinstance(value, Source):
            return _declared(value, modality)
        if isinstance(value, Mapping):
            return _declared(_of_content_part(value, position), modality)
        kind, content, trusted = _classify(value, trusted)
        return cls(kind, content, modality, position, trusted)

    def __post_init__(self) -> None:
        kinds: dict[str, tuple[type, ...]] = {"bytes": (bytes,), "file": (object,), "path": (str, bytes)}
        wanted = kinds.get(self.kind, (str,))
        if self.kind not in _SOURCE_KINDS or not isinstance(self.value, wanted):
            raise InvalidSource(
                f"a source of kind {self.kind!r} cannot be a {type(self.value).__name__}: use Source.of"
            )
        if self.modality is not None and self.modality not in MODALITIES:
            raise InvalidSource(f"a modality is one of {', '.join(MODALITIES)}; got {str(self.modality)[:40]!r}")


def _declared(source: Source, modality: Modality | None) -> Source:
    if modality is None or source.modality == modality:
        return source
    if source.modality is not None:
        raise InvalidSource(f"the source is declared as {source.modality}, and {modality} was asked for")
    return replace(source, modality=modality)


def _classify(value: object, trusted: bool) -> tuple[Any, object, bool]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value), True
    if isinstance(value, os.PathLike):
        return "path", _path_of(value), True
    if isinstance(value, str):
        return *_classify_text(value, trusted), trusted
    if hasattr(value, "read"):
        return "file", value, True
    raise InvalidSource(
        f"a source is a URL, data URI, path, bytes, binary file or content part; got {type(value).__name__}"
    )


def _path_of(value: os.PathLike[Any]) -> str | bytes:
    try:
        path: str | bytes = os.fspath(value)
        return path
    except Exception as error:  # the caller's own code
        raise InvalidSource(f"{type(value).__name__} gives no path") from error


def _classify_text(text: str, trusted: bool) -> tuple[str, str]:
    scheme = text[:8].lower()
    if scheme.startswith(("http://", "https://")):
        return "url", text
    if scheme.startswith("data:"):
        return "data", text
    if scheme.startswith("file:") or trusted:
        return "path", text
    raise InvalidSource(
        "a request's string must be an http(s) URL, a data: URI or a file:// URL; pass pathlib.Path for a file of your own"
    )


def _of_content_part(part: Mapping[Any, Any], position: int | None) -> Source:
    """One OpenAI chat content part: ``image_url``, ``video_url``, ``audio_url`` or ``input_audio``."""
    kind = part.get("type")
    if kind == "input_audio":
        body = part.get("input_audio")
        if isinstance(body, Mapping) and isinstance(body.get("data"), str):
            return Source("base64", body["data"], "audio", position)
    for modality in MODALITIES:
        if kind == f"{modality}_url":
            body = part.get(kind)
            url = body.get("url") if isinstance(body, Mapping) else body
            if isinstance(url, str):
                return Source(cast("Any", _classify_text(url, False)[0]), url, modality, position)
    raise InvalidSource(f"not a media content part: type {kind!r}, keys {sorted(map(str, part))}")


@dataclass(frozen=True, slots=True)
class Blob:
    """Fetched bytes. ``declared_type`` is what the sender said they are, and is never believed."""

    data: bytes = field(repr=False)
    content_hash: str
    declared_type: str | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a block: C-contiguous, ``offset`` bytes after the block's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


def lay_out(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
    """Place named ``(dtype, shape)`` tensors one after another in a block, each aligned to 256 bytes."""
    specs, offset = [], 0
    for name, (dtype, shape) in tensors.items():
        specs.append(TensorSpec(name, dtype, shape, offset))
        offset += -(-specs[-1].nbytes // ALIGN_BYTES) * ALIGN_BYTES
    return tuple(specs)


def block_bytes(specs: tuple[TensorSpec, ...]) -> int:
    """Bytes from the block's start to the end of its last tensor; at least 1."""
    return max(1, *(spec.offset + spec.nbytes for spec in specs))


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one item: its name, when it began (``time.perf_counter``), how long it took."""

    name: str
    started_seconds: float
    seconds: float


class Storage(Protocol):
    """What a medium needs of its lease (``gpuflow.memory.Lease``)."""

    @property
    def device(self) -> str: ...
    def array(self, spec: TensorSpec) -> Any: ...
    def tensor(self, spec: TensorSpec) -> Any: ...
    def release(self) -> None: ...


class Media:
    """A decoded, placed medium: tensors in one leased block, and what is known about them.

    It is a context manager over its lease. Views (``tensor``, ``numpy()``, DLPack) share the block's memory: after
    ``release()`` the block belongs to somebody else and they must not be used. A view alone keeps an unreleased block
    alive.

    ``audio``: the sound of a video, where ``VideoOptions.audio`` asks for it and the clip has any. It is released with the
    video, or before; a ``Publisher`` publishes the video alone, and ``media.audio`` by itself.
    """

    kind: ClassVar[str] = "media"
    __slots__ = (
        "__weakref__", "_lease", "_released", "audio", "backend", "content_hash", "fallback", "metadata", "specs", "stages",
    )  # fmt: skip

    def __init__(
        self,
        lease: Storage,
        specs: tuple[TensorSpec, ...],
        metadata: Metadata,
        *,
        backend: str,
        fallback: str | None = None,
        stages: tuple[Stage, ...] = (),
        content_hash: str | None = None,
    ) -> None:
        self._lease = lease
        self._released = False
        self.audio: Media | None = None
        self.specs = specs
        self.metadata = metadata
        self.backend = backend
        self.fallback = fallback
        self.stages = stages
        self.content_hash = content_hash

    @property
    def lease(self) -> Any:
        """The block that holds the tensors."""
        return self._lease

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``: where the tensors lie."""
        return self._lease.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first tensor."""
        return self.specs[0].shape

    @property
    def dtype(self) -> str:
        """Type of the first tensor, by its torch name."""
        return self.specs[0].dtype

    @property
    def tensor(self) -> Any:
        """The first tensor as a ``torch.Tensor`` view of the block.

        Raises:
            LeaseExpired: the block was released.
        """
        return self._lease.tensor(self.specs[0])

    def numpy(self) -> Any:
        """The first tensor as a ``numpy.ndarray`` view of the block; on a GPU, a copy on the host.

        Raises:
            LeaseExpired: the block was released.
        """
        array = self._lease.array(self.specs[0])
        return array.get() if hasattr(array, "get") else array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._exported().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._exported().__dlpack_device__()

    def _exported(self) -> Any:
        return self.tensor if self.dtype == "bfloat16" else self._lease.array(self.specs[0])

    def release(self) -> None:
        """Give the block back, and that of ``audio``; harmless when repeated, also while others hold it: only the first call
        counts."""
        if self.audio is not None:
            self.audio.release()
        if not self._released:
            self._released = True
            self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{type(self).__name__} holds leased memory and cannot be pickled: publish it and send descriptor.to_bytes()"
        )

    def __repr__(self) -> str:
        shapes = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in self.specs)
        parts = getattr(self.metadata, "parts", ())
        cut = f" in {len(parts)} part{'s' * (len(parts) > 1)}" if parts else ""
        return f"<{type(self).__name__} {shapes}{cut} on {self.device} by {self.backend}>"


class Image(Media):
    """``(H, W, 3)`` uint8 RGB, or as the options asked."""

    kind = "image"
    __slots__ = ()
    metadata: ImageMetadata

    def _repr_png_(self) -> bytes | None:
        if self.dtype != "uint8" or len(self.shape) != 3 or self.shape[2] != 3:
            return None
        from PIL import Image as Picture

        out = io.BytesIO()
        Picture.fromarray(self.numpy()).save(out, "PNG")
        return out.getvalue()


class Frames(Media):
    """``(T, H, W, 3)`` uint8 RGB, or as the options asked."""

    kind = "frames"
    __slots__ = ()
    metadata: VideoMetadata

    def __len__(self) -> int:
        return self.shape[0]


class FrameChunk(Frames):
    """Some of a clip's wanted frames, in the order in which they are wanted; ``index`` counts chunks from 0.

    ``metadata`` are those of ``Frames``: the clip's facts, and the numbers and times of the frames in this chunk.
    """

    __slots__ = ("index", "is_last")

    def __init__(
        self,
        lease: Storage,
        specs: tuple[TensorSpec, ...],
        metadata: VideoMetadata,
        *,
        index: int,
        is_last: bool,
        backend: str,
        fallback: str | None = None,
        stages: tuple[Stage, ...] = (),
        content_hash: str | None = None,
    ) -> None:
        super().__init__(
            lease, specs, metadata, backend=backend, fallback=fallback, stages=stages, content_hash=content_hash
        )
        self.index = index
        self.is_last = is_last

    @property
    def is_first(self) -> bool:
        """Whether it begins the clip's wanted frames."""
        return self.index == 0


class Waveform(Media):
    """``(channels, samples)`` float32 in -1..1."""

    kind = "waveform"
    __slots__ = ()
    metadata: AudioMetadata


class Features(Media, Mapping[str, Any]):
    """Model inputs under the names of the processor that they equal, as torch views: ``features["pixel_values"]``."""

    kind = "features"
    __slots__ = ()
    metadata: FeatureMetadata

    def __getitem__(self, name: str) -> Any:
        for spec in self.specs:
            if spec.name == name:
                return self._lease.tensor(spec)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(spec.name for spec in self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


MEDIA_KINDS: dict[str, type[Media]] = {kind.kind: kind for kind in (Image, Frames, Waveform, Features)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item of a stream: ``media`` or ``error``, with the position it had in the input."""

    index: int
    source: Source | None
    media: Media | None = None
    error: Exception | None = None


def read_file_object(file: BinaryIO, max_bytes: int) -> bytes:
    """Everything from the file's position on, but never more than ``max_bytes + 1`` bytes.

    Raises:
        SourceUnreadable: reading raises, whatever it raises.
        InvalidSource: it gives text.
    """
    try:
        data = file.read(max_bytes + 1)
    except Exception as error:  # the caller's own code, which may raise anything
        raise SourceUnreadable(f"the file object cannot be read: {type(error).__name__}") from error
    if not isinstance(data, (bytes, bytearray)):
        raise InvalidSource("the file object gives text: open it in binary mode ('rb')")
    return bytes(data)
