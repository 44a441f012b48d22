"""What is not a slab, a medium, a descriptor, a size or an option is named in the error, and nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpuflow.config import AudioOptions, ImageOptions, VideoOptions
from gpuflow.errors import InvalidDescriptor, InvalidOptions
from gpuflow.memory import Slab, TieredMemory
from gpuflow.presets.image import Preset
from gpuflow.presets.mel import MelSpec
from gpuflow.transfer import Descriptor, FilePublisher, Publisher, Reader
from gpuflow.values import shown
from tests.patterns import image_of
from tests.unit.odd_values import ODD

CASES: dict[str, tuple[type[Exception], str, Callable[[Any, Any, Any], object]]] = {
    "a size that is no number": (TypeError, "whole number of bytes; got '5'", lambda s, p, r: s.allocate("5")),
    "half a byte": (TypeError, "whole number of bytes; got 1.5", lambda s, p, r: s.allocate(1.5)),
    "no byte": (ValueError, "at least 1 byte", lambda s, p, r: s.allocate(0)),
    "a publisher of nothing": (ValueError, "1 to 8 slabs; got 0", lambda s, p, r: Publisher()),
    "a publisher of too much": (ValueError, "1 to 8 slabs; got 9", lambda s, p, r: Publisher(*[s] * 9)),
    "a publisher of text": (TypeError, "takes slabs, say flow.slab; got str", lambda s, p, r: Publisher("slab")),  # type: ignore[arg-type]
    "a medium that is none": (TypeError, "published.*got list", lambda s, p, r: p.publish([1])),
    "a medium to keep that is none": (TypeError, "kept.*got int", lambda s, p, r: _keep(s, 3)),
    "tiers of no slab": (TypeError, "say flow.slab; got NoneType", lambda s, p, r: TieredMemory(None)),  # type: ignore[arg-type]
    "a reader's time below 0": (ValueError, "ttl_seconds lies in", lambda s, p, r: _renew(s, p, -1.0)),
    "more time than there is": (ValueError, "ttl_seconds lies in", lambda s, p, r: _renew(s, p, float("nan"))),
    "waiting for ever": (ValueError, "0 or more, and finite", lambda s, p, r: p.drain(timeout_seconds=float("nan"))),
    "a key that is too long": (
        ValueError,
        "at most 64 bytes; got 65",
        lambda s, p, r: Descriptor.from_bytes(b"x" * 99, key=b"k" * 65),
    ),
    "cancelling bytes": (TypeError, "Descriptor.*got bytes", lambda s, p, r: p.cancel(b"x")),
    "renewing text": (TypeError, "Descriptor.*got str", lambda s, p, r: p.renew("x")),
    "reading bytes": (InvalidDescriptor, "from_bytes", lambda s, p, r: r.read(b"raw")),
    "a descriptor of text": (InvalidDescriptor, "a descriptor is bytes", lambda s, p, r: Descriptor.from_bytes("x")),  # type: ignore[arg-type]
    "a way that is none": (ValueError, "some of inproc, shm, nixl", lambda s, p, r: Reader(transports="pigeon")),  # type: ignore[arg-type]
    "no threads": (ValueError, "threads is 1 or more", lambda s, p, r: Reader(threads=0)),
    "a file as directory": (FileExistsError, "exists", lambda s, p, r: FilePublisher(__file__)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(slab: Slab, case: str) -> None:
    kind, says, use = CASES[case]
    with (
        Publisher(slab, transports=("inproc",)) as publisher,
        Reader(slab_bytes="1MiB", device="cpu", transports=("inproc",)) as reader,
    ):
        before = threading.active_count()
        with pytest.raises(kind, match=says):
            use(slab, publisher, reader)
        assert threading.active_count() == before


def test_one_transport_may_be_given_as_text(slab: Slab) -> None:
    with Publisher(slab, transports="inproc") as publisher:
        assert publisher.transports == {"inproc"}


def _keep(slab: Slab, media: Any) -> None:
    with TieredMemory(slab) as memory:
        memory.keep(media)


def _renew(slab: Slab, publisher: Publisher, ttl_seconds: float) -> None:
    with image_of(slab, side=10) as image:
        publisher.renew(publisher.publish(image), ttl_seconds=ttl_seconds)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_anything_is_shown_in_a_few_words(value: Any) -> None:
    assert 0 < len(shown(value)) <= 83


@pytest.mark.parametrize(
    "value", [*ODD.values(), 3, True, ["clip-224"], Preset], ids=[*ODD, "3", "true", "list", "type"]
)
@pytest.mark.parametrize(
    ("kind", "field"), [(ImageOptions, "preset"), (VideoOptions, "preset"), (AudioOptions, "features")]
)
def test_what_names_no_preset_is_refused_when_options_are_made(kind: Any, field: str, value: Any) -> None:
    if isinstance(value, str):
        assert getattr(kind(**{field: value}), field) == value  # whether there is one of that name is asked later
        return
    for make in (kind, lambda **values: kind.from_mapping(values)):
        with pytest.raises(InvalidOptions, match=field) as caught:
            make(**{field: value})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("field", ["size", "dtype", "background", "frame", "region", "normalize"])
def test_an_option_of_any_depth_is_refused_in_a_few_words(field: str, value: Any) -> None:
    for make in (ImageOptions, lambda **values: ImageOptions.from_mapping(values)):
        with pytest.raises(InvalidOptions, match=field) as caught:
            make(**{field: value})
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_mel_spec_of_any_depth_is_refused_in_a_few_words(value: Any) -> None:
    for config in (
        {"feature_extractor_type": value},
        {"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": value},
    ):
        with pytest.raises(InvalidOptions) as caught:
            MelSpec.from_hf(config)
        assert len(str(caught.value)) < 400
