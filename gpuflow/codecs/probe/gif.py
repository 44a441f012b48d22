"""A GIF's blocks: the screen, and every frame's rectangle, which must lie on it."""

from __future__ import annotations

from gpuflow.codecs.base import ImageInfo
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded

_MAX_BLOCKS = 1 << 17  # 20 MB of GIF have 82,000 when full
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9


def gif_info(data: bytes, limits: Limits) -> ImageInfo:
    """See ``image_info``. A frame outside the screen is refused: some decoders write it outside their memory.

    Source: GIF89a specification.
    """
    if len(data) < 13:
        raise CorruptMedia("the GIF ends before its screen descriptor does")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if not (width and height):
        raise CorruptMedia(f"the GIF claims {width}x{height} pixels")
    walk = _Walk(data, 13 + _table_bytes(data[10]), width, height)
    walk.run(limits.max_animation_frames)
    if walk.frames == 0:
        raise CorruptMedia("the GIF ends before its first frame does")
    return ImageInfo(
        "gif",
        width,
        height,
        channels=4 if walk.has_alpha else 3,
        has_alpha=walk.has_alpha,
        num_frames=walk.frames,
        color="palette",
    )


def _table_bytes(flags: int) -> int:
    """Size of the colour table that the flags announce."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


class _Walk:
    """One pass over the blocks. It ends at the trailer, where the file breaks off after a whole frame, or beyond the frames that
    are allowed."""

    def __init__(self, data: bytes, at: int, width: int, height: int) -> None:
        self.frames = 0
        self.has_alpha = False
        self._data = data
        self._at = at
        self._width, self._height = width, height
        self._blocks = 0

    def run(self, max_frames: int) -> None:
        while self._at < len(self._data) and self.frames <= max_frames:
            kind = self._data[self._at]
            if kind == _TRAILER:
                return
            if not (kind == _IMAGE and self._image()) and not (kind == _EXTENSION and self._extension()):
                return

    def _image(self) -> bool:
        """Step over one frame; false where the file breaks off in it."""
        header = self._data[self._at + 1 : self._at + 10]
        if len(header) < 9:
            return False
        left, top, width, height = (int.from_bytes(header[at : at + 2], "little") for at in (0, 2, 4, 6))
        if not (width and height) or left + width > self._width or top + height > self._height:
            raise CorruptMedia(
                f"frame {self.frames} of the GIF, {width}x{height} at {left},{top}, "
                f"does not lie on its screen of {self._width}x{self._height}"
            )
        self._at += 11 + _table_bytes(header[8])
        if not self._sub_blocks():
            return False
        self.frames += 1
        return True

    def _extension(self) -> bool:
        label = self._data[self._at + 1 : self._at + 4]
        # Of the first frame only: later ones use transparency to keep what was there
        if self.frames == 0 and len(label) == 3 and label[0] == _GRAPHIC_CONTROL and label[1] == 4:
            self.has_alpha |= bool(label[2] & 1)
        self._at += 2
        return self._sub_blocks()

    def _sub_blocks(self) -> bool:
        """Step over a chain of sub-blocks; false where the file breaks off in it."""
        data, at = self._data, self._at
        while at < len(data):
            self._blocks += 1
            if self._blocks > _MAX_BLOCKS:
                raise LimitExceeded(f"the GIF has more than {_MAX_BLOCKS} blocks")
            size = data[at]
            at += 1 + size
            if size == 0:
                self._at = at
                return True
        return False
