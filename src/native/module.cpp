// The Python module: tasks on a pool of threads. Compiled once per instruction set; fractal_ifs.engines.cpp checks
// sizes and numbers and is the only caller.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "tasks.hpp"

namespace py = pybind11;
using namespace native;

namespace {

// What the calling thread does again and again while others work. It throws after Ctrl-C, and returns true once a
// signal's handler has put anything into the list `until`.
auto watch_signals(const py::list* until = nullptr) {
    return [until] {
        py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        return until && !until->empty();
    };
}

template <class Number>
using ArrayOf = py::array_t<Number, py::array::c_style>;
using Array = ArrayOf<float>;

template <class T>
T get(py::handle task, const char* name) {
    return py::cast<T>(task.attr(name));
}

// An array of a task, which is not copied. Throws std::invalid_argument for an array that pybind11 would copy, for one
// that is not aligned to whole numbers, and for one that must be writable and is not.
template <class Number = float>
ArrayOf<Number> get_array(py::handle task, const char* name, bool writable = false) {
    const py::object value = task.attr(name);
    const auto refuse = [&](const char* rule) { throw std::invalid_argument(std::string(name) + ": must be " + rule); };
    if (!py::isinstance<ArrayOf<Number>>(value))
        refuse(sizeof(Number) == sizeof(float) ? "a contiguous array of float32" : "a contiguous array of float64");
    const auto array = py::reinterpret_borrow<ArrayOf<Number>>(value);
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(Number) != 0) refuse("aligned to whole floats");
    if (writable && !array.writeable()) refuse("writable");
    return array;
}

Shape get_shape(py::handle task) {
    return {get<Index>(task, "d"), get<Index>(task, "width"), get<Index>(task, "depth"), get<bool>(task, "sum_last")};
}

Loss get_loss(py::handle task) { return parse("loss", get<std::string>(task, "loss"), LOSSES); }

OptimizerSettings get_settings(py::handle task) {
    const auto [beta1, beta2] = get<std::pair<double, double>>(task, "betas");
    return {parse("optimizer", get<std::string>(task, "optimizer"), OPTIMIZERS),
            get<double>(task, "lr"),
            beta1,
            beta2,
            get<double>(task, "eps"),
            get<double>(task, "momentum"),
            get<bool>(task, "nesterov"),
            get<double>(task, "weight_decay"),
            task.attr("clip").is_none() ? 0 : get<double>(task, "clip"),
            !task.attr("average").is_none()};
}

// The work that `tasks` ask for, and the arrays that it points into, held so that no other Python thread frees them.
// Errors name the task.
template <class Work>
struct Asked {
    std::vector<Work> work;
    std::vector<py::object> held;

    template <class Read>
    Asked(const py::list& tasks, Read read) {
        for (const py::handle task : tasks) {
            const auto hold = [&](auto array) {
                held.push_back(array);
                return array;
            };
            try {
                work.push_back(read(task, hold));
            } catch (const std::invalid_argument& error) {
                throw std::invalid_argument("task " + std::to_string(work.size()) + ": " + error.what());
            }
        }
    }
};

// Trains every task (fractal_ifs.engines.cpp.Training) by its steps, and sets its step, done and loss_sum; its step
// also meanwhile, for other Python threads to see. Nothing has trained where one is refused, by a ValueError.
void advance(const py::list& tasks, std::size_t threads, const py::list& until) {
    Asked<Training> asked(tasks, [](py::handle task, auto hold) {
        const auto written = [&](const char* name) {
            return task.attr(name).is_none() ? nullptr : hold(get_array(task, name, true)).mutable_data();
        };
        const auto of_steps = [&](const char* name) {
            return task.attr(name).is_none() ? nullptr : hold(get_array<double>(task, name)).data();
        };
        const Array y = hold(get_array(task, "y"));
        return Training{get_shape(task),
                        get_loss(task),
                        get_settings(task),
                        written("params"),
                        written("exp_avg"),
                        written("exp_avg_sq"),
                        {hold(get_array(task, "x")).data(), y.data(), y.size()},
                        get<Index>(task, "batch_size"),
                        get<uint64_t>(task, "shuffle_seed"),
                        get<uint64_t>(task, "step"),
                        get<uint64_t>(task, "steps"),
                        written("average"),
                        of_steps("rates"),
                        of_steps("shares")};
    });
    std::vector<Training>& all = asked.work;
    refuse_overlaps(all);
    std::vector<std::atomic<uint64_t>> reached(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) reached[i] = all[i].step;
    const auto watch = [&, signals = watch_signals(&until)] {
        py::gil_scoped_acquire acquire;
        for (std::size_t i = 0; i < reached.size(); ++i) py::handle(tasks[i]).attr("step") = reached[i].load();
        return signals();
    };
    std::exception_ptr error;
    {
        py::gil_scoped_release release;
        error = train_all(all, threads, reached, watch);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        const py::handle task = tasks[i];
        task.attr("step") = all[i].step;
        task.attr("done") = all[i].done;
        task.attr("loss_sum") = all[i].loss_sum;
    }
    if (error) std::rethrow_exception(error);
}

