// From decoded JPEG planes to the rows of a batch, as Pillow does it: convert to RGB, resize columns, resize rows.

struct Picture {
    const unsigned char* planes[3];  // Y, Cb, Cr; or for pixels, the row itself
    unsigned char* scratch;          // (rows_needed, columns, 3)
    int pitches[3];
    int width, height;               // of the first plane
    int shift_x, shift_y;            // log2 of how often a chroma sample stands for columns, rows
    int components;                  // 1, 3; 0: planes[0] is a frame already; below: nothing is to be done
    int columns, rows;               // that it becomes, as stored
    int first_row, rows_needed;      // of the source, that the second pass reads
    int orientation;
    float left, upper, right, lower; // the part of the source that it is made of
};

__device__ __forceinline__ float weight(float at, int bicubic) {
    at = fabsf(at);
    if (!bicubic) return at < 1.0f ? 1.0f - at : 0.0f;
    const float a = -0.5f;
    if (at < 1.0f) return ((a + 2.0f) * at - (a + 3.0f)) * at * at + 1.0f;
    if (at < 2.0f) return (((at - 5.0f) * at + 8.0f) * at - 4.0f) * a;
    return 0.0f;
}

struct Taps { int first, last; float centre, shrink, sum; };

// Pillow's precompute_coeffs, for one target pixel.
__device__ __forceinline__ Taps taps(float begin, float end, int size, int length, int at, int bicubic) {
    const float scale = (end - begin) / size;
    const float filter_scale = fmaxf(scale, 1.0f);
    const float support = (bicubic ? 2.0f : 1.0f) * filter_scale;
    Taps found;
    found.centre = begin + (at + 0.5f) * scale;
    found.shrink = 1.0f / filter_scale;
    found.first = max(0, (int)(found.centre - support + 0.5f));
    found.last = min(length, (int)(found.centre + support + 0.5f));
    found.sum = 0.0f;
    for (int i = found.first; i < found.last; ++i) found.sum += weight((i - found.centre + 0.5f) * found.shrink, bicubic);
    return found;
}

__device__ __forceinline__ unsigned char clip(float value) {
    return (unsigned char)min(255, max(0, (int)floorf(value + 0.5f)));
}

// libjpeg's "fancy" upsampling: a sample counts three times its farther neighbour.
__device__ __forceinline__ int chroma(const Picture& p, int plane, int x, int y) {
    const unsigned char* from = p.planes[plane];
    const int pitch = p.pitches[plane];
    const int width = (p.width + (1 << p.shift_x) - 1) >> p.shift_x;
    const int height = (p.height + (1 << p.shift_y) - 1) >> p.shift_y;
    const int cx = x >> p.shift_x, cy = y >> p.shift_y;
    if (p.shift_x > 1 || p.shift_y > 1 || (p.shift_x == 0 && p.shift_y == 0)) return from[cy * pitch + cx];
    const int nx = p.shift_x ? min(width - 1, max(0, x & 1 ? cx + 1 : cx - 1)) : cx;
    const int ny = p.shift_y ? min(height - 1, max(0, y & 1 ? cy + 1 : cy - 1)) : cy;
    if (!p.shift_y) return (3 * from[cy * pitch + cx] + from[cy * pitch + nx] + (x & 1 ? 2 : 1)) >> 2;
    const int here = 3 * from[cy * pitch + cx] + from[ny * pitch + cx];
    if (!p.shift_x) return (here + (y & 1 ? 2 : 1)) >> 2;
    const int there = 3 * from[cy * pitch + nx] + from[ny * pitch + nx];
    return (3 * here + there + (x & 1 ? 7 : 8)) >> 4;
}

__device__ __forceinline__ int clip(int value) { return min(255, max(0, value)); }

__device__ __forceinline__ void colour(const Picture& p, int x, int y, int* rgb) {
    const int luma = p.planes[0][y * p.pitches[0] + x];
    if (p.components == 1) { rgb[0] = rgb[1] = rgb[2] = luma; return; }
    const int cb = chroma(p, 1, x, y) - 128, cr = chroma(p, 2, x, y) - 128;
    rgb[0] = clip(luma + ((91881 * cr + 32768) >> 16));
    rgb[1] = clip(luma + ((-22554 * cb - 46802 * cr + 32768) >> 16));
    rgb[2] = clip(luma + ((116130 * cb + 32768) >> 16));
}

// A block: some rows of one picture's first pass.
extern "C" __global__ void resize_columns(const Picture* pictures, int bicubic) {
    const Picture& p = pictures[blockIdx.y];
    if (p.components <= 0) return;
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < p.columns * p.rows_needed; at += gridDim.x * blockDim.x) {
        const int x = at % p.columns, y = at / p.columns;
        const Taps t = taps(p.left, p.right, p.columns, p.width, x, bicubic);
        float red = 0, green = 0, blue = 0;
        for (int i = t.first; i < t.last; ++i) {
            int rgb[3];
            colour(p, i, p.first_row + y, rgb);
            const float w = weight((i - t.centre + 0.5f) * t.shrink, bicubic);
            red += w * rgb[0]; green += w * rgb[1]; blue += w * rgb[2];
        }
        unsigned char* to = p.scratch + 3 * at;
        const float norm = 1.0f / t.sum;
        to[0] = clip(red * norm); to[1] = clip(green * norm); to[2] = clip(blue * norm);
    }
}

// A thread: one pixel of the frame. EXIF orientations (Exif 2.32, tag 274) are undone here.
extern "C" __global__ void resize_rows(const Picture* pictures, int bicubic, unsigned char* batch, int width, int height) {
    const Picture& p = pictures[blockIdx.y];
    if (p.components < 0) return;
    unsigned char* out = batch + (size_t)blockIdx.y * width * height * 3;
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < width * height; at += gridDim.x * blockDim.x) {
        const int column = at % width, row = at / width;
        unsigned char* to = out + 3 * at;
        if (p.components == 0) {
            const unsigned char* from = p.planes[0] + 3 * at;
            to[0] = from[0]; to[1] = from[1]; to[2] = from[2];
            continue;
        }
        const bool transposed = p.orientation >= 5;
        if (column >= (transposed ? p.rows : p.columns) || row >= (transposed ? p.columns : p.rows)) {
            to[0] = to[1] = to[2] = 0;
            continue;
        }
        int x = transposed ? row : column, y = transposed ? column : row;
        const int o = p.orientation;
        if (o == 2 || o == 3 || o == 7 || o == 8) x = p.columns - 1 - x;
        if (o == 3 || o == 4 || o == 6 || o == 7) y = p.rows - 1 - y;
        const Taps t = taps(p.upper, p.lower, p.rows, p.height, y, bicubic);
        float red = 0, green = 0, blue = 0;
        for (int i = t.first; i < t.last; ++i) {
            const unsigned char* from = p.scratch + 3 * ((i - p.first_row) * p.columns + x);
            const float w = weight((i - t.centre + 0.5f) * t.shrink, bicubic);
            red += w * from[0]; green += w * from[1]; blue += w * from[2];
        }
        const float norm = 1.0f / t.sum;
        to[0] = clip(red * norm); to[1] = clip(green * norm); to[2] = clip(blue * norm);
    }
}
