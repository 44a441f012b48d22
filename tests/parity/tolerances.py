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
    "mel/clamped": Tolerance("transformers' extractors whose features are clamped, and raw samples", 1e-4, 7.6e-5),
    "mel/clamped-float64": Tolerance("tests/parity/mel_reference.py, the same", 1e-4, 1.5e-5),
    "mel/unclamped": Tolerance(
        "transformers' extractors without a clamp: mel levels, in parts of each frame's loudest", 1e-5, 1.9e-6
    ),
    "mel/unclamped-float64": Tolerance("tests/parity/mel_reference.py, the same", 1e-5, 1.2e-6),
    "mel/unclamped-float64-offset": Tolerance(
        "the same of Gemma 3n with an offset, which float32 emphasis rounds as Hugging Face's does, to 1.9e-6 of it; its "
        "energy lies under the lowest band, and so does not count in the loudest level",
        5e-5,
        3.4e-5,
    ),
    "mel/lasr": Tolerance("LASR's extractor, digitally clean speech and all: both compute in float64", 1e-6, 0.0),
    "mel/phi4-multimodal": Tolerance("Phi-4's, which rounds its emphasis and its spectra to float32", 1e-3, 6.6e-4),
    "mel/seamless-m4t": Tolerance("SeamlessM4T's, which takes its statistics in float32", 2e-5, 1.2e-5),
    "mel/float64-periodic": Tolerance(
        "the same of a tone, whose bands deviate by little more than its extractor rounds", 2e-2, 4.3e-3
    ),
    "mel/float64": Tolerance("tests/parity/mel_reference.py: specs of float64, rounded once", 1e-6, 9.5e-7),
    "mel/normalised": Tolerance(
        "transformers' extractors that normalise, undone with the exact statistics, in the same parts. As they are, speech "
        "at -60 dB is 0.29 off Parakeet-128's, 0.03 off Parakeet's and Cohere's, which are 0.25 off float64 themselves, "
        "ours 0.07",
        2e-5,
        5.6e-6,
    ),
    "mel/normalised-float64": Tolerance("tests/parity/mel_reference.py, the same", 1e-5, 2.3e-6),
    "mel/gpu": Tolerance("the CPU's route, from files by a flow on a GPU; not run yet", 2e-4, None),
    "mel/kernel": Tolerance(
        "tests/parity/mel_reference.py, by the kernels on the host: features that are clamped", 1e-4, 1.1e-5
    ),
    "mel/kernel-linear": Tolerance(
        "the same: levels before the logarithm, in parts of their frame's peak", 1e-5, 1.5e-6
    ),
    "mel/kernel-logs": Tolerance(
        "the same: logarithms that nothing clamps; a tone's, 70 dB under its peak, are held by the row above",
        5e-4,
        7.5e-5,
    ),
    "mel/kernel-normalised": Tolerance(
        "the same: by each band's deviation, which is small of quiet noise", 3e-3, 1.7e-3
    ),
    "mel/kernel-float64": Tolerance(
        "the same: specs of float64, whose logarithms are kept in float32; a tone's, normalised, are held by the row above",
        1e-5,
        5.3e-6,
    ),
    "mel/wave": Tolerance("the same: waveforms", 1e-5, 1.0e-6),
    "mel/streaming": Tolerance("Nemotron's and Voxtral realtime's extractors, called chunk by chunk", 2e-4, 1.1e-4),
    "mel/batch": Tolerance(
        "transformers' extractors of clips in parts and batches, normalised or without a clamp", 1e-3, 4.8e-4
    ),
    "resample/soxr": Tolerance("librosa.resample(res_type='soxr_hq')", 1e-6, 0.0),
    "resample/kernel": Tolerance(
        "soxr HQ, by the kernel on the host, noise of full scale; on a GPU not run yet", 3e-6, 8.4e-7
    ),
    "mel/resampled": Tolerance("the CPU's route, from stored PCM by the kernels on the host", 2e-4, 5.4e-5),
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
