"""The table of tolerances: every leaf, the reference that it reproduces, how far it may be off, what was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``max_abs``: the largest allowed difference of one value; ``measured``: the largest that was seen, ``None`` before a first run.

    ``max_mean``: the largest allowed mean difference over all values, where that is bounded too.
    """

    reference: str
    max_abs: float
    measured: float | None
    max_mean: float | None = None


TOLERANCES = {
    "mel/numpy": Tolerance("transformers.WhisperFeatureExtractor (torch route)", 1e-4, 7.7e-5),
    "mel/numpy-float64": Tolerance("float64 numpy in the test", 1e-4, 8.7e-6),
    "mel/cupy": Tolerance("the numpy route", 1e-4, None),
    "resample/soxr": Tolerance("librosa.resample(res_type='soxr_hq')", 1e-6, 0.0),
    "decode/pcm": Tolerance("the samples that were encoded, lossless", 2.0**-24, 0.0),
    "decode/lossy": Tolerance("libavcodec's decoders of MP3 and Vorbis, beside libsndfile's", 1e-5, 5.7e-6),
    "decode/section": Tolerance("that part of the whole, MP3 and Opus: sums of floats in another order", 1e-6, 5.0e-7),
    "decode/section-opus": Tolerance(
        "that part of the whole, libopus at 24 kbit/s, whose synthesis remembers more than 4 s; FFmpeg's differs by 5e-3",
        4e-3,
        1.6e-3,
    ),
    "color/picture": Tolerance("float64 matrix in the test; 0.5 is rounding", 0.51, 0.5),
    "color/swscale": Tolerance(
        "swscale with the same matrix, by PyAV, flat patches; the worse of its two paths", 3.5, 3.0
    ),
    "color/swscale-frames": Tolerance(
        "swscale, decoded frames of slowly changing colour; of more than 8 bits it interpolates chroma", 4.5, 4.0
    ),
    "resize/picture": Tolerance("torchvision's antialiased resize of uint8 on the CPU, of the same RGB", 0.0, 0.0),
    "patches/picture": Tolerance("transformers' Qwen2-VL and Qwen3-VL video processors, of the same RGB", 0.0, 0.0),
    "color/swscale-8": Tolerance("float64 matrix in the test, flat patches; swscale's default path", 3.5, 3.35),
    "video/pyav": Tolerance("PyAV decoding all frames", 0.0, 0.0),
    "video/nvdec": Tolerance("the libavcodec route; swscale rounds coarser than the kernel", 4.0, None),
    "video/dali": Tolerance("PyAV decoding all frames; chroma is interpolated, swscale repeats it", 40.0, 37.0, 2.0),
    "video/dali-flat": Tolerance("PyAV decoding all frames, flat patches: only the matrix and rounding", 3.0, 2.0),
    "video/dali-resize": Tolerance("the exact engine's resize of the frames that DALI decoded", 16.0, 13.0, 0.3),
    "image/decode": Tolerance("Pillow, by torchvision and by nvImageCodec's CPU backend", 0.0, 0.0),
    "image/exact": Tolerance("transformers' torchvision processors on the CPU", 0.0, 0.0),
    "image/exact-pillow": Tolerance(
        "transformers' image processors on Pillow; levels are equal, they normalise in two steps", 2e-6, 2.4e-7
    ),
    "image/views": Tolerance("the exact engine on the CPU, by the kernel on the host; on a GPU not run yet", 0.0, 0.0),
    "video/exact": Tolerance("transformers' video processors on the CPU", 0.0, 0.0),
    "image/dali": Tolerance("the exact engine, in levels of 0..255; float resize and hard edges", 20.0, 18.0, 0.3),
    "image/dali-lanczos": Tolerance(
        "Pillow-backed processors, in levels; Lanczos overshoots, and DALI clamps after both passes", 24.0, 21.0, 0.3
    ),
    "image/torch-float32": Tolerance(
        "the exact engine on the CPU, in levels; torch's float resize of frames on a GPU", 20.0, None, 0.3
    ),
    "image/nvjpeg": Tolerance("libjpeg by Pillow, in levels; the inverse DCT rounds otherwise", 16.0, None, 0.3),
}
