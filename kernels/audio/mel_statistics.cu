// Mean and squared deviations of each band of each clip over its valid frames, or of a waveform, in chunks.
//
//   statistics[band][chunk] = pivot, mean, squares:   pivot = level'[first frame of the chunk]
//   mean = sum(level' - pivot) / n,   squares = sum((level' - pivot - mean)^2)         over the chunk's n <= CHUNK frames
//
// mel.cuh says what level' is, and merges the chunks of a band. Two passes, and LANES sums that are added in one order: the
// result depends neither on the block nor on the other clips.
//
// Launch: any grid and any block. Blocks take the bands' chunks of all clips one after another, chunk t being one of clip
// clip_of[t], its chunks of one band before those of the next.
// Shared memory: 4 * LANES bytes, 512.
// Bytes moved: 4 * n_mels * valid read from L2 twice, 12 a chunk written: 1 MB for 30 s and 80 bands, an estimated 2 us of
// latency, of which 80 blocks hide little. No time has been measured.

#include "mel.cuh"

__device__ __forceinline__ float squared(float value) { return value * value; }

extern "C" __global__ void mel_statistics(
    const Clip* __restrict__ clips, const int* __restrict__ clip_of, int chunks, const int* __restrict__ maxima)
{
    extern __shared__ float shared[];
    const int self = threadIdx.y * blockDim.x + threadIdx.x, count = blockDim.x * blockDim.y;
    for (int number = blockIdx.y * gridDim.x + blockIdx.x; number < chunks; number += gridDim.x * gridDim.y) {
        const Clip& clip = clips[clip_of[number]];
        const int here = number - clip.first_chunk, band = here / clip.chunks, first = here % clip.chunks * CHUNK;
        const int frames = min(CHUNK, clip.valid - first);
        const float least = least_of(clip, maxima + clip_of[number]), pivot = level(clip, least, band, first);
        for (int lane = self; lane < LANES; lane += count) {
            float sum = 0;
            for (int i = lane; i < frames; i += LANES) sum += level(clip, least, band, first + i) - pivot;
            shared[lane] = sum;
        }
        __syncthreads();
        const float mean = added(shared) / (float)frames;
        __syncthreads();
        for (int lane = self; lane < LANES; lane += count) {
            float sum = 0;
            for (int i = lane; i < frames; i += LANES) sum += squared(level(clip, least, band, first + i) - pivot - mean);
            shared[lane] = sum;
        }
        __syncthreads();
        float* out = clip.statistics + 3LL * here;
        for (int i = self; i < 3; i += count) out[i] = i == 0 ? pivot : i == 1 ? mean : added(shared);
        __syncthreads();
    }
}
