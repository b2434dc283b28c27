// One network on one thread: forward, backward and optimizer step by the textbook formulas.
//
//   h_0 = x,  z_j = W_j h_{j-1} + b_j,  h_j = relu(z_j) for j = 1..T,  f = w . h_T + b       (section 5)
//   delta_T = (dl/df) w * [h_T > 0],  delta_{j-1} = (W_j^T delta_j) * [h_{j-1} > 0],  dl/dW_j = delta_j h_{j-1}^T
//
// Rows of units are padded with zeros to whole vectors. Padding stays zero: padded weights and biases start at zero, so
// padded units are zero, so by [h > 0] their deltas are, so their gradients and steps are.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernel.hpp"

namespace native {

enum class Loss { hinge, logistic, squared };

struct Optimizer {
    bool adam;
    double lr, beta1, beta2, eps;
};

struct Shape {
    long d, width, depth;  // depth = T, the number of hidden layers
    bool sum_last;         // the last hidden layer reads h_1 + ... + h_{T-1}

    long inputs(long j) const { return j == 0 ? d : width; }               // of hidden layer j = 0..T-1
    long vectors() const { return (width + L - 1) / L; }                   // of a row of units
    long rows() const { return d + (depth - 1) * width + 1 + depth + 1; }  // W_1^T .. W_T^T, w, b_1 .. b_T, b
    double flops(long batch) const {                                       // of one training step
        const double inner = double(depth - 1) * width * width;
        return 2.0 * batch * (2.0 * d * width + 3 * inner + 3 * width);
    }
    // Floats from row to row: whole vectors, but not a multiple of 512 bytes, where rows would share few cache sets.
    long stride() const {
        const long floats = vectors() * L;
        return floats % 128 ? floats : floats + L;
    }
};

// An array of floats, on cache lines, zero at first.
class Floats {
 public:
    explicit Floats(long n = 0) : lines_((n + 15) / 16) {}
    float* data() { return lines_.empty() ? nullptr : lines_[0].x; }
    operator float*() { return data(); }

 private:
    struct alignas(64) Line {
        float x[16];
    };
    std::vector<Line> lines_;
};

// What a product does with a tile of its result.
struct Affine {  // h = relu(x W^T + b)
    const float* b;
    float* h;
    long ld;
    V start(long col) const { return load(b + col); }
    template <int R, int NV>
    void finish(long row, long col, V (&z)[R][NV]) const {
        float* to = h + row * ld + col;
        UNROLLED (r, R) {
            UNROLLED (v, NV) store(to + v * L, relu(z[r][v]));
            to += ld;
        }
    }
};

struct Delta {  // delta = z * [h > 0], and its sum over the batch, which is the gradient of the bias
    const float* h;
    float *delta, *db;
    long ld;
    V start(long) const { return V{}; }
    template <int R, int NV>
    void finish(long row, long col, V (&z)[R][NV]) const {
        V total[NV];
        UNROLLED (v, NV) total[v] = load(db + col + v * L);
        long at = row * ld + col;
        UNROLLED (r, R) {
            UNROLLED (v, NV) {
                const V x = where_positive(load(h + at + v * L), z[r][v]);
                store(delta + at + v * L, x);
                total[v] += x;
            }
            at += ld;
        }
        UNROLLED (v, NV) store(db + col + v * L, total[v]);
    }
};

struct Plain {  // c = z
    float* c;
    long ld;
    V start(long) const { return V{}; }
    template <int R, int NV>
    void finish(long row, long col, V (&z)[R][NV]) const {
        float* to = c + row * ld + col;
        UNROLLED (r, R) {
            UNROLLED (v, NV) store(to + v * L, z[r][v]);
            to += ld;
        }
    }
};

class Network {
 public:
    // For batches of up to `batch` points; with an optimizer where it is to be trained.
    Network(const Shape& shape, long batch, bool train)
        : s_(shape), ld_(shape.stride()), nv_(shape.vectors()), batch_((batch + L - 1) / L * L), p_(block()),
          f_(batch_), y_(batch_), share_(batch_), g_(batch_), x_(batch_ * shape.d), unlearned_(batch_ + 1) {
        const long units = batch_ * ld_;
        for (long i = 0; i < batch; ++i) share_[i] = 1.0f / batch;
        for (long j = 0; j < shape.depth; ++j) h_.emplace_back(units);
        if (summed()) sum_ = Floats(units), dsum_ = Floats(train ? units : 0);
        if (!train) return;
        m_ = Floats(block()), v_ = Floats(block()), delta_ = Floats(units), next_ = Floats(units);
        db_ = Floats((shape.depth + 1) * ld_);
        const long most = shape.d > shape.width ? shape.d : shape.width;
        grad_ = Floats(most * ld_), transposed_ = Floats(nv_ * L * ld_);
    }

