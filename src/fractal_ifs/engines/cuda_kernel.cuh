// Engine ``cuda``: a block of threads trains one network for many steps, in the shared memory of a multiprocessor.
//
// The formulas are those of src/native/network.hpp and engines/steps.py. engines/cuda_kernel.py puts the constants of a
// shape and the layout of shared memory before this text; then it is compiled by NVRTC for a GPU, or by a C++ compiler
// for the tests, where one thread does the work of all of a block's.
//
// So a step is a row of phases. A phase is a function of (number of the thread, what this thread keeps in registers,
// shared memory), and a barrier follows it. Within a phase no thread reads what another writes: so its threads may run
// in any order, one by one too, and the bits are the same. No sum's order depends on that either.
//
// In shared memory, all float32. Units and rows are padded with zeros to multiples of 4, and stay zero: padded weights
// begin at zero, so padded units are relu(0) = 0, so their deltas, gradients and steps are.
//   WEIGHTS   W_1 .. W_T as rows of a layer's inputs, then a row with its biases; the readout's weights, then its bias
//   HIDDEN    h_1 .. h_T, a row of points per unit; in the backward pass each h_j becomes delta_j
//   SUM       with sum_last: h_1 + ... + h_{T-1}, then the derivative by it
//   POINTS_X, POINTS_Y, SLOPES, LOSSES   of the batch: x as a row per coordinate, y, dl/df, l
//   PARTS, TOP_PARTS   partial sums over the batch of a layer's gradient, and of the readout's
//   FEW       partial sums of the loss, or of the gradient's squares
// The moments, and an average of the weights, are in registers: each belongs to one thread.

#ifdef __CUDACC__
// DEVICE is a function of the kernel; UNROLLED (i, n) a loop over i = 0..n-1 whose arrays become registers.
#define DEVICE __device__ __forceinline__
#define UNROLLED(i, n) _Pragma("unroll") for (int i = 0; i < (n); ++i)
#define BY_FOUR _Pragma("unroll 4")
#define ROLLED _Pragma("unroll 1")
#else
#include <cmath>
#define DEVICE inline
#define UNROLLED(i, n) for (int i = 0; i < (n); ++i)
#define BY_FOUR
#define ROLLED
struct alignas(16) float4 {
    float x, y, z, w;
};
#endif

// A network in training: what engines/cuda.py fills in, field by field.
struct Job {
    float *params, *exp_avg, *exp_avg_sq, *average;  // (P,) in the order of model.parameters()
    const float *x, *y;                              // (n, d), (n,)
    const int* order;                                // of the points in this epoch
    const float4* numbers;  // per step: Adam's 1 / (1 - beta1^t) times the schedule's factor, or that alone;
                            // 1 / sqrt(1 - beta2^t); the schedule's factor; the share of the weights in their average
    double* total;          // the sum of the batches' mean losses
    int at, steps;          // steps of this epoch that are done; steps to do
    float lr, beta1, rest1, beta2, rest2, eps, direct, through, l2, decoupled, clip;
};

// A network to be measured.
struct Test {
    const float* params;
    const float *x, *y;  // (n, d), (n,)
    double* found;       // per slice of the points: how many have y f > 0, and the sum of their losses
    int n;
};

// What a thread keeps between phases.
struct Own {
    float exp_avg[DEPTH + 1][EACH], exp_avg_sq[DEPTH + 1][EACH], average[DEPTH + 1][EACH];
    float gradient[CLIPS ? DEPTH + 1 : 1][EACH];
    float x[INPUTS], y;  // a point of the next batch
    double loss, correct;
};

DEVICE float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
DEVICE void store4(float* p, const float* x) { *reinterpret_cast<float4*>(p) = float4{x[0], x[1], x[2], x[3]}; }
DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// max(x, 0), but NaN stays NaN: a network that has diverged must show it.
DEVICE float relu(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
    return y;
#else
    return x < 0 ? 0 : x;
#endif
}
DEVICE float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fdividef(a, b);
#else
    return a / b;
#endif
}

