// Logarithms of mel levels to features in their place of a tensor: raised, scaled, normalised, with deltas, stacked, rounded.
//
//   value[band][t] = level' or level" of mel.cuh              of the frames that there are; those of padding are `silence`
//   delta[band][t] = sum(n * (value[band][t + n] - value[band][t - n])) / (2 * sum(n^2))    1 <= n <= delta_half, the
//                                                                                           first and last frame repeated
//   out[t / stack][t % stack * bands + band] = value, and deltas behind all bands            0 for frames >= framed, and
//                                                                                           those >= valid if zero_invalid
//
// Rows of part_rows are a part of their own (part_stride). float16 and bfloat16 are rounded to nearest even.
// Frames of padding are filled here: only now is the clip's maximum known, they lie between the strides of the others, and
// a kernel of their own would be one launch more for a store.
//
// Launch: any grid and any block. Blocks take tiles of SIDE bands x SIDE frames of all clips one after another, tile t
// being one of clip clip_of[t], the tiles of some frames before those of the next. Neighbouring threads read neighbouring
// frames, and store whatever lies closest together.
// Shared memory: 4 * SIDE * (SIDE + 2 * HALO + 1) + 12 * SIDE bytes, 6,656.
// Bytes moved: 4 * bands * live read, from L2 where a group of clips is small enough, number_bytes * outputs written.
// 30 s with 128 bands as float32: 1.5 MB written, an estimated 0.4 us at 4.3 TB/s; bfloat16 half of it. No time has been
// measured.

#include "mel.cuh"

constexpr int SIDE = 32;
constexpr int HALO = 8;  // the largest delta_half
constexpr int PITCH = SIDE + 2 * HALO + 1;

__device__ __forceinline__ float delta(const float* at, int half)
{
    float sum = 0;
    for (int n = 1; n <= half; ++n) sum = fmaf((float)n, at[n] - at[-n], sum);
    return sum / (float)(half * (half + 1) * (2 * half + 1) / 3);
}

__device__ __forceinline__ unsigned char* place(const Clip& clip, int frame, int channel)
{
    const int row = frame / clip.stack, channels = clip.delta_half ? 2 * clip.n_mels : clip.n_mels;
    const long long column = (long long)(frame % clip.stack) * channels + channel;
    return clip.out + row / clip.part_rows * clip.part_stride + row % clip.part_rows * clip.time_stride + column * clip.band_stride;
}

extern "C" __global__ void mel_finish(
    const Clip* __restrict__ clips, const int* __restrict__ clip_of, int tiles, const int* __restrict__ maxima)
{
    extern __shared__ float shared[];
    Statistics* statistics = (Statistics*)(shared + SIDE * PITCH);
    const int self = threadIdx.y * blockDim.x + threadIdx.x, count = blockDim.x * blockDim.y;
    for (int tile = blockIdx.y * gridDim.x + blockIdx.x; tile < tiles; tile += gridDim.x * gridDim.y) {
        const Clip& clip = clips[clip_of[tile]];
        const int here = tile - clip.first_finish, across = (clip.n_mels + SIDE - 1) / SIDE;
        const int first = here / across * SIDE, first_band = here % across * SIDE;
        const int bands = min(SIDE, clip.n_mels - first_band), frames = min(SIDE, clip.frames - first);
        const int half = clip.delta_half, width = frames + 2 * half;
        const float least = least_of(clip, maxima + clip_of[tile]);
        if (clip.statistics) {
            for (int band = self; band < bands; band += count) statistics[band] = merged(clip, first_band + band);
            __syncthreads();
        }
        for (int i = self; i < bands * width; i += count) {
            const int band = i / width, column = i % width;
            const int frame = max(0, min(first + column - half, clip.framed - 1));
            const float value = level(clip, least, first_band + band, frame);
            shared[band * PITCH + column] = clip.statistics ? normalised(value, statistics[band]) : value;
        }
        __syncthreads();
        const int parts = half ? 2 : 1, kept = clip.zero_invalid ? min(clip.valid, clip.framed) : clip.framed;
        const bool along_time = clip.time_stride <= clip.band_stride;
        for (int i = self; i < parts * bands * frames; i += count) {
            const int part = i / (bands * frames), rest = i % (bands * frames);
            const int band = along_time ? rest / frames : rest % bands, column = along_time ? rest % frames : rest / bands;
            const float* at = shared + band * PITCH + column + half;
            float value = 0;
            if (first + column < kept) value = part ? delta(at, half) : *at;
            store(place(clip, first + column, part * clip.n_mels + first_band + band), clip.number_kind, value);
        }
        __syncthreads();
    }
}