    // Between the flat vectors (the order of model.parameters()) and the padded blocks.
    void read(const float* p, const float* m = nullptr, const float* v = nullptr) {
        each([&](long flat, long at) { p_[at] = p[flat]; });
        if (m) each([&](long flat, long at) { m_[at] = m[flat]; });
        if (v) each([&](long flat, long at) { v_[at] = v[flat]; });
    }
    void write(float* p, float* m, float* v) {
        each([&](long flat, long at) { p[flat] = p_[at]; });
        if (m) each([&](long flat, long at) { m[flat] = m_[at]; });
        if (v) each([&](long flat, long at) { v[flat] = v_[at]; });
    }
    bool finite() {
        bool all = true;
        each([&](long, long at) { all &= std::isfinite(p_[at]); });
        return all;
    }

    // f of n points, x(i, c) = x[i * ra + c * ca]: valid until the next call.
    const float* forward(const float* x, long ra, long ca, long n) {
        product(n, nv_, s_.d, x, ra, ca, weight(0), ld_, Affine{bias(0), h_[0], ld_});
        for (long j = 0; j < s_.depth; ++j) {
            if (j > 0) product(n, nv_, s_.width, units(j), ld_, 1, weight(j), ld_, Affine{bias(j), h_[j], ld_});
            if (summed() && j < s_.depth - 1)
                for (long i = 0; i < n * ld_; i += L)
                    store(sum_ + i, j == 0 ? load(h_[j] + i) : load(sum_ + i) + load(h_[j] + i));
        }
        const float* w = weight(s_.depth);
        for (long i = 0; i < n; i += L) {
            V t[L] = {};
            for (long v = 0; v < nv_; ++v)
                UNROLLED (r, L) t[r] += load(h_.back() + (i + r) * ld_ + v * L) * load(w + v * L);
            store(f_ + i, row_sums(t) + all(*bias(s_.depth)));
        }
        return f_;
    }

    // Step t = 1, 2, ... of the optimizer, on the points index[0..n-1] of x (., d), y (.), n the batch's size. Returns
    // the mean loss before it.
    float step(const float* x, const float* y, const uint32_t* index, long n, Loss loss, const Optimizer& o,
               int64_t t) {
        const long d = s_.d;
        for (long c = 0; c < d; ++c)
            for (long i = 0; i < n; ++i) x_[c * batch_ + i] = x[index[i] * d + c];
        for (long i = 0; i < n; ++i) y_[i] = y[index[i]];
        forward(x_, 1, batch_, n);
        const float mean = losses(loss, n);
        backward(n, rule(o, t));
        return mean;
    }

    // (points with y f > 0, sum of the losses) over n points x (n, d), y (n,), n at most the batch's size.
    std::pair<long, double> test(const float* x, const float* y, long n, Loss loss) {
        long correct = 0;
        forward(x, s_.d, 1, n);
        for (long i = 0; i < batch_; ++i) {
            y_[i] = i < n ? y[i] : 0;
            share_[i] = i < n;
            correct += y_[i] * f_[i] > 0;
        }
        return {correct, losses(loss, n)};
    }

