// One NV12 or P016 picture to packed RGB, rotated.
//
//   rgb[c] = clamp(floor(m[c][0] * Y + m[c][1] * U + m[c][2] * V + m[c][3] + 0.5), 0, 255)
//
// Y, U, V are code values (P016 keeps them in the high bits: they are shifted down first); matrix, range and bit depth
// are all in the 3x4 matrix. Each 2x2 pixels share one chroma sample (nearest), as in
// swscale's default path for 8 bits and even widths; deeper or odd pictures it interpolates, by up to 64 levels on noise.
// rotation counts quarter turns counter-clockwise; out is (height, width, 3), or (width, height, 3) for odd rotations.
//
// Launch: any grid and block; x strides over the columns of out, y over its rows. Default: block 128, grid
// (ceil(columns / 128), rows). Bytes moved: 1.5 * width * height samples read, 3 * width * height bytes written.
// -DSAMPLE=unsigned short for P016; the default is unsigned char.

#ifndef SAMPLE
#define SAMPLE unsigned char
#endif

__device__ __forceinline__ unsigned char level(float value)
{
    return (unsigned char)fminf(fmaxf(floorf(value + 0.5f), 0.0f), 255.0f);
}

extern "C" __global__ void nv12_to_rgb(
    const unsigned char* luma, const unsigned char* chroma, long long luma_pitch, long long chroma_pitch,
    int width, int height, unsigned char* out, long long out_pitch,
    float m00, float m01, float m02, float m03,
    float m10, float m11, float m12, float m13,
    float m20, float m21, float m22, float m23,
    int shift, int rotation)
{
    const int columns = rotation & 1 ? height : width;
    const int rows = rotation & 1 ? width : height;
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        for (int column = blockIdx.x * blockDim.x + threadIdx.x; column < columns; column += gridDim.x * blockDim.x) {
            int x = column, y = row;
            if (rotation == 1) { x = width - 1 - row; y = column; }
            if (rotation == 2) { x = width - 1 - column; y = height - 1 - row; }
            if (rotation == 3) { x = row; y = height - 1 - column; }
            const SAMPLE* uv = (const SAMPLE*)(chroma + (long long)(y >> 1) * chroma_pitch) + (x & ~1);
            const float Y = (float)(((const SAMPLE*)(luma + (long long)y * luma_pitch))[x] >> shift);
            const float U = (float)(uv[0] >> shift);
            const float V = (float)(uv[1] >> shift);
            unsigned char* pixel = out + (long long)row * out_pitch + 3LL * column;
            pixel[0] = level(m00 * Y + m01 * U + m02 * V + m03);
            pixel[1] = level(m10 * Y + m11 * U + m12 * V + m13);
            pixel[2] = level(m20 * Y + m21 * U + m22 * V + m23);
        }
    }
}
