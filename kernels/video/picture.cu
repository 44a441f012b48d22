// One decoded YUV picture to its place in a tensor: RGB, rotated, resized, normalised, laid out.
// Variants: SAMPLE=unsigned char|unsigned short RESIZE=0|1
//
//   rgb[c] = clamp(floor(m[c][0] * Y + m[c][1] * U + m[c][2] * V + m[c][3] + 0.5), 0, 255)     fused multiply-adds
//   across[y][x] = clamp((sum(column_weights[x][k] * rgb[y][column_first[x] + k]) + half) >> column_precision, 0, 255)
//   down[y][x]   = clamp((sum(row_weights[y][k] * across[row_first[y] + k][x]) + half) >> row_precision, 0, 255)
//   out[row_offsets[y] + column_offsets[x] + c * plane] = numbers[c][down[y][x][c]]
//
// Y, U, V are code values, shifted right by `shift` (P016 keeps them in the high bits). Chroma is found at (x >> shift_x,
// y >> shift_y), the nearest sample, chroma_step samples from one to the next: 2 for NV12 and P016, 1 for planes of their
// own, 0 for a picture without colour. Matrix, range and depth are all in the 3x4 matrix. The picture is mirrored left to
// right where that is asked for, then rotated by quarter turns counter-clockwise, then resized. rows and columns are those of the result. The tables are those of
// gpuflow/ops/taps.py, which are torchvision's; a span without samples gives black. `numbers` holds 256 results of
// number_bytes (2 or 4) for each channel; levels (1) are stored as they are and need none.
//
// Launch: any grid and any block of two dimensions; threadIdx.x counts columns. RESIZE=0: one thread a pixel, no shared
// memory. RESIZE=1: one block a tile of tile_rows x tile_columns, whose source is converted in stages of stage_rows x
// stage_columns pixels, so that its size is bounded however much is downscaled; shared memory in 32-bit words:
// stage_rows * ((stage_columns | 1) + (tile_columns | 1)) + 3 * tile_columns * (stage_rows + tile_rows).
// Bytes moved, 4:2:0: 1.5 * width * height * sizeof(SAMPLE) read, 3 * rows * columns * number_bytes written; tiles read
// the margins between them again, (1 + 2 * support / tile_columns) * (1 + 2 * support / tile_rows) times in all where they
// downscale (support 1 bilinear, 2 bicubic), from L2: a picture of 1920x1080 has 3.1 MB. NV12 of that size to 448x252 f32
// moves 3.1 + 1.4 MB through DRAM, 1 us at 4.3 TB/s. No time has been measured.
// -DSAMPLE: unsigned short for P016 and planes of 9 to 16 bits.

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

