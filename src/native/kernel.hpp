// Vectors of the instruction set this file is compiled for, and the one register-blocked matrix product of the engine.
//
// Compilers: GCC >= 12 or Clang >= 13. Beyond C++17 it needs their vector types, arithmetic, comparisons and ?: on
// them, and __builtin_shufflevector, which GCC has since 12.
#pragma once
#if defined(__clang__)
#if __clang_major__ < 13
#error "fractal_ifs: the native engine needs GCC >= 12 or Clang >= 13; this Clang is older"
#endif
#elif !defined(__GNUC__)
#error "fractal_ifs: the native engine needs GCC >= 12 or Clang >= 13, whose vector types it is written in"
#elif __GNUC__ < 12
#error "fractal_ifs: the native engine needs GCC >= 12 or Clang >= 13; this GCC is older"
#endif
#if __cplusplus < 201703L
#error "fractal_ifs: the native engine needs C++17: compile with -std=c++17"
#endif

#include <cassert>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

using Index = std::ptrdiff_t;  // of rows, columns and floats: signed, for differences and loops that count down

// LANES is the number of floats in a vector, REGISTERS the number of vector registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
constexpr const char* ISA = "avx512";
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
constexpr const char* ISA = "avx2";
#else
#if defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
constexpr int LANES = 4;
constexpr const char* ISA = "base";
#endif

// One vector: LANES floats, on which one instruction works.
typedef float Lanes __attribute__((vector_size(4 * LANES), may_alias));

// Whether p is on a vector's boundary. All vectors in memory are: they lie in Floats (network.hpp), whose rows are
// whole vectors. The caller's arrays are read and written float by float, and need the alignment of a float alone.
inline bool is_aligned(const float* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(Lanes) == 0; }

inline Lanes load(const float* p) {
    assert(is_aligned(p));
    return *reinterpret_cast<const Lanes*>(p);
}
inline void store(float* p, Lanes x) {
    assert(is_aligned(p));
    *reinterpret_cast<Lanes*>(p) = x;
}
inline Lanes broadcast(float x) { return x - Lanes{}; }

using LaneNumbers = std::make_integer_sequence<int, LANES>;

// Numbers 0, 2, 4, .. and 1, 3, 5, .. of the two vectors a, b in a row.
template <int... I>
inline Lanes evens(Lanes a, Lanes b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, 2 * I...);
}
template <int... I>
inline Lanes odds(Lanes a, Lanes b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, 2 * I + 1 ...);
}

// The sum of the lanes: neighbours are added until one number is left.
inline float sum(Lanes x) {
    for (int n = LANES; n > 1; n /= 2) x = evens(x, x, LaneNumbers()) + odds(x, x, LaneNumbers());
    return x[0];
}

// Number s of the result is the sum of the vector rows[s], for LANES vectors, which it overwrites.
template <int N = LANES>
inline Lanes row_sums(Lanes* rows) {
    if constexpr (N == 1) return rows[0];
    UNROLLED (i, N / 2)
        rows[i] =
            evens(rows[2 * i], rows[2 * i + 1], LaneNumbers()) + odds(rows[2 * i], rows[2 * i + 1], LaneNumbers());
    return row_sums<(N > 1 ? N / 2 : 1)>(rows);
}

// max(x, 0), but NaN stays NaN (a diverged network must show it), hence "not negative" rather than "positive".
inline Lanes relu(Lanes x) {
#if defined(__AVX512F__)
    return Lanes(_mm512_maskz_max_ps(0xFFFF, __m512{}, __m512(x)));  // in all 16 lanes; the second where one is NaN
#elif defined(__x86_64__) && defined(__AVX2__)
    return Lanes(_mm256_max_ps(__m256{}, __m256(x)));
#else
    return x < 0 ? Lanes{} : x;
#endif
}

// x where condition > 0, elsewhere 0.
inline Lanes where_positive(Lanes condition, Lanes x) { return condition > 0 ? x : Lanes{}; }