// The shape of layer j = 0..T-1, and j = T, the readout.
DEVICE constexpr int inputs(int j) { return j == 0 ? INPUTS : WIDTH; }
DEVICE constexpr int rows(int j) { return j == 0 ? INPUTS : j == DEPTH ? WIDTH : UNITS; }  // before that of the biases
DEVICE constexpr int columns(int j) { return j == DEPTH ? 1 : UNITS; }
DEVICE constexpr int row_length(int j) { return j == DEPTH ? 1 : WEIGHT_ROW; }
DEVICE constexpr int weights(int j) {  // where they begin
    return WEIGHTS + (j == 0 ? 0 : (INPUTS + 1 + (j - 1) * (UNITS + 1)) * WEIGHT_ROW);
}
DEVICE constexpr int parts(int j) { return j == DEPTH ? TOP_SPLIT : j == 0 ? FIRST_SPLIT : SPLIT; }
constexpr bool SUMS = SUM_LAST && DEPTH > 2;
constexpr int QUADS = POINTS / 4;  // of points, in a row

// Calls visit(q, place in the weights, row, column) for the parameters of layer j that belong to thread t.
template <class Visit>
DEVICE void each_of(int j, int t, Visit visit) {
    const int n = (rows(j) + 1) * columns(j);
    UNROLLED (q, (n + THREADS - 1) / THREADS) {
        const int e = t + q * THREADS;
        if (e < n) {
            const int row = e / columns(j), column = e % columns(j);
            visit(q, weights(j) + row * row_length(j) + column, row, column);
        }
    }
}

// The same of all layers without padding: visit(layer, q, place in the weights, place in the flat vector).
template <class Visit>
DEVICE void each_parameter(int t, Visit visit) {
    UNROLLED (j, DEPTH + 1) {
        const int begin = j == 0 ? 0 : INPUTS * WIDTH + WIDTH + (j - 1) * (WIDTH * WIDTH + WIDTH);
        const int units = j == DEPTH ? 1 : WIDTH;
        each_of(j, t, [&](int q, int at, int row, int column) {
            if (column >= units) return;
            if (row < inputs(j)) visit(j, q, at, begin + column * inputs(j) + row);
            if (row == rows(j)) visit(j, q, at, begin + units * inputs(j) + column);
        });
    }
}

// The points of a tile of a product are TILE_POINTS quads, its units TILE_UNITS quads, both spread evenly, so that
// neighbouring threads read and write neighbouring quads. The last threads' quads may be past the end: then they
// compute another's once more, and finish leaves it out.
constexpr int QUADS_APART = (QUADS + TILE_POINTS - 1) / TILE_POINTS, UNIT_QUADS = UNITS / 4;
constexpr int UNITS_APART = (UNIT_QUADS + TILE_UNITS - 1) / TILE_UNITS, TILES = QUADS_APART * UNITS_APART;

struct Tile {
    int quad[TILE_POINTS], unit[TILE_UNITS];
    float at[4 * TILE_UNITS][4 * TILE_POINTS];

    DEVICE explicit Tile(int i) {
        UNROLLED (p, TILE_POINTS) quad[p] = smaller(i % QUADS_APART + p * QUADS_APART, QUADS - 1);
        UNROLLED (u, TILE_UNITS) unit[u] = 4 * smaller(i / QUADS_APART + u * UNITS_APART, UNIT_QUADS - 1);
    }

    // z = b + W h, from the rows of W and of h, both of `n` inputs.
    DEVICE void forward(const float* w, const float* bias, const float* h, int n) {
        UNROLLED (u, TILE_UNITS) {
            const float4 b = load4(bias + unit[u]);
            UNROLLED (p, 4 * TILE_POINTS)
                at[4 * u][p] = b.x, at[4 * u + 1][p] = b.y, at[4 * u + 2][p] = b.z, at[4 * u + 3][p] = b.w;
        }
        BY_FOUR
        for (int k = 0; k < n; ++k) {
            float4 of_w[TILE_UNITS], of_h[TILE_POINTS];
            UNROLLED (u, TILE_UNITS) of_w[u] = load4(w + k * WEIGHT_ROW + unit[u]);
            UNROLLED (p, TILE_POINTS) of_h[p] = load4(h + k * POINT_ROW + 4 * quad[p]);
            UNROLLED (u, TILE_UNITS)
                UNROLLED (p, TILE_POINTS) {
                    add(4 * u, 4 * p, of_w[u].x, of_h[p]);
                    add(4 * u + 1, 4 * p, of_w[u].y, of_h[p]);
                    add(4 * u + 2, 4 * p, of_w[u].z, of_h[p]);
                    add(4 * u + 3, 4 * p, of_w[u].w, of_h[p]);
                }
        }
    }

