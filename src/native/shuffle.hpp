// The order of the training points in one epoch: a function of (shuffle seed, epoch) alone, so that a run's position is
// its step count and chunks may end anywhere. Same order as fractal_ifs.data.seeds.permutation.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
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
    const std::vector<uint32_t>& order(uint64_t seed, uint64_t epoch, std::size_t n) {
        keys_.resize(n), other_.resize(n), order_.resize(n);
        const uint64_t base = mix(mix(seed) + epoch);
        for (std::size_t i = 0; i < n; ++i) keys_[i] = (mix(base + i * GOLDEN) >> 33) << 32 | i;
        n < 1u << 16 ? sort<2>() : n < 1u << 25 ? sort<3>() : sort<4>();
        for (std::size_t i = 0; i < n; ++i) {
            const uint64_t key = keys_[i];
            if (i == 0 || keys_[i - 1] <= key) continue;
            std::size_t at = i;
            for (; at > 0 && keys_[at - 1] > key; --at) keys_[at] = keys_[at - 1];
            keys_[at] = key;
        }
        for (std::size_t i = 0; i < n; ++i) order_[i] = static_cast<uint32_t>(keys_[i]);
        return order_;
    }

 private:
    static constexpr std::size_t DIGIT = 9;  // bits: 512 places to write to are what an L1 cache holds
    static constexpr std::size_t PLACES = 1 << DIGIT;

    static std::size_t digit(uint64_t key, std::size_t i) { return key >> (63 - DIGIT * (i + 1)) & (PLACES - 1); }

    // By the top digits of bits 62, 61, ..; of four digits the last reaches into the index, which is part of the order.
    template <std::size_t DIGITS>
    void sort() {
        std::array<std::array<uint32_t, PLACES>, DIGITS> start{};
        uint64_t *from = keys_.data(), *to = other_.data();
        const std::size_t n = keys_.size();
        for (std::size_t j = 0; j < n; ++j) {
            __builtin_prefetch(to + j, 1);  // in order here, at random below
            for (std::size_t i = 0; i < DIGITS; ++i) ++start[i][digit(from[j], i)];
        }
        for (std::size_t i = DIGITS; i-- > 0;) {
            uint32_t total = 0;
            for (uint32_t& place : start[i]) {
                const uint32_t count = place;
                place = total;
                total += count;
            }
            for (std::size_t j = 0; j < n; ++j) to[start[i][digit(from[j], i)]++] = from[j];
            std::swap(from, to);
        }
        if (DIGITS % 2) keys_.swap(other_);
    }

    std::vector<uint64_t> keys_, other_;
    std::vector<uint32_t> order_;
};

}  // namespace native
