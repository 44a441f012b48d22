// Clips on their way to features: what mel, mel_statistics, mel_finish and wave_norm have in common.
//
// A clip's levels are rows of `live` logarithms, one row a band, `pitch` floats apart, so that eight frames of a band are
// one sector of memory. Frames [live, framed) touch padding alone: their level is `silence`, and nothing is stored for
// them. A waveform is one row of levels that nothing is done to but `scale`.
//
//   raised = max(level, least),  least = the clip's maximum - range where that is asked for
//   level' = (raised * scale + offset - bin_mean[band]) / bin_std[band]
//   level" = ((level' - pivot) - mean) / deviation,  by the statistics of the band
//
// The pivot is the band's first level: of levels that are nearly equal what is left is exact, and of equal ones 0.

struct Clip {  // gpuflow/ops/mel_records.py has it too
    const float *samples, *noise, *bins;
    const void *window, *roots, *weights;  // of mel.cu's REAL
    const int* bands;
    float *levels, *statistics;
    unsigned char* out;
    long long part_stride, time_stride, band_stride;  // of out, in bytes
    double frame_preemphasis;
    int count, own, padded, pad_left, reflect;        // samples
    int hop, window_first, window_length;
    int live, framed, valid, frames, pitch;  // frames
    int n_mels, remove_dc, magnitude, natural, add_floor, clip_maximum;
    int stack, part_rows, delta_half, zero_invalid, number_kind, inside_root;
    int first_tile, first_chunk, chunks, first_finish;
    float sample_scale, dither, signal_preemphasis, floor, silence;
    float least, range, scale, offset, epsilon, degrees;
};

struct Statistics {
    float pivot, mean, deviation;
};

constexpr int CHUNK = 4096;  // levels of a band whose statistics one block makes
constexpr int LANES = 128;   // sums of a block that are added in one order, whatever the block

// Floats in the order of whole numbers, so that atomicMax is the same whichever block comes first
__device__ __forceinline__ int ordered(float value)
{
    const int bits = __float_as_int(value);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}

__device__ __forceinline__ float unordered(int key)
{
    return __int_as_float(key >= 0 ? key : key ^ 0x7fffffff);
}

__device__ __forceinline__ float least_of(const Clip& clip, const int* maximum)
{
    return clip.clip_maximum ? unordered(*maximum) - clip.range : clip.least;
}

__device__ __forceinline__ float level(const Clip& clip, float least, int band, int frame)
{
    float value = frame < clip.live ? clip.levels[(long long)band * clip.pitch + frame] : clip.silence;
    if (value < least) value = least;  // not max: what is no number stays so
    value = fmaf(value, clip.scale, clip.offset);
    if (clip.bins) value = (value - clip.bins[2 * band]) / clip.bins[2 * band + 1];
    return value;
}

__device__ __forceinline__ float added(const float* lanes)
{
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += lanes[lane];
    return sum;
}

// Chunks have their own pivot, mean above it and sum of squares about that mean; their sums above the first one's pivot
__device__ __forceinline__ float sum_of(const Clip& clip, const float* chunks, int begin, int step)
{
    float sum = 0;
    for (int i = begin; i < clip.chunks; i += step) {
        const float count = (float)min(CHUNK, clip.valid - i * CHUNK);
        sum = fmaf(count, chunks[3 * i] - chunks[0] + chunks[3 * i + 1], sum);
    }
    return sum;
}

__device__ __forceinline__ float squares_of(const Clip& clip, const float* chunks, int begin, int step, float mean)
{
    float squares = 0;
    for (int i = begin; i < clip.chunks; i += step) {
        const float count = (float)min(CHUNK, clip.valid - i * CHUNK);
        const float off = chunks[3 * i] - chunks[0] + chunks[3 * i + 1] - mean;
        squares += fmaf(count * off, off, chunks[3 * i + 2]);
    }
    return squares;
}

__device__ __forceinline__ Statistics statistics_of(const Clip& clip, float pivot, float mean, float squares)
{
    const float variance = squares / clip.degrees;
    return {pivot, mean, clip.inside_root ? sqrtf(variance + clip.epsilon) : sqrtf(variance) + clip.epsilon};
}

// Of all chunks of a band, by one thread
__device__ __forceinline__ Statistics merged(const Clip& clip, int band)
{
    const float* chunks = clip.statistics + 3LL * band * clip.chunks;
    const float mean = sum_of(clip, chunks, 0, 1) / (float)clip.valid;
    return statistics_of(clip, chunks[0], mean, squares_of(clip, chunks, 0, 1, mean));
}

__device__ __forceinline__ float normalised(float value, const Statistics& by)
{
    return (value - by.pivot - by.mean) / by.deviation;
}

__device__ __forceinline__ unsigned int bfloat16_bits(float value)
{
    const unsigned int bits = (unsigned int)__float_as_int(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Rounded to nearest even; 0.5 as an addend has the smallest float16 as its last place
__device__ __forceinline__ unsigned int float16_bits(float value)
{
    const unsigned int bits = (unsigned int)__float_as_int(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return sign | 0x7e00;
    if (size >= 0x477ff000) return sign | 0x7c00;
    if (size < 0x38800000) return sign | (unsigned int)(__float_as_int(__int_as_float((int)size) + 0.5f) - 0x3f000000);
    return sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
}

// number_kind: 0 float32, 1 float16, 2 bfloat16
__device__ __forceinline__ void store(unsigned char* at, int number_kind, float value)
{
    if (number_kind == 0) *(float*)at = value;
    else *(unsigned short*)at = (unsigned short)(number_kind == 1 ? float16_bits(value) : bfloat16_bits(value));
}
