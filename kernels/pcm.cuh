// Stored PCM of any encoding as float32, and the mean of its channels: what the kernels that read sound have in common.
//
//   level(u8) = (x - 128) / 2^7, level(s16) = x / 2^15, level(s24) = x / 2^23, level(s32) = float(x) / 2^31, f32 and f64 as
//   they are, rounded once to float32; mu-law and A-law by G.711 to 14 and 13 bits, over 2^15. Little endian.
//   mean(n) = (level(0, n) + level(1, n) + ...) / channels, in float32, in that order, rounded after every step; one channel
//   as it is. Frames before the first and behind the last are 0.
//
// Bit-equal to gpuflow.ops.audio.down_mix of gpuflow.ops.pcm.to_float, but for a clip of a single frame of 8 channels or
// more, whose sum numpy takes in pairs; samples of 16 bits are so exact that no order shows.
// The encoding is a number that is the same for a whole block, not a variant: clips of several share one launch.
// Addresses and strides are multiples of the sample's size, s24 of 1.

enum Encoding { U8, S16, S24, S32, F32, F64, MU_LAW, A_LAW };

struct Sound {
    const unsigned char* samples;
    long long frame_stride, channel_stride, frames;  // strides in bytes: interleaved, planar, or one channel of either
    int encoding, channels;
};

__device__ __forceinline__ float mu_law(int code)
{
    const int x = ~code, magnitude = ((((x & 15) << 3) + 132) << (x >> 4 & 7)) - 132;
    return (float)(x & 128 ? -magnitude : magnitude) / 32768.0f;
}

__device__ __forceinline__ float a_law(int code)
{
    const int x = code ^ 0x55, exponent = x >> 4 & 7, step = ((x & 15) << 4) + 8;
    const int magnitude = exponent ? (step + 256) << (exponent - 1) : step;
    return (float)(x & 128 ? magnitude : -magnitude) / 32768.0f;
}

__device__ __forceinline__ float level(const unsigned char* at, int encoding)
{
    switch (encoding) {
    case U8: return (float)(at[0] - 128) / 128.0f;
    case S16: return (float)*(const short*)at / 32768.0f;
    case S24: return (float)(at[0] | at[1] << 8 | (int)(signed char)at[2] * 65536) / 8388608.0f;
    case S32: return (float)*(const int*)at / 2147483648.0f;
    case F32: return *(const float*)at;
    case F64: return (float)*(const double*)at;
    case MU_LAW: return mu_law(at[0]);
    default: return a_law(at[0]);
    }
}

__device__ __forceinline__ float mean_at(const Sound& sound, long long frame)
{
    if (frame < 0 || frame >= sound.frames) return 0.0f;
    const unsigned char* at = sound.samples + frame * sound.frame_stride;
    float sum = level(at, sound.encoding);
    if (sound.channels == 1) return sum;
    for (int channel = 1; channel < sound.channels; ++channel)
        sum += level(at + channel * sound.channel_stride, sound.encoding);
    return sum / (float)sound.channels;
}