 private:
    // The sum of share * loss of the last forward's f against y. Its derivatives by each f go to g, their sum to slope.
    float losses(Loss loss, long n) {
        V total{}, slope{};
        decltype(slope != 0) slopes{};
        for (long i = 0; i < n; i += L) {
            const V f = load(f_ + i), y = load(y_ + i), share = load(share_ + i);
            V l, g;
            if (loss == Loss::hinge) {  // max(0, 1 - y f)
                const V margin = 1 - y * f;
                l = relu(margin);
                g = where_positive(margin, -y);
            } else if (loss == Loss::squared) {  // (f - y)^2
                l = (f - y) * (f - y);
                g = 2 * (f - y);
            } else {  // log(1 + exp(-y f))
                for (int r = 0; r < L; ++r) {
                    const float yf = y[r] * f[r], e = std::exp(-std::fabs(yf));
                    l[r] = std::log1p(e) + (yf < 0 ? -yf : 0);
                    g[r] = -y[r] * (yf < 0 ? 1 : e) / (1 + e);
                }
            }
            total += share * l;
            slope += share * g;
            slopes -= share * g != 0;
            store(g_ + i, share * g);
        }
        slope_ = sum(slope);
        slopes_ = 0;
        for (int r = 0; r < L; ++r) slopes_ += slopes[r];
        return sum(total);
    }

    struct Rule {  // of one step: p -= rate * m / (root * sqrt(v) + eps), or p -= rate * gradient
        bool adam;
        float rate, root, beta1, rest1, beta2, rest2, eps;
    };
    static Rule rule(const Optimizer& o, int64_t t) {
        if (!o.adam) return {false, float(o.lr), 0, 0, 0, 0, 0, 0};
        // From t alone, in double precision: how a run is cut into chunks must not show. beta^t < exp(-40) is lost
        // in 1.
        const auto rest = [t](double beta) { return t * (1 - beta) > 40 ? 1 : 1 - std::pow(beta, double(t)); };
        const double c1 = rest(o.beta1), c2 = rest(o.beta2);
        return {true,
                float(o.lr / c1),
                float(1 / std::sqrt(c2)),
                float(o.beta1),
                float(1 - o.beta1),
                float(o.beta2),
                float(1 - o.beta2),
                float(o.eps)};
    }

    void update(long at, const float* gradient, long n, const Rule& o) {
        float *p = p_ + at, *m = m_ + at, *v = v_ + at;
        if (!o.adam) {
            for (long i = 0; i < n; i += L) store(p + i, load(p + i) - o.rate * load(gradient + i));
            return;
        }
        for (long i = 0; i < n; i += L) {
            const V g = load(gradient + i);
            const V mi = o.beta1 * load(m + i) + o.rest1 * g;
            const V vi = o.beta2 * load(v + i) + o.rest2 * g * g;
            store(m + i, mi);
            store(v + i, vi);
            store(p + i, load(p + i) - o.rate * adam_direction(mi, vi, o.root, o.eps));
        }
    }

    void backward(long n, const Rule& o) {
        const long T = s_.depth;
        std::memset(db_, 0, T * ld_ * sizeof(float));
        db_[T * ld_] = slope_;
        product(n, nv_, 1, g_, 1, 0, weight(T), ld_, Delta{h_[T - 1], delta_, db_ + (T - 1) * ld_, ld_});
        product(1, nv_, n, g_, 0, 1, h_[T - 1], ld_, Plain{grad_, ld_});
        update(weight(T) - p_, grad_, ld_, o);
        const long m = gather(n);
        for (long j = T - 1; j > 0; --j) {  // from delta_ of layer j to next_ of the layer below, then the step of W
            const Delta below{h_[j - 1], next_, db_ + (j - 1) * ld_, ld_};
            transpose(weight(j), transposed_, nv_, ld_);
            if (!summed()) {
                product(m, nv_, s_.width, delta_, ld_, 1, transposed_, ld_, below);
            } else if (j == T - 1) {  // dl / d(h_1 + ... + h_{T-1}), which every lower layer receives
                product(m, nv_, s_.width, delta_, ld_, 1, transposed_, ld_, Plain{dsum_, ld_});
                receive(m, nullptr, below);
            } else {
                product(m, nv_, s_.width, delta_, ld_, 1, transposed_, ld_, Plain{next_, ld_});
                receive(m, next_, below);
            }
            product(s_.width, nv_, m, units(j), 1, ld_, delta_, ld_, Plain{grad_, ld_});
            update(weight(j) - p_, grad_, s_.width * ld_, o);
            std::swap(delta_, next_);
        }
        scatter(m, n);
        product(s_.d, nv_, n, x_, batch_, 1, delta_, ld_, Plain{grad_, ld_});
        update(0, grad_, s_.d * ld_, o);
        update(bias(0) - p_, db_, (T + 1) * ld_, o);
    }

