// Work shared by a pool of threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <queue>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace native {

// Makes numbers below 1e-38 count as zero in the calling thread: moments that decay to there would cost 100 cycles
// each, and are nothing beside eps.
inline void flush_denormals() {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#elif defined(__aarch64__)
    std::uint64_t fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr));
    asm volatile("msr fpcr, %0" : : "r"(fpcr | 1u << 24));
#endif
}

// Calls rest[i] = work(i, stop) on `threads` threads until every rest is 0, most first. Meanwhile the calling thread
// asks watch() every 0.1 s; what it throws, or true, sets `stop` and so ends the work early. Returns, once all threads
// have stopped, the exception that ended it, if any.
template <class Work, class Watch>
std::exception_ptr run(const std::vector<double>& rest, std::size_t threads, Work work, Watch watch) {
    std::priority_queue<std::pair<double, std::size_t>> queue;
    for (std::size_t i = 0; i < rest.size(); ++i) queue.emplace(rest[i], i);
    threads = std::min(threads, rest.size());
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    std::mutex mutex;  // guards queue, error and running
    std::condition_variable ended;
    std::size_t running = 0;
    const auto worker = [&] {
        flush_denormals();
        std::unique_lock<std::mutex> lock(mutex);
        while (!stop && !queue.empty()) {
            const std::size_t i = queue.top().second;
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
        try {
            if (watch()) stop = true;
        } catch (...) {
            interrupt = std::current_exception();
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

}  // namespace native
