// Many clips of stored PCM to float32 at other rates, by a table of soxr's: a polyphase filter, several ratios in one launch.
//
//   out[k] = sum(weights[t][column(k)] * mean(k * down / up - before + t))        t = 0 .. taps - 1, quotients rounded down
//   column(k) = k where k < starts, else starts + k % up
//
// mean is pcm.cuh's, 0 outside of the clip. The first `starts` outputs have columns of their own, because soxr works in
// stages, and what a stage would give for times before the clip is 0 for the next. Columns are in the order of the outputs,
// not of the phases, so that neighbouring threads read neighbouring weights. weights: (taps / 4, starts + up, 4), taps a
// multiple of 4. Four sums of fmaf, one for t % 4 each, and their sum in pairs.
//
// Launch: any grid and any block of one dimension; a block takes tile after tile, and job_of says whose a tile is. A tile is
// `tile` outputs of its job; the frames that they see, `(tile - 1) * down / up + 1 + taps` at most, are decoded and mixed
// once into shared memory: 5 KB of 44.1 to 16 kHz.
// Bytes moved: channels * sample_bytes a frame and 4 an output through DRAM, 5.3 + 1.9 MB for 30 s of 44.1 kHz stereo s16
// to 16 kHz, 2 us at 4.3 TB/s; frames again (1 + taps * up / (tile * down)) times from L2. What bounds it are 265 million
// multiply-adds with a number of shared memory each, 8 million of a warp. No time has been measured.

#include "pcm.cuh"

struct Job {
    Sound sound;
    const float* weights;
    float* out;
    long long outputs;
    int up, down, taps, before, starts, tile, first_tile;
};

struct alignas(16) Four {
    float a, b, c, d;
};

extern "C" __global__ void resample(const Job* jobs, const int* job_of, int num_tiles)
{
    extern __shared__ float frames[];
    for (int number = blockIdx.x; number < num_tiles; number += gridDim.x) {
        const Job& job = jobs[job_of[number]];
        const long long first = (long long)(number - job.first_tile) * job.tile;
        const int count = (int)min((long long)job.tile, job.outputs - first);
        const long long begin = first * job.down / job.up;
        const int rest = (int)(first * job.down % job.up), phase = (int)(first % job.up);
        const int span = (rest + (count - 1) * job.down) / job.up + job.taps;
        for (int i = threadIdx.x; i < span; i += blockDim.x) frames[i] = mean_at(job.sound, begin - job.before + i);
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            const long long k = first + i;
            const int column = k < job.starts ? (int)k : job.starts + (phase + i) % job.up;
            const float* x = frames + (rest + i * job.down) / job.up;
            const Four* weights = (const Four*)job.weights + column;
            float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
            for (int t = 0; t < job.taps; t += 4, weights += job.starts + job.up) {
                const Four w = *weights;
                a = fmaf(w.a, x[t], a);
                b = fmaf(w.b, x[t + 1], b);
                c = fmaf(w.c, x[t + 2], c);
                d = fmaf(w.d, x[t + 3], d);
            }
            job.out[k] = (a + b) + (c + d);
        }
        __syncthreads();
    }
}
