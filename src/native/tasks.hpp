// What the threads do: train networks and evaluate them; and what must hold of a caller's arrays before they start.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "network.hpp"
#include "pool.hpp"
#include "shuffle.hpp"

namespace native {

constexpr std::pair<const char*, Loss> LOSSES[] = {{"hinge", Loss::Hinge},
                                                   {"logistic", Loss::Logistic},
                                                   {"squared", Loss::Squared},
                                                   {"squared_hinge", Loss::SquaredHinge},
                                                   {"exponential", Loss::Exponential}};
constexpr std::pair<const char*, Optimizer> OPTIMIZERS[] = {
    {"adam", Optimizer::Adam}, {"adamw", Optimizer::AdamW}, {"sgd", Optimizer::Sgd}};

// The value of a name in one of the tables above. Throws std::invalid_argument for any other name.
template <class Value, std::size_t N>
Value parse(const std::string& key, const std::string& name, const std::pair<const char*, Value> (&table)[N]) {
    std::string allowed;
    for (const auto& [known, value] : table) {
        if (name == known) return value;
        allowed += (allowed.empty() ? "" : ", ") + std::string(known);
    }
    throw std::invalid_argument(key + "=" + name + ": must be one of " + allowed);
}

// Labelled points: x (n, d), y (n,).
struct Points {
    const float *x, *y;
    Index n;
};

// A network and points to evaluate it on; params are in the order of model.parameters().
struct Evaluation {
    Shape shape;
    Loss loss;
    const float* params;
    Points points;

    // Returns the number of points with y f > 0, and the mean loss over the points. Ends early if `stop` is set: the
    // points that are left then add nothing to either.
    std::pair<Index, double> evaluate(const std::atomic<bool>& stop) const {
        constexpr Index BLOCK = 128;
        const auto& [x, y, n] = points;
        Network network(shape, std::min(BLOCK, n));
        network.read(params);
        Index correct = 0;
        double loss_sum = 0;
        for (Index at = 0; at < n && !stop; at += BLOCK) {
            const auto block = network.evaluate(x + at * shape.d, y + at, std::min(BLOCK, n - at), loss);
            correct += block.first;
            loss_sum += block.second;
        }
        return {correct, loss_sum / double(n)};
    }
};

// A network, its optimizer's state and its training set.
struct Training {
    Shape shape;
    Loss loss;
    OptimizerSettings settings;
    float *params, *exp_avg, *exp_avg_sq;  // the moments may be null with SGD
    Points points;
    Index batch;
    uint64_t shuffle_seed, step, steps;
    float* average = nullptr;                          // of the parameters; where settings.averages
    const double *rates = nullptr, *shares = nullptr;  // of each of the steps: its lr, and its share in the average
    uint64_t done = 0;                                 // of `steps`, while `step` counts those over the run
    double loss_sum = 0;

    // Floating-point operations still to do.
    double rest() const { return double(steps - done) * shape.flops(double(batch)); }

    // Trains for about `slice` operations, then on to the end of the epoch, so that no order of the points is computed
    // twice. Ends earlier if no steps are left or `stop` is set. Returns rest().
    double train(double slice, const std::atomic<bool>& stop) {
        const uint64_t n = uint64_t(points.n), per_epoch = n / uint64_t(batch);
        const double least = std::min(slice / shape.flops(double(batch)), double(steps - done));  // in steps
        uint64_t end = step + uint64_t(least) + 1;
        end = std::min(end + (per_epoch - end % per_epoch) % per_epoch, step + (steps - done));
        Network network(shape, batch, &settings);
        Shuffle shuffle;
        const uint32_t* order = nullptr;
        network.read(params, exp_avg, exp_avg_sq, average);
        OptimizerSettings now = settings;
        for (; step < end && !stop; ++done, ++step) {
            const uint64_t at = step % per_epoch;
            if (!order || at == 0) order = shuffle.order(shuffle_seed, step / per_epoch, n).data();
            const uint32_t* index = order + at * uint64_t(batch);
            if (rates) now.lr = rates[done];
            const double share = shares ? shares[done] : 1;
            loss_sum += network.step(points.x, points.y, index, batch, loss, now, int64_t(step) + 1, share);
        }
        network.write(params, exp_avg, exp_avg_sq, average);
        if (!network.finite()) loss_sum = NAN;  // dead units can hide an infinite weight from the loss
        return rest();
    }
};

// Trains all on `threads` threads: see run() in pool.hpp for `watch` and for what is returned. Meanwhile reached[i] is
// the step that all[i] has come to by its last slice, for whoever shows progress.
template <class Watch>
std::exception_ptr train_all(std::vector<Training>& all, std::size_t threads,
                             std::vector<std::atomic<uint64_t>>& reached, Watch watch) {
    std::vector<double> rest;
    for (const Training& t : all) rest.push_back(t.rest());
    // Few tasks take turns in slices, so that three on two threads end together.
    const double slice = std::accumulate(rest.begin(), rest.end(), 0.0) / double(16 * threads);
    const auto work = [&](std::size_t i, const auto& stop) {
        const double left = all[i].train(slice, stop);
        reached[i] = all[i].step;
        return left;
    };
    return run(rest, threads, work, watch);
}

// Throws std::invalid_argument where memory that a task writes is in another array as well, of this task or another:
// threads would train one network on top of another. What is only read may be shared.
inline void refuse_overlaps(const std::vector<Training>& all) {
    struct Range {
        std::uintptr_t begin, end;
        std::size_t task;
        const char* array;
        bool written;
    };
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const auto add = [&](const char* array, const void* data, Index floats, bool written) {
            const auto begin = reinterpret_cast<std::uintptr_t>(data);
            if (data && floats > 0)
                ranges.push_back({begin, begin + std::size_t(floats) * sizeof(float), i, array, written});
        };
        const Training& t = all[i];
        add("params", t.params, t.shape.parameters(), true);
        add("exp_avg", t.exp_avg, t.shape.parameters(), true);
        add("exp_avg_sq", t.exp_avg_sq, t.shape.parameters(), true);
        add("average", t.average, t.shape.parameters(), true);
        add("rates", t.rates, 2 * Index(t.steps), false);
        add("shares", t.shares, 2 * Index(t.steps), false);
        add("x", t.points.x, t.points.n * t.shape.d, false);
        add("y", t.points.y, t.points.n, false);
    }
    std::vector<Range> sorted = ranges;
    std::sort(sorted.begin(), sorted.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    // The furthest end of all ranges that begin before this one, and of those among them that are written.
    std::uintptr_t end = 0, end_written = 0;
    bool overlap = false;
    for (const Range& range : sorted) {
        overlap |= range.begin < (range.written ? end : end_written);
        end = std::max(end, range.end);
        if (range.written) end_written = std::max(end_written, range.end);
    }
    if (!overlap) return;
    // Which two to name must not depend on where in memory they are: the first, in the order of tasks and arrays.
    for (std::size_t i = 0; i < ranges.size(); ++i)
        for (std::size_t j = 0; j < i; ++j) {
            const Range &range = ranges[i], &other = ranges[j];
            if (range.begin < other.end && other.begin < range.end && (range.written || other.written))
                throw std::invalid_argument("task " + std::to_string(range.task) + ": " + range.array +
                                            ": shares memory with task " + std::to_string(other.task) + "'s " +
                                            other.array);
        }
}

}  // namespace native
