// The steps of M networks from their gradients, by the formulas of engines/steps.py: each number is read and written
// once.
//
// engines/update.py puts the constants of a rule before this text; then it is compiled by NVRTC for a GPU, or by a
// C++ compiler for the tests. A block has a slice of one network's parameters.

#ifdef __CUDACC__
// DEVICE is a function of the kernel; UNROLLED (i, n) a loop over i = 0..n-1 whose arrays become registers.
#define DEVICE __device__ __forceinline__
#define UNROLLED(i, n) _Pragma("unroll") for (int i = 0; i < (n); ++i)
#else
#define DEVICE inline
#define UNROLLED(i, n) for (int i = 0; i < (n); ++i)
#include <cmath>
#endif

DEVICE float square_root(float x) { return sqrtf(x); }
DEVICE double square_root(double x) { return sqrt(x); }

// What engines/update.py fills in, field by field.
struct Update {
    real *params, *grad, *exp_avg, *exp_avg_sq, *average;                // (M, length)
    const real *decay, *momentum, *eps, *beta1, *rest1, *beta2, *rest2;  // (M,)
    const real *size, *root, *shrink, *keep, *share;                     // (M,), of this step; some may be null
    long long length;
};

// The numbers of one network, in registers.
struct Numbers {
    real decay, momentum, eps, beta1, rest1, beta2, rest2, size, root, shrink, keep, share;
};

DEVICE Numbers of(const Update& u, int m) {
    return {u.decay[m],
            u.momentum[m],
            u.eps[m],
            u.beta1[m],
            u.rest1[m],
            u.beta2[m],
            u.rest2[m],
            u.size[m],
            ADAM ? u.root[m] : 1,
            DECOUPLED ? u.shrink[m] : 1,
            AVERAGE ? u.keep[m] : 0,
            AVERAGE ? u.share[m] : 0};
}

// The state of a parameter.
struct State {
    real p, g, m, v, a;
};

DEVICE State load(const Update& u, long long at) {
    return {u.params[at], u.grad[at], ADAM || MOMENTUM ? u.exp_avg[at] : 0, ADAM ? u.exp_avg_sq[at] : 0,
            AVERAGE ? u.average[at] : 0};
}

DEVICE void step(State& s, const Numbers& n) {
    real g = s.g;
    if (DECOUPLED) s.p *= n.shrink;
    if (DECAY) g += n.decay * s.p;
    if (ADAM) {
        s.m = n.beta1 * s.m + n.rest1 * g;
        s.v = n.beta2 * s.v + n.rest2 * (g * g);
        g = s.m / (square_root(s.v) / n.root + n.eps);
    } else if (MOMENTUM) {
        s.m = n.momentum * s.m + g;
        g = NESTEROV ? g + n.momentum * s.m : s.m;
    }
    s.p += n.size * g;
    if (AVERAGE) s.a = n.keep * s.a + n.share * s.p;
}

DEVICE void store(const Update& u, long long at, const State& s) {
    u.params[at] = s.p;
    u.grad[at] = 0;
    if (ADAM || MOMENTUM) u.exp_avg[at] = s.m;
    if (ADAM) u.exp_avg_sq[at] = s.v;
    if (AVERAGE) u.average[at] = s.a;
}

// Thread ``t`` of a block: network ``m``, slice ``s`` of its parameters. All is read before anything is written, so
// that a thread waits for memory once.
DEVICE void slice(const Update& u, int m, int s, int t) {
    const Numbers n = of(u, m);
    const long long first = (long long)(s)*THREADS * EACH + t, row = m * u.length;
    State states[EACH];
    UNROLLED (i, EACH)
        if (first + i * THREADS < u.length) states[i] = load(u, row + first + i * THREADS);
    UNROLLED (i, EACH) step(states[i], n);
    UNROLLED (i, EACH)
        if (first + i * THREADS < u.length) store(u, row + first + i * THREADS, states[i]);
}

#ifdef __CUDACC__

extern "C" __global__ void __launch_bounds__(THREADS) update(Update u) {
    slice(u, int(blockIdx.x), int(blockIdx.y), int(threadIdx.x));
}

#else

extern "C" void update(Update u, int blocks, int slices, int) {
    for (int m = 0; m < blocks; ++m)
        for (int s = 0; s < slices; ++s)
            for (int t = 0; t < THREADS; ++t) slice(u, m, s, t);
}

#endif