// m / (root sqrt(v) + eps), the heart of Adam, to an ulp or two. Division and square root are a tenth as fast as
// products; AVX-512 has estimates to 14 bits, of which a Newton step makes 28.
inline Lanes adam_direction(Lanes m, Lanes v, float root, float eps) {
#if defined(__AVX512F__)
    v = Lanes(_mm512_maskz_min_ps(0xFFFF, __m512(broadcast(FLT_MAX)), __m512(v)));  // 0 inf is no number
    const Lanes y = Lanes(_mm512_maskz_rsqrt14_ps(                                  // 1 / sqrt(v)
        0xFFFF, _mm512_maskz_max_ps(0xFFFF, __m512(broadcast(FLT_MIN)), __m512(v))));
    const Lanes estimate = v * y, s = estimate + 0.5f * y * (v - estimate * estimate);  // sqrt(v)
    const Lanes below = root * s + eps, inverse = Lanes(_mm512_maskz_rcp14_ps(0xFFFF, __m512(below)));
    const Lanes ratio = m * inverse;
    return ratio + inverse * (m - below * ratio);
#elif defined(__x86_64__) && defined(__AVX2__)
    return m / (root * Lanes(_mm256_sqrt_ps(__m256(v))) + eps);
#else
    for (int i = 0; i < LANES; ++i) v[i] = std::sqrt(v[i]);
    return m / (root * v + eps);
#endif
}

// A matrix somewhere in memory: its number (i, j) is data[i * row_stride + j * column_stride].
struct MatrixView {
    const float* data;
    Index rows, columns, row_stride, column_stride = 1;

    MatrixView transposed() const { return {data, columns, rows, column_stride, row_stride}; }
};

// ROWS x VECTORS vectors of a matrix, to be kept in registers.
template <int ROWS, int VECTORS>
struct Tile {
    Lanes at[std::size_t(ROWS)][std::size_t(VECTORS)];
};

// C = A B. A is read one number at a time, from any strides; B by vectors: its rows are whole vectors. The epilogue
// says what C starts from, start(column), and takes each tile of it, finish(row, column, tile).
template <class Epilogue>
struct Product {
    MatrixView a, b;
    Epilogue epilogue;
};

// How many interleaved parts a tile of `rows` rows x `vectors` vectors sums in: one, but where the tile is too small to
// hide the latency of an addition.
constexpr int parts_of_sum(Index rows, int vectors) { return rows * vectors > 4 ? 1 : rows * vectors > 2 ? 2 : 4; }

// `tiles` tiles of ROWS rows x VECTORS vectors of C, one below the other, from (row, column) on; each stays in
// registers over the whole sum. Each number of C is a sum over k = 0, 1, ... whatever the tiling, except in tiles that
// sum in PARTS parts. So bits depend on the shape alone.
template <int ROWS, int VECTORS, class Epilogue>
void column_of_tiles(const Product<Epilogue>& product, Index tiles, Index row, Index column) {
    constexpr int PARTS = parts_of_sum(ROWS, VECTORS);
    const Epilogue epilogue =
        product.epilogue;  // copies, which stores to C can't change, so that they stay in registers
    const Index terms = product.a.columns, a_row = product.a.row_stride, a_column = product.a.column_stride;
    const Index b_row = product.b.row_stride;
    const float* a = product.a.data + row * a_row;
    const float* b = product.b.data + column;
    for (const Index end = row + tiles * ROWS; row < end; row += ROWS, a += ROWS * a_row) {
        Tile<ROWS, VECTORS> c[std::size_t(PARTS)];
        UNROLLED (r, ROWS)
            UNROLLED (v, VECTORS) {
                c[0].at[r][v] = epilogue.start(column + v * LANES);
                UNROLLED (p, PARTS - 1) c[p + 1].at[r][v] = Lanes{};
            }
        auto add = [&](Index k, Tile<ROWS, VECTORS>& part) {
            Lanes b_k[std::size_t(VECTORS)];
            UNROLLED (v, VECTORS) b_k[v] = load(b + k * b_row + v * LANES);
            UNROLLED (r, ROWS) {
                const Lanes x = broadcast(a[r * a_row + k * a_column]);
                UNROLLED (v, VECTORS) part.at[r][v] += x * b_k[v];
            }
        };
        Index k = 0;
        for (; k + PARTS <= terms; k += PARTS)
            UNROLLED (p, PARTS) add(k + p, c[p]);
        if constexpr (PARTS > 1) {
            for (; k < terms; ++k) add(k, c[0]);
            UNROLLED (p, PARTS - 1)
                UNROLLED (r, ROWS)
                    UNROLLED (v, VECTORS) c[0].at[r][v] += c[p + 1].at[r][v];
        }
        epilogue.finish(row, column, c[0]);
    }
}

// The largest tile that leaves registers for a row of B and a number of A.
constexpr int MAX_VECTORS = REGISTERS == 32 ? 4 : 2;
constexpr int max_rows(int vectors) { return REGISTERS == 32 ? (vectors == 1 ? 12 : 24 / vectors) : 12 / vectors; }

