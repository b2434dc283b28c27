// One network on one thread: forward, backward and optimizer step by the textbook formulas.
//
// Network, of depth T, for one point x (section 5); * is by element, [.] is 1 where true and 0 elsewhere:
//   h_0 = x,  z_j = W_j h_{j-1} + b_j,  h_j = relu(z_j) for j = 1..T,  f = w . h_T + b
//   with sum_last the last hidden layer reads a sum: z_T = W_T (h_1 + ... + h_{T-1}) + b_T
// Loss l(f, y) of one point, and the loss of a batch is the mean over its points:
//   hinge          max(0, 1 - y f)     dl/df = -y [y f < 1]
//   squared hinge  max(0, 1 - y f)^2   dl/df = -2 y max(0, 1 - y f)
//   logistic       log(1 + exp(-y f))  dl/df = -y / (1 + exp(y f))
//   exponential    exp(-y f)           dl/df = -y exp(-y f)
//   squared        (f - y)^2           dl/df = 2 (f - y)
// Gradients:
//   dl/dw = (dl/df) h_T,  dl/db = dl/df
//   delta_T = (dl/df) w * [h_T > 0]
//   delta_{j-1} = (W_j^T delta_j) * [h_{j-1} > 0]
//   dl/dW_j = delta_j h_{j-1}^T,  dl/db_j = delta_j
//   with sum_last: delta_j = (W_{j+1}^T delta_{j+1} + W_T^T delta_T) * [h_j > 0] for j < T - 1,
//                  dl/dW_T = delta_T (h_1 + ... + h_{T-1})^T
// Optimizer step t = 1, 2, ... of a parameter p with gradient g:
//   clip     g *= min(1, clip / (|g| + 1e-6)),  |g| over all parameters
//   decay    g += weight_decay p,  but AdamW  p *= 1 - lr weight_decay
//   SGD      p -= lr g,  or with momentum  m = momentum m + g,  p -= lr m,  Nesterov's  p -= lr (g + momentum m)
//   Adam     m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//            p -= lr m' / (sqrt(v') + eps)  with  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t)
//   average  a = (1 - w) a + w p,  with a share w of each step
//
// Rows of units are padded with zeros to whole vectors. Padding stays zero: padded weights and biases start at zero, so
// padded units are zero, so by [h > 0] their deltas are, so their gradients and steps are.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernel.hpp"

namespace native {

enum class Loss { Hinge, Logistic, Squared, SquaredHinge, Exponential };
enum class Optimizer { Adam, AdamW, Sgd };

struct OptimizerSettings {
    Optimizer optimizer;
    double lr, beta1, beta2, eps;  // all but lr of Adam and AdamW alone
    double momentum = 0;           // of SGD alone
    bool nesterov = false;
    double weight_decay = 0;
    double clip = 0;  // 0: gradients of any norm
    bool averages = false;

    // Whether a step is that of the formulas of Adam or SGD and nothing more.
    bool plain() const {
        return optimizer != Optimizer::AdamW && momentum == 0 && weight_decay == 0 && clip == 0 && !averages;
    }
};

struct Shape {
    Index d, width, depth;  // depth = T, the number of hidden layers
    bool sum_last;          // the last hidden layer reads h_1 + ... + h_{T-1}

    Index inputs(Index j) const { return j == 0 ? d : width; }              // of hidden layer j = 0..T-1
    Index vectors() const { return (width + LANES - 1) / LANES; }           // of a row of units
    Index rows() const { return d + (depth - 1) * width + 1 + depth + 1; }  // W_1^T .. W_T^T, w, b_1 .. b_T, b
    Index parameters() const { return d * width + width + (depth - 1) * (width * width + width) + width + 1; }
    double flops(double batch) const {  // of one training step
        const double k = double(width), inner = double(depth - 1) * k * k;
        return 2.0 * batch * (2.0 * double(d) * k + 3 * inner + 3 * k);
    }
    // Floats from row to row: whole vectors, but not a multiple of 512 bytes, where rows would share few cache sets.
    Index stride() const {
        const Index floats = vectors() * LANES;
        return floats % 128 ? floats : floats + LANES;
    }
};

// An array of floats, zero at first, on cache lines: so on a vector's boundary, whatever the instruction set.
class Floats {
 public:
    explicit Floats(Index n = 0) : lines_(std::size_t((n + 15) / 16)) {}
    float* data() { return lines_.empty() ? nullptr : lines_[0].x; }
    operator float*() { return data(); }

