// The native engine without Python: products, networks and orders against their definitions, in double precision and
// without a trick; and the same bits from any number of threads and chunks. Ends with 0, or at the first wrong number.
//
//   g++ -std=c++17 -O1 -pthread -Isrc/native tests/native_test.cpp -o native_test && ./native_test
//
// tests/native_sanitize.sh builds it with sanitizers, tests/test_native.py without.
#undef NDEBUG  // the engine's assertions are part of the test
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>

#include "tasks.hpp"

namespace {

using namespace native;

#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition)) {                                             \
            std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            std::printf(__VA_ARGS__);                                   \
            std::printf("\n");                                          \
            std::exit(1);                                               \
        }                                                               \
    } while (false)

using Numbers = std::vector<double>;

// The distance of two vectors is at most `relative` times the second's length, and a little.
bool close(const Numbers& ours, const Numbers& theirs, double relative, double absolute = 1e-7) {
    double distance = 0, length = 0;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
        distance += (ours[i] - theirs[i]) * (ours[i] - theirs[i]);
        length += theirs[i] * theirs[i];
    }
    return ours.size() == theirs.size() && std::sqrt(distance) <= relative * std::sqrt(length) + absolute;
}

Numbers doubles(const std::vector<float>& numbers) { return Numbers(numbers.begin(), numbers.end()); }

class Random {
 public:
    explicit Random(unsigned seed) : engine_(seed) {}
    float uniform(float low, float high) { return low + (high - low) * float(engine_() >> 8) / float(1 << 24); }
    std::vector<float> uniforms(Index n, float low, float high) {
        std::vector<float> numbers(std::size_t(n), 0.0f);
        for (float& number : numbers) number = uniform(low, high);
        return numbers;
    }

 private:
    std::mt19937 engine_;
};

// --- the definition of a network ------------------------------------------------------------------------------------

struct Reference {
    double loss = 0, kink = 1e300;  // the batch's mean loss; the least |z_j| or |1 - y f|, where slopes jump
    Index correct = 0;
    Numbers gradient;
};

// The mean loss over n points and its gradient, from the formulas in network.hpp.
Reference reference(const Shape& s, const Numbers& p, const float* x, const float* y, Index n, Loss loss) {
    const auto at = [](Index i) { return std::size_t(i); };
    const Index T = s.depth, k = s.width;
    const auto W = [&](Index j) { return j == 1 ? 0 : s.d * k + k + (j - 2) * (k * k + k); };  // of layer j = 1..T
    const auto b = [&](Index j) { return W(j) + (j == 1 ? s.d : k) * k; };
    const Index w = b(T) + k;
    Reference r;
    r.gradient.assign(p.size(), 0);
    for (Index i = 0; i < n; ++i) {
        std::vector<Numbers> h{Numbers(x + i * s.d, x + (i + 1) * s.d)}, inputs{{}};
        for (Index j = 1; j <= T; ++j) {
            Numbers input = h[at(j - 1)], output(at(k));
            if (s.sum_last && j == T && T > 1) {
                input.assign(at(k), 0);
                for (Index l = 1; l < T; ++l)
                    for (Index u = 0; u < k; ++u) input[at(u)] += h[at(l)][at(u)];
            }
            for (Index u = 0; u < k; ++u) {
                double z = p[at(b(j) + u)];
                for (std::size_t v = 0; v < input.size(); ++v)
                    z += p[at(W(j) + u * Index(input.size())) + v] * input[v];
                r.kink = std::min(r.kink, std::fabs(z));
                output[at(u)] = z > 0 ? z : 0;
            }
            h.push_back(output), inputs.push_back(input);
        }
        double f = p[at(w + k)];
        for (Index u = 0; u < k; ++u) f += p[at(w + u)] * h[at(T)][at(u)];
        const double margin = 1 - y[i] * f;
        double slope = 0;
        if (loss == Loss::Hinge) {
            r.kink = std::min(r.kink, std::fabs(margin));
            r.loss += margin > 0 ? margin : 0;
            slope = margin > 0 ? -y[i] : 0;
        } else if (loss == Loss::Logistic) {
            r.loss += std::log(1 + std::exp(-y[i] * f));
            slope = -y[i] / (1 + std::exp(y[i] * f));
        } else if (loss == Loss::SquaredHinge) {
            r.loss += margin > 0 ? margin * margin : 0;
            slope = margin > 0 ? -2 * y[i] * margin : 0;
        } else if (loss == Loss::Exponential) {
            r.loss += std::exp(-y[i] * f);
            slope = -y[i] * std::exp(-y[i] * f);
        } else {
            r.loss += (f - y[i]) * (f - y[i]);
            slope = 2 * (f - y[i]);
        }
        r.correct += y[i] * f > 0;

        slope /= double(n);
        std::vector<Numbers> dh(at(T + 1), Numbers(at(k), 0));
        r.gradient[at(w + k)] += slope;
        for (Index u = 0; u < k; ++u) {
            r.gradient[at(w + u)] += slope * h[at(T)][at(u)];
            dh[at(T)][at(u)] = slope * p[at(w + u)];
        }
        for (Index j = T; j > 0; --j) {
            const Numbers& input = inputs[at(j)];
            Numbers below(input.size(), 0);
            for (Index u = 0; u < k; ++u) {
                const double delta = h[at(j)][at(u)] > 0 ? dh[at(j)][at(u)] : 0;
                r.gradient[at(b(j) + u)] += delta;
                for (std::size_t v = 0; v < input.size(); ++v) {
                    const std::size_t weight = at(W(j) + u * Index(input.size())) + v;
                    r.gradient[weight] += delta * input[v];
                    below[v] += delta * p[weight];
                }
            }
            if (j == 1) break;
            for (Index l = s.sum_last && j == T ? 1 : j - 1; l < j; ++l)
                for (Index u = 0; u < k; ++u) dh[at(l)][at(u)] += below[at(u)];
        }
    }
    r.loss /= double(n);
    return r;
}

