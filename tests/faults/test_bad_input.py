"""Every bad input gets its own error, leaves nothing behind, and the next item of the stream is served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpuflow.config import FetchPolicy, Limits
from gpuflow.demo import samples
from gpuflow.errors import GpuflowError
from gpuflow.flow.flow import Flow
from gpuflow.media import Outcome, Source
from tests.flow.raw_server import LOOPBACK
from tests.waiting import wait_until

GOOD = samples.picture("JPEG", width=64, height=48)
CLIP = samples.clip(seconds=0.5)
LIMITS = Limits(max_image_bytes=200_000)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Load once, so that what libraries open for good is not taken for a leak."""

    async def load() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow:
            for data in (GOOD, CLIP, samples.recording()):
                (await flow.load(data)).release()

    asyncio.run(load())


def _no_video() -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        voice = samples.speech(seconds=0.5)
        frame = av.AudioFrame.from_ndarray(voice[None, :1024], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _no_samples() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples.speech(seconds=0.0), 44_100, format="WAV")
    return out.getvalue()


def _unreadable(folder: Path) -> Path:
    path = folder / "secret.jpg"
    path.write_bytes(GOOD)
    path.chmod(0)
    return path


Make = Callable[[Path], object]
BAD: dict[str, tuple[Make, str]] = {
    "an empty body": (lambda _: b"", "media_unprocessable"),
    "HTML instead of an image": (lambda _: b"<!DOCTYPE html><html><body>Not found</body></html>", "unsupported_media"),
    "a truncated JPEG": (lambda _: GOOD[: len(GOOD) // 2], "media_unprocessable"),
    "a truncated PNG": (lambda _: samples.picture("PNG", width=64, height=48)[:900], "media_unprocessable"),
    "a truncated MP4": (lambda _: CLIP[: len(CLIP) // 2], "media_unprocessable"),
    "a video without a video stream": (lambda _: Source.of(_no_video(), modality="video"), "media_stream_missing"),
    "audio without samples": (lambda _: _no_samples(), "media_stream_missing"),
    "a data URI with broken base64": (lambda _: "data:image/png;base64,iVBOR!!!", "invalid_media_reference"),
    "a directory as path": (lambda folder: folder, "invalid_media_reference"),
    "a path that is not there": (lambda folder: folder / "nothing.jpg", "invalid_media_reference"),
    "a bare string as path": (lambda _: "cat.jpg", "invalid_media_reference"),
    "a file that a request names": (lambda folder: (folder / "x").as_uri(), "url_not_allowed"),
    "an image larger than its limit": (lambda _: GOOD + bytes(LIMITS.max_image_bytes), "media_too_large"),
    "no source at all": (lambda _: None, "invalid_media_reference"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_between_two_good_ones(name: str, tmp_path: Path, nothing_is_left: None) -> None:
    make, code = BAD[name]
    outcomes = _stream([GOOD, make(tmp_path), GOOD])
    assert [_code(outcome) for outcome in outcomes] == [None, code, None]


def test_an_unreadable_file_between_two_good_ones(tmp_path: Path, nothing_is_left: None) -> None:
    path, user = _unreadable(tmp_path), os.geteuid()
    if user == 0:
        try:
            os.seteuid(65_534)  # root may read anything; nobody may not
        except PermissionError:
            pytest.skip("root without the right to be another user")
    try:
        outcomes = _stream([GOOD, path, GOOD])
    finally:
        os.seteuid(user)
    assert [_code(outcome) for outcome in outcomes] == [None, "invalid_media_reference", None]


def test_a_clip_of_one_frame_is_one_frame(nothing_is_left: None) -> None:
    [outcome] = _stream([samples.clip(seconds=1 / samples.FPS)])
    assert outcome.error is None


@pytest.mark.parametrize(
    ("options", "says"),
    [({"sizes": 3}, "sizes"), ({"size": "big"}, "size"), ({"preset": "no-such"}, "no-such"), (3, "options are")],
    ids=str,
)
def test_an_unknown_option_is_named(options: Any, says: str, nothing_is_left: None) -> None:
    [outcome] = _stream([GOOD], options=options)
    assert _code(outcome) == "invalid_options"
    assert says in str(outcome.error)


class TestOverHTTP:
    """What a server may answer."""

    def test_404(self, httpserver: HTTPServer, nothing_is_left: None) -> None:
        httpserver.expect_request("/gone.jpg").respond_with_data("gone", status=404)
        self._expect(httpserver.url_for("/gone.jpg"), "media_fetch_failed")

    def test_a_redirect_loop(self, httpserver: HTTPServer, nothing_is_left: None) -> None:
        url = httpserver.url_for("/loop.jpg")
        httpserver.expect_request("/loop.jpg").respond_with_data("", status=302, headers={"Location": url})
        self._expect(url, "media_fetch_failed")

    def test_a_body_larger_than_its_limit(self, httpserver: HTTPServer, nothing_is_left: None) -> None:
        def endless(_: Request) -> Response:
            return Response((bytes(65_536) for _ in range(64)), content_type="image/jpeg")

        httpserver.expect_request("/endless.jpg").respond_with_handler(endless)
        self._expect({"type": "image_url", "image_url": {"url": httpserver.url_for("/endless.jpg")}}, "media_too_large")

    def test_a_body_that_claims_to_be_smaller_than_its_limit(self, nothing_is_left: None) -> None:
        with _lying_server(claimed=100, sent=400_000) as url:
            outcomes = _stream([GOOD, {"type": "image_url", "image_url": {"url": url}}, GOOD], fetch=LOOPBACK)
        assert [_code(outcome) for outcome in outcomes][::2] == [None, None]
        assert _code(outcomes[1]) in {"media_unprocessable", "unsupported_media", "media_fetch_failed"}

    def test_a_private_address_without_leave(self, httpserver: HTTPServer, nothing_is_left: None) -> None:
        httpserver.expect_request("/a.jpg").respond_with_data(GOOD)
        outcomes = _stream(
            [GOOD, httpserver.url_for("/a.jpg"), GOOD], fetch=FetchPolicy(allowed_schemes=("http", "https"))
        )
        assert [_code(outcome) for outcome in outcomes] == [None, "url_not_allowed", None]
        assert httpserver.log == []

    def test_a_good_image_is_served(self, httpserver: HTTPServer, nothing_is_left: None) -> None:
        httpserver.expect_request("/a.jpg").respond_with_data(GOOD)
        self._expect(httpserver.url_for("/a.jpg"), None)

    def _expect(self, source: object, code: str | None) -> None:
        outcomes = _stream([GOOD, source, GOOD], fetch=LOOPBACK)
        assert [_code(outcome) for outcome in outcomes] == [None, code, None]


class _lying_server:  # noqa: N801 - used as a function
    """Claims so many bytes in Content-Length and sends others, once."""

    def __init__(self, *, claimed: int, sent: int) -> None:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        self._claimed, self._sent = claimed, sent
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/a.jpg"

    def __exit__(self, *exc: object) -> None:
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65_536)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {self._claimed}\r\n\r\n"
            with contextlib.suppress(OSError):  # the client hangs up, as it should
                connection.sendall(head.encode() + bytes(self._sent))


def _stream(sources: list[object], *, options: Any = None, fetch: FetchPolicy | None = None) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with Flow(device="cpu", slab_bytes="64MiB", limits=LIMITS, fetch=fetch) as flow:
            outcomes = [outcome async for outcome in flow.stream(sources, options=options, ordered=True)]
            for outcome in outcomes:
                if outcome.media is not None:
                    outcome.media.release()
            assert flow.slab.statistics().live_leases == 0
            return outcomes

    return asyncio.run(run())


def _code(outcome: Outcome) -> str | None:
    if outcome.error is None:
        return None
    assert isinstance(outcome.error, GpuflowError)
    assert outcome.error.http_status < 500
    return outcome.error.code


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Threads, file descriptors and temporary files are as they were."""
    gc.collect()  # what earlier tests left to the collector is not this one's
    before = _held()
    yield
    gc.collect()  # views in the tracebacks of errors keep the mapping of a closed slab, and its file
    wait_until(lambda: _held() == before)  # a server's thread notices late that its client hung up


def _held() -> dict[str, object]:
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
        "temporary": sorted(name for name in os.listdir(tempfile.gettempdir()) if "gpuflow" in name),
    }