    // z = W^T delta. W is read by rows too, four numbers of each at a time: no transposed copy of it is needed.
    DEVICE void backward(const float* w, const float* delta) {
        UNROLLED (u, 4 * TILE_UNITS)
            UNROLLED (p, 4 * TILE_POINTS) at[u][p] = 0;
        for (int k = 0; k < UNITS; k += 4) {
            float4 of_w[4 * TILE_UNITS];
            UNROLLED (u, 4 * TILE_UNITS) of_w[u] = load4(w + (unit[u / 4] + u % 4) * WEIGHT_ROW + k);
            UNROLLED (r, 4) {
                float4 of_d[TILE_POINTS];
                UNROLLED (p, TILE_POINTS) of_d[p] = load4(delta + (k + r) * POINT_ROW + 4 * quad[p]);
                UNROLLED (u, 4 * TILE_UNITS)
                    UNROLLED (p, TILE_POINTS)
                        add(u, 4 * p,
                            r == 0   ? of_w[u].x
                            : r == 1 ? of_w[u].y
                            : r == 2 ? of_w[u].z
                                     : of_w[u].w,
                            of_d[p]);
            }
        }
    }

    // Calls use(place in a matrix of units, four numbers of the tile) for each quad that is this tile's own.
    template <class Use>
    DEVICE void finish(int i, Use use) {
        UNROLLED (u, 4 * TILE_UNITS)
            UNROLLED (p, TILE_POINTS)
                if (i % QUADS_APART + p * QUADS_APART < QUADS && i / QUADS_APART + u / 4 * UNITS_APART < UNIT_QUADS)
                    use((unit[u / 4] + u % 4) * POINT_ROW + 4 * quad[p], at[u] + 4 * p);
    }

 private:
    DEVICE void add(int u, int p, float w, float4 x) {
        at[u][p] += w * x.x, at[u][p + 1] += w * x.y, at[u][p + 2] += w * x.z, at[u][p + 3] += w * x.w;
    }
};

// Partial sums, over part s of the batch, of the gradient of layer j: h of its inputs (rows(j) of them) and delta.
// A tile has 4 TILE_ROWS inputs and 4 units, both spread evenly. Those of the first inputs sum the biases' up too.
DEVICE void partial_gradient(int j, int t, const float* h, const float* delta, float* to) {
    constexpr int HEIGHT = 4 * TILE_ROWS;
    const int down = (rows(j) + HEIGHT - 1) / HEIGHT, tiles = down * UNIT_QUADS;
    for (int i = t; i < tiles * parts(j); i += THREADS) {
        const int s = i / tiles, a = i % tiles / UNIT_QUADS, b = i % UNIT_QUADS;
        float sums[HEIGHT][4] = {}, bias[4] = {};
        for (int q = QUADS * s / parts(j); q < QUADS * (s + 1) / parts(j); ++q) {
            float4 d[4];
            UNROLLED (c, 4) d[c] = load4(delta + (b + c * UNIT_QUADS) * POINT_ROW + 4 * q);
            UNROLLED (r, HEIGHT) {
                const float4 x = load4(h + smaller(a + r * down, rows(j) - 1) * POINT_ROW + 4 * q);
                UNROLLED (c, 4)
                    sums[r][c] += x.x * d[c].x, sums[r][c] += x.y * d[c].y, sums[r][c] += x.z * d[c].z,
                        sums[r][c] += x.w * d[c].w;
            }
            if (a == 0)
                UNROLLED (c, 4) bias[c] += (d[c].x + d[c].y) + (d[c].z + d[c].w);
        }
        float* part = to + s * (rows(j) + 1) * WEIGHT_ROW;
        UNROLLED (c, 4) {
            const int column = b + c * UNIT_QUADS;
            UNROLLED (r, HEIGHT)
                if (a + r * down < rows(j)) part[(a + r * down) * WEIGHT_ROW + column] = sums[r][c];
            if (a == 0) part[rows(j) * WEIGHT_ROW + column] = bias[c];
        }
    }
}

