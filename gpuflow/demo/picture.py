"""Pictures of media, drawn with Pillow: contact sheets, spectrograms, waveforms, and the demo's timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuflow.media import AudioMetadata, FeatureMetadata, Features, Frames, Media, Stage, Waveform
from gpuflow.presets.mel_specs import mel_spec, mel_spec_names

INK, PALE, PAPER = (32, 36, 42), (120, 126, 134), (255, 255, 255)
MARGIN = 24
COLORS = {
    "fetch": (86, 130, 178), "probe": (150, 150, 150), "decode": (222, 132, 60), "transform": (112, 168, 92),
    "resample": (112, 168, 92), "features": (164, 108, 176), "mel": (164, 108, 176), "place": (196, 78, 82),
    "publish": (70, 160, 160), "read": (52, 84, 148),
}  # fmt: skip
# Nine points of matplotlib's viridis, between which it is close to linear.
_VIRIDIS = np.array(
    [(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
     (170, 220, 50), (253, 231, 37)], float,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the timeline."""

    name: str
    stages: tuple[Stage, ...]


def draw(media: Media, *, width: int = 1200) -> Any:
    """A picture of any medium as ``PIL.Image``: itself, its frames, its waveform or its spectrogram."""
    if isinstance(media, Frames):
        times = [f"{seconds:.3f} s" for seconds in media.metadata.timestamps_seconds]
        return contact_sheet(frame_pixels(media), times, width=width)
    if isinstance(media, Waveform):
        return waveform(media.numpy(), width=width)
    if isinstance(media, Features):
        return _features(media, width)
    return _image(as_pixels(_as_float_safe(media)))