struct Target {
    unsigned char* out;
    const unsigned char* numbers;
    const long long *row_offsets, *column_offsets;
    long long plane;
    int number_bytes;
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

__device__ __forceinline__ void store(const Target& to, int column, int row, unsigned int color)
{
    const long long pixel = to.row_offsets[row] + to.column_offsets[column];
    for (int channel = 0; channel < 3; ++channel) {
        const long long at = pixel + channel * to.plane;
        const unsigned int level = color >> 8 * channel & 255, entry = 256 * channel + level;
        if (to.number_bytes == 4) ((unsigned int*)to.out)[at] = ((const unsigned int*)to.numbers)[entry];
        else if (to.number_bytes == 2) ((unsigned short*)to.out)[at] = ((const unsigned short*)to.numbers)[entry];
        else to.out[at] = (unsigned char)level;
    }
}

#if RESIZE
struct Sums {
    int red, green, blue;
};

__device__ __forceinline__ void add(Sums& sums, int weight, unsigned int color)
{
    sums.red += weight * (int)(color & 255);
    sums.green += weight * (int)(color >> 8 & 255);
    sums.blue += weight * (int)(color >> 16);
}

__device__ __forceinline__ unsigned int rounded(const Sums& sums, int precision)
{
    const int red = min(max(sums.red >> precision, 0), 255);
    const int green = min(max(sums.green >> precision, 0), 255);
    const int blue = min(max(sums.blue >> precision, 0), 255);
    return (unsigned int)(red | green << 8 | blue << 16);
}

// Sums that go on in the next stage: the same thread leaves and takes them
__device__ __forceinline__ Sums taken(const int* left, int stride, int at)
{
    return {left[at], left[stride + at], left[2 * stride + at]};
}

__device__ __forceinline__ void leave(int* left, int stride, int at, const Sums& sums)
{
    left[at] = sums.red;
    left[stride + at] = sums.green;
    left[2 * stride + at] = sums.blue;
}
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
    , const int* row_spans, const short* row_weights, int most_rows, int row_precision,
    const int* column_spans, const short* column_weights, int most_columns, int column_precision,
    int tile_rows, int tile_columns, int stage_rows, int stage_columns
#endif
)
{
    const Picture from = {
        luma, blue, red, luma_pitch, chroma_pitch, width, height, chroma_step, shift_x, shift_y, shift, mirrored, rotation,
        {m00, m01, m02, m03, m10, m11, m12, m13, m20, m21, m22, m23},
    };
    const Target to = {out, numbers, row_offsets, column_offsets, plane, number_bytes};
#if !RESIZE
    for (int row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y)
        for (int column = blockIdx.x * blockDim.x + threadIdx.x; column < columns; column += gridDim.x * blockDim.x)
            store(to, column, row, color_at(from, column, row));
#else
    extern __shared__ unsigned int shared[];
    const int pixel_pitch = stage_columns | 1, line_pitch = tile_columns | 1;  // odd: a column lies in different banks
    const int across_stride = tile_columns * stage_rows, down_stride = tile_columns * tile_rows;
    unsigned int* pixels = shared;                            // the stage's source: stage_rows x pixel_pitch
    unsigned int* lines = pixels + stage_rows * pixel_pitch;  // the same rows, resized along x: stage_rows x line_pitch
    int* across = (int*)(lines + stage_rows * line_pitch);    // unfinished sums of lines, by channel, column and row
    int* down = across + 3 * across_stride;                   // unfinished sums of the tile, by channel, row and column
    for (int top = blockIdx.y * tile_rows; top < rows; top += gridDim.y * tile_rows) {
        for (int left = blockIdx.x * tile_columns; left < columns; left += gridDim.x * tile_columns) {
            const int tile_height = min(tile_rows, rows - top), tile_width = min(tile_columns, columns - left);
            const int last_row = 2 * (top + tile_height - 1), last_column = 2 * (left + tile_width - 1);
            const int source_top = row_spans[2 * top], source_left = column_spans[2 * left];
            const int source_bottom = row_spans[last_row] + row_spans[last_row + 1];
            const int source_right = column_spans[last_column] + column_spans[last_column + 1];
            bool more_rows = true;
            for (int y0 = source_top; more_rows; y0 += stage_rows) {  // at least once: a tile may be all black
                const int height_here = min(stage_rows, source_bottom - y0);
                more_rows = y0 + stage_rows < source_bottom;
                bool more_columns = true;
                for (int x0 = source_left; more_columns; x0 += stage_columns) {
                    const int width_here = min(stage_columns, source_right - x0);
                    more_columns = x0 + stage_columns < source_right;
                    // Neighbouring threads read neighbouring samples of the surface, also where it is turned
                    const bool turned = rotation & 1;
                    const int along = turned ? height_here : width_here, beside = turned ? width_here : height_here;
                    for (int b = threadIdx.y; b < beside; b += blockDim.y)
                        for (int a = threadIdx.x; a < along; a += blockDim.x) {
                            const int x = turned ? b : a, y = turned ? a : b;
                            pixels[y * pixel_pitch + x] = color_at(from, x0 + x, y0 + y);
                        }
                    __syncthreads();
                    for (int x = threadIdx.y; x < tile_width; x += blockDim.y) {
                        const int first = column_spans[2 * (left + x)], count = column_spans[2 * (left + x) + 1];
                        const int begin = max(first, x0), end = min(first + count, x0 + width_here);
                        const short* weights = column_weights + (long long)(left + x) * most_columns;
                        for (int y = threadIdx.x; y < height_here; y += blockDim.x) {
                            const int at = x * stage_rows + y, half = 1 << (column_precision - 1);
                            Sums sums = {half, half, half};
                            if (x0 > source_left) sums = taken(across, across_stride, at);
                            for (int k = begin; k < end; ++k) add(sums, weights[k - first], pixels[y * pixel_pitch + k - x0]);
                            if (more_columns) leave(across, across_stride, at, sums);
                            else lines[y * line_pitch + x] = rounded(sums, column_precision);
                        }
                    }
                    __syncthreads();
                }
                for (int y = threadIdx.y; y < tile_height; y += blockDim.y) {
                    const int first = row_spans[2 * (top + y)], count = row_spans[2 * (top + y) + 1];
                    const int begin = max(first, y0), end = min(first + count, y0 + height_here);
                    const short* weights = row_weights + (long long)(top + y) * most_rows;
                    for (int x = threadIdx.x; x < tile_width; x += blockDim.x) {
                        const int at = y * tile_columns + x, half = 1 << (row_precision - 1);
                        Sums sums = {half, half, half};
                        if (y0 > source_top) sums = taken(down, down_stride, at);
                        for (int k = begin; k < end; ++k) add(sums, weights[k - first], lines[(k - y0) * line_pitch + x]);
                        if (more_rows) leave(down, down_stride, at, sums);
                        else store(to, left + x, top + y, rounded(sums, row_precision));
                    }
                }
            }
        }
    }
#endif
}