    // Leaves the points whose loss has no slope, with the hinge those that are learned, out of the backward pass: moves
    // the rows of the others up, in their order, and returns how many there are. Sums over the batch lose only zeros,
    // so the bits stay; that is why the first FEWEST rows do too, and why the first and the last layer, which sum in
    // parts, have all n.
    long gather(long n) {
        if (s_.depth == 1 || s_.width < FEWEST) return n;
        if (slopes_ * (s_.width + 8) > n * s_.width) return n;  // not worth the moves
        long m = 0;
        for (long i = 0; i < n; ++i) {
            unlearned_[m] = i;
            m += i < FEWEST || g_[i] != 0;
        }
        const auto move = [&](float* rows) {
            for (long k = 0; k < m; ++k) copy(rows + unlearned_[k] * ld_, rows + k * ld_);
        };
        move(delta_);
        for (long j = 0; j < s_.depth - 1; ++j) move(h_[j]);
        if (summed()) move(sum_);
        return m;
    }

    // Moves the m rows of delta_ back to their places among n, with zeros between.
    void scatter(long m, long n) {
        if (m == n) return;
        std::memset(next_, 0, n * ld_ * sizeof(float));
        for (long k = 0; k < m; ++k) copy(delta_ + k * ld_, next_ + unlearned_[k] * ld_);
        std::swap(delta_, next_);
    }

    void copy(const float* from, float* to) {
        for (long v = 0; v < nv_; ++v) store(to + v * L, load(from + v * L));
    }

    // delta = (dsum + z) * [h > 0] in the variant with a sum; z may be null.
    void receive(long n, const float* z, const Delta& below) {
        for (long i = 0; i < n; ++i)
            for (long c = 0; c < nv_ * L; c += L) {
                V row[1][1] = {{load(dsum_ + i * ld_ + c) + (z ? load(z + i * ld_ + c) : V{})}};
                below.finish(i, c, row);
            }
    }

    bool summed() const { return s_.sum_last && s_.depth > 2; }
    long block() const { return (s_.rows() + L) * ld_; }  // the transposition reads up to L rows past a matrix
    float* weight(long j) { return p_ + (j == 0 ? 0 : s_.d + (j - 1) * s_.width) * ld_; }  // j = T: the readout's
    float* bias(long j) { return weight(s_.depth) + (1 + j) * ld_; }
    float* units(long j) { return summed() && j == s_.depth - 1 ? sum_ : h_[j - 1]; }  // what hidden layer j > 0 reads

    template <class F>
    void each(F f) {
        long flat = 0;
        for (long j = 0; j < s_.depth; ++j) {
            const long w = weight(j) - p_, b = bias(j) - p_;
            for (long o = 0; o < s_.width; ++o)
                for (long i = 0; i < s_.inputs(j); ++i) f(flat++, w + i * ld_ + o);
            for (long o = 0; o < s_.width; ++o) f(flat++, b + o);
        }
        for (long i = 0; i < s_.width; ++i) f(flat++, weight(s_.depth) - p_ + i);
        f(flat, bias(s_.depth) - p_);
    }

    const Shape s_;
    const long ld_, nv_, batch_;
    Floats p_, m_, v_, grad_, db_, transposed_;  // (rows, ld)
    Floats f_, y_, share_, g_, x_;               // (batch) and (d, batch)
    float slope_ = 0;
    long slopes_ = 0;
    std::vector<long> unlearned_;       // the points that take part in the backward pass, where not all do
    std::vector<Floats> h_;             // T of (batch, ld)
    Floats sum_, dsum_, delta_, next_;  // (batch, ld)
};

}  // namespace native