def contact_sheet(frames: Sequence[Any], captions: Sequence[str], *, width: int, columns: int = 6) -> Any:
    """At most 12 frames, evenly chosen, each with its caption."""
    chosen = sorted({round(i) for i in np.linspace(0, len(frames) - 1, min(12, len(frames)))})
    columns = min(columns, len(chosen))
    cell = (width - 8 * (columns - 1)) // columns
    thumbs = [_fit(_image(frames[i]), cell, cell) for i in chosen]
    line = max(thumb.height for thumb in thumbs) + 22
    sheet, pen = _canvas(width, line * -(-len(chosen) // columns))
    for place, (index, thumb) in enumerate(zip(chosen, thumbs, strict=True)):
        x, y = place % columns * (cell + 8), place // columns * line
        sheet.paste(thumb, (x, y))
        pen.text((x, y + line - 20), captions[index], fill=PALE, font=_font(13))
    return sheet


def spectrogram(mel: Any, *, width: int, height: int = 200) -> Any:
    """``(bands, frames)`` as a heat map, low bands at the bottom."""
    from PIL import Image

    low, high = float(mel.min()), float(mel.max())
    level = (mel - low) / (high - low or 1.0) * (len(_VIRIDIS) - 1)
    below = np.minimum(level.astype(int), len(_VIRIDIS) - 2)
    part = (level - below)[..., None]
    colors = _VIRIDIS[below] * (1 - part) + _VIRIDIS[below + 1] * part
    return _image(colors[::-1].astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)


def waveform(samples: Any, *, width: int, height: int = 120) -> Any:
    """``(channels, samples)`` as the range of each column."""
    sheet, pen = _canvas(width, height)
    columns = np.array_split(samples[0], min(width, samples.shape[1]))
    middle = height / 2
    for x, column in enumerate(columns):
        top, bottom = middle - column.max() * middle, middle - column.min() * middle
        pen.line((x, top, x, max(bottom, top + 1)), fill=COLORS["read"])
    return sheet


def timeline(rows: Sequence[Row], *, width: int) -> Any:
    """Every row's stages on one scale of milliseconds, each row from its own start."""
    line, left = 44, 190
    sheet, pen = _canvas(width, line * len(rows) + 30)
    longest = max(_span(row.stages) for row in rows) or 1e-9
    scale = (width - left - 90) / longest
    for place, row in enumerate(rows):
        y = place * line
        pen.text((0, y + 4), row.name, fill=INK, font=_font(14))
        began = min(stage.started_seconds for stage in row.stages)
        for stage in row.stages:
            x = left + (stage.started_seconds - began) * scale
            end = max(x + 2, x + stage.seconds * scale)
            pen.rectangle((x, y + 2, end, y + 24), fill=COLORS.get(stage.name, PALE))
        text = "  ".join(f"{stage.name} {1e3 * stage.seconds:.1f}" for stage in row.stages)
        pen.text((left, y + 26), text, fill=PALE, font=_font(12))
        end = left + _span(row.stages) * scale
        pen.text((end + 6, y + 4), f"{1e3 * _span(row.stages):.1f} ms", fill=INK, font=_font(14))
    return sheet


def poster(title: str, subtitle: str, sections: Sequence[tuple[str, Any]], *, width: int) -> Any:
    """Sections under each other, each with its heading."""
    height = 92 + sum(section.height + 52 for _, section in sections)
    sheet, pen = _canvas(width + 2 * MARGIN, height)
    pen.text((MARGIN, 18), title, fill=INK, font=_font(26))
    pen.text((MARGIN, 52), subtitle, fill=PALE, font=_font(14))
    y = 84
    for heading, section in sections:
        pen.text((MARGIN, y), heading, fill=INK, font=_font(16))
        sheet.paste(section, (MARGIN, y + 26))
        y += section.height + 52
    return sheet


def side_by_side(pictures: Sequence[tuple[str, Any]], *, width: int, height: int = 300) -> Any:
    """Pictures of one height beside each other, each with its caption."""
    fitted = [
        (caption, _fit(picture, (width - 16 * (len(pictures) - 1)) // len(pictures), height))
        for caption, picture in pictures
    ]
    sheet, pen = _canvas(width, max(picture.height for _, picture in fitted) + 22)
    x = 0
    for caption, picture in fitted:
        sheet.paste(picture, (x, 0))
        pen.text((x, picture.height + 4), caption, fill=PALE, font=_font(13))
        x += max(picture.width, int(pen.textlength(caption, font=_font(13)))) + 16
    return sheet


def frame_pixels(media: Media) -> list[Any]:
    """Every frame as ``(H, W, 3)`` uint8, whatever layout and type the options asked for."""
    return [as_pixels(frame) for frame in _as_float_safe(media)]


def as_pixels(array: Any) -> Any:
    """``(H, W, 3)`` or ``(3, H, W)``, uint8 or float of any range, as ``(H, W, 3)`` uint8."""
    array = array.transpose(1, 2, 0) if array.shape[0] == 3 and array.shape[-1] != 3 else array
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    return ((array - low) / (high - low or 1.0) * 255).astype(np.uint8)


def _as_float_safe(media: Media) -> Any:
    array = media.numpy()
    if media.dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if media.dtype == "float16" else array


def _features(media: Features, width: int) -> Any:
    array, length = _as_float_safe(media), media.metadata.valid_length
    if array.ndim == 4:
        tiles = [as_pixels(tile) for tile in array]
        if len(tiles) == 1:
            return _image(tiles[0])
        return contact_sheet(tiles, [f"tile {number}" for number in range(len(tiles))], width=width)
    if not isinstance(media.metadata.source, AudioMetadata) or length is None:
        return spectrogram(array.reshape(-1, array.shape[-1]), width=width)
    if array.ndim == 1:
        return waveform(array[None], width=width)
    seconds = media.metadata.source.duration_seconds
    picture = spectrogram(_sounding(array, media.metadata), width=width)
    frames = array.size // (array.shape[-1] if _is_by_time(media.metadata) else array.shape[-2])
    return _with_axis(picture, f"{length} of {frames} frames hold sound", f"{seconds:.1f} s")


def _sounding(array: Any, metadata: FeatureMetadata) -> Any:
    """``(bands, frames)``: the frames that hold sound, of all parts one after another."""
    parts = array if metadata.parts else array[None]
    turned = parts.swapaxes(1, 2) if _is_by_time(metadata) else parts
    lengths = metadata.valid_lengths or (metadata.valid_length or 0,)
    shown = [part[:, :length] for part, length in zip(turned, lengths, strict=True)]
    return np.concatenate(shown, axis=1) if any(lengths) else turned[0][:, :1]


def _is_by_time(metadata: FeatureMetadata) -> bool:
    """Whether rows are frames; specs of one's own are taken for Whisper's kind."""
    if metadata.preset not in mel_spec_names():
        return False
    spec = mel_spec(metadata.preset)
    return spec.kind == "raw" or spec.layout == "TM"


def _with_axis(picture: Any, left: str, right: str) -> Any:
    sheet, pen = _canvas(picture.width, picture.height + 20)
    sheet.paste(picture, (0, 0))
    pen.text((0, picture.height + 3), left, fill=PALE, font=_font(13))
    end = picture.width - pen.textlength(right, font=_font(13))
    pen.text((end, picture.height + 3), right, fill=PALE, font=_font(13))
    return sheet


def _span(stages: Sequence[Stage]) -> float:
    return max(s.started_seconds + s.seconds for s in stages) - min(s.started_seconds for s in stages)


def _image(array: Any) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(array))


def _fit(picture: Any, width: int, height: int) -> Any:
    scale = min(width / picture.width, height / picture.height)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _canvas(width: int, height: int) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (width, max(1, height)), PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