 private:
    struct alignas(64) Line {
        float x[16];
    };
    static_assert(sizeof(Line) % sizeof(Lanes) == 0);
    std::vector<Line> lines_;
};

// Epilogues: what a product z does with a tile of its result. All matrices have the row stride `stride`.
struct ReluEpilogue {  // h = relu(z + bias)
    const float* bias;
    float* h;
    Index stride;
    Lanes start(Index column) const { return load(bias + column); }
    template <int ROWS, int VECTORS>
    void finish(Index row, Index column, const Tile<ROWS, VECTORS>& z) const {
        float* to = h + row * stride + column;
        UNROLLED (r, ROWS) {
            UNROLLED (v, VECTORS) store(to + v * LANES, relu(z.at[r][v]));
            to += stride;
        }
    }
};

struct DeltaEpilogue {  // delta = z * [h > 0], and its sum over the batch, which is the gradient of the bias
    const float* h;
    float *delta, *bias_gradient;
    Index stride;
    Lanes start(Index) const { return Lanes{}; }
    template <int ROWS, int VECTORS>
    void finish(Index row, Index column, const Tile<ROWS, VECTORS>& z) const {
        Lanes total[std::size_t(VECTORS)];
        UNROLLED (v, VECTORS) total[v] = load(bias_gradient + column + v * LANES);
        Index at = row * stride + column;
        UNROLLED (r, ROWS) {
            UNROLLED (v, VECTORS) {
                const Lanes x = where_positive(load(h + at + v * LANES), z.at[r][v]);
                store(delta + at + v * LANES, x);
                total[v] += x;
            }
            at += stride;
        }
        UNROLLED (v, VECTORS) store(bias_gradient + column + v * LANES, total[v]);
    }
};

struct StoreEpilogue {  // c = z
    float* c;
    Index stride;
    Lanes start(Index) const { return Lanes{}; }
    template <int ROWS, int VECTORS>
    void finish(Index row, Index column, const Tile<ROWS, VECTORS>& z) const {
        float* to = c + row * stride + column;
        UNROLLED (r, ROWS) {
            UNROLLED (v, VECTORS) store(to + v * LANES, z.at[r][v]);
            to += stride;
        }
    }
};

class Network {
 public:
    // For batches of up to `batch` points; with an optimizer where it is to be trained, by these settings.
    Network(const Shape& shape, Index batch, const OptimizerSettings* train = nullptr)
        : shape_(shape), stride_(shape.stride()), vectors_(shape.vectors()),
          batch_((batch + LANES - 1) / LANES * LANES), params_(block()), outputs_(batch_), labels_(batch_),
          share_(batch_), slopes_(batch_), points_(batch_ * shape.d), unlearned_(std::size_t(batch_ + 1)) {
        const Index units = batch_ * stride_;
        for (Index i = 0; i < batch; ++i) share_[i] = 1.0f / float(batch);
        for (Index j = 0; j < shape.depth; ++j) hidden_.emplace_back(units);
        if (sums()) sum_ = Floats(units), sum_delta_ = Floats(train ? units : 0);
        if (!train) return;
        exp_avg_ = Floats(block()), exp_avg_sq_ = Floats(block()), delta_ = Floats(units), delta_below_ = Floats(units);
        bias_gradients_ = Floats((shape.depth + 1) * stride_);
        if (train->averages) average_ = Floats(block());
        if (train->clip > 0) whole_gradient_ = Floats(block());
        const bool deep = shape.depth > 1;  // only then a matrix has as many rows as there are units
        gradient_ = Floats(std::max(shape.d, deep ? shape.width : 1) * stride_);
        if (deep) transposed_ = Floats(vectors_ * LANES * stride_);
    }