// Of column_of_tiles, the function for `rows` rows, which is known only at run time.
template <class Epilogue>
using ColumnOfTiles = void (*)(const Product<Epilogue>&, Index tiles, Index row, Index column);

template <int VECTORS, class Epilogue, int... R>
constexpr ColumnOfTiles<Epilogue> column_of_tiles_for(Index rows, std::integer_sequence<int, R...>) {
    constexpr ColumnOfTiles<Epilogue> functions[] = {column_of_tiles<R + 1, VECTORS, Epilogue>...};
    return functions[rows - 1];
}

// Rows of `vectors` vectors in as few tiles as possible: the first `full` have `height` rows, the others one less.
struct Tiling {
    Index tiles, height, full;
    constexpr Tiling(Index rows, int vectors)
        : tiles((rows + max_rows(vectors) - 1) / max_rows(vectors)), height((rows + tiles - 1) / tiles),
          full(rows - tiles * (height - 1)) {}
};

// From how many rows on no tile sums in parts: there zeros between the terms of a sum don't show in its bits.
constexpr Index FEWEST_ROWS = 5;
constexpr bool in_one_part(Index rows, int vectors) {
    const Tiling t(rows, vectors);
    return parts_of_sum(t.full < t.tiles ? t.height - 1 : t.height, vectors) == 1 &&
           (vectors == 1 || in_one_part(rows, vectors - 1));
}
constexpr bool in_one_part(Index rows) {
    return rows < FEWEST_ROWS || (in_one_part(rows, MAX_VECTORS) && in_one_part(rows - 1));
}
static_assert(in_one_part(200));  // more rows have larger tiles

// All rows of VECTORS vectors of C, from a column on.
template <int VECTORS, class Epilogue>
void panel(const Product<Epilogue>& product, Index column) {
    const Tiling t(product.a.rows, VECTORS);
    const std::make_integer_sequence<int, max_rows(VECTORS)> heights;
    column_of_tiles_for<VECTORS, Epilogue>(t.height, heights)(product, t.full, 0, column);
    if (t.full == t.tiles) return;
    column_of_tiles_for<VECTORS, Epilogue>(t.height - 1, heights)(product, t.tiles - t.full, t.full * t.height, column);
}

// Where part i begins when `size` things are cut into `parts` nearly equal parts.
constexpr Index part_begin(Index size, Index i, Index parts) { return size * i / parts; }

// C = A B, in panels of nearly equal width.
template <class Epilogue>
void multiply(const MatrixView& a, const MatrixView& b, const Epilogue& epilogue) {
    assert(a.columns == b.rows && b.column_stride == 1 && b.columns % LANES == 0);
    const Product<Epilogue> product{a, b, epilogue};
    const Index vectors = b.columns / LANES, panels = (vectors + MAX_VECTORS - 1) / MAX_VECTORS;
    for (Index p = 0; p < panels; ++p) {
        const Index first = part_begin(vectors, p, panels), column = first * LANES;
        switch (part_begin(vectors, p + 1, panels) - first) {
            case 1: panel<1>(product, column); break;
            case 2: panel<2>(product, column); break;
            case 3: panel<(MAX_VECTORS > 2 ? 3 : 1)>(product, column); break;
            case 4: panel<(MAX_VECTORS > 3 ? 4 : 1)>(product, column); break;
        }
    }
}

// to (columns, rows) = transpose of from (rows, columns), both of the same row stride, in `blocks` x `blocks` blocks of
// LANES x LANES. Every stage moves a block's numbers 0, 2, 4, .. before its numbers 1, 3, 5, ..: that rotates the bits
// of a position (row, column) by one, so that log2(LANES) stages swap row and column.
inline void transpose(const float* from, float* to, Index blocks, Index row_stride) {
    constexpr int STAGES = LANES == 16 ? 4 : LANES == 8 ? 3 : 2;
    for (Index i = 0; i < blocks; ++i)
        for (Index j = 0; j < blocks; ++j) {
            Lanes block[LANES], shuffled[LANES];
            UNROLLED (r, LANES) block[r] = load(from + (i * LANES + r) * row_stride + j * LANES);
            UNROLLED (stage, STAGES) {
                UNROLLED (r, LANES / 2) {
                    shuffled[r] = evens(block[2 * r], block[2 * r + 1], LaneNumbers());
                    shuffled[r + LANES / 2] = odds(block[2 * r], block[2 * r + 1], LaneNumbers());
                }
                UNROLLED (r, LANES) block[r] = shuffled[r];
            }
            UNROLLED (r, LANES) store(to + (j * LANES + r) * row_stride + i * LANES, block[r]);
        }
}

}  // namespace native
