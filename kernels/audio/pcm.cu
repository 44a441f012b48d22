// Many clips of stored PCM to float32 at their own rates: the mean of the channels, or one channel of each job.
//
//   out[n] = mean(n) of pcm.cuh, n = 0 .. outputs - 1; a planar result of several channels is a job a channel
//
// Launch: any grid and any block of one dimension; a block takes tile after tile, and job_of says whose a tile is. A job's
// tiles are `tile` samples each, from first_tile on.
// Bytes moved: channels * sample_bytes + 4 a frame. 30 s of 16 kHz stereo s16: 1.9 + 1.9 MB, 1 us at 4.3 TB/s. No time has
// been measured.

#include "pcm.cuh"

struct Job {
    Sound sound;
    float* out;
    long long outputs;
    int first_tile;
};

extern "C" __global__ void pcm(const Job* jobs, const int* job_of, int num_tiles, int tile)
{
    for (int number = blockIdx.x; number < num_tiles; number += gridDim.x) {
        const Job& job = jobs[job_of[number]];
        const long long first = (long long)(number - job.first_tile) * tile;
        const int count = (int)min((long long)tile, job.outputs - first);
        for (int i = threadIdx.x; i < count; i += blockDim.x) job.out[first + i] = mean_at(job.sound, first + i);
    }
}
