// The order of the training points in one epoch: a function of (shuffle seed, epoch) alone, so that a run's position is
// its step count and chunks may end anywhere. Same order as fractal_ifs.seeds.permutation.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace native {

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15u;

// SplitMix64's step and finaliser.
inline uint64_t mix(uint64_t z) {
    z += GOLDEN;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

class Shuffle {
 public:
    // The indices 0..n-1 sorted by 31 random bits each, ties by index: a radix sort, from the low digit up, of as many
    // of the top bits as all but sort n numbers; then an insertion sort, which is linear on what is nearly sorted.
    const std::vector<uint32_t>& order(uint64_t seed, uint64_t epoch, size_t n) {
        keys_.resize(n), other_.resize(n), order_.resize(n);
        const uint64_t base = mix(mix(seed) + epoch);
        for (size_t i = 0; i < n; ++i) keys_[i] = (mix(base + i * GOLDEN) >> 33) << 32 | i;
        n < 1u << 16 ? sort<2>() : n < 1u << 25 ? sort<3>() : sort<4>();
        for (size_t i = 0; i < n; ++i) {
            const uint64_t key = keys_[i];
            if (i == 0 || keys_[i - 1] <= key) continue;
            size_t at = i;
            for (; at > 0 && keys_[at - 1] > key; --at) keys_[at] = keys_[at - 1];
            keys_[at] = key;
        }
        for (size_t i = 0; i < n; ++i) order_[i] = static_cast<uint32_t>(keys_[i]);
        return order_;
    }

 private:
    static constexpr int DIGIT = 9;  // bits: 512 places to write to are what an L1 cache holds

    // By the top digits of bits 62, 61, ..; of four digits the last reaches into the index, which is part of the order.
    template <int DIGITS>
    void sort() {
        constexpr uint64_t MASK = (1 << DIGIT) - 1;
        std::array<std::array<uint32_t, MASK + 1>, DIGITS> start{};
        uint64_t *from = keys_.data(), *to = other_.data();
        const size_t n = keys_.size();
        for (size_t j = 0; j < n; ++j) {
            __builtin_prefetch(to + j, 1);  // in order here, at random below
            for (int i = 0; i < DIGITS; ++i) ++start[i][from[j] >> (63 - DIGIT * (i + 1)) & MASK];
        }
        for (int i = DIGITS - 1; i >= 0; --i) {
            uint32_t total = 0;
            for (uint32_t& s : start[i]) {
                const uint32_t count = s;
                s = total;
                total += count;
            }
            for (size_t j = 0; j < n; ++j) to[start[i][from[j] >> (63 - DIGIT * (i + 1)) & MASK]++] = from[j];
            std::swap(from, to);
        }
        if (DIGITS % 2) keys_.swap(other_);
    }

    std::vector<uint64_t> keys_, other_;
    std::vector<uint32_t> order_;
};

}  // namespace native
