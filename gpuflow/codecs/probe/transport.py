"""What an MPEG transport stream claims: its packets' sync bytes, and the program tables near its start.

Source: ISO/IEC 13818-1, sections 2.4.3 (packets) and 2.4.4 (tables).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.probe.claims import ContainerClaims, Kind, TrackClaims, check_count
from gpuflow.codecs.probe.elementary import check_units
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_SYNC = 0x47
_PACKETS = 20_000  # 3.7 MB: what is played at all repeats its tables every 0.5 s
_SYNC_PACKETS = 200
_MAX_SECTION_BYTES = 1_021
_MAX_PROGRAMS = 64
_STREAMS: dict[int, tuple[Kind, str]] = {
    0x01: ("video", "mpeg1video"), 0x02: ("video", "mpeg2video"), 0x10: ("video", "mpeg4"), 0x1B: ("video", "h264"),
    0x24: ("video", "hevc"), 0x03: ("audio", "mp3"), 0x04: ("audio", "mp3"), 0x0F: ("audio", "aac"),
    0x11: ("audio", "aac_latm"), 0x81: ("audio", "ac3"),
}  # fmt: skip


def transport_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The streams that the program map tables list.

    Raises:
        CorruptMedia: half of the packets have no sync byte, or there is no program table, or a damaged one only.
        LimitExceeded: too many programs or streams, or as ``check_units``.
    """
    packets = _packets(data)
    pids: NDArray[np.int32] = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
    programs: set[int] = set()
    for section in _sections(packets, pids, 0, 0x00):
        programs |= {
            _pid(section, at + 2) for at in range(8, len(section) - 4 - 3, 4) if section[at : at + 2] != b"\0\0"
        }
        if programs:
            break
    if not programs:
        raise CorruptMedia("the transport stream has no program table near its start")
    check_count(len(programs), _MAX_PROGRAMS, "programs")
    tracks = [track for pid in sorted(programs) for track in _streams(packets, pids, pid)]
    check_count(len(tracks), limits.max_tracks, "tracks", "max_tracks")
    check_units(data, [track.codec for track in tracks])
    return ContainerClaims("mpegts", tuple(tracks))


def _packets(data: bytes) -> NDArray[np.uint8]:
    """``(n, 188)``: the packets of the file's start."""
    first, step = (4, 192) if len(data) > 4 + 192 and data[4] == _SYNC == data[4 + 192] else (0, 188)
    count = min(_PACKETS, (len(data) - first) // step)
    if count == 0:
        raise CorruptMedia("the transport stream ends before its first packet does")
    rows = np.frombuffer(data, np.uint8, count * step - first if first else count * step, first)
    rows = rows[: rows.size // step * step].reshape(-1, step)[:, :188]
    synchronised = np.count_nonzero(rows[:_SYNC_PACKETS, 0] == _SYNC)
    if 2 * synchronised < min(_SYNC_PACKETS, len(rows)) or len(rows) == 0:
        raise CorruptMedia("half of the transport stream's packets have no sync byte")
    return rows


def _sections(packets: NDArray[np.uint8], pids: NDArray[np.int32], pid: int, table: int) -> Iterator[bytes]:
    """The first whole sections of a table; one that does not fit its packet goes on in the next."""
    held, wanted = b"", 0
    for place in np.flatnonzero(pids == pid)[:_SYNC_PACKETS]:
        packet = packets[place].tobytes()
        if packet[0] != _SYNC or not packet[3] & 0x10:
            continue
        at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        if packet[1] & 0x40:
            at += 1 + (packet[at] if at < 188 else 0)
            if at + 3 > 188 or packet[at] != table:
                continue
            wanted = 3 + (int.from_bytes(packet[at + 1 : at + 3], "big") & 0xFFF)
            held = b""
            if wanted > 3 + _MAX_SECTION_BYTES:
                raise CorruptMedia(f"a program table claims {wanted} bytes; {_MAX_SECTION_BYTES} are the most")
        held += packet[at:]
        if wanted and len(held) >= wanted:
            yield held[:wanted]
            held, wanted = b"", 0


def _streams(packets: NDArray[np.uint8], pids: NDArray[np.int32], pid: int) -> list[TrackClaims]:
    for section in _sections(packets, pids, pid, 0x02):
        at, end, found = 12 + _twelve_bits(section, 10), len(section) - 4, []
        while at + 5 <= end:
            kind, codec = _STREAMS.get(section[at], ("other", f"{section[at]:#04x}"))
            found.append(TrackClaims(kind, codec))
            at += 5 + _twelve_bits(section, at + 3)
        if at == end:
            return found
    return []


def _pid(section: bytes, at: int) -> int:
    return int.from_bytes(section[at : at + 2], "big") & 0x1FFF


def _twelve_bits(section: bytes, at: int) -> int:
    return int.from_bytes(section[at : at + 2], "big") & 0xFFF