// Everything a Training points to, on the heap to the byte, so that a sanitizer sees a step past it.
struct Held {
    std::vector<float> params, exp_avg, exp_avg_sq, x, y;
    Training training;

    // Layers about as torch starts them, and random points and labels.
    Held(const Shape& shape, Loss loss, Optimizer optimizer, Index n, Index batch, uint64_t steps, unsigned seed)
        : training{shape, loss, {optimizer, 1e-3, 0.9, 0.999, 1e-4}, nullptr, nullptr, nullptr, {}, batch, seed,
                   0,     steps} {
        Random random(seed);
        for (Index j = 0; j <= shape.depth; ++j) {
            const Index in = shape.inputs(j), out = j < shape.depth ? shape.width : 1;
            const float most = 1.5f / std::sqrt(float(in));
            for (Index i = 0; i < out * in; ++i) params.push_back(random.uniform(-most, most));
            for (Index i = 0; i < out; ++i) params.push_back(random.uniform(-0.3f, 0.3f));
        }
        CHECK(Index(params.size()) == shape.parameters(), "width %td", shape.width);
        params.shrink_to_fit();
        exp_avg.assign(params.size(), 0), exp_avg_sq.assign(params.size(), 0);
        x = random.uniforms(n * shape.d, -1, 1), y = random.uniforms(n, -1, 1);
        for (float& label : y) label = label < 0 ? -1 : 1;
        point();
    }
    Held(const Held& other)
        : params(other.params), exp_avg(other.exp_avg), exp_avg_sq(other.exp_avg_sq), x(other.x), y(other.y),
          training(other.training) {
        point();
    }
    Held& operator=(const Held&) = delete;

    bool same(const Held& other) const {
        const auto bytes = [](const std::vector<float>& a, const std::vector<float>& b) {
            return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
        };
        return bytes(params, other.params) && bytes(exp_avg, other.exp_avg) && bytes(exp_avg_sq, other.exp_avg_sq) &&
               training.step == other.training.step;
    }

 private:
    void point() {
        training.params = params.data(), training.exp_avg = exp_avg.data(), training.exp_avg_sq = exp_avg_sq.data();
        training.points = {x.data(), y.data(), Index(y.size())};
    }
};

const std::atomic<bool> GO_ON{false};
const auto NEVER = [] { return false; };
constexpr Loss ALL_LOSSES[] = {Loss::Hinge, Loss::Logistic, Loss::Squared, Loss::SquaredHinge, Loss::Exponential};

// --- the kernel -----------------------------------------------------------------------------------------------------

