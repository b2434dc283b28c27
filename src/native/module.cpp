// The Python module: tasks on a pool of threads. Compiled once per instruction set; fractal_ifs.engines.native checks
// all arguments and is the only caller.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <queue>
#include <string>
#include <thread>

#include "network.hpp"
#include "shuffle.hpp"

namespace py = pybind11;
using namespace native;

namespace {

// Numbers below 1e-38 count as zero in the pool's threads: moments that decay to there would cost 100 cycles each, and
// are nothing beside eps.
void flush_denormals() {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#elif defined(__aarch64__)
    uint64_t fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr));
    asm volatile("msr fpcr, %0" : : "r"(fpcr | 1u << 24));
#endif
}

// Calls rest[i] = work(i, stop) on `threads` threads until every rest is 0, most first, while the calling thread
// watches for Ctrl-C, and for whether a signal's handler has put anything into the list `until`, which ends it early
// too. Returns, once all threads have stopped, the exception that ended it, if any.
template <class Work>
std::exception_ptr run(const std::vector<double>& rest, size_t threads, Work work, const py::list* until = nullptr) {
    std::priority_queue<std::pair<double, size_t>> queue;
    for (size_t i = 0; i < rest.size(); ++i) queue.emplace(rest[i], i);
    threads = std::min(threads, rest.size());
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    std::mutex mutex;  // guards queue, error and running
    std::condition_variable ended;
    size_t running = 0;
    const auto worker = [&] {
        flush_denormals();
        std::unique_lock<std::mutex> lock(mutex);
        while (!stop && !queue.empty()) {
            const size_t i = queue.top().second;
            queue.pop();
            lock.unlock();
            double more = 0;
            std::exception_ptr failure;
            try {
                more = work(i, stop);
            } catch (...) {
                failure = std::current_exception();
                stop = true;
            }
            lock.lock();
            if (failure && !error) error = failure;
            if (more > 0) queue.emplace(more, i);
        }
        --running;
        ended.notify_one();
    };

    py::gil_scoped_release release;
    std::vector<std::thread> pool;
    std::unique_lock<std::mutex> lock(mutex);
    try {
        for (; running < threads; ++running) pool.emplace_back(worker);
    } catch (const std::system_error&) {  // no more threads to be had: go on with those there are
        if (pool.empty()) return std::current_exception();
    }
    while (!ended.wait_for(lock, std::chrono::milliseconds(100), [&] { return running == 0; })) {
        if (stop) continue;
        lock.unlock();
        std::exception_ptr interrupt;
        {
            py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) interrupt = std::make_exception_ptr(py::error_already_set());
            if (until && !until->empty()) stop = true;
        }
        lock.lock();
        if (interrupt) {
            stop = true;
            if (!error) error = interrupt;
        }
    }
    lock.unlock();
    for (std::thread& t : pool) t.join();
    return error;
}

using Array = py::array_t<float, py::array::c_style>;

template <class T>
T get(py::handle task, const char* name) {
    return py::cast<T>(task.attr(name));
}

// A network and points; holds its arrays, which other Python threads could otherwise free.
struct Test {
    Shape shape;
    Loss loss;
    Array params, points, labels;
    const float *x, *y;
    uint64_t n;

    explicit Test(py::handle task)
        : shape{get<long>(task, "d"), get<long>(task, "width"), get<long>(task, "depth"), get<bool>(task, "sum_last")},
          params(get<Array>(task, "params")), points(get<Array>(task, "x")), labels(get<Array>(task, "y")),
          x(points.data()), y(labels.data()), n(labels.size()) {
        const auto name = get<std::string>(task, "loss");
        loss = name == "hinge" ? Loss::hinge : name == "logistic" ? Loss::logistic : Loss::squared;
    }
};

struct Training : Test {
    Optimizer optimizer;
    py::object exp_avg, exp_avg_sq;
    float *p, *m, *v;
    uint64_t seed, step, steps, done = 0;
    long batch;
    double loss_sum = 0;

    explicit Training(py::handle task)
        : Test(task), exp_avg(task.attr("exp_avg")), exp_avg_sq(task.attr("exp_avg_sq")), p(params.mutable_data()),
          m(moment(exp_avg)), v(moment(exp_avg_sq)), seed(get<uint64_t>(task, "shuffle_seed")),
          step(get<uint64_t>(task, "step")), steps(get<uint64_t>(task, "steps")), batch(get<long>(task, "batch_size")) {
        const auto [beta1, beta2] = get<std::pair<double, double>>(task, "betas");
        optimizer = {get<std::string>(task, "optimizer") == "adam", get<double>(task, "lr"), beta1, beta2,
                     get<double>(task, "eps")};
    }

    static float* moment(const py::object& array) {
        return array.is_none() ? nullptr : py::cast<Array>(array).mutable_data();
    }

    double rest() const { return (steps - done) * shape.flops(batch); }

