"""A sound track decoded inside libavfilter, in blocks of many packets.

Through PyAV each packet is four calls that give up the interpreter's lock, and 30 s of AAC are 1,300 packets: two threads
wait on each other most of the time. A block is one call.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from gpuflow.codecs.pcm import AudioInfo
from gpuflow.codecs.probe.claims import ContainerClaims

BLOCK_SAMPLES = 16_384  # 4,096 cost 8 % more, 65,536 no less
_CODEC = "aac"  # its packets hold 2,048 samples at most: libavfilter's decoder has no limit of ours
_MAX_BYTES = 32 << 20  # a second copy of the file
_MAX_ENTRIES = 32_768  # libavfilter opens the file under the interpreter's lock: 225,600 in each of 16 tracks took 1 s
_MAX_UNHEARD_SECONDS = 1.0  # what an edit list leaves out is decoded within a call that looks at no deadline
_PROBED_BYTES = 5_000  # the header has said it all
_MIN_LIBAVFILTER = 11  # FFmpeg 8: before it, what cannot be decoded is left out without a word


class NotInBlocks(Exception):
    """This track is to be decoded packet by packet, whatever comes out then."""


def fits(data: bytes, info: AudioInfo, claims: ContainerClaims) -> bool:
    """Whether a track may be decoded so: of an MP4 file that is small enough to open twice, all of it heard, packet after
    packet, so that the time of every sixteenth says those between. ``info``: what libavformat makes of the header."""
    import av

    track = claims.taken("audio", info.stream)
    if info.codec != _CODEC or track is None or track.even_seconds is None or info.num_samples is None:
        return False
    if len(data) > _MAX_BYTES or claims.index_entries > _MAX_ENTRIES:
        return False
    if av.library_versions["libavfilter"][0] < _MIN_LIBAVFILTER:
        return False
    return track.even_seconds - info.num_samples / info.sample_rate <= _MAX_UNHEARD_SECONDS


def blocks(data: bytes, index: int, options: dict[str, str]) -> Generator[Any]:
    """The frames of a stream that ``fits``, joined to ``BLOCK_SAMPLES``: the decoder's own samples, and its time of the
    first of them. ``index``: the stream's; ``options``: what the container was opened with.

    It is the caller's to see that each begins where the one before ended, and the last ends where the file's index does:
    libavfilter takes what cannot be read for the end.

    Raises:
        NotInBlocks: before the first block or after any.
    """
    import av

    try:
        file = os.memfd_create("gpuflow")
    except (AttributeError, OSError) as error:  # not Linux, or a worker, whose sandbox has no such call
        raise NotInBlocks from error
    try:
        with open(file, "wb", closefd=False) as whole:
            whole.write(data)
        os.lseek(file, 0, os.SEEK_SET)
        graph = av.filter.Graph()  # which the sink does not keep
        sink = _sink(graph, file, index, options)
        while True:
            yield sink.pull()
    except av.error.EOFError:
        return
    except (av.error.FFmpegError, AttributeError, ValueError, OSError) as error:
        raise NotInBlocks from error
    finally:
        os.close(file)


def _sink(graph: Any, file: int, index: int, options: dict[str, str]) -> Any:
    """What gives the blocks. libavformat gets a descriptor, and can open nothing else."""
    opened = options | {"fd": str(file), "protocol_whitelist": "fd", "codec_whitelist": _CODEC}
    opened["probesize"] = str(_PROBED_BYTES)
    graph.threads = 1
    movie = graph.add(
        "amovie", filename="fd:", format_name=options["format_whitelist"], streams=str(index), dec_threads="1",
        format_opts=":".join(f"{name}={value}" for name, value in opened.items()),
    )  # fmt: skip
    joined = graph.add("asetnsamples", nb_out_samples=str(BLOCK_SAMPLES), pad="0")
    sink = graph.add("abuffersink")
    movie.link_to(joined)
    joined.link_to(sink)
    graph.configure()
    return sink
