"""Playlists name other files and hosts. FFmpeg would follow them; nothing here does, whatever they are sent as.

Traps stand open while they are loaded: a file whose every opening the kernel reports, by any process and any library,
and a listener on loopback. That both would notice is shown by FFmpeg itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.probe import sniff
from gpuflow.config import VideoOptions
from gpuflow.errors import CorruptMedia, GpuflowError, NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import LoadContext
from gpuflow.flow.sync import SyncFlow
from gpuflow.flow.video import load_video
from gpuflow.media import Blob
from tests.flow.clips import make_clip
from tests.flow.edge_clips import replaced

_IN_OPEN = 0x20
_IN_NONBLOCK = os.O_NONBLOCK


class Traps:
    """``path`` and ``url`` lead to a clip that nobody may open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "canary.mp4"
        self.path.write_bytes(make_clip(num_frames=2))
        self._watch = ctypes.CDLL(None).inotify_init1(_IN_NONBLOCK)
        assert ctypes.CDLL(None).inotify_add_watch(self._watch, os.fsencode(self.path), _IN_OPEN) > 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/canary.mp4"

    @property
    def opened(self) -> bool:
        """Whether the file was, since this was last asked."""
        try:
            return bool(os.read(self._watch, 4_096))
        except BlockingIOError:
            return False

    @property
    def called(self) -> bool:
        """Whether somebody connected, since this was last asked."""
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Until somebody calls, or so long."""
        select.select([self._listener], [], [], seconds)

    def close(self) -> None:
        os.close(self._watch)
        self._listener.close()


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Traps]:
    with contextlib.closing(Traps(tmp_path)) as traps:
        yield traps


def _sdp(traps: Traps) -> str:
    port = traps.url.rsplit(":", 1)[1].split("/")[0]
    return f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP/TCP 96\na=rtpmap:96 H264/90000\n"


PLAYLISTS: dict[str, Callable[[Traps], str]] = {
    "m3u8 of a file": lambda traps: (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{traps.path}\n#EXT-X-ENDLIST\n"
    ),
    "m3u8 of a host": lambda traps: f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{traps.url}\n#EXT-X-ENDLIST\n",
    "m3u8 of playlists": lambda traps: f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{traps.url}\n",
    "concat": lambda traps: f"ffconcat version 1.0\nfile '{traps.path}'\nfile '{traps.url}'\n",
    "concat without its first line": lambda traps: f"file '{traps.path}'\n",
    "sdp": _sdp,
    "dash": lambda traps: (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011">'
        f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{traps.url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    ),
    "dash without its first line": lambda traps: f"<MPD><Period><BaseURL>{traps.url}</BaseURL></Period></MPD>",
    "smil": lambda traps: f'<smil><body><video src="{traps.url}"/></body></smil>',
    "pls": lambda traps: f"[playlist]\nFile1={traps.url}\n",
    "a line of a path": lambda traps: f"{traps.path}\n",
}
CONTAINERS = {"mp4": "mov", "matroska": "matroska", "mpegts": "mpegts", "avi": "avi", "ivf": "ivf", "h264": "h264"}


def test_the_traps_notice_ffmpeg(traps: Traps) -> None:
    before = traps.opened
    concat = PLAYLISTS["concat"](traps).split("file 'http")[0].encode()
    av.open(io.BytesIO(concat), format="concat", options={"safe": "0"}).close()
    assert (before, traps.opened) == (False, True)
    playlist = PLAYLISTS["m3u8 of a host"](traps).encode()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(_follow, playlist)
        calls = 0
        while not following.done():  # each call is hung up on, or it would wait for ever
            traps.wait(0.05)
            calls += traps.called
        assert calls + traps.called > 0


def _follow(playlist: bytes) -> None:
    options = {"protocol_whitelist": "http,tcp", "extension_picky": "0"}
    with contextlib.suppress(av.error.FFmpegError):
        av.open(io.BytesIO(playlist), format="hls", options=options).close()


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_in_the_bytes_is_refused_by_name_and_followed_by_nobody(name: str, traps: Traps) -> None:
    text = PLAYLISTS[name](traps).encode()
    with pytest.raises(UnsupportedFormat):
        sniff(text)
    for data in (text, b"\xef\xbb\xbf" + text, b"\n" + text):
        with SyncFlow(device="cpu", slab_bytes="16MiB") as flow:
            with pytest.raises(GpuflowError) as refused:
                flow.load(data)
            assert refused.value.http_status in (415, 422)
    assert not traps.opened
    assert not traps.called


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_that_is_taken_for_a_container_is_followed_by_nobody(
    name: str, traps: Traps, context: LoadContext
) -> None:
    """As if the sniffing had been talked into it."""
    text = PLAYLISTS[name](traps).encode()
    for container, demuxer in CONTAINERS.items():
        with pytest.raises((CorruptMedia, NoSuchStream)):
            load_video(Blob(text, "hash"), MediaType(container, "video", demuxer), VideoOptions(), context)
    assert not traps.opened
    assert not traps.called


@pytest.mark.parametrize("suffix", ["m3u8", "mpd", "sdp", "ffconcat", "txt"])
def test_a_path_of_a_playlist_or_of_a_protocol_opens_nothing_else(suffix: str, traps: Traps, tmp_path: Path) -> None:
    path = tmp_path / f"list.{suffix}"
    names = {"mpd": "dash", "sdp": "sdp", "ffconcat": "concat"}
    path.write_text(PLAYLISTS[names.get(suffix, "m3u8 of a file")](traps))
    with SyncFlow(device="cpu", slab_bytes="16MiB") as flow:
        sources: list[object] = [
            path, f"concat:{traps.path}|{traps.path}", f"file:{traps.path}", f"subfile,,start,0,end,0,,:{traps.path}",
            f"hls+{traps.url}", f"async:{traps.url}", f"crypto:{traps.path}",
        ]  # fmt: skip
        for source in sources:
            with pytest.raises(GpuflowError):
                flow.load(source)
    assert not traps.opened
    assert not traps.called


@pytest.mark.parametrize("kind", [b"url ", b"alis", b"rsrc"])
def test_a_movie_whose_data_lie_elsewhere_opens_nothing(kind: bytes, traps: Traps, context: LoadContext) -> None:
    """QuickTime's data references name the file that holds the samples."""
    where = os.fsencode(traps.path) if kind != b"url " else traps.url.encode()
    alias = struct.pack(">HH", 0, 2) + bytes(146) + struct.pack(">HH", 2, len(where)) + where + b"\xff\xff\0\0"
    entry = b"\0\0\0\0" + (alias if kind != b"url " else where + b"\0")
    body = struct.pack(">II", 0, 1) + struct.pack(">I4s", len(entry) + 8, kind) + entry
    clip = make_clip(num_frames=4)
    movie = replaced(clip, b"dinf", lambda _: struct.pack(">I4s", len(body) + 8, b"dref") + body)
    with contextlib.suppress(GpuflowError):
        load_video(Blob(movie, "hash"), sniff(movie), VideoOptions(), context).release()
    assert not traps.opened
    assert not traps.called
