// Clips at their sample rate to logarithms of mel levels, frame by frame; and each clip's maximum.
//
//   v[i] = samples[i] * sample_scale + dither * noise[i]      samples beyond the clip are 0
//   y[i] = v[i] - signal_preemphasis * v[i - 1]               y[0] = v[0]; 0 beyond what counts as the clip's own, or mirrored
//   x[n] = y[frame * hop - pad_left + n] - mean               the mean of the frame's window, where remove_dc
//   z[n] = (x[n] - frame_preemphasis * x[n - 1]) * window[n]  the first x[n] * (1 - frame_preemphasis)
//   power[k] = |sum(z[n] * exp(-2 pi i k n / N_FFT))|^2, or its root
//   levels[band][frame] = log(max(sum(weights[band][k] * power[k]), floor))     or log(... + floor); base 10 or e
//
// The real FFT of N_FFT is one complex FFT of half as many points, even samples real and odd ones imaginary; its stages
// are Stockham's, out of place, of radix 8, 5, 4, 3 and 2 in this order of preference. One frame is one FFT: two frames as
// real and imaginary part of one would give a quiet frame the rounding errors of a loud one beside it. All in float32; with
// REAL=double what follows y is in float64, up to the logarithm, with tables of float64, and levels are rounded once.
//
// Variants: N_FFT=400|512|1024
// Variants: N_FFT=512 REAL=double
// Any other N_FFT of 32 .. 6142, or 3070 of double, whose half is a product of 2, 3 and 5 compiles as well.
//
// Launch: any grid and any block. Blocks take the tiles of all clips one after another, tile t being
// FRAMES frames of clip clip_of[t]; only live frames have tiles. Neighbouring threads have neighbouring frames, so that
// twiddles and weights are broadcast, and FRAMES floats of a band are one store; the odd PITCH keeps banks apart.
// Shared memory: 2 * sizeof(REAL) * PITCH * N_FFT + 4 bytes:
//   N_FFT 400: 8 frames, 28,804 bytes; 512: 8 frames, 36,868 bytes, of double 4 and 40,964; 1024: 4 frames, 40,964 bytes.
// Registers, as NVRTC counts them: 32 to 48 from sm_80 on, 61 on sm_75; of double 52 to 64; nothing is spilled.
// Bytes moved: 4 * samples read (each from L1 again, N_FFT / hop times), 4 * n_mels * live written, which a group of
// clips leaves in L2. 30 s at 16 kHz and 128 bands: 1.9 + 1.5 MB, 0.8 us at 4.3 TB/s, an estimate; its arithmetic, 15 kflop
// a frame, and 60 MB of shared memory traffic are 3 to 5 us, an estimate too. No time has been measured.

#include "mel.cuh"

#ifndef N_FFT
#define N_FFT 400
#endif
#ifndef REAL
#define REAL float
#endif

struct alignas(2 * sizeof(REAL)) Complex {
    REAL re, im;
};

constexpr int HALF = N_FFT / 2;
constexpr int PARTS = 16;  // sums of a frame's samples, for its mean

__device__ constexpr int pitch_of(int frames) { return frames | 1; }
__device__ constexpr bool fits(int frames) { return 2 * (int)sizeof(REAL) * pitch_of(frames) * N_FFT + 4 <= 48 << 10; }
__device__ constexpr int radix_of(int rest) { return rest % 8 == 0 ? 8 : rest % 5 == 0 ? 5 : rest % 4 == 0 ? 4 : rest % 3 == 0 ? 3 : 2; }

constexpr int FRAMES = fits(8) ? 8 : fits(4) ? 4 : fits(2) ? 2 : 1;
constexpr int PITCH = pitch_of(FRAMES);

