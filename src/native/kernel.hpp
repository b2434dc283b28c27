// Vectors of the instruction set this file is compiled for, and the one register-blocked product of the engine.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// A loop over i = 0..n-1 that the compiler unrolls, so that arrays of vectors become registers.
#if defined(__clang__)
#define UNROLLED(i, n) _Pragma("unroll") for (int i = 0; i < (n); ++i)
#else
#define UNROLLED(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); ++i)
#endif

namespace native {

#if defined(__AVX512F__)
constexpr int L = 16, REGISTERS = 32;  // floats per vector, vector registers
constexpr const char* ISA = "avx512";
#elif defined(__AVX2__)
constexpr int L = 8, REGISTERS = 16;
constexpr const char* ISA = "avx2";
#else
#if defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
constexpr int L = 4;
constexpr const char* ISA = "base";
#endif

typedef float V __attribute__((vector_size(4 * L), may_alias));

inline V load(const float* p) { return *reinterpret_cast<const V*>(p); }  // p on a vector's boundary, as all rows are
inline void store(float* p, V x) { *reinterpret_cast<V*>(p) = x; }
inline V all(float x) { return x - V{}; }

// Numbers 0, 2, 4, .. and 1, 3, 5, .. of the two vectors a, b in a row.
template <int... I>
inline V evens(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, 2 * I...);
}
template <int... I>
inline V odds(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, 2 * I + 1 ...);
}
using Lanes = std::make_integer_sequence<int, L>;

inline float sum(V x) {
    for (int n = L; n > 1; n /= 2) x = evens(x, x, Lanes()) + odds(x, x, Lanes());
    return x[0];
}

// relu lets NaN through (a diverged network must show it), hence "not negative" rather than "positive".
inline V relu(V x) {
#if defined(__AVX512F__)
    return V(_mm512_maskz_max_ps(-1, __m512{}, __m512(x)));  // the second where one is NaN
#elif defined(__x86_64__) && defined(__AVX2__)
    return V(_mm256_max_ps(__m256{}, __m256(x)));
#else
    return x < 0 ? V{} : x;
#endif
}
inline V where_positive(V h, V x) { return h > 0 ? x : V{}; }

// m / (root sqrt(v) + eps), the heart of Adam, to an ulp or two. Division and square root are a tenth as fast as
// products; AVX-512 has estimates to 14 bits, of which a Newton step makes 28.
inline V adam_direction(V m, V v, float root, float eps) {
#if defined(__AVX512F__)
    const V y = V(_mm512_maskz_rsqrt14_ps(-1, _mm512_maskz_max_ps(-1, __m512(all(FLT_MIN)), __m512(v))));
    const V estimate = v * y, s = estimate + 0.5f * y * (v - estimate * estimate);
    const V below = root * s + eps, inverse = V(_mm512_maskz_rcp14_ps(-1, __m512(below))), ratio = m * inverse;
    return ratio + inverse * (m - below * ratio);
#elif defined(__x86_64__) && defined(__AVX2__)
    return m / (root * V(_mm256_sqrt_ps(__m256(v))) + eps);
#else
    for (int i = 0; i < L; ++i) v[i] = std::sqrt(v[i]);
    return m / (root * v + eps);
#endif
}

// How many interleaved parts a tile of R x NV vectors sums in: one, but where it is too small to hide the latency of an
// addition.
constexpr int parts(long R, int NV) { return R * NV > 4 ? 1 : R * NV > 2 ? 2 : 4; }

// C = A B for `tiles` tiles of R rows x NV vectors of C, one below the other; each stays in registers over all of k.
// A is read one number at a time, from any strides: A(i, k) = a[i * ra + k * ca]; B by rows of vectors. `op` gives C's
// start and takes its end. Each number of C is a sum over k = 0, 1, ... whatever the tiling, except in tiles that sum
// in U parts. So bits depend on the shape alone.
template <int R, int NV, class Op>
void column(long tiles, long K, const float* a, long ra, long ca, const float* b, long ldb, long row, long col, Op op) {
    constexpr int U = parts(R, NV);
    a += row * ra;
    b += col;
    for (const long end = row + tiles * R; row < end; row += R, a += R * ra) {
        V c[U][R][NV];
        UNROLLED (r, R)
            UNROLLED (v, NV) {
                c[0][r][v] = op.start(col + v * L);
                UNROLLED (u, U - 1) c[u + 1][r][v] = V{};
            }
        auto add = [&](long k, V(&part)[R][NV]) {
            V bk[NV];
            UNROLLED (v, NV) bk[v] = load(b + k * ldb + v * L);
            UNROLLED (r, R) {
                const V x = all(a[r * ra + k * ca]);
                UNROLLED (v, NV) part[r][v] += x * bk[v];
            }
        };
        long k = 0;
        for (; k + U <= K; k += U)
            UNROLLED (u, U) add(k + u, c[u]);
        if constexpr (U > 1) {
            for (; k < K; ++k) add(k, c[0]);
            UNROLLED (u, U - 1)
                UNROLLED (r, R)
                    UNROLLED (v, NV) c[0][r][v] += c[u + 1][r][v];
        }
        op.finish(row, col, c[0]);
    }
}