    // Takes parameters, moments and their average from flat vectors, in the order of model.parameters(). All but the
    // first may be null.
    void read(const float* params, const float* exp_avg = nullptr, const float* exp_avg_sq = nullptr,
              const float* average = nullptr) {
        each_parameter([&](Index flat, Index at) { params_[at] = params[flat]; });
        if (exp_avg) each_parameter([&](Index flat, Index at) { exp_avg_[at] = exp_avg[flat]; });
        if (exp_avg_sq) each_parameter([&](Index flat, Index at) { exp_avg_sq_[at] = exp_avg_sq[flat]; });
        if (average) each_parameter([&](Index flat, Index at) { average_[at] = average[flat]; });
    }

    // Puts them back.
    void write(float* params, float* exp_avg, float* exp_avg_sq, float* average = nullptr) {
        each_parameter([&](Index flat, Index at) { params[flat] = params_[at]; });
        if (exp_avg) each_parameter([&](Index flat, Index at) { exp_avg[flat] = exp_avg_[at]; });
        if (exp_avg_sq) each_parameter([&](Index flat, Index at) { exp_avg_sq[flat] = exp_avg_sq_[at]; });
        if (average) each_parameter([&](Index flat, Index at) { average[flat] = average_[at]; });
    }

    // Whether all parameters are finite.
    bool finite() {
        bool all = true;
        each_parameter([&](Index, Index at) { all &= std::isfinite(params_[at]); });
        return all;
    }

    // f of the points that are the rows of x, at most as many as a batch: valid until the next call.
    const float* forward(const MatrixView& x) {
        const Index n = x.rows, last = shape_.depth - 1;
        multiply(x, padded(weight(0), shape_.d), ReluEpilogue{bias(0), hidden(0), stride_});
        for (Index j = 0; j <= last; ++j) {
            if (j > 0)
                multiply(unpadded(inputs(j), n), padded(weight(j), shape_.width),
                         ReluEpilogue{bias(j), hidden(j), stride_});
            if (sums() && j < last)
                for (Index i = 0; i < n * stride_; i += LANES)
                    store(sum_ + i, j == 0 ? load(hidden(j) + i) : load(sum_ + i) + load(hidden(j) + i));
        }
        const float *readout = weight(shape_.depth), *top = hidden(last);
        for (Index i = 0; i < n; i += LANES) {
            Lanes products[LANES] = {};
            for (Index v = 0; v < vectors_; ++v)
                UNROLLED (r, LANES)
                    products[r] += load(top + (i + r) * stride_ + v * LANES) * load(readout + v * LANES);
            store(outputs_ + i, row_sums(products) + broadcast(*bias(shape_.depth)));
        }
        return outputs_;
    }

    // Step t = 1, 2, ... of the optimizer, on the points index[0..n-1] of x (., d), y (.), n the batch's size. Its
    // parameters have this share in their average. Returns the mean loss before it.
    float step(const float* x, const float* y, const uint32_t* index, Index n, Loss loss,
               const OptimizerSettings& settings, int64_t t, double share = 1) {
        const Index d = shape_.d;
        for (Index c = 0; c < d; ++c)
            for (Index i = 0; i < n; ++i) points_[c * batch_ + i] = x[index[i] * d + c];
        for (Index i = 0; i < n; ++i) labels_[i] = y[index[i]];
        forward(points(n).transposed());
        const float mean = losses(loss, n);
        backward(n, step_rule(settings, t, share));
        return mean;
    }