void vectors_do_what_their_names_say() {
    Lanes up, signs;
    for (int i = 0; i < LANES; ++i) up[i] = float(i), signs[i] = i % 2 ? 1.0f : -1.0f;
    CHECK(sum(up) == float(LANES * (LANES - 1) / 2), "sum %g", double(sum(up)));
    Lanes rows[LANES];
    for (int i = 0; i < LANES; ++i) rows[i] = up + float(i);
    const Lanes sums = row_sums(rows);
    for (int i = 0; i < LANES; ++i) {
        CHECK(sums[i] == sum(up) + float(LANES * i), "lane %d", i);
        CHECK(broadcast(2.5f)[i] == 2.5f, "lane %d", i);
        CHECK(evens(up, up + float(LANES), LaneNumbers())[i] == float(2 * i), "lane %d", i);
        CHECK(odds(up, up + float(LANES), LaneNumbers())[i] == float(2 * i + 1), "lane %d", i);
        CHECK(relu(signs)[i] == float(i % 2), "lane %d", i);
        CHECK(where_positive(signs, up)[i] == (i % 2 ? float(i) : 0), "lane %d", i);
        CHECK(std::isnan(relu(broadcast(NAN))[i]), "lane %d", i);
        const Lanes direction = adam_direction(up - 3, up, 1.5f, 1e-3f);
        const double expected = (i - 3) / (1.5 * std::sqrt(double(i)) + 1e-3);
        CHECK(std::fabs(direction[i] - expected) <= 1e-6 * std::fabs(expected), "lane %d", i);
        CHECK(std::fabs(adam_direction(broadcast(1e18f), broadcast(INFINITY), 1, 1e-8f)[i]) < 0.1f, "lane %d", i);
        CHECK(std::isnan(adam_direction(up, broadcast(NAN), 1, 1e-8f)[i]), "lane %d", i);
    }
}

void products_are_those_of_the_definition() {
    Random random(1);
    for (const Index rows : {1, 2, 3, 4, 5, 7, 12, 13, 24, 25, 31, 100})
        for (const Index vectors : {1, 2, 3, 4, 5, 7})
            for (const Index terms : {1, 2, 5, 16, 33}) {
                const bool transposed = (rows + vectors + terms) % 2 != 0;
                const Index columns = vectors * LANES, stride = columns + LANES;
                std::vector<float> a = random.uniforms(rows * terms, -1, 1);
                Floats b(terms * stride), c(rows * stride);
                for (Index i = 0; i < terms * stride; ++i) b[i] = random.uniform(-1, 1);
                const MatrixView view = transposed ? MatrixView{a.data(), terms, rows, rows}.transposed()
                                                   : MatrixView{a.data(), rows, terms, terms};
                multiply(view, {b, terms, columns, stride}, StoreEpilogue{c, stride});
                for (Index i = 0; i < rows; ++i)
                    for (Index j = 0; j < stride; ++j) {
                        double expected = 0;
                        for (Index k = 0; k < terms && j < columns; ++k)
                            expected += double(a[std::size_t(transposed ? k * rows + i : i * terms + k)]) *
                                        double(b[k * stride + j]);
                        CHECK(std::fabs(c[i * stride + j] - expected) < 1e-5, "%td rows, %td vectors, %td terms", rows,
                              vectors, terms);
                    }
            }
}

void transposition_is_exact() {
    for (const Index blocks : {1, 2, 3}) {
        const Index size = blocks * LANES, stride = size + LANES;
        Floats from(size * stride), to(size * stride);
        for (Index i = 0; i < size * stride; ++i) from[i] = float(i);
        transpose(from, to, blocks, stride);
        for (Index i = 0; i < size; ++i)
            for (Index j = 0; j < size; ++j)
                CHECK(to[j * stride + i] == from[i * stride + j], "row %td, column %td", i, j);
    }
}

// --- networks -------------------------------------------------------------------------------------------------------