// The loss of an output f and its derivative by f.
DEVICE float loss_of(float f, float y, float& slope) {
    if (LOSS == SQUARED) {
        slope = 2 * (f - y);
        return (f - y) * (f - y);
    }
    const float yf = y * f, below = 1 - yf;
    if (LOSS == HINGE) {
        slope = below > 0 ? -y : 0;
        return relu(below);
    }
    if (LOSS == SQUARED_HINGE) {
        slope = -2 * y * relu(below);
        return relu(below) * relu(below);
    }
    if (LOSS == EXPONENTIAL) {
        const float e = expf(-yf);
        slope = -y * e;
        return e;
    }
    const float e = expf(yf < 0 ? yf : -yf);  // logistic, without overflow: exp of nothing positive
    slope = -y * (yf < 0 ? 1 : e) / (1 + e);
    return log1pf(e) + (yf < 0 ? -yf : 0);
}

// A network in the shared memory `sm` of the block whose threads are `threads`: threads.phase(f) calls f(t, own) for
// each of them, and waits for all; threads.apart(f) doesn't wait, and f leaves shared memory alone.
template <class Threads>
struct Network {
    Threads& threads;
    float* sm;

    DEVICE float* hidden(int j) const { return sm + HIDDEN + j * UNITS * POINT_ROW; }  // h_{j+1}
    DEVICE float* input(int j) const {
        return j == 0 ? sm + POINTS_X : SUMS && j == DEPTH - 1 ? sm + SUM : hidden(j - 1);
    }

    DEVICE void clear() const {
        threads.phase([&](int t, Own&) {
            for (int i = t; i < FLOATS; i += THREADS) sm[i] = 0;
        });
    }

    DEVICE void forward(int j) const {
        const float* w = sm + weights(j);
        threads.phase([&](int t, Own&) {
            for (int i = t; i < TILES; i += THREADS) {
                Tile z(i);
                z.forward(w, w + rows(j) * WEIGHT_ROW, input(j), inputs(j));
                z.finish(i, [&](int at, float* x) {
                    UNROLLED (p, 4) x[p] = relu(x[p]);
                    store4(hidden(j) + at, x);
                    if (!SUMS || j == DEPTH - 1) return;
                    if (j > 0)
                        UNROLLED (p, 4) x[p] += sm[SUM + at + p];
                    store4(sm + SUM + at, x);
                });
            }
        });
    }

    DEVICE void forward() const {
        forward(0);
        ROLLED
        for (int j = 1; j < DEPTH; ++j) forward(j);
    }

    // f of point t of the batch.
    DEVICE float output(int t) const {
        const float *w = sm + weights(DEPTH), *h = hidden(DEPTH - 1) + t;
        float f[4] = {w[WIDTH]};
        UNROLLED (u, WIDTH) f[u % 4] += w[u] * h[u * POINT_ROW];
        return (f[0] + f[1]) + (f[2] + f[3]);
    }

    // The share of each point in the batch's loss, whose derivative goes to SLOPES.
    DEVICE void slopes() const {
        threads.phase([&](int t, Own&) {
            if (t >= POINTS) return;
            float slope;
            const float loss = loss_of(output(t), sm[POINTS_Y + t], slope), share = 1.0f / BATCH;
            sm[LOSSES + t] = t < BATCH ? share * loss : 0;
            sm[SLOPES + t] = t < BATCH ? share * slope : 0;
        });
    }

