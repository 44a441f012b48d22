// Views of many images to their places in tensors, in one launch: boxed, resized, on canvases, normalised, laid out.
//
//   color = source[y + top][x + left]              `beyond` where that lies outside of the image
//   color = (t + (t >> 8)) >> 8,  t = color * alpha + background * (255 - alpha) + 128       where the image is transparent
//   resized[y][x] = color by the two passes of resize.cuh;  `around` outside of the rows and columns that are inside
//   out[row_offsets[y] + column_offsets[x] + c * plane + n * repeat] = numbers[c][resized[y][x][c]],  n < repeats
//
// A job is one view, or one of the resizes that it goes through. Its source lies at any strides in bytes, also negative
// ones, so that an image is turned as it is read; out, tables and offsets are those of a canvas of rows x columns. A job
// whose second pass is the horizontal one has rows and columns exchanged throughout, and is `turned`: its tile is kept in
// shared memory until neighbouring threads can store neighbouring columns of the image. Canvases that are cut into tiles
// or patches are offsets like any other.
//
// Launch: any grid and any block of two dimensions; threadIdx.x counts columns. Blocks take the tiles of all jobs one
// after another, tile t being one of job job_of[t]; shared memory as resize.cuh says.
// Bytes moved: channels * height * width of the box read, 3 * rows * columns * number_bytes * repeats written, and the
// margins between tiles again from L2, (1 + 2 * support / tile_columns) * (1 + 2 * support / tile_rows) times in all
// (support 1 bilinear, 2 bicubic, 3 Lanczos). A photo of 1920x1080 to 224x224 f32 moves 6.2 + 0.6 MB through DRAM, 1.6 us
// at 4.3 TB/s. No time has been measured.

#include "resize.cuh"

struct Job {
    const unsigned char* source;
    unsigned char* out;
    const unsigned char* numbers;
    const long long *row_offsets, *column_offsets;
    const int *row_table, *column_table;
    long long row_stride, column_stride, channel_stride, plane, repeat;
    int source_rows, source_columns, top, left, rows, columns;
    int inside_top, inside_left, inside_bottom, inside_right;
    unsigned int background, beyond, around;
    int transparent, number_bytes, repeats, turned, first_tile;
};

struct Source {
    const Job& job;

    __device__ __forceinline__ bool turned() const
    {
        const long long row = job.row_stride, column = job.column_stride;
        return (row < 0 ? -row : row) < (column < 0 ? -column : column);
    }

    __device__ __forceinline__ unsigned int at(int column, int row) const
    {
        const int x = column + job.left, y = row + job.top;
        if (x < 0 || y < 0 || x >= job.source_columns || y >= job.source_rows) return job.beyond;
        const unsigned char* pixel = job.source + y * job.row_stride + x * job.column_stride;
        unsigned int color = 0;
        for (int channel = 0; channel < 3; ++channel) {
            unsigned int level = pixel[channel * job.channel_stride];
            if (job.transparent) level = over(level, job.background >> 8 * channel & 255, pixel[3 * job.channel_stride]);
            color |= level << 8 * channel;
        }
        return color;
    }

    __device__ __forceinline__ static unsigned int over(unsigned int level, unsigned int background, unsigned int alpha)
    {
        const unsigned int mixed = level * alpha + background * (255 - alpha) + 128;
        return (mixed + (mixed >> 8)) >> 8;
    }
};

struct Target {
    const Job& job;

    __device__ __forceinline__ void put(int column, int row, unsigned int color, unsigned int* own) const
    {
        if (row < job.inside_top || row >= job.inside_bottom || column < job.inside_left || column >= job.inside_right)
            color = job.around;
        if (job.turned) *own = color;
        else write(column, row, color);
    }

    __device__ __forceinline__ void write(int column, int row, unsigned int color) const
    {
        const Numbers to = {job.out, job.numbers, job.plane, job.number_bytes};
        const long long place = job.row_offsets[row] + job.column_offsets[column];
        for (int time = 0; time < job.repeats; ++time) store(to, place + time * job.repeat, color);
    }
};

extern "C" __global__ void views(
    const Job* __restrict__ jobs, const int* __restrict__ job_of, int tiles,
    int tile_rows, int tile_columns, int stage_rows, int stage_columns)
{
    extern __shared__ unsigned int shared[];
    const Staging by = {tile_rows, tile_columns, stage_rows, stage_columns};
    for (int number = blockIdx.y * gridDim.x + blockIdx.x; number < tiles; number += gridDim.x * gridDim.y) {
        const Job& job = jobs[job_of[number]];
        const int across = (job.columns + tile_columns - 1) / tile_columns, here = number - job.first_tile;
        const int top = here / across * tile_rows, left = here % across * tile_columns;
        const Tile tile = {top, left, min(tile_rows, job.rows - top), min(tile_columns, job.columns - left)};
        const Target to = {job};
        resize_tile(Source{job}, to, Axis(job.row_table), Axis(job.column_table), by, tile, shared);
        if (!job.turned) continue;
        __syncthreads();
        const unsigned int* kept = (const unsigned int*)by.down(shared);
        for (int x = threadIdx.y; x < tile.width; x += blockDim.y)
            for (int y = threadIdx.x; y < tile.height; y += blockDim.x)
                to.write(left + x, top + y, kept[y * by.line_pitch() + x]);
    }
}
