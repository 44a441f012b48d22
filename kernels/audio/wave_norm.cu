// Waveforms to their place of a tensor: scaled, with mean 0 and variance 1 where that is asked for, and zeros behind them.
//
//   out[t / stack][t % stack] = samples[t] * scale,   or ((samples[t] * scale - pivot) - mean) / deviation   for t < framed
//   0 for framed <= t < frames
//
// The statistics are those of mel_statistics, one band a clip. A block merges a clip's chunks once, all of its threads
// together, LANES sums at a time: the result depends neither on the block nor on the grid. Samples beyond the clip that count
// as its own are `silence`, 0.
//
// Launch: any grid and any block. Blocks take tiles of CHUNK samples of all clips one after another, tile t being one of
// clip clip_of[t]. As many blocks as there are tiles of a long clip would merge all of its chunks as often as it has some:
// 1,024 blocks are enough for any GPU.
// Shared memory: 4 * LANES bytes, 512.
// Bytes moved: 4 * samples read, number_bytes * frames written: 3.8 MB for 30 s at 16 kHz as float32, an estimated 0.9 us at
// 4.3 TB/s, and from L2 24 * chunks a block: 0.3 MB then, and at most 58 MB for 600 s. No time has been measured.

#include "mel.cuh"

__device__ __forceinline__ Statistics merged_by_block(const Clip& clip, float* lanes, int self, int count)
{
    const float* chunks = clip.statistics;
    for (int lane = self; lane < LANES; lane += count) lanes[lane] = sum_of(clip, chunks, lane, LANES);
    __syncthreads();
    const float mean = added(lanes) / (float)clip.valid;
    __syncthreads();
    for (int lane = self; lane < LANES; lane += count) lanes[lane] = squares_of(clip, chunks, lane, LANES, mean);
    __syncthreads();
    const float squares = added(lanes);
    __syncthreads();
    return statistics_of(clip, chunks[0], mean, squares);
}

extern "C" __global__ void wave_norm(const Clip* __restrict__ clips, const int* __restrict__ clip_of, int tiles)
{
    extern __shared__ float shared[];
    const int self = threadIdx.y * blockDim.x + threadIdx.x, count = blockDim.x * blockDim.y;
    Statistics by = {0, 0, 1};
    int known = -1;
    for (int tile = blockIdx.y * gridDim.x + blockIdx.x; tile < tiles; tile += gridDim.x * gridDim.y) {
        const Clip& clip = clips[clip_of[tile]];
        const int first = (tile - clip.first_finish) * CHUNK, end = min(first + CHUNK, clip.frames);
        if (clip_of[tile] != known) by = clip.statistics ? merged_by_block(clip, shared, self, count) : Statistics{0, 0, 1};
        known = clip_of[tile];
        for (int t = first + self; t < end; t += count) {
            float value = 0;
            if (t < clip.framed) value = normalised(level(clip, clip.least, 0, t), by);
            store(clip.out + t / clip.stack * clip.time_stride + t % clip.stack * clip.band_stride, clip.number_kind, value);
        }
    }
}
