// One decoded YUV picture to its place in a tensor: RGB, rotated, resized, normalised, laid out.
// Variants: SAMPLE=unsigned char|unsigned short RESIZE=0|1
//
//   rgb[c] = clamp(floor(m[c][0] * Y + m[c][1] * U + m[c][2] * V + m[c][3] + 0.5), 0, 255)     fused multiply-adds
//   resized[y][x] = rgb by the two passes of resize.cuh
//   out[row_offsets[y] + column_offsets[x] + c * plane] = numbers[c][resized[y][x][c]]
//
// Y, U, V are code values, shifted right by `shift` (P016 keeps them in the high bits). Chroma is found at (x >> shift_x,
// y >> shift_y), the nearest sample, chroma_step samples from one to the next: 2 for NV12 and P016, 1 for planes of their
// own, 0 for a picture without colour. Matrix, range and depth are all in the 3x4 matrix. The picture is mirrored left to
// right where that is asked for, then rotated by quarter turns counter-clockwise, then resized. rows and columns are those
// of the result, of which row_table and column_table are the axes. `numbers` holds 256 results of number_bytes (2 or 4)
// for each channel; levels (1) are stored as they are and need none.
//
// Launch: any grid and any block of two dimensions; threadIdx.x counts columns. RESIZE=0: one thread a pixel, no shared
// memory. RESIZE=1: one block a tile; see resize.cuh.
// Bytes moved, 4:2:0: 1.5 * width * height * sizeof(SAMPLE) read, 3 * rows * columns * number_bytes written; tiles read
// the margins between them again, (1 + 2 * support / tile_columns) * (1 + 2 * support / tile_rows) times in all where they
// downscale (support 1 bilinear, 2 bicubic), from L2: a picture of 1920x1080 has 3.1 MB. NV12 of that size to 448x252 f32
// moves 3.1 + 1.4 MB through DRAM, 1 us at 4.3 TB/s. No time has been measured.
// -DSAMPLE: unsigned short for P016 and planes of 9 to 16 bits.

#include "resize.cuh"

#ifndef SAMPLE
#define SAMPLE unsigned char
#endif
#ifndef RESIZE
#define RESIZE 1
#endif

struct Picture {
    const unsigned char *luma, *blue, *red;
    long long luma_pitch, chroma_pitch;
    int width, height, chroma_step, shift_x, shift_y, shift, mirrored, rotation;
    float m[12];
};

__device__ __forceinline__ unsigned int level(const float* m, float y, float u, float v)
{
    const float value = fmaf(m[0], y, fmaf(m[1], u, fmaf(m[2], v, m[3])));
    return (unsigned int)fminf(fmaxf(floorf(value + 0.5f), 0.0f), 255.0f);
}

// Red, green and blue from the lowest byte up, at a place of the rotated picture
__device__ __forceinline__ unsigned int color_at(const Picture& p, int column, int row)
{
    int x = column, y = row;
    if (p.rotation == 1) { x = p.width - 1 - row; y = column; }
    if (p.rotation == 2) { x = p.width - 1 - column; y = p.height - 1 - row; }
    if (p.rotation == 3) { x = row; y = p.height - 1 - column; }
    if (p.mirrored) x = p.width - 1 - x;
    const long long line = (long long)(y >> p.shift_y) * p.chroma_pitch;
    const int at = (x >> p.shift_x) * p.chroma_step;
    const float luma = (float)(((const SAMPLE*)(p.luma + (long long)y * p.luma_pitch))[x] >> p.shift);
    const float blue = (float)(((const SAMPLE*)(p.blue + line))[at] >> p.shift);
    const float red = (float)(((const SAMPLE*)(p.red + line))[at] >> p.shift);
    return level(p.m, luma, blue, red) | level(p.m + 4, luma, blue, red) << 8 | level(p.m + 8, luma, blue, red) << 16;
}

#if RESIZE
struct Source {
    const Picture& picture;

    __device__ __forceinline__ bool turned() const { return picture.rotation & 1; }
    __device__ __forceinline__ unsigned int at(int column, int row) const { return color_at(picture, column, row); }
};

struct Target {
    const Numbers& to;
    const long long *row_offsets, *column_offsets;

    __device__ __forceinline__ void put(int column, int row, unsigned int color, unsigned int*) const
    {
        store(to, row_offsets[row] + column_offsets[column], color);
    }
};
#endif

extern "C" __global__ void picture(
    const unsigned char* luma, const unsigned char* blue, const unsigned char* red,
    long long luma_pitch, long long chroma_pitch, int width, int height,
    int chroma_step, int shift_x, int shift_y, int shift, int mirrored, int rotation,
    float m00, float m01, float m02, float m03,
    float m10, float m11, float m12, float m13,
    float m20, float m21, float m22, float m23,
    unsigned char* out, const unsigned char* numbers, int number_bytes,
    const long long* row_offsets, const long long* column_offsets, long long plane, int rows, int columns
#if RESIZE
    , const int* row_table, const int* column_table, int tile_rows, int tile_columns, int stage_rows, int stage_columns
#endif
)
{
    const Picture from = {
        luma, blue, red, luma_pitch, chroma_pitch, width, height, chroma_step, shift_x, shift_y, shift, mirrored, rotation,
        {m00, m01, m02, m03, m10, m11, m12, m13, m20, m21, m22, m23},
    };
    const Numbers to = {out, numbers, plane, number_bytes};
#if !RESIZE
    for (int row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y)
        for (int column = blockIdx.x * blockDim.x + threadIdx.x; column < columns; column += gridDim.x * blockDim.x)
            store(to, row_offsets[row] + column_offsets[column], color_at(from, column, row));
#else
    extern __shared__ unsigned int shared[];
    const Axis down(row_table), across(column_table);
    const Staging by = {tile_rows, tile_columns, stage_rows, stage_columns};
    for (int top = blockIdx.y * tile_rows; top < rows; top += gridDim.y * tile_rows)
        for (int left = blockIdx.x * tile_columns; left < columns; left += gridDim.x * tile_columns) {
            const Tile tile = {top, left, min(tile_rows, rows - top), min(tile_columns, columns - left)};
            resize_tile(Source{from}, Target{to, row_offsets, column_offsets}, down, across, by, tile, shared);
        }
#endif
}