// The loss, the gradient (which the moments tell) and the step of one batch; every width below two vectors' and beyond.
void steps_are_those_of_the_definition() {
    unsigned number = 0;
    int kinks = 0, learned = 0;
    for (const Index width : {1, 2, 4, 5, 7, 15, 16, 17, 33, 48, 65})
        for (const Index depth : {1, 2, 3, 5})
            for (const Index batch : {1, 4, 5, 13, 33}) {
                const Loss loss = ALL_LOSSES[number / 2 % 5];
                const Optimizer optimizer = number % 5 ? Optimizer::Adam : Optimizer::Sgd;
                const Shape shape{Index(1 + number % 3), width, depth, number % 4 == 0};
                Held held(shape, loss, optimizer, 3 * batch, batch, 1, ++number);
                Training& t = held.training;
                if (number % 2) {  // labels that agree with large outputs: points without slope, with the hinge
                    const Index from = shape.parameters() - width - 1;
                    for (Index i = from; i < shape.parameters(); ++i) held.params[std::size_t(i)] *= 20;
                    Network network(shape, 3 * batch);
                    network.read(t.params);
                    const float* f = network.forward({t.points.x, 3 * batch, shape.d, shape.d});
                    for (Index i = 0; i < 3 * batch; ++i)
                        if (i % 4) held.y[std::size_t(i)] = f[i] > 0 ? 1 : -1;
                    ++learned;
                }
                Shuffle shuffle;
                std::vector<float> x, y;  // of the first batch
                for (Index i = 0; i < batch; ++i) {
                    const Index chosen = shuffle.order(t.shuffle_seed, 0, uint64_t(3 * batch))[std::size_t(i)];
                    x.insert(x.end(), held.x.begin() + chosen * shape.d, held.x.begin() + (chosen + 1) * shape.d);
                    y.push_back(held.y[std::size_t(chosen)]);
                }
                const Numbers before = doubles(held.params);
                const Reference expected = reference(shape, before, x.data(), y.data(), batch, loss);
                if (expected.kink < 1e-6) {
                    ++kinks;
                    continue;
                }
                t.train(1e300, GO_ON);
                CHECK(t.step == 1 && t.done == 1 && t.rest() == 0, "case %u", number);
                CHECK(std::fabs(t.loss_sum - expected.loss) < 1e-5 * (1 + expected.loss),
                      "case %u: %.9g, should be %.9g", number, t.loss_sum, expected.loss);
                Numbers after = before;
                if (optimizer == Optimizer::Sgd) {
                    for (std::size_t i = 0; i < after.size(); ++i) after[i] -= t.settings.lr * expected.gradient[i];
                    CHECK(close(doubles(held.exp_avg), Numbers(after.size(), 0), 0, 0), "case %u", number);
                } else {
                    Numbers gradient = doubles(held.exp_avg), squares = doubles(held.exp_avg_sq), square;
                    for (double& g : gradient) g /= 0.1;
                    for (double& g : squares) g /= 0.001;
                    for (const double g : expected.gradient) square.push_back(g * g);
                    CHECK(close(gradient, expected.gradient, 1e-5), "case %u, width %td, depth %td, batch %td", number,
                          width, depth, batch);
                    CHECK(close(squares, square, 1e-4), "case %u", number);
                    for (std::size_t i = 0; i < after.size(); ++i) {  // at t = 1, m' = g and v' = g^2
                        const double g = expected.gradient[i];
                        after[i] -= t.settings.lr * g / (std::fabs(g) + t.settings.eps);
                    }
                }
                CHECK(close(doubles(held.params), after, 1e-5), "case %u, width %td, depth %td, batch %td", number,
                      width, depth, batch);
            }
    CHECK(kinks <= int(number) / 20 && learned > int(number) / 3, "%d of %u near a kink", kinks, number);
}