constexpr int MAX_VECTORS = REGISTERS == 32 ? 4 : 2;
constexpr int max_rows(int NV) { return REGISTERS == 32 ? (NV == 1 ? 12 : 24 / NV) : 12 / NV; }

template <class Op>
using Column = void (*)(long, long, const float*, long, long, const float*, long, long, long, Op);

template <int NV, class Op, int... R>
constexpr Column<Op> column_of(long rows, std::integer_sequence<int, R...>) {
    constexpr Column<Op> columns[] = {column<R + 1, NV, Op>...};
    return columns[rows - 1];
}

// M rows of NV vectors in as few tiles as possible, `full` of R rows each and the others of R - 1.
struct Tiles {
    long tiles, R, full;
    constexpr Tiles(long M, int NV)
        : tiles((M + max_rows(NV) - 1) / max_rows(NV)), R((M + tiles - 1) / tiles), full(M - tiles * (R - 1)) {}
};

// From how many rows on no tile sums in parts: there zeros between the terms of a sum don't show in its bits.
constexpr long FEWEST = 5;
constexpr bool in_one_part(long M, int NV) {
    const Tiles t(M, NV);
    return parts(t.full < t.tiles ? t.R - 1 : t.R, NV) == 1 && (NV == 1 || in_one_part(M, NV - 1));
}
constexpr bool in_one_part(long M) { return M < FEWEST || (in_one_part(M, MAX_VECTORS) && in_one_part(M - 1)); }
static_assert(in_one_part(200));  // more rows have larger tiles

// All M rows of NV vectors of C.
template <int NV, class Op>
void panel(long M, long K, const float* a, long ra, long ca, const float* b, long ldb, long col, Op op) {
    const Tiles t(M, NV);
    const std::make_integer_sequence<int, max_rows(NV)> sizes;
    column_of<NV, Op>(t.R, sizes)(t.full, K, a, ra, ca, b, ldb, 0, col, op);
    if (t.full == t.tiles) return;
    column_of<NV, Op>(t.R - 1, sizes)(t.tiles - t.full, K, a, ra, ca, b, ldb, t.full * t.R, col, op);
}

// The part [begin, end) of `size` in the `parts` nearly equal parts.
inline long part(long size, long i, long parts) { return size * i / parts; }

// C = A B, with M rows and `vectors` vectors per row, over K terms.
template <class Op>
void product(long M, long vectors, long K, const float* a, long ra, long ca, const float* b, long ldb, const Op& op) {
    const long panels = (vectors + MAX_VECTORS - 1) / MAX_VECTORS;
    for (long p = 0; p < panels; ++p) {
        const long first = part(vectors, p, panels), col = first * L;
        switch (part(vectors, p + 1, panels) - first) {
            case 1: panel<1>(M, K, a, ra, ca, b, ldb, col, op); break;
            case 2: panel<2>(M, K, a, ra, ca, b, ldb, col, op); break;
            case 3: panel<(MAX_VECTORS > 2 ? 3 : 1)>(M, K, a, ra, ca, b, ldb, col, op); break;
            case 4: panel<(MAX_VECTORS > 3 ? 4 : 1)>(M, K, a, ra, ca, b, ldb, col, op); break;
        }
    }
}

// Number s of the result is the sum of the vector t[s], for L vectors: neighbours are added until one is left.
template <int N = L>
inline V row_sums(V* t) {
    if constexpr (N == 1) return t[0];
    UNROLLED (i, N / 2) t[i] = evens(t[2 * i], t[2 * i + 1], Lanes()) + odds(t[2 * i], t[2 * i + 1], Lanes());
    return row_sums<(N > 1 ? N / 2 : 1)>(t);
}

// to (columns, rows) = transpose of from (rows, columns), both of row stride ld, by L x L blocks. A perfect shuffle of
// the 2 log2(L) bits of a position, log2(L) times, transposes.
inline void transpose(const float* from, float* to, long blocks, long ld) {
    for (long i = 0; i < blocks; ++i)
        for (long j = 0; j < blocks; ++j) {
            V t[L], s[L];
            UNROLLED (r, L) t[r] = load(from + (i * L + r) * ld + j * L);
            UNROLLED (stage, L == 16 ? 4 : L == 8 ? 3 : 2) {
                UNROLLED (r, L / 2) {
                    s[r] = evens(t[2 * r], t[2 * r + 1], Lanes());
                    s[r + L / 2] = odds(t[2 * r], t[2 * r + 1], Lanes());
                }
                UNROLLED (r, L) t[r] = s[r];
            }
            UNROLLED (r, L) store(to + (j * L + r) * ld + i * L, t[r]);
        }
}

}  // namespace native
