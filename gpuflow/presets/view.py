"""A view of an image: a part of it, resized, on a canvas that is cut into tiles. Whatever a model family sees is a few."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
Levels = tuple[int, int, int]
BLACK: Levels = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class View:
    """All sizes are ``(height, width)``, all places ``(top, left)``, in pixels.

    ``box``: ``(top, left, height, width)`` of the image as it is shown; it may go beyond it, where the levels are
    ``beyond``. ``None`` is the whole image. ``via``: sizes that it is resized to one after another before ``resized``.
    It lies at ``offset`` of ``canvas``, cut off where it goes beyond it, the levels ``around`` where it does not reach.
    ``tile``: the canvas is cut into tiles of this size, row by row; ``None`` is one tile. ``first``: the place of the
    first of them among all tiles of the image.
    """

    resized: Size
    canvas: Size
    offset: Size = (0, 0)
    box: tuple[int, int, int, int] | None = None
    via: tuple[Size, ...] = ()
    tile: Size | None = None
    first: int = 0
    beyond: Levels = BLACK
    around: Levels = BLACK

    @property
    def tiles(self) -> Size:
        """Tiles down and across."""
        if self.tile is None:
            return (1, 1)
        return self.canvas[0] // self.tile[0], self.canvas[1] // self.tile[1]

    @property
    def num_tiles(self) -> int:
        """How many places it takes."""
        return self.tiles[0] * self.tiles[1]


def centred(resized: Size, canvas: Size, *, reference: str = "torchvision") -> Size:
    """Where ``resized`` lies in the middle of ``canvas``; negative where it is cut off. The smaller half of an odd
    remainder lies before it, or, of what Pillow's backend pads, the larger one.

    Source: ``center_crop`` of Hugging Face's processors and of their ``image_transforms``.
    """
    more = 1 if reference == "pillow" else 0
    top, left = (
        (there - here + more) // 2 if there >= here else -((here - there) // 2)
        for here, there in zip(resized, canvas, strict=True)
    )
    return top, left