// Steps with more than plain Adam or SGD has, each at a learning rate of its own, against their formulas.
void steps_with_more_are_those_of_their_formulas() {
    constexpr Index STEPS = 5, BATCH = 13;
    unsigned number = 0;
    for (const Optimizer optimizer : {Optimizer::Adam, Optimizer::AdamW, Optimizer::Sgd})
        for (const double momentum : {0.0, 0.9})
            for (const double decay : {0.0, 0.3})
                for (const double clip : {0.0, 0.05, 100.0})
                    for (const bool averages : {false, true}) {
                        const Shape shape{2, Index(1 + 8 * (number % 4)), Index(1 + number % 3), number % 5 == 0};
                        Held held(shape, Loss::Logistic, optimizer, BATCH, BATCH, STEPS, ++number);
                        Training& t = held.training;
                        OptimizerSettings& s = t.settings;
                        s.momentum = optimizer == Optimizer::Sgd ? momentum : 0;
                        s.nesterov = s.momentum > 0 && number % 2 == 0;
                        s.weight_decay = decay, s.clip = clip, s.averages = averages;
                        const Numbers rates{0.01, 0.02, 0, 0.03, 0.005}, shares{1, 1, 0.5, 0.25, 0.1};
                        std::vector<float> average(held.params);
                        t.rates = rates.data();
                        if (averages) t.average = average.data(), t.shares = shares.data();

                        const std::size_t size = held.params.size();
                        Numbers p = doubles(held.params), m(size), v(size), mean = p;
                        for (std::size_t step = 0; step < STEPS; ++step) {
                            const double lr = rates[step], time = double(step + 1);
                            Numbers g = reference(shape, p, held.x.data(), held.y.data(), BATCH, t.loss).gradient;
                            double squares = 0;
                            for (const double x : g) squares += x * x;
                            const double most = clip / (std::sqrt(squares) + 1e-6);
                            for (std::size_t i = 0; i < size; ++i) {
                                if (clip > 0 && most < 1) g[i] *= most;
                                if (optimizer == Optimizer::AdamW)
                                    p[i] *= 1 - lr * decay;
                                else
                                    g[i] += decay * p[i];
                                if (optimizer == Optimizer::Sgd) {
                                    m[i] = s.momentum * m[i] + g[i];
                                    p[i] -= lr * (s.nesterov ? g[i] + s.momentum * m[i] : m[i]);
                                } else {
                                    m[i] = s.beta1 * m[i] + (1 - s.beta1) * g[i];
                                    v[i] = s.beta2 * v[i] + (1 - s.beta2) * g[i] * g[i];
                                    const double root = std::sqrt(v[i] / (1 - std::pow(s.beta2, time)));
                                    p[i] -= lr * m[i] / (1 - std::pow(s.beta1, time)) / (root + s.eps);
                                }
                                mean[i] = (1 - shares[step]) * mean[i] + shares[step] * p[i];
                            }
                        }
                        t.train(1e300, GO_ON);
                        CHECK(t.done == STEPS, "case %u", number);
                        CHECK(close(doubles(held.params), p, 1e-5), "case %u", number);
                        CHECK(close(doubles(held.exp_avg_sq), v, 1e-4), "case %u", number);
                        if (averages) CHECK(close(doubles(average), mean, 1e-5), "case %u", number);
                        if (optimizer != Optimizer::Sgd || s.momentum > 0)
                            CHECK(close(doubles(held.exp_avg), m, 1e-4), "case %u", number);
                    }
}

// Seven steps, each on its own part of the order of its epoch: three batches of 6 of 20 points.
void batches_follow_the_order_of_the_epoch() {
    const Shape shape{2, 9, 4, true};
    Held held(shape, Loss::Logistic, Optimizer::Sgd, 20, 6, 1, 3);
    Training& t = held.training;
    t.settings.lr = 0.3;
    Shuffle shuffle;
    for (Index step = 0; step < 7; ++step) {
        std::vector<float> x, y;
        for (Index i = 0; i < 6; ++i) {
            const std::size_t place = std::size_t(step % 3 * 6 + i);
            const Index chosen = shuffle.order(t.shuffle_seed, uint64_t(step / 3), 20)[place];
            x.insert(x.end(), held.x.begin() + chosen * 2, held.x.begin() + chosen * 2 + 2);
            y.push_back(held.y[std::size_t(chosen)]);
        }
        Numbers after = doubles(held.params);
        const Reference expected = reference(shape, after, x.data(), y.data(), 6, Loss::Logistic);
        CHECK(expected.kink > 1e-6, "step %td", step);
        for (std::size_t i = 0; i < after.size(); ++i) after[i] -= t.settings.lr * expected.gradient[i];
        t.done = 0, t.loss_sum = 0;
        t.train(1e300, GO_ON);
        CHECK(std::fabs(t.loss_sum - expected.loss) < 1e-5, "step %td: %.9g, should be %.9g", step, t.loss_sum,
              expected.loss);
        CHECK(close(doubles(held.params), after, 1e-6), "step %td", step);
    }
}