    // (points with y f > 0, sum of the losses) over n points x (n, d), y (n,), n at most the batch's size. Not for a
    // network in training, whose losses are means.
    std::pair<Index, double> evaluate(const float* x, const float* y, Index n, Loss loss) {
        Index correct = 0;
        forward({x, n, shape_.d, shape_.d});
        for (Index i = 0; i < batch_; ++i) {
            labels_[i] = i < n ? y[i] : 0;
            share_[i] = i < n;
            correct += labels_[i] * outputs_[i] > 0;
        }
        return {correct, losses(loss, n)};
    }

 private:
    // The sum of share * loss of the last forward's outputs against the labels. Its derivative by each output goes to
    // slopes_, their sum to slope_sum_, and to sloping_ how many are not zero.
    float losses(Loss loss, Index n) {
        Lanes total{}, slope_sum{};
        decltype(slope_sum != 0) sloping{};
        for (Index i = 0; i < n; i += LANES) {
            const Lanes f = load(outputs_ + i), y = load(labels_ + i), share = load(share_ + i);
            Lanes l, slope;
            if (loss == Loss::Hinge) {
                const Lanes margin = 1 - y * f;
                l = relu(margin);
                slope = where_positive(margin, -y);
            } else if (loss == Loss::Squared) {
                l = (f - y) * (f - y);
                slope = 2 * (f - y);
            } else if (loss == Loss::SquaredHinge) {
                const Lanes below = relu(1 - y * f);
                l = below * below;
                slope = -2 * y * below;
            } else if (loss == Loss::Exponential) {
                for (int r = 0; r < LANES; ++r) l[r] = std::exp(-y[r] * f[r]);
                slope = -y * l;
            } else {  // without overflow: exp of nothing positive
                for (int r = 0; r < LANES; ++r) {
                    const float yf = y[r] * f[r], e = std::exp(-std::fabs(yf));
                    l[r] = std::log1p(e) + (yf < 0 ? -yf : 0);
                    slope[r] = -y[r] * (yf < 0 ? 1 : e) / (1 + e);
                }
            }
            total += share * l;
            slope_sum += share * slope;
            sloping -= share * slope != 0;  // true is -1
            store(slopes_ + i, share * slope);
        }
        slope_sum_ = sum(slope_sum);
        sloping_ = 0;
        for (int r = 0; r < LANES; ++r) sloping_ += sloping[r];
        return sum(total);
    }

    // The numbers of one step: p -= rate m / (root sqrt(v) + eps), or p -= rate g. rest is 1 - beta. The others are of
    // a step that isn't plain: g = scale g + l2 p, p = keep p - ..., and with SGD ... = rate (direct g + through m).
    struct StepRule {
        Optimizer optimizer;
        float rate, root, beta1, rest1, beta2, rest2, eps;
        bool plain = true, averages = false;
        float scale = 1, l2 = 0, keep = 1, direct = 0, through = 1, share = 1, rest_share = 0;
        double clip = 0;
    };
    static StepRule step_rule(const OptimizerSettings& s, int64_t t, double share) {
        StepRule rule = plain_rule(s, t);
        rule.plain = s.plain(), rule.averages = s.averages, rule.clip = s.clip;
        rule.share = float(share), rule.rest_share = float(1 - share);
        if (s.optimizer == Optimizer::AdamW)
            rule.keep = float(1 - s.lr * s.weight_decay);
        else
            rule.l2 = float(s.weight_decay);
        if (s.optimizer == Optimizer::Sgd) rule.beta1 = float(s.momentum);
        if (s.nesterov) rule.direct = 1, rule.through = float(s.momentum);
        return rule;
    }
    static StepRule plain_rule(const OptimizerSettings& s, int64_t t) {
        if (s.optimizer == Optimizer::Sgd) return {s.optimizer, float(s.lr), 0, 0, 0, 0, 0, 0};
        // 1 - beta^t, from t alone, in double precision: how a run is cut into chunks must not show. beta^t < exp(-40)
        // is lost in 1.
        const auto one_minus_power = [t = double(t)](double beta) {
            return t * (1 - beta) > 40 ? 1 : 1 - std::pow(beta, t);
        };
        const double correction1 = one_minus_power(s.beta1), correction2 = one_minus_power(s.beta2);
        return {s.optimizer,
                float(s.lr / correction1),
                float(1 / std::sqrt(correction2)),
                float(s.beta1),
                float(1 - s.beta1),
                float(s.beta2),
                float(1 - s.beta2),
                float(s.eps)};
    }

