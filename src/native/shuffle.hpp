// The order of the training points in one epoch: a function of (shuffle seed, epoch) alone, so that a run's position is
// its step count and chunks may end anywhere. Same order as fractal_ifs.seeds.permutation.
#pragma once
#include <array>
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
    // The indices 0..n-1 sorted by 31 random bits each, ties by index.
    const std::vector<uint32_t>& order(uint64_t seed, uint64_t epoch, size_t n) {
        keys_.resize(n), other_.resize(n), order_.resize(n);
        const uint64_t base = mix(mix(seed) + epoch);
        for (size_t i = 0; i < n; ++i) keys_[i] = (mix(base + i * GOLDEN) >> 33) << 32 | i;
        // Radix sort from the key's low bits up (bits 32 to 62). Up to 2^22 points the top 22 bits all but sort them, and
        // the insertion sort below, linear on what is nearly sorted, does the rest.
        for (int shift = n < (1u << 22) ? 41 : 30; shift < 63; shift += 11) scatter(shift);
        for (size_t i = 1; i < n; ++i) {
            const uint64_t key = keys_[i];
            size_t j = i;
            for (; j > 0 && keys_[j - 1] > key; --j) keys_[j] = keys_[j - 1];
            keys_[j] = key;
        }
        for (size_t i = 0; i < n; ++i) order_[i] = static_cast<uint32_t>(keys_[i]);
        return order_;
    }

   private:
    void scatter(int shift) {
        std::array<uint32_t, 2048> start{};
        for (uint64_t key : keys_) ++start[key >> shift & 2047];
        uint32_t total = 0;
        for (uint32_t& s : start) {
            const uint32_t count = s;
            s = total;
            total += count;
        }
        for (uint64_t key : keys_) other_[start[key >> shift & 2047]++] = key;
        keys_.swap(other_);
    }

    std::vector<uint64_t> keys_, other_;
    std::vector<uint32_t> order_;
};

}  // namespace native