    // The readout's partial gradients, and delta_T in place of h_T.
    DEVICE void top() const {
        threads.phase([&](int t, Own&) {
            for (int i = t; i < (WIDTH + 1) * TOP_SPLIT; i += THREADS) {
                const int u = i % (WIDTH + 1), s = i / (WIDTH + 1);
                const float w = sm[weights(DEPTH) + u];
                float sum = 0, *row = hidden(DEPTH - 1) + u * POINT_ROW;
                for (int q = QUADS * s / TOP_SPLIT; q < QUADS * (s + 1) / TOP_SPLIT; ++q) {
                    const float4 g = load4(sm + SLOPES + 4 * q);
                    if (u == WIDTH) {
                        sum += (g.x + g.y) + (g.z + g.w);
                        continue;
                    }
                    const float4 h = load4(row + 4 * q);
                    sum += (h.x * g.x + h.y * g.y) + (h.z * g.z + h.w * g.w);
                    const float delta[4] = {h.x > 0 ? w * g.x : 0, h.y > 0 ? w * g.y : 0, h.z > 0 ? w * g.z : 0,
                                            h.w > 0 ? w * g.w : 0};
                    store4(row + 4 * q, delta);
                }
                sm[TOP_PARTS + i] = sum;
            }
            if (t >= THREADS - 8) {  // the first step of the loss's sum
                const int i = THREADS - 1 - t;
                float sum = 0;
                for (int p = POINTS * i / 8; p < POINTS * (i + 1) / 8; ++p) sum += sm[LOSSES + p];
                sm[FEW + i] = sum;
            }
        });
    }

    // delta_{j-1} in place of h_{j-1}, from delta_j.
    DEVICE void below(int j, int t) const {
        for (int i = t; i < TILES; i += THREADS) {
            Tile z(i);
            z.backward(sm + weights(j), hidden(j));
            z.finish(i, [&](int at, float* x) {
                if (SUMS && j == DEPTH - 1) store4(sm + SUM + at, x);  // which every lower layer receives
                if (SUMS && j < DEPTH - 1)
                    UNROLLED (p, 4) x[p] += sm[SUM + at + p];
                float* h = hidden(j - 1) + at;
                const float4 was = load4(h);
                const float delta[4] = {was.x > 0 ? x[0] : 0, was.y > 0 ? x[1] : 0, was.z > 0 ? x[2] : 0,
                                        was.w > 0 ? x[3] : 0};
                store4(h, delta);
            });
        }
    }

    // The gradient of thread t's parameters of layer j, from its partial sums.
    DEVICE void gather(int j, int t, Own& own) const {
        each_of(j, t, [&](int q, int, int row, int column) {
            const float* part = sm + (j == DEPTH ? TOP_PARTS : PARTS) + row * row_length(j) + column;
            float sum = 0;
            UNROLLED (s, parts(j)) sum += part[s * (rows(j) + 1) * row_length(j)];
            own.gradient[CLIPS ? j : 0][q] = sum;
        });
    }

    // The optimizer's step of thread t's parameters of layer j. The numbers are read once: nothing is known to leave
    // them.
    DEVICE void update(int j, int t, Own& own, const Job& job, float4 now, float scale = 1) const {
        const float rate = job.lr * now.x, keep = 1 - job.decoupled * now.z, l2 = job.l2, eps = job.eps;
        const float beta1 = job.beta1, rest1 = job.rest1, beta2 = job.beta2, rest2 = job.rest2;
        const float direct = job.direct, through = job.through;
        each_of(j, t, [&](int q, int at, int, int) {
            float p = sm[at], g = own.gradient[CLIPS ? j : 0][q];
            if (CLIPS) g *= scale;
            g += l2 * p;
            float step = g, &m = own.exp_avg[j][q], &v = own.exp_avg_sq[j][q];
            if (MOMENTS == 2) {
                m = beta1 * m + rest1 * g;
                v = beta2 * v + rest2 * g * g;
                step = quotient(m, sqrtf(v) * now.y + eps);
            } else if (MOMENTS == 1) {
                m = beta1 * m + g;
                step = direct * g + through * m;
            }
            p = keep * p - rate * step;
            sm[at] = p;
            if (AVERAGES) own.average[j][q] = (1 - now.w) * own.average[j][q] + now.w * p;
        });
    }

    // The steps of all layers, from the whole gradient, whose norm is at most job.clip then.
    DEVICE void update_clipped(const Job& job, float4 now) const {
        threads.phase([&](int t, Own& own) {
            float sum = 0;
            UNROLLED (j, DEPTH + 1)
                each_of(j, t, [&](int q, int, int, int) {
                    sum += own.gradient[CLIPS ? j : 0][q] * own.gradient[CLIPS ? j : 0][q];
                });
            sm[PARTS + t] = sum;
        });
        threads.phase([&](int t, Own&) {
            if (t >= 32) return;
            float sum = 0;
            for (int i = t; i < THREADS; i += 32) sum += sm[PARTS + i];
            sm[FEW + t] = sum;
        });
        threads.phase([&](int t, Own& own) {
            float sum = 0;
            for (int i = 0; i < 32; ++i) sum += sm[FEW + i];
            const float most = job.clip / (sqrtf(sum) + 1e-6f), scale = most < 1 ? most : 1;
            UNROLLED (j, DEPTH + 1) update(j, t, own, job, now, scale);
        });
    }

