// Two-pass resize of uint8 by tables, a tile at a time, and where pixels go: what kernels that resize have in common.
//
//   across[y][x] = clamp((sum(weights[x][k] * color[y][first[x] + k]) + half) >> precision, 0, 255)    the columns' axis
//   down[y][x]   = clamp((sum(weights[y][k] * across[first[y] + k][x]) + half) >> precision, 0, 255)   the rows' axis
//
// half = 1 << (precision - 1). An axis is a table of gpuflow/ops/taps.py: the numbers from one sample to the next and the
// precision, then of each sample first, count and its weights; neither first nor first + count ever falls. A sample of
// no count gives black. Sums have 32 bits: 255 * sum(|weights|) + half is below 0.8 * 2^31 (Lanczos at an edge, 22 bits),
// which tests/unit/test_taps.py holds the tables to.
//
// One block makes a tile of tile_rows x tile_columns from stages of stage_rows x stage_columns pixels of the source, so
// that its shared memory is bounded however much is downscaled. In 32-bit words, by gpuflow/ops/tiling.py:
// stage_rows * ((stage_columns | 1) + (tile_columns | 1)) + 3 * (stage_rows * tile_columns + tile_rows * (tile_columns | 1)).

struct Axis {
    const int* samples;
    int step, precision;

    __device__ __forceinline__ explicit Axis(const int* table) : samples(table + 2), step(table[0]), precision(table[1]) {}
    __device__ __forceinline__ const int* at(int sample) const { return samples + (long long)sample * step; }
    __device__ __forceinline__ int begin(int sample) const { return at(sample)[0]; }
    __device__ __forceinline__ int end(int sample) const { return at(sample)[0] + at(sample)[1]; }
};

struct Staging {
    int tile_rows, tile_columns, stage_rows, stage_columns;

    __device__ __forceinline__ int pixel_pitch() const { return stage_columns | 1; }  // odd: a column lies in different banks
    __device__ __forceinline__ int line_pitch() const { return tile_columns | 1; }

    // Shared memory: the stage's source; the same rows, resized along x; unfinished sums of these rows, by channel,
    // column and row; unfinished sums of the tile, by channel, row and column
    __device__ __forceinline__ unsigned int* lines(unsigned int* shared) const { return shared + stage_rows * pixel_pitch(); }
    __device__ __forceinline__ int* across(unsigned int* shared) const { return (int*)(lines(shared) + stage_rows * line_pitch()); }
    __device__ __forceinline__ int* down(unsigned int* shared) const { return across(shared) + 3 * stage_rows * tile_columns; }
};

struct Tile {
    int top, left, height, width;
};

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

// from.at(column, row): a color, red in the lowest byte; from.turned(): whether columns lie farther apart than rows.
// to.put(column, row, color, own): takes each pixel of the tile once; `own` is the thread's word of shared memory for it,
// at row * line_pitch + column of down(), which it may use until the next tile.
template <class Source, class Target>
__device__ __forceinline__ void resize_tile(
    const Source& from, const Target& to, const Axis& rows, const Axis& columns,
    const Staging& by, const Tile& tile, unsigned int* shared)
{
    const int pixel_pitch = by.pixel_pitch(), line_pitch = by.line_pitch();
    const int across_stride = by.tile_columns * by.stage_rows, down_stride = by.tile_rows * line_pitch;
    unsigned int *pixels = shared, *lines = by.lines(shared);
    int *across = by.across(shared), *down = by.down(shared);
    const int source_top = rows.begin(tile.top), source_bottom = rows.end(tile.top + tile.height - 1);
    const int source_left = columns.begin(tile.left), source_right = columns.end(tile.left + tile.width - 1);
    bool more_rows = true;
    for (int y0 = source_top; more_rows; y0 += by.stage_rows) {  // at least once: a tile may have no source at all
        const int height_here = min(by.stage_rows, source_bottom - y0);
        more_rows = y0 + by.stage_rows < source_bottom;
        bool more_columns = true;
        for (int x0 = source_left; more_columns; x0 += by.stage_columns) {
            const int width_here = min(by.stage_columns, source_right - x0);
            more_columns = x0 + by.stage_columns < source_right;
            // Neighbouring threads read neighbouring samples of the source, also where it is turned
            const bool turned = from.turned();
            const int along = turned ? height_here : width_here, beside = turned ? width_here : height_here;
            for (int b = threadIdx.y; b < beside; b += blockDim.y)
                for (int a = threadIdx.x; a < along; a += blockDim.x) {
                    const int x = turned ? b : a, y = turned ? a : b;
                    pixels[y * pixel_pitch + x] = from.at(x0 + x, y0 + y);
                }
            __syncthreads();
            for (int x = threadIdx.y; x < tile.width; x += blockDim.y) {
                const int* sample = columns.at(tile.left + x);
                const int first = sample[0], begin = max(first, x0), end = min(first + sample[1], x0 + width_here);
                for (int y = threadIdx.x; y < height_here; y += blockDim.x) {
                    const int at = x * by.stage_rows + y, half = 1 << (columns.precision - 1);
                    Sums sums = {half, half, half};
                    if (x0 > source_left) sums = taken(across, across_stride, at);
                    for (int k = begin; k < end; ++k) add(sums, sample[2 + k - first], pixels[y * pixel_pitch + k - x0]);
                    if (more_columns) leave(across, across_stride, at, sums);
                    else lines[y * line_pitch + x] = rounded(sums, columns.precision);
                }
            }
            __syncthreads();
        }
        for (int y = threadIdx.y; y < tile.height; y += blockDim.y) {
            const int* sample = rows.at(tile.top + y);
            const int first = sample[0], begin = max(first, y0), end = min(first + sample[1], y0 + height_here);
            for (int x = threadIdx.x; x < tile.width; x += blockDim.x) {
                const int at = y * line_pitch + x, half = 1 << (rows.precision - 1);
                Sums sums = {half, half, half};
                if (y0 > source_top) sums = taken(down, down_stride, at);
                for (int k = begin; k < end; ++k) add(sums, sample[2 + k - first], lines[(k - y0) * line_pitch + x]);
                if (more_rows) leave(down, down_stride, at, sums);
                else to.put(tile.left + x, tile.top + y, rounded(sums, rows.precision), (unsigned int*)down + at);
            }
        }
    }
}

// Where numbers go: out[place + c * plane] = numbers[c][color[c]]; levels of one byte are stored as they are
struct Numbers {
    unsigned char* out;
    const unsigned char* numbers;
    long long plane;
    int number_bytes;
};

__device__ __forceinline__ void store(const Numbers& to, long long place, unsigned int color)
{
    for (int channel = 0; channel < 3; ++channel) {
        const long long at = place + channel * to.plane;
        const unsigned int level = color >> 8 * channel & 255, entry = 256 * channel + level;
        if (to.number_bytes == 4) ((unsigned int*)to.out)[at] = ((const unsigned int*)to.numbers)[entry];
        else if (to.number_bytes == 2) ((unsigned short*)to.out)[at] = ((const unsigned short*)to.numbers)[entry];
        else to.out[at] = (unsigned char)level;
    }
}
