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
    "color/nv12_to_rgb": Tolerance("float64 matrix in the test; 0.5 is rounding", 0.51, 0.5),
    "color/swscale-8": Tolerance("float64 matrix in the test, flat patches; swscale's default path", 3.5, 3.35),
    "video/pyav": Tolerance("PyAV decoding all frames", 0.0, 0.0),
    "video/nvdec": Tolerance("the libavcodec route; swscale rounds coarser than the kernel", 4.0, None),
    "image/decode": Tolerance("Pillow, by torchvision and by nvImageCodec's CPU backend", 0.0, 0.0),
    "image/exact": Tolerance("transformers' torchvision processors on the CPU", 0.0, 0.0),
    "video/exact": Tolerance("transformers' video processors on the CPU", 0.0, 0.0),
    "image/dali": Tolerance("the exact engine, in levels of 0..255; float resize and hard edges", 20.0, 18.0, 0.3),
    "image/torch-float32": Tolerance(
        "the exact engine on the CPU, in levels; torch's float resize on a GPU", 20.0, None, 0.3
    ),
    "image/nvjpeg": Tolerance("libjpeg by Pillow, in levels; the inverse DCT rounds otherwise", 16.0, None, 0.3),
}