    // Thread t takes its point of step `step` from the device's memory.
    DEVICE void fetch(int t, Own& own, const Job& job, int step) const {
        if (t >= BATCH) return;
        const long i = job.order[long(job.at + step) * BATCH + t];
        UNROLLED (c, INPUTS) own.x[c] = job.x[i * INPUTS + c];
        own.y = job.y[i];
    }
    DEVICE void place(int t, const Own& own) const {
        if (t >= BATCH) return;
        UNROLLED (c, INPUTS) sm[POINTS_X + c * POINT_ROW + t] = own.x[c];
        sm[POINTS_Y + t] = own.y;
    }

    DEVICE void step(const Job& job, int step) const {
        const float4 now = job.numbers[step];
        threads.apart([&](int t, Own& own) {  // memory is slow: what is asked for here is there at the end of the step
            if (step + 1 < job.steps) fetch(t, own, job, step + 1);
        });
        forward();
        slopes();
        top();
        UNROLLED (up, DEPTH) {
            const int j = DEPTH - 1 - up;
            threads.phase([&](int t, Own& own) {
                if (CLIPS && j == DEPTH - 1) gather(DEPTH, t, own);
                if (!CLIPS) {  // nothing needs the weights above any more
                    if (j == DEPTH - 1) gather(DEPTH, t, own);
                    update(j + 1, t, own, job, now);
                }
                if (j == DEPTH - 1 && t == THREADS - 1) {
                    float sum = 0;
                    for (int i = 0; i < 8; ++i) sum += sm[FEW + i];
                    own.loss += double(sum);
                }
                partial_gradient(j, t, input(j), hidden(j), sm + PARTS);
            });
            threads.phase([&](int t, Own& own) {
                gather(j, t, own);
                if (j > 0) return below(j, t);
                if (!CLIPS) update(0, t, own, job, now);
                place(t, own);
            });
        }
        if (CLIPS) update_clipped(job, now);
    }

    DEVICE void train(const Job& job) const {
        if (job.steps == 0) return;  // others of its launch have more to do
        clear();
        threads.phase([&](int t, Own& own) {
            own.loss = *job.total;
            each_parameter(t, [&](int, int, int at, int flat) { sm[at] = job.params[flat]; });
            UNROLLED (j, DEPTH + 1)
                UNROLLED (q, EACH) own.exp_avg[j][q] = own.exp_avg_sq[j][q] = own.average[j][q] = 0;
            each_parameter(t, [&](int j, int q, int, int flat) {
                if (MOMENTS > 0) own.exp_avg[j][q] = job.exp_avg[flat];
                if (MOMENTS > 1) own.exp_avg_sq[j][q] = job.exp_avg_sq[flat];
                if (AVERAGES) own.average[j][q] = job.average[flat];
            });
            fetch(t, own, job, 0);
            place(t, own);
        });
        ROLLED
        for (int s = 0; s < job.steps; ++s) step(job, s);
        threads.phase([&](int t, Own& own) {
            float zero = 0;  // NaN if a parameter isn't finite
            each_parameter(t, [&](int j, int q, int at, int flat) {
                zero += 0 * sm[at];
                job.params[flat] = sm[at];
                if (MOMENTS > 0) job.exp_avg[flat] = own.exp_avg[j][q];
                if (MOMENTS > 1) job.exp_avg_sq[flat] = own.exp_avg_sq[j][q];
                if (AVERAGES) job.average[flat] = own.average[j][q];
            });
            sm[PARTS + t] = zero;
        });
        threads.phase([&](int t, Own& own) {
            if (t != THREADS - 1) return;
            for (int i = 0; i < THREADS; ++i)
                own.loss += double(sm[PARTS + i]);  // dead units can hide it from the loss
            *job.total = own.loss;
        });
    }