// Per task (fractal_ifs.engines.cpp.Measuring): (points with y f > 0, mean loss).
py::list evaluate(const py::list& tasks, std::size_t threads) {
    const Asked<Evaluation> asked(tasks, [](py::handle task, auto hold) {
        const Array y = hold(get_array(task, "y"));
        return Evaluation{get_shape(task),
                          get_loss(task),
                          hold(get_array(task, "params")).data(),
                          {hold(get_array(task, "x")).data(), y.data(), y.size()}};
    });
    const std::vector<Evaluation>& all = asked.work;
    std::vector<double> cost;
    for (const Evaluation& t : all) cost.push_back(t.shape.flops(double(t.points.n)));
    std::vector<std::pair<Index, double>> results(all.size());
    std::exception_ptr error;
    {
        py::gil_scoped_release release;
        const auto work = [&](std::size_t i, const auto& stop) {
            results[i] = all[i].evaluate(stop);
            return 0.0;
        };
        error = run(cost, threads, work, watch_signals());
    }
    if (error) std::rethrow_exception(error);
    py::list list;
    for (const auto& [correct, loss] : results) list.append(py::make_tuple(correct, loss));
    return list;
}

// The order of the points in an epoch: indices 0..n-1.
py::array_t<uint32_t> permutation(uint64_t seed, uint64_t epoch, std::size_t n) {
    Shuffle shuffle;
    const auto& order = shuffle.order(seed, epoch, n);
    return py::array_t<uint32_t>(py::ssize_t(order.size()), order.data());
}

// GFLOP/s of `threads` cores that do nothing but multiply and add vectors in registers.
double fma_peak(double seconds, std::size_t threads) {
    constexpr int CHAINS = REGISTERS == 32 ? 16 : 12, ROUNDS = 100000;
    std::atomic<double> total{0};
    const auto work = [&](std::size_t, const auto& stop) {
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        double flops = 0, elapsed = 0;
        Lanes x = broadcast(0.5f), y = broadcast(1.0f);
        while (elapsed < seconds && !stop) {
            asm volatile("" : "+m"(x), "+m"(y));
            const Lanes factor = x, term = y;
            Lanes c[CHAINS];
            for (int i = 0; i < CHAINS; ++i) c[i] = broadcast(float(i));
            for (int k = 0; k < ROUNDS; ++k) {
                UNROLLED (i, CHAINS) c[i] = c[i] * factor + term;
            }
            UNROLLED (i, CHAINS) y += c[i] * 0.0f;  // so that none of it is left out
            flops += 2.0 * ROUNDS * CHAINS * LANES;
            elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        }
        for (double old = total; !total.compare_exchange_weak(old, old + flops / elapsed * 1e-9);) {
        }
        return 0.0;
    };
    std::exception_ptr error;
    {
        py::gil_scoped_release release;
        error = run(std::vector<double>(threads, 1.0), threads, work, watch_signals());
    }
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

// What compiled this, and (NATIVE_FLAGS, from setup.py) how: the bits of all results rest on these two.
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#if defined(__clang__)
constexpr const char* COMPILER =
    "Clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__);
#else
constexpr const char* COMPILER = "GCC " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__);
#endif

}  // namespace

PYBIND11_MODULE(NATIVE_MODULE, m) {
    m.doc() = "The native engine for one instruction set: see fractal_ifs.engines.cpp, its only caller.";
    m.attr("ISA") = ISA;
    m.attr("COMPILER") = COMPILER;
    m.attr("FLAGS") = NATIVE_FLAGS;
    m.def("supported", supported, "The instruction sets this processor has, best first.");
    m.def("advance", advance, "Trains every task by its steps on so many threads; stops once the list is not empty.",
          py::arg("tasks"), py::arg("threads"), py::arg("until"));
    m.def("evaluate", evaluate, "Per task (points with y f > 0, mean loss).", py::arg("tasks"), py::arg("threads"));
    m.def("permutation", permutation, "The order of the n training points in an epoch.", py::arg("seed"),
          py::arg("epoch"), py::arg("n"));
    m.def("fma_peak", fma_peak, "GFLOP/s of so many cores that multiply and add in registers for so many seconds.",
          py::arg("seconds"), py::arg("threads"));
}