void evaluations_are_those_of_the_definition() {
    for (const Index n : {1, 127, 128, 300})
        for (const Loss loss : ALL_LOSSES) {
            const Held held({2, 21, 3, n == 128}, loss, Optimizer::Adam, n, 1, 1, unsigned(n));
            const Training& t = held.training;
            const auto [correct, mean] = Evaluation{t.shape, loss, t.params, t.points}.evaluate(GO_ON);
            const Reference expected = reference(t.shape, doubles(held.params), held.x.data(), held.y.data(), n, loss);
            CHECK(correct == expected.correct, "%td of %td", correct, n);
            CHECK(std::fabs(mean - expected.loss) < 1e-5 * (1 + expected.loss), "%.9g", mean);
        }
}

// --- orders ---------------------------------------------------------------------------------------------------------

void orders_are_known() {
    CHECK(mix(0) == 0xE220A8397B1DCDAFu, "SplitMix64's first number from 0");
    struct {
        uint64_t seed, epoch;
        std::vector<uint32_t> order;
    } known[] = {
        // from fractal_ifs.data.seeds.permutation
        {0x0U, 0U, {0, 7, 8, 11, 2, 5, 9, 4, 10, 6, 3, 1}},
        {0xFFFFFFFFFFFFFFFFU, 3U, {9, 10, 2, 11, 1, 4, 7, 8, 0, 3, 6, 5}},
        {0x123456789ABCDEFU, 8589934592U, {11, 5, 7, 10, 4, 0, 1, 3, 6, 9, 8, 2}},
    };
    Shuffle shuffle;
    for (const auto& [seed, epoch, order] : known) CHECK(shuffle.order(seed, epoch, 12) == order, "epoch of 12");
    for (const std::size_t n : {1u, 2u, 1000u, 65535u, 65536u, 100000u}) {  // by two and by three digits
        const uint64_t base = mix(mix(7) + 9);
        std::vector<std::pair<uint64_t, uint32_t>> keys;
        for (uint32_t i = 0; i < n; ++i) keys.emplace_back(mix(base + i * GOLDEN) >> 33, i);
        std::sort(keys.begin(), keys.end());
        const std::vector<uint32_t>& order = shuffle.order(7, 9, n);
        for (std::size_t i = 0; i < n; ++i) CHECK(order[i] == keys[i].second, "place %zu of %zu", i, n);
    }
}

// --- threads and chunks ---------------------------------------------------------------------------------------------

// Networks of different sizes, losses and lengths; 100 / 7 = 14 steps an epoch, so that all cross epochs.
std::vector<Held> mixed() {
    std::vector<Held> all;
    for (unsigned i = 0; i < 9; ++i)
        all.emplace_back(Shape{Index(1 + i % 3), Index(3 + 7 * i), Index(1 + i % 4), i % 3 == 0}, ALL_LOSSES[i % 5],
                         i % 2 ? Optimizer::Sgd : Optimizer::Adam, 100, 7, 30 + 3 * i, i);
    return all;
}

std::exception_ptr train(std::vector<Held>& all, std::size_t threads) {
    std::vector<Training> trainings;
    for (const Held& held : all) trainings.push_back(held.training);
    refuse_overlaps(trainings);
    std::vector<std::atomic<uint64_t>> reached(all.size());
    const std::exception_ptr error = train_all(trainings, threads, reached, NEVER);
    for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK(reached[i] == trainings[i].step, "network %zu reached %zu", i, std::size_t(reached[i]));
        all[i].training = trainings[i];
    }
    return error;
}

void bits_do_not_depend_on_threads_or_chunks() {
    std::vector<Held> alone = mixed();
    for (Held& held : alone) held.training.train(1e300, GO_ON);
    for (const std::size_t threads : {1u, 2u, 4u, 16u}) {
        std::vector<Held> together = mixed();
        CHECK(!train(together, threads), "%zu threads", threads);
        for (std::size_t i = 0; i < alone.size(); ++i) {
            CHECK(together[i].same(alone[i]), "network %zu on %zu threads", i, threads);
            CHECK(together[i].training.loss_sum == alone[i].training.loss_sum, "network %zu", i);
        }
    }
    std::vector<Held> slices = mixed(), chunks = mixed();
    for (std::size_t i = 0; i < alone.size(); ++i) {
        while (slices[i].training.train(1, GO_ON) > 0) {
        }
        CHECK(slices[i].same(alone[i]), "network %zu in the smallest slices", i);
        Training& t = chunks[i].training;
        for (const uint64_t steps : {1u, 2u, 13u, 3u}) {
            t.steps = steps, t.done = 0;
            while (t.train(1, GO_ON) > 0) {
            }
        }
        t.steps = alone[i].training.step - t.step, t.done = 0;
        t.train(1e300, GO_ON);
        CHECK(chunks[i].same(alone[i]), "network %zu in chunks", i);
    }
}