    // Measures the network on slice `slice` of the points.
    DEVICE void measure(const Test& test, int slice) const {
        clear();
        threads.phase([&](int t, Own& own) {
            own.loss = own.correct = 0;
            each_parameter(t, [&](int, int, int at, int flat) { sm[at] = test.params[flat]; });
        });
        const int begin = slice * SLICE, end = smaller(begin + SLICE, test.n);
        ROLLED
        for (int first = begin; first < end; first += POINTS) {
            threads.phase([&](int t, Own& own) {
                if (t >= POINTS || first + t >= end) return;
                const long i = first + t;
                UNROLLED (c, INPUTS) sm[POINTS_X + c * POINT_ROW + t] = test.x[i * INPUTS + c];
                own.y = test.y[i];
            });
            forward();
            threads.phase([&](int t, Own& own) {
                if (t >= POINTS || first + t >= end) return;
                float slope;
                const float f = output(t);
                own.correct += own.y * f > 0;
                own.loss += double(loss_of(f, own.y, slope));
            });
        }
        threads.phase([&](int t, Own& own) {
            if (t < POINTS) sm[LOSSES + t] = float(own.correct), sm[SLOPES + t] = float(own.loss);
        });
        threads.phase([&](int t, Own&) {
            if (t > 1) return;
            double sum = 0;
            for (int p = 0; p < POINTS; ++p) sum += double(sm[(t == 0 ? LOSSES : SLOPES) + p]);
            test.found[2 * slice + t] = sum;
        });
    }
};

#ifdef __CUDACC__

struct Threads {
    Own own;
    template <class Phase>
    DEVICE void apart(Phase f) {
        f(int(threadIdx.x), own);
    }
    template <class Phase>
    DEVICE void phase(Phase f) {
        apart(f);
        __syncthreads();
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) train(const Job* jobs) {
    extern __shared__ float4 memory[];
    Threads threads;
    Network<Threads>{threads, reinterpret_cast<float*>(memory)}.train(jobs[blockIdx.x]);
}

extern "C" __global__ void __launch_bounds__(THREADS) measure(const Test* tests) {
    extern __shared__ float4 memory[];
    Threads threads;
    Network<Threads>{threads, reinterpret_cast<float*>(memory)}.measure(tests[blockIdx.x], int(blockIdx.y));
}

#else

// The threads of a block, one after the other, in the order 0, 1, ..., or reversed, or another one in each phase.
// Shared memory and registers are NaN at first, as good as what a GPU's hold.
struct Threads {
    Own* own;
    int order;
    unsigned turn = 1;
    template <class Phase>
    void apart(Phase f) {
        phase(f);
    }
    template <class Phase>
    void phase(Phase f) {
        turn = turn * 1664525u + 1013904223u;
        for (int i = 0; i < THREADS; ++i) {
            const int last = THREADS - 1, t = order == 0   ? i
                                              : order == 1 ? last - i
                                                           : (i * 17 + int(turn >> 8)) % THREADS;
            f(t, own[t]);
        }
    }
};
static_assert(THREADS % 17 != 0, "else not all threads would have a turn");

template <class Work>
void block(int order, Work work) {
    Own* own = static_cast<Own*>(operator new(sizeof(Own) * THREADS));
    float4* memory = new float4[FLOATS / 4];
    float* sm = reinterpret_cast<float*>(memory);
    for (int i = 0; i < FLOATS; ++i) sm[i] = NAN;
    float* registers = reinterpret_cast<float*>(own);
    for (unsigned i = 0; i < sizeof(Own) * THREADS / 4; ++i) registers[i] = NAN;
    Threads threads{own, order};
    work(Network<Threads>{threads, sm});
    delete[] memory;
    operator delete(own);
}

extern "C" void train(const Job* jobs, int blocks, int, int order) {
    for (int i = 0; i < blocks; ++i) block(order, [&](const Network<Threads>& network) { network.train(jobs[i]); });
}

extern "C" void measure(const Test* tests, int blocks, int slices, int order) {
    for (int i = 0; i < blocks; ++i)
        for (int s = 0; s < slices; ++s)
            block(order, [&](const Network<Threads>& network) { network.measure(tests[i], s); });
}

#endif