    // At least `most` flops, up to the end of an epoch: no order of the points is computed twice. Returns rest().
    double train(double most, const std::atomic<bool>& stop) {
        const uint64_t per_epoch = n / batch;
        const double slice = std::min(most / shape.flops(batch), double(steps - done));
        uint64_t end = step + uint64_t(slice) + 1;
        end = std::min(end + (per_epoch - end % per_epoch) % per_epoch, step + (steps - done));
        Network network(shape, batch, true);
        Shuffle shuffle;
        const uint32_t* order = nullptr;
        network.read(p, m, v);
        for (; step < end && !stop; ++done, ++step) {
            const uint64_t at = step % per_epoch;
            if (!order || at == 0) order = shuffle.order(seed, step / per_epoch, n).data();
            loss_sum += network.step(x, y, order + at * batch, batch, loss, optimizer, int64_t(step) + 1);
        }
        network.write(p, m, v);
        if (!network.finite()) loss_sum = NAN;  // dead units can hide an infinite weight from the loss
        return rest();
    }
};

void advance(const py::list& tasks, size_t threads, const py::list& until) {
    std::vector<Training> all;
    std::vector<double> rest;
    for (const py::handle task : tasks) {
        all.emplace_back(task);
        rest.push_back(all.back().rest());
    }
    // Few tasks take turns in slices, so that three on two threads end together.
    const double slice = std::accumulate(rest.begin(), rest.end(), 0.0) / (16 * threads);
    const auto train = [&](size_t i, const auto& stop) { return all[i].train(slice, stop); };
    const auto error = run(rest, threads, train, &until);
    for (size_t i = 0; i < all.size(); ++i) {
        const py::handle task = tasks[i];
        task.attr("step") = all[i].step;
        task.attr("done") = all[i].done;
        task.attr("loss_sum") = all[i].loss_sum;
    }
    if (error) std::rethrow_exception(error);
}

py::list evaluate(const py::list& tasks, size_t threads) {
    constexpr uint64_t BLOCK = 128;
    std::vector<Test> all;
    std::vector<double> cost;
    for (const py::handle task : tasks) {
        all.emplace_back(task);
        cost.push_back(all.back().shape.flops(all.back().n));
    }
    std::vector<std::pair<long, double>> results(all.size());
    const auto error = run(cost, threads, [&](size_t i, const auto& stop) {
        const Test& t = all[i];
        Network network(t.shape, std::min(BLOCK, t.n), false);
        network.read(t.params.data());
        for (uint64_t at = 0; at < t.n && !stop; at += BLOCK) {
            const auto block = network.test(t.x + at * t.shape.d, t.y + at, std::min(BLOCK, t.n - at), t.loss);
            results[i].first += block.first;
            results[i].second += block.second;
        }
        return 0.0;
    });
    if (error) std::rethrow_exception(error);
    py::list list;
    for (size_t i = 0; i < all.size(); ++i) list.append(py::make_tuple(results[i].first, results[i].second / all[i].n));
    return list;
}

py::array_t<uint32_t> permutation(uint64_t seed, uint64_t epoch, size_t n) {
    Shuffle shuffle;
    const auto& order = shuffle.order(seed, epoch, n);
    return py::array_t<uint32_t>(order.size(), order.data());
}

// GFLOP/s of `threads` cores that do nothing but multiply and add vectors in registers.
double fma_peak(double seconds, size_t threads) {
    constexpr int CHAINS = REGISTERS == 32 ? 16 : 12, ROUNDS = 100000;
    std::atomic<double> total{0};
    const auto error = run(std::vector<double>(threads, 1.0), threads, [&](size_t, const auto& stop) {
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        double flops = 0, elapsed = 0;
        V x = all(0.5f), y = all(1.0f);
        while (elapsed < seconds && !stop) {
            asm volatile("" : "+m"(x), "+m"(y));
            const V factor = x, term = y;
            V c[CHAINS];
            for (int i = 0; i < CHAINS; ++i) c[i] = all(float(i));
            for (int k = 0; k < ROUNDS; ++k) {
                UNROLLED (i, CHAINS) c[i] = c[i] * factor + term;
            }
            UNROLLED (i, CHAINS) y += c[i] * 0.0f;  // so that none of it is left out
            flops += 2.0 * ROUNDS * CHAINS * L;
            elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        }
        for (double old = total; !total.compare_exchange_weak(old, old + flops / elapsed * 1e-9);) {
        }
        return 0.0;
    });
    if (error) std::rethrow_exception(error);
    return total;
}

// The instruction sets this processor has, best first; asks the processor, executes none of them.
py::list supported() {
    py::list names;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        names.append("avx512");
    if (avx2) names.append("avx2");
#endif
    names.append("base");
    return names;
}

}  // namespace

PYBIND11_MODULE(NATIVE_MODULE, m) {
    m.attr("ISA") = ISA;
#if defined(__VERSION__)
    m.attr("COMPILER") = __VERSION__;
#endif
    m.def("supported", supported);
    m.def("advance", advance);
    m.def("evaluate", evaluate);
    m.def("permutation", permutation);
    m.def("fma_peak", fma_peak);
}