struct Threads {
    int self, count;
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float root_of(float value) { return sqrtf(value); }
__device__ __forceinline__ double root_of(double value) { return sqrt(value); }
__device__ __forceinline__ float log_of(float value, bool natural) { return natural ? logf(value) : log10f(value); }
__device__ __forceinline__ double log_of(double value, bool natural) { return natural ? log(value) : log10(value); }

__device__ __forceinline__ Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
__device__ __forceinline__ Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
__device__ __forceinline__ Complex operator*(REAL a, Complex b) { return {a * b.re, a * b.im}; }
__device__ __forceinline__ Complex turned(Complex a) { return {a.im, -a.re}; }  // times -i

__device__ __forceinline__ Complex operator*(Complex a, Complex b)
{
    return {fused(a.re, b.re, -(a.im * b.im)), fused(a.re, b.im, a.im * b.re)};
}

__device__ __forceinline__ void dft2(Complex& a, Complex& b)
{
    const Complex sum = a + b;
    b = a - b;
    a = sum;
}

__device__ __forceinline__ void dft3(Complex& a, Complex& b, Complex& c)
{
    const Complex sum = b + c, middle = a - REAL(0.5) * sum, side = turned(REAL(0.8660254037844386) * (b - c));
    a = a + sum;
    b = middle + side;
    c = middle - side;
}

__device__ __forceinline__ void dft4(Complex& a, Complex& b, Complex& c, Complex& d)
{
    const Complex even = a + c, odd = b + d, from = a - c, side = turned(b - d);
    a = even + odd;
    b = from + side;
    c = even - odd;
    d = from - side;
}

__device__ __forceinline__ void dft5(Complex& a, Complex& b, Complex& c, Complex& d, Complex& e)
{
    constexpr REAL C1 = 0.30901699437494745, C2 = -0.8090169943749475, S1 = 0.9510565162951535, S2 = 0.5877852522924731;
    const Complex near = b + e, far = c + d;
    const Complex one = a + C1 * near + C2 * far, two = a + C2 * near + C1 * far;
    const Complex side_one = turned(S1 * (b - e) + S2 * (c - d)), side_two = turned(S2 * (b - e) - S1 * (c - d));
    a = a + near + far;
    b = one + side_one;
    c = two + side_two;
    d = two - side_two;
    e = one - side_one;
}

__device__ __forceinline__ void dft8(Complex* x)
{
    constexpr REAL ROOT = 0.7071067811865476;
    dft4(x[0], x[2], x[4], x[6]);
    dft4(x[1], x[3], x[5], x[7]);
    const Complex odd[4] = {x[1], ROOT * (x[3] + turned(x[3])), turned(x[5]), ROOT * (turned(x[7]) - x[7])};
    const Complex even[4] = {x[0], x[2], x[4], x[6]};
    for (int k = 0; k < 4; ++k) {
        x[k] = even[k] + odd[k];
        x[k + 4] = even[k] - odd[k];
    }
}

template <int RADIX> __device__ __forceinline__ void dft(Complex* x)
{
    static_assert(RADIX == 2 || RADIX == 3 || RADIX == 4 || RADIX == 5 || RADIX == 8, "half of N_FFT has another factor");
    if constexpr (RADIX == 2) dft2(x[0], x[1]);
    else if constexpr (RADIX == 3) dft3(x[0], x[1], x[2]);
    else if constexpr (RADIX == 4) dft4(x[0], x[1], x[2], x[3]);
    else if constexpr (RADIX == 5) dft5(x[0], x[1], x[2], x[3], x[4]);
    else dft8(x);
}

// From FFTs of DONE points to those of all; where the last ones lie
template <int DONE>
__device__ __forceinline__ Complex* stages(Complex* from, Complex* to, const Complex* __restrict__ roots, Threads by)
{
    if constexpr (DONE == HALF) return from;
    else {
        constexpr int RADIX = radix_of(HALF / DONE), SPAN = HALF / RADIX;
        static_assert(HALF % (DONE * RADIX) == 0, "half of N_FFT has another factor");
        for (int i = by.self; i < FRAMES * SPAN; i += by.count) {
            const int frame = i % FRAMES, j = i / FRAMES, k = j % DONE;
            Complex x[RADIX];
            for (int q = 0; q < RADIX; ++q) x[q] = from[(j + q * SPAN) * PITCH + frame];
            if constexpr (DONE > 1)
                for (int q = 1; q < RADIX; ++q) x[q] = x[q] * roots[2 * k * q * (SPAN / DONE)];
            dft<RADIX>(x);
            for (int q = 0; q < RADIX; ++q) to[((j - k) * RADIX + k + q * DONE) * PITCH + frame] = x[q];
        }
        __syncthreads();
        return stages<DONE * RADIX>(to, from, roots, by);
    }
}

__device__ __forceinline__ float scaled(const Clip& clip, int at)
{
    const float value = at < clip.count ? clip.samples[at] * clip.sample_scale : 0;
    return clip.noise ? fmaf(clip.dither, clip.noise[at], value) : value;
}

__device__ __forceinline__ int mirrored(int at, int padded)
{
    const int last = padded - 1;
    if (at >= 0 && at <= last) return at;
    if (last <= 0) return 0;
    at = (at < 0 ? -at : at) % (2 * last);
    return at > last ? 2 * last - at : at;
}

__device__ __forceinline__ float padded_sample(const Clip& clip, int at)
{
    if (clip.reflect) at = mirrored(at, clip.padded);
    if (at < 0 || at >= clip.own) return 0;
    const float value = scaled(clip, at);
    if (clip.signal_preemphasis == 0 || at == 0) return value;
    return fmaf(-clip.signal_preemphasis, scaled(clip, at - 1), value);
}

// Sample n of the N_FFT of a frame that begins at `start` of the clip
__device__ __forceinline__ REAL windowed(const Clip& clip, int start, int n, REAL mean)
{
    const int k = n - clip.window_first;
    if (k < 0 || k >= clip.window_length) return 0;
    REAL value = padded_sample(clip, start + n) - mean;
    if (clip.frame_preemphasis != 0) {
        const REAL before = k > 0 ? padded_sample(clip, start + n - 1) - mean : value;
        value = fused(-(REAL)clip.frame_preemphasis, before, value);
    }
    return value * ((const REAL*)clip.window)[k];
}

__device__ __forceinline__ REAL mean_of(const REAL* parts, int frame, int count)
{
    REAL sum = 0;
    for (int part = 0; part < PARTS; ++part) sum += parts[part * FRAMES + frame];
    return sum / (REAL)count;
}

__device__ __forceinline__ REAL power_at(const Complex* spectrum, int k, int frame, Complex root)
{
    const Complex a = spectrum[k % HALF * PITCH + frame], b = spectrum[(HALF - k) % HALF * PITCH + frame];
    const Complex even = REAL(0.5) * Complex{a.re + b.re, a.im - b.im}, odd = REAL(0.5) * Complex{a.im + b.im, b.re - a.re};
    const Complex whole = even + root * odd;
    return fused(whole.re, whole.re, whole.im * whole.im);
}

extern "C" __global__ void mel(
    const Clip* __restrict__ clips, const int* __restrict__ clip_of, int tiles, int* __restrict__ maxima)
{
    extern __shared__ Complex shared[];
    Complex *ping = shared, *pong = ping + HALF * PITCH;
    REAL* parts = (REAL*)pong;
    int* loudest = (int*)(pong + HALF * PITCH);
    const Threads by = {(int)(threadIdx.y * blockDim.x + threadIdx.x), (int)(blockDim.x * blockDim.y)};
    if (by.self == 0) *loudest = (int)0x80000000;
    for (int tile = blockIdx.y * gridDim.x + blockIdx.x; tile < tiles; tile += gridDim.x * gridDim.y) {
        const Clip& clip = clips[clip_of[tile]];
        const Complex* roots = (const Complex*)clip.roots;
        const int first = (tile - clip.first_tile) * FRAMES;
        if (clip.remove_dc) {
            for (int i = by.self; i < FRAMES * PARTS; i += by.count) {
                const int start = (first + i % FRAMES) * clip.hop - clip.pad_left + clip.window_first;
                REAL sum = 0;
                for (int n = i / FRAMES; n < clip.window_length; n += PARTS) sum += padded_sample(clip, start + n);
                parts[i] = sum;
            }
            __syncthreads();
        }
        for (int i = by.self; i < FRAMES * HALF; i += by.count) {
            const int frame = i % FRAMES, n = 2 * (i / FRAMES), start = (first + frame) * clip.hop - clip.pad_left;
            const REAL mean = clip.remove_dc ? mean_of(parts, frame, clip.window_length) : 0;
            ping[n / 2 * PITCH + frame] = {windowed(clip, start, n, mean), windowed(clip, start, n + 1, mean)};
        }
        __syncthreads();
        Complex* spectrum = stages<1>(ping, pong, roots, by);
        REAL* power = (REAL*)(spectrum == ping ? pong : ping);
        for (int i = by.self; i < FRAMES * (HALF + 1); i += by.count) {
            const int frame = i % FRAMES, k = i / FRAMES;
            const REAL value = power_at(spectrum, k, frame, roots[k]);
            power[k * PITCH + frame] = clip.magnitude ? root_of(value) : value;
        }
        __syncthreads();
        int greatest = ordered(clip.silence);
        for (int i = by.self; i < FRAMES * clip.n_mels; i += by.count) {
            const int frame = i % FRAMES, band = i / FRAMES;
            if (first + frame >= clip.live) continue;
            const int *bin = clip.bands + 3 * band, low = bin[0], count = bin[1];
            const REAL* weights = (const REAL*)clip.weights + bin[2];
            REAL sum = 0;
            for (int k = 0; k < count; ++k) sum = fused(weights[k], power[(low + k) * PITCH + frame], sum);
            if (clip.add_floor) sum += clip.floor;
            else if (sum < clip.floor) sum = clip.floor;
            const float value = (float)log_of(sum, clip.natural);
            clip.levels[(long long)band * clip.pitch + first + frame] = value;
            greatest = max(greatest, ordered(value));
        }
        if (clip.clip_maximum) atomicMax(loudest, greatest);
        __syncthreads();
        if (by.self == 0 && clip.clip_maximum) {
            atomicMax(maxima + clip_of[tile], *loudest);
            *loudest = (int)0x80000000;
        }
    }
}