void the_pool_stops_when_asked_and_hands_errors_on() {
    const std::vector<double> rest(20, 1.0);
    std::atomic<int> calls{0};
    const auto forever = [&](std::size_t, const std::atomic<bool>& stop) {
        ++calls;
        while (!stop) std::this_thread::yield();
        return 1.0;
    };
    CHECK(!run(rest, 3, forever, [] { return true; }), "stopped by the one who watches");
    CHECK(calls >= 1 && calls <= 3, "%d calls", calls.load());
    const auto what = [&](const std::exception_ptr& error) -> std::string {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const std::runtime_error& e) {
            return e.what();
        }
        return "nothing";
    };
    const auto throws = []() -> bool { throw std::runtime_error("watch"); };
    CHECK(what(run(rest, 2, forever, throws)) == "watch", "what the one who watches throws");
    const auto fails = [&](std::size_t i, const std::atomic<bool>& stop) {
        if (i == 19) throw std::runtime_error("work");
        return forever(i, stop);
    };
    CHECK(what(run(rest, 2, fails, NEVER)) == "work", "what a thread throws");
    CHECK(!run({}, 2, fails, NEVER), "nothing to do");
}

// --- refusals -------------------------------------------------------------------------------------------------------

std::string refusal(const std::function<void()>& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

void what_cannot_be_trained_is_refused() {
    CHECK(parse("loss", "logistic", LOSSES) == Loss::Logistic, "a loss");
    CHECK(parse("optimizer", "sgd", OPTIMIZERS) == Optimizer::Sgd, "an optimizer");
    std::string line = refusal([] { parse("loss", "hunge", LOSSES); });
    CHECK(line == "loss=hunge: must be one of hinge, logistic, squared, squared_hinge, exponential", "%s",
          line.c_str());
    line = refusal([] { parse("optimizer", "", OPTIMIZERS); });
    CHECK(line == "optimizer=: must be one of adam, adamw, sgd", "%s", line.c_str());

    std::vector<Held> all = mixed();
    std::vector<Training> trainings;
    for (const Held& held : all) trainings.push_back(held.training);
    const auto with = [&](const std::function<void(std::vector<Training>&)>& change) {
        std::vector<Training> changed = trainings;
        change(changed);
        return refusal([&] { refuse_overlaps(changed); });
    };
    CHECK(with([](auto&) {}).empty(), "networks of their own");
    CHECK(with([](auto& t) { t[5].points = t[2].points, t[5].shape.d = t[2].shape.d; }).empty(), "shared points");
    std::vector<float> memory(5000);
    line =
        with([&](auto& t) { t[2].exp_avg = memory.data(), t[7].params = memory.data() + t[2].shape.parameters() - 1; });
    CHECK(line == "task 7: params: shares memory with task 2's exp_avg", "%s", line.c_str());
    const auto before_a_moment = [&](Index floats) {  // 100 labels begin so far before a vector of 3's
        return with(
            [&](auto& t) { t[4].points.y = memory.data() + 100 - floats, t[3].exp_avg_sq = memory.data() + 100; });
    };
    line = before_a_moment(99);
    CHECK(line == "task 4: y: shares memory with task 3's exp_avg_sq", "%s", line.c_str());
    CHECK(before_a_moment(100).empty(), "neighbours");
    line = with([](auto& t) { t[0].exp_avg_sq = t[0].exp_avg + 1; });
    CHECK(line == "task 0: exp_avg_sq: shares memory with task 0's exp_avg", "%s", line.c_str());
}

}  // namespace

int main() {
    vectors_do_what_their_names_say();
    products_are_those_of_the_definition();
    transposition_is_exact();
    steps_are_those_of_the_definition();
    steps_with_more_are_those_of_their_formulas();
    batches_follow_the_order_of_the_epoch();
    evaluations_are_those_of_the_definition();
    orders_are_known();
    bits_do_not_depend_on_threads_or_chunks();
    the_pool_stops_when_asked_and_hands_errors_on();
    what_cannot_be_trained_is_refused();
    std::printf("%s: clean\n", ISA);
}