    // The optimizer's step of the n padded parameters from params_ + at on.
    void update(Index at, const float* gradient, Index n, const StepRule& rule) {
        float *p = params_ + at, *m = exp_avg_ + at, *v = exp_avg_sq_ + at;
        if (!rule.plain) return update_with_more(at, gradient, n, rule);
        if (rule.optimizer == Optimizer::Sgd) {
            for (Index i = 0; i < n; i += LANES) store(p + i, load(p + i) - rule.rate * load(gradient + i));
            return;
        }
        for (Index i = 0; i < n; i += LANES) {
            const Lanes g = load(gradient + i);
            const Lanes m_i = rule.beta1 * load(m + i) + rule.rest1 * g;
            const Lanes v_i = rule.beta2 * load(v + i) + rule.rest2 * g * g;
            store(m + i, m_i);
            store(v + i, v_i);
            store(p + i, load(p + i) - rule.rate * adam_direction(m_i, v_i, rule.root, rule.eps));
        }
    }

    // The same for a step that isn't plain.
    void update_with_more(Index at, const float* gradient, Index n, const StepRule& rule) {
        const auto update = [&](auto moments) {
            if (rule.averages)
                update_by<moments, true>(at, gradient, n, rule);
            else
                update_by<moments, false>(at, gradient, n, rule);
        };
        if (rule.optimizer != Optimizer::Sgd)
            update(std::integral_constant<int, 2>());
        else if (rule.beta1 != 0)
            update(std::integral_constant<int, 1>());
        else
            update(std::integral_constant<int, 0>());
    }
    // Of an optimizer with 0, 1 or 2 moments: SGD, SGD with momentum, Adam.
    template <int MOMENTS, bool AVERAGE>
    void update_by(Index at, const float* gradient, Index n, const StepRule& rule) {
        float *p = params_ + at, *m = exp_avg_ + at, *v = exp_avg_sq_ + at;
        float* average = AVERAGE ? average_ + at : nullptr;
        for (Index i = 0; i < n; i += LANES) {
            Lanes p_i = load(p + i);
            const Lanes g = rule.scale * load(gradient + i) + rule.l2 * p_i;
            Lanes direction = g;
            if constexpr (MOMENTS == 2) {
                const Lanes m_i = rule.beta1 * load(m + i) + rule.rest1 * g;
                const Lanes v_i = rule.beta2 * load(v + i) + rule.rest2 * g * g;
                store(m + i, m_i);
                store(v + i, v_i);
                direction = adam_direction(m_i, v_i, rule.root, rule.eps);
            } else if constexpr (MOMENTS == 1) {
                const Lanes m_i = rule.beta1 * load(m + i) + g;
                store(m + i, m_i);
                direction = rule.direct * g + rule.through * m_i;
            }
            p_i = rule.keep * p_i - rule.rate * direction;
            store(p + i, p_i);
            if constexpr (AVERAGE) store(average + i, rule.rest_share * load(average + i) + rule.share * p_i);
        }
    }

    // The step of all parameters from whole_gradient_ and bias_gradients_, no longer than the rule's clip. Squares are
    // added up row by row in double precision.
    void update_clipped(StepRule rule) {
        const Index weights = weight(shape_.depth) - params_ + stride_, biases = (shape_.depth + 1) * stride_;
        double squares = 0;
        const auto add = [&](const float* rows, Index n) {
            for (Index row = 0; row < n; row += stride_) {
                Lanes total{};
                for (Index i = row; i < row + stride_; i += LANES) total += load(rows + i) * load(rows + i);
                squares += double(sum(total));
            }
        };
        add(whole_gradient_, weights);
        add(bias_gradients_, biases);
        const double most = rule.clip / (std::sqrt(squares) + 1e-6);
        if (most < 1) rule.scale = float(most);
        update(0, whole_gradient_, weights, rule);
        update(weights, bias_gradients_, biases, rule);
    }

    // The backward pass of the last forward's n points, with the optimizer's step of each layer as soon as nothing
    // needs its weights any more; where the gradient may have to be clipped, at the end.
    void backward(Index n, const StepRule& rule) {
        const Index T = shape_.depth;
        std::memset(bias_gradients_, 0, std::size_t(T * stride_) * sizeof(float));
        bias_gradients_[T * stride_] = slope_sum_;
        const MatrixView slopes{slopes_, n, 1, 1};
        const bool clips = rule.clip > 0;
        const auto gradient = [&](Index at) { return clips ? whole_gradient_ + at : gradient_.data(); };
        const auto to_gradient = [&](Index at) { return StoreEpilogue{gradient(at), stride_}; };
        const auto step = [&](Index at, Index size) {
            if (!clips) update(at, gradient_, size, rule);
        };
        multiply(slopes, padded(weight(T), 1), DeltaEpilogue{hidden(T - 1), delta_, bias_gradient(T - 1), stride_});
        multiply(slopes.transposed(), padded(hidden(T - 1), n), to_gradient(weight(T) - params_));
        step(weight(T) - params_, stride_);
        const Index active = gather(n);
        for (Index j = T - 1; j > 0; --j) {  // from delta_ of layer j to that of the layer below, then the step of W
            const DeltaEpilogue below{hidden(j - 1), delta_below_, bias_gradient(j - 1), stride_};
            transpose(weight(j), transposed_, vectors_, stride_);
            const MatrixView delta = unpadded(delta_, active), weights = padded(transposed_, shape_.width);
            if (!sums()) {
                multiply(delta, weights, below);
            } else if (j == T - 1) {  // dl / d(h_1 + ... + h_{T-1}), which every lower layer receives
                multiply(delta, weights, StoreEpilogue{sum_delta_, stride_});
                receive(active, nullptr, below);
            } else {
                multiply(delta, weights, StoreEpilogue{delta_below_, stride_});
                receive(active, delta_below_, below);
            }
            const Index at = weight(j) - params_;
            multiply(unpadded(inputs(j), active).transposed(), padded(delta_, active), to_gradient(at));
            step(at, shape_.width * stride_);
            std::swap(delta_, delta_below_);
        }
        scatter(active, n);
        multiply(points(n), padded(delta_, n), to_gradient(0));
        if (clips) return update_clipped(rule);
        step(0, shape_.d * stride_);
        update(bias(0) - params_, bias_gradients_, (T + 1) * stride_, rule);
    }

    // Leaves the points whose loss has no slope, with the hinge those that are learned, out of the backward pass: moves
    // the rows of the others up, in their order, and returns how many there are. Sums over the batch lose only zeros,
    // so the bits stay; that is why the first FEWEST_ROWS rows do too, and why the first and the last layer, which sum
    // in parts, have all n.
    Index gather(Index n) {
        if (shape_.depth == 1 || shape_.width < FEWEST_ROWS) return n;
        if (sloping_ * (shape_.width + 8) > n * shape_.width) return n;  // not worth the moves
        Index active = 0;
        Index* unlearned = unlearned_.data();
        for (Index i = 0; i < n; ++i) {
            unlearned[active] = i;
            active += i < FEWEST_ROWS || slopes_[i] != 0;
        }
        const auto move = [&](float* rows) {
            for (Index k = 0; k < active; ++k) copy_row(rows + unlearned[k] * stride_, rows + k * stride_);
        };
        move(delta_);
        for (Index j = 0; j < shape_.depth - 1; ++j) move(hidden(j));
        if (sums()) move(sum_);
        return active;
    }

    // Moves the `active` rows of delta_ back to their places among n, with zeros between.
    void scatter(Index active, Index n) {
        if (active == n) return;
        const Index* unlearned = unlearned_.data();
        std::memset(delta_below_, 0, std::size_t(n * stride_) * sizeof(float));
        for (Index k = 0; k < active; ++k) copy_row(delta_ + k * stride_, delta_below_ + unlearned[k] * stride_);
        std::swap(delta_, delta_below_);
    }

    void copy_row(const float* from, float* to) {
        for (Index v = 0; v < vectors_; ++v) store(to + v * LANES, load(from + v * LANES));
    }

    // delta = (sum_delta_ + z) * [h > 0] with sum_last; z may be null.
    void receive(Index n, const float* z, const DeltaEpilogue& below) {
        for (Index i = 0; i < n; ++i)
            for (Index c = 0; c < vectors_ * LANES; c += LANES) {
                const Tile<1, 1> row = {
                    {{load(sum_delta_ + i * stride_ + c) + (z ? load(z + i * stride_ + c) : Lanes{})}}};
                below.finish(i, c, row);
            }
    }

    bool sums() const { return shape_.sum_last && shape_.depth > 2; }
    // Floats of all parameters; the transposition reads up to LANES rows past a matrix.
    Index block() const { return (shape_.rows() + LANES) * stride_; }
    // W_{j+1}^T, or for j = T the readout w.
    float* weight(Index j) { return params_ + (j == 0 ? 0 : shape_.d + (j - 1) * shape_.width) * stride_; }
    // b_{j+1}, or for j = T the readout's b.
    float* bias(Index j) { return weight(shape_.depth) + (1 + j) * stride_; }
    float* bias_gradient(Index j) { return bias_gradients_ + j * stride_; }
    float* hidden(Index j) { return hidden_[std::size_t(j)]; }                                 // h_{j+1}
    float* inputs(Index j) { return sums() && j == shape_.depth - 1 ? sum_ : hidden(j - 1); }  // of hidden layer j > 0
    // Rows of units, without and with their padding, and the points of a batch, a column each.
    MatrixView unpadded(const float* data, Index rows) const { return {data, rows, shape_.width, stride_}; }
    MatrixView padded(const float* data, Index rows) const { return {data, rows, vectors_ * LANES, stride_}; }
    MatrixView points(Index n) { return {points_, shape_.d, n, batch_}; }

    // Calls visit(place in the flat vector, place in the padded block) for every parameter.
    template <class Visit>
    void each_parameter(Visit visit) {
        Index flat = 0;
        for (Index j = 0; j < shape_.depth; ++j) {
            const Index w = weight(j) - params_, b = bias(j) - params_;
            for (Index o = 0; o < shape_.width; ++o)
                for (Index i = 0; i < shape_.inputs(j); ++i) visit(flat++, w + i * stride_ + o);
            for (Index o = 0; o < shape_.width; ++o) visit(flat++, b + o);
        }
        for (Index i = 0; i < shape_.width; ++i) visit(flat++, weight(shape_.depth) - params_ + i);
        visit(flat, bias(shape_.depth) - params_);
    }

    const Shape shape_;
    const Index stride_, vectors_, batch_;                            // of a row; batch_ is rounded up to whole vectors
    Floats params_, exp_avg_, exp_avg_sq_, average_;                  // (rows, stride)
    Floats gradient_, whole_gradient_, bias_gradients_, transposed_;  // (rows, stride)
    Floats outputs_, labels_, share_, slopes_, points_;               // (batch) and (d, batch)
    float slope_sum_ = 0;
    Index sloping_ = 0;
    std::vector<Index> unlearned_;                  // the points that take part in the backward pass, where not all do
    std::vector<Floats> hidden_;                    // T of (batch, stride)
    Floats sum_, sum_delta_, delta_, delta_below_;  // (batch, stride)
};

}  // namespace native
