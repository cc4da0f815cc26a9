// Attention on every instruction set of this machine: against double precision, and bit for bit
// against itself, cut differently.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "base/half.h"
#include "kernels/guarded_vector.h"
#include "kernels/kernels.h"

namespace trellis {
namespace {

struct Shape {
  size_t num_kv_heads, group, head_dim, window;
  float softcap = 0;
  KvType type = KvType::kF16;
};

// Some rows have keys or values that pages cannot hold; or all keys are large in two dimensions, as
// those of models with large biases; or queries and keys are parallel, every second key the other
// way, with one component that is not 0, or with all the same.
enum class Values { kModest, kSomeOverflow, kBiased, kOneComponent, kSameComponents };

// A sequence of `length` positions with random keys and values; rows beyond it are NaN. It may
// begin with pages of another: a trunk.
class Sequence {
 public:
  Sequence(const KernelTable& kernels, const Shape& shape, size_t length,
           Values values = Values::kModest)
      : Sequence(kernels, shape, length, values, nullptr, 0) {}
  Sequence(const KernelTable& kernels, const Shape& shape, size_t length, const Sequence& trunk,
           size_t shared_pages)
      : Sequence(kernels, shape, length, Values::kModest, &trunk, shared_pages) {}

  size_t q_width() const { return shape_.num_kv_heads * shape_.group * shape_.head_dim; }

  // Row `position` with its output at its place in `out`.
  AttentionRow Row(size_t position, GuardedVector<float>* out) const {
    return {.pages = pages_.data(),
            .position = position,
            .q = q_.data() + position * q_width(),
            .out = out->data() + position * q_width()};
  }
  std::vector<AttentionRow> Rows(size_t first, size_t num, GuardedVector<float>* out) const {
    std::vector<AttentionRow> rows;
    for (size_t p = first; p < first + num; p++) rows.push_back(Row(p, out));
    return rows;
  }

  AttentionTask Task(const std::vector<AttentionRow>& rows) const {
    return {.layout = &layout_,
            .layer = 1,
            .window = shape_.window,
            .num_heads = shape_.num_kv_heads * shape_.group,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
            .softcap = shape_.softcap,
            .rows = rows.data()};
  }

  double KeyValue(const GuardedVector<float>& m, size_t position, size_t kv_head, size_t d) const {
    const float x = m[(position * shape_.num_kv_heads + kv_head) * shape_.head_dim + d];
    if (shape_.type == KvType::kF16) return HalfToFloat(FloatToHalf(x));
    return shape_.type == KvType::kBf16 ? Bf16ToFloat(FloatToBf16(x)) : x;
  }

  // Takes for keys and values what pages of bytes hold.
  void ReadPages() {
    TRELLIS_CHECK(layout_.type == KvType::kQ8_0);
    for (size_t row = 0; row < length_ * shape_.num_kv_heads; row++) {
      const size_t t = row / shape_.num_kv_heads % kPageTokens, head = row % shape_.num_kv_heads;
      const std::byte* page = pages_[row / shape_.num_kv_heads / kPageTokens];
      const auto* scales = reinterpret_cast<const float*>(page + layout_.scale_offset(1, head));
      std::vector<double> k, v;
      for (size_t d = 0; d < shape_.head_dim; d++) {
        const auto at = [&](size_t offset) -> double { return std::to_integer<int>(page[offset]); };
        const double key = at(layout_.k_offset(1, head) + layout_.k_index(t, d)) - 128;
        const double value = at(layout_.v_offset(1, head) + layout_.v_index(t, d)) - 128;
        k.push_back(double{scales[t]} * key);
        v.push_back(double{scales[kPageTokens + t]} * value);
      }
      Unrotate(&k), Unrotate(&v);
      std::copy(k.begin(), k.end(), k_.begin() + static_cast<ptrdiff_t>(row * shape_.head_dim));
      std::copy(v.begin(), v.end(), v_.begin() + static_cast<ptrdiff_t>(row * shape_.head_dim));
    }
  }

  // softmax(q k / sqrt(d)) v of one position and head, of floats as pages hold them. What rounding
  // to integers does is the kernels' own, and held against the numbers as they were.
  std::vector<double> Reference(size_t position, size_t head) const {
    const size_t kv_head = head / shape_.group, hd = shape_.head_dim;
    const size_t begin =
        shape_.window == 0 || position < shape_.window ? 0 : position + 1 - shape_.window;
    std::vector<double> scores, out(hd);
    double max = -1e300, sum = 0;
    for (size_t p = begin; p <= position; p++) {
      double dot = 0;
      for (size_t d = 0; d < hd; d++) {
        dot += double{q_[position * q_width() + head * hd + d]} * KeyValue(k_, p, kv_head, d);
      }
      dot /= std::sqrt(static_cast<double>(hd));
      if (shape_.softcap > 0)
        dot = std::tanh(dot / double{shape_.softcap}) * double{shape_.softcap};
      scores.push_back(dot);
      max = std::max(max, dot);
    }
    for (double& s : scores) sum += s = std::exp(s - max);
    for (size_t p = begin; p <= position; p++) {
      for (size_t d = 0; d < hd; d++)
        out[d] += scores[p - begin] / sum * KeyValue(v_, p, kv_head, d);
    }
    return out;
  }

  // The pages, null where they lie before the window of `position`.
  std::vector<std::byte*> PagesSeenFrom(size_t position) const {
    std::vector<std::byte*> pages = pages_;
    const size_t unseen = position < shape_.window ? 0 : position + 1 - shape_.window;
    std::fill_n(pages.begin(), unseen / kPageTokens, nullptr);
    return pages;
  }

  const Shape& shape() const { return shape_; }
  const GuardedVector<float>& keys() const { return k_; }
  const GuardedVector<float>& values() const { return v_; }
  size_t length() const { return length_; }

 private:
  Sequence(const KernelTable& kernels, const Shape& shape, size_t length, Values values,
           const Sequence* trunk, size_t shared_pages)
      : shape_(shape), layout_{2, shape.num_kv_heads, shape.head_dim, shape.type}, length_(length) {
    std::mt19937 random(static_cast<unsigned>(length));
    std::normal_distribution<float> value;
    const size_t width = shape.num_kv_heads * shape.head_dim;
    k_.resize(length * width), v_.resize(length * width), q_.resize(length * q_width());
    for (float& x : k_) x = value(random);
    for (float& x : v_) x = value(random);
    for (float& x : q_) x = value(random);
    if (values == Values::kSomeOverflow) Overflow(width);
    if (values == Values::kBiased) {
      for (size_t i = 0; i < k_.size(); i += shape.head_dim) k_[i] += 60, k_[i + 1] -= 25;
    }
    if (values == Values::kOneComponent || values == Values::kSameComponents) Align(values);
    const size_t shared = shared_pages * kPageTokens, own_pages = PagesFor(length) - shared_pages;
    storage_.assign(own_pages * layout_.page_bytes() / 2, 0x7fff);
    if (trunk != nullptr) {
      std::copy_n(trunk->k_.begin(), shared * width, k_.begin());
      std::copy_n(trunk->v_.begin(), shared * width, v_.begin());
      pages_.assign(trunk->pages_.begin(),
                    trunk->pages_.begin() + static_cast<std::ptrdiff_t>(shared_pages));
    }
    for (size_t i = 0; i < own_pages; i++) {
      pages_.push_back(reinterpret_cast<std::byte*>(storage_.data()) + i * layout_.page_bytes());
    }
    kernels.attention.write_rows({&layout_, pages_.data()}, 1, shared, length - shared,
                                 k_.data() + shared * width, v_.data() + shared * width, width);
  }

  // Scores of 1.5 and -1.5.
  void Align(Values values) {
    const size_t head_dim = shape_.head_dim, width = shape_.num_kv_heads * head_dim;
    const size_t period = values == Values::kOneComponent ? head_dim : 1;
    const double root = std::sqrt(static_cast<double>(head_dim));
    const double terms = static_cast<double>(head_dim / period);
    const auto component = static_cast<float>(std::sqrt(1.5 * root / terms));
    for (size_t i = 0; i < q_.size(); i++) q_[i] = i % period == 0 ? component : 0;
    for (size_t i = 0; i < k_.size(); i++) {
      k_[i] = i % period == 0 ? component : 0;
      if (i / width % 2 != 0) k_[i] = -k_[i];
    }
  }

  // The inverse of Walsh and Hadamard's transform, of blocks of a power of two.
  static void Unrotate(std::vector<double>* x) {
    const size_t block = x->size() & (~x->size() + 1);
    for (size_t half = 1; half < block; half *= 2) {
      for (size_t i = 0; i < x->size(); i++) {
        if ((i & half) != 0) continue;
        const double a = (*x)[i], b = (*x)[i + half];
        (*x)[i] = a + b, (*x)[i + half] = a - b;
      }
    }
    for (double& element : *x) element /= static_cast<double>(block);
  }

  // Of every 16 rows from the 12th on, one has one bad key and one only bad values.
  void Overflow(size_t width) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kBad[] = {kInfinity, 1e25f, std::numeric_limits<float>::quiet_NaN(), -kInfinity,
                              -65520.0f};
    size_t next = 0;
    for (size_t row = 11; row + 1 < length_; row += 16) {
      for (size_t i = 0; i < width; i++) v_[row * width + i] = kBad[next++ % std::size(kBad)];
      k_[(row + 1) * width + row % width] = kBad[next++ % std::size(kBad)];
    }
  }

  Shape shape_;
  PageLayout layout_;
  size_t length_;
  GuardedVector<float> k_, v_, q_;
  GuardedVector<uint16_t> storage_;
  std::vector<std::byte*> pages_;
};

struct Scratch {
  explicit Scratch(size_t head_dim) : bytes((AttentionScratchBytes(head_dim) + 63) / 64 * 64) {}
  std::byte* get() { return bytes.data(); }
  GuardedVector<std::byte> bytes;
};

// Rows [first, first + num_rows) in one task, into their places in `out`.
void Attend(const KernelTable& kernels, const Sequence& sequence, size_t first, size_t num_rows,
            GuardedVector<float>* out) {
  Scratch scratch(sequence.shape().head_dim);
  const std::vector<AttentionRow> rows = sequence.Rows(first, num_rows, out);
  for (size_t h = 0; h < sequence.shape().num_kv_heads; h++)
    kernels.attention.attend(sequence.Task(rows), h, 0, num_rows, scratch.get());
}

GuardedVector<float> AttendAll(const KernelTable& kernels, const Sequence& sequence, size_t chunk) {
  GuardedVector<float> out(sequence.length() * sequence.q_width());
  for (size_t first = 0; first < sequence.length(); first += chunk)
    Attend(kernels, sequence, first, std::min(chunk, sequence.length() - first), &out);
  return out;
}

class AttentionTest : public testing::TestWithParam<const KernelTable*> {};

// All of them, or every nth where the machine is slow: TRELLIS_TEST_STRIDE=n, for emulators and
// sanitizers.
std::vector<Shape> Shapes() {
  const std::vector<Shape> all = {{1, 1, 8, 0},
                                  {2, 3, 32, 0},
                                  {3, 3, 64, 0},
                                  {2, 7, 64, 100},
                                  {1, 4, 256, 0},
                                  {1, 4, 256, 40},
                                  {2, 6, 128, 0},
                                  {1, 5, 80, 0},
                                  {2, 2, 96, 33},
                                  {1, 2, 64, 0, 5.0f},
                                  {1, 8, 128, 64},
                                  {2, 1, 96, 0},
                                  {1, 14, 24, 600},
                                  {1, 2, 8, 0, 0, KvType::kBf16},
                                  {2, 3, 64, 0, 0, KvType::kBf16},
                                  {1, 4, 128, 100, 0, KvType::kBf16},
                                  {1, 5, 80, 0, 0, KvType::kBf16},
                                  {1, 2, 8, 0, 0, KvType::kI16},
                                  {2, 3, 64, 0, 0, KvType::kI16},
                                  {1, 7, 64, 100, 0, KvType::kI16},
                                  {1, 6, 128, 0, 5.0f, KvType::kI16},
                                  {1, 4, 256, 40, 0, KvType::kI16},
                                  {2, 1, 24, 0, 0, KvType::kI16},
                                  {1, 5, 80, 0, 0, KvType::kI16},
                                  {1, 2, 8, 0, 0, KvType::kQ8_0},
                                  {2, 3, 64, 0, 0, KvType::kQ8_0},
                                  {1, 6, 128, 0, 5.0f, KvType::kQ8_0},
                                  {1, 7, 64, 100, 0, KvType::kQ8_0},
                                  {1, 4, 256, 40, 0, KvType::kQ8_0},
                                  {2, 1, 24, 0, 0, KvType::kQ8_0},
                                  {2, 2, 96, 33, 0, KvType::kQ8_0},
                                  {1, 5, 80, 0, 0, KvType::kQ8_0}};
  const char* stride = std::getenv("TRELLIS_TEST_STRIDE");
  const size_t step = stride != nullptr ? std::max(1ul, std::strtoul(stride, nullptr, 10)) : 1;
  std::vector<Shape> shapes;
  for (size_t i = 0; i < all.size(); i += step) shapes.push_back(all[i]);
  return shapes;
}

TEST_P(AttentionTest, MatchesDoublePrecision) {
  for (const Shape& shape : Shapes()) {
    Sequence sequence(*GetParam(), shape, 1100);
    GuardedVector<float> out(sequence.length() * sequence.q_width());
    if (shape.type == KvType::kQ8_0) sequence.ReadPages();
    Attend(*GetParam(), sequence, 0, 34, &out);
    Attend(*GetParam(), sequence, 95, 1, &out);
    Attend(*GetParam(), sequence, 500, 20, &out);
    Attend(*GetParam(), sequence, 1020, 80, &out);
    for (size_t position : {0u, 1u, 31u, 32u, 33u, 95u, 511u, 512u, 513u, 1023u, 1024u, 1099u}) {
      for (size_t head = 0; head < shape.num_kv_heads * shape.group; head++) {
        const std::vector<double> want = sequence.Reference(position, head);
        for (size_t d = 0; d < shape.head_dim; d++) {
          ASSERT_NEAR(out[position * sequence.q_width() + head * shape.head_dim + d], want[d],
                      shape.type == KvType::kI16    ? 0x1p-11
                      : shape.type == KvType::kQ8_0 ? 0x1p-12
                                                    : 4e-6)
              << GetParam()->name << " head_dim " << shape.head_dim << " position " << position;
        }
      }
    }
  }
}

// Root of the mean squared difference from attention to the numbers that pages were given.
double Error(const KernelTable& kernels, Shape shape, KvType type, Values values) {
  constexpr size_t kFirst = 190, kRows = 10;
  shape.type = KvType::kI16;  // whose reference are the numbers as they were
  const Sequence exact(kernels, shape, kFirst + kRows, values);
  shape.type = type;
  const Sequence sequence(kernels, shape, kFirst + kRows, values);
  GuardedVector<float> out(sequence.length() * sequence.q_width());
  Attend(kernels, sequence, kFirst, kRows, &out);
  double squares = 0;
  for (size_t position = kFirst; position < kFirst + kRows; position++) {
    for (size_t head = 0; head < shape.num_kv_heads * shape.group; head++) {
      const std::vector<double> want = exact.Reference(position, head);
      for (size_t d = 0; d < shape.head_dim; d++) {
        const double got = out[position * sequence.q_width() + head * shape.head_dim + d];
        squares += (got - want[d]) * (got - want[d]);
      }
    }
  }
  return std::sqrt(squares / static_cast<double>(kRows * sequence.q_width()));
}

TEST_P(AttentionTest, IntegersAreAsExactAsHalves) {
  for (const size_t head_dim : {64, 128, 256}) {
    for (const Values values : {Values::kModest, Values::kBiased}) {
      const Shape shape{1, 2, head_dim, 0};
      const double f16 = Error(*GetParam(), shape, KvType::kF16, values);
      const double i16 = Error(*GetParam(), shape, KvType::kI16, values);
      EXPECT_LT(i16, 1.1 * f16) << GetParam()->name << " head_dim " << head_dim;
      EXPECT_GT(i16, 0.01 * f16) << GetParam()->name << " head_dim " << head_dim;
    }
  }
}

TEST_P(AttentionTest, TheLargestSumsOfIntegersDoNotOverflow) {
  for (const KvType type : {KvType::kI16, KvType::kQ8_0}) {
    for (const size_t head_dim : {size_t{64}, size_t{512}, kMaxHeadDim}) {
      for (const Values values : {Values::kOneComponent, Values::kSameComponents}) {
        EXPECT_LT(Error(*GetParam(), {1, 1, head_dim, 0}, type, values), 0.01)
            << GetParam()->name << " head_dim " << head_dim;
      }
    }
  }
}

TEST_P(AttentionTest, BytesKeepSevenBits) {
  // f16 keeps five more. Without rotation two large components would take the digits of all others:
  // 80 to 210 times f16's error.
  for (const size_t head_dim : {8, 24, 64, 80, 96, 128, 256}) {
    for (const Values values : {Values::kModest, Values::kBiased}) {
      const Shape shape{1, 2, head_dim, 0};
      const double f16 = Error(*GetParam(), shape, KvType::kF16, values);
      const double q8_0 = Error(*GetParam(), shape, KvType::kQ8_0, values);
      EXPECT_LT(q8_0, 48 * f16) << GetParam()->name << " head_dim " << head_dim;
      EXPECT_GT(q8_0, 4 * f16) << GetParam()->name << " head_dim " << head_dim;
    }
  }
}

// `held`: what pages hold of rows x of head_dim.
void ExpectWithinBounds(const GuardedVector<float>& x, const GuardedVector<float>& held,
                        size_t head_dim) {
  const auto bounded = [&](size_t i) {
    return std::isnan(x[i]) ? 0 : std::clamp(x[i], -65504.0f, 65504.0f);
  };
  for (size_t row = 0; row < x.size(); row += head_dim) {
    double sum = 0;
    for (size_t i = row; i < row + head_dim; i++) sum += std::abs(double{bounded(i)});
    // No rotated element is larger than the sum, and rounding changes none by more than half of
    // what the largest is in units of 127.
    for (size_t i = row; i < row + head_dim; i++)
      ASSERT_NEAR(held[i], bounded(i), sum / 253) << "head_dim " << head_dim << " element " << i;
  }
}

TEST_P(AttentionTest, BytesOfARowThatOverflowsAreThoseOfItsBounds) {
  for (const size_t head_dim : {8, 64, 80}) {
    const Shape shape{2, 1, head_dim, 0, 0, KvType::kQ8_0};
    Sequence sequence(*GetParam(), shape, 100, Values::kSomeOverflow);
    const GuardedVector<float> keys = sequence.keys(), values = sequence.values();
    sequence.ReadPages();
    ExpectWithinBounds(keys, sequence.keys(), head_dim);
    ExpectWithinBounds(values, sequence.values(), head_dim);
  }
}

TEST_P(AttentionTest, ChunksAndBlocksDoNotChangeABit) {
  for (const Shape& shape : Shapes()) {
    const Sequence sequence(*GetParam(), shape, GetParam()->isa == Isa::kScalar ? 140 : 560);
    const GuardedVector<float> whole = AttendAll(*GetParam(), sequence, sequence.length());
    for (size_t chunk : {1u, 5u, 32u, 33u, 64u}) {
      const GuardedVector<float> cut = AttendAll(*GetParam(), sequence, chunk);
      ASSERT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0)
          << GetParam()->name << " head_dim " << shape.head_dim << " chunk " << chunk;
    }
  }
}

TEST_P(AttentionTest, ARowThatOverflowsDoesNotChangeABitOfOthers) {
  for (const Shape& shape : Shapes()) {
    const size_t length = GetParam()->isa == Isa::kScalar ? 140 : 560;
    const Sequence modest(*GetParam(), shape, length);
    const Sequence sequence(*GetParam(), shape, length, Values::kSomeOverflow);
    const GuardedVector<float> whole = AttendAll(*GetParam(), sequence, length);
    EXPECT_TRUE(std::all_of(whole.begin(), whole.end(), [](float x) { return std::isfinite(x); }))
        << GetParam()->name << " head_dim " << shape.head_dim;
    for (size_t chunk : {1u, 5u, 33u}) {
      const GuardedVector<float> cut = AttendAll(*GetParam(), sequence, chunk);
      ASSERT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0)
          << GetParam()->name << " head_dim " << shape.head_dim << " chunk " << chunk;
    }
    const GuardedVector<float> before = AttendAll(*GetParam(), modest, length);
    ASSERT_EQ(std::memcmp(before.data(), whole.data(), 11 * sequence.q_width() * sizeof(float)), 0)
        << GetParam()->name << " head_dim " << shape.head_dim;
  }
}

TEST_P(AttentionTest, PagesBeforeTheWindowAreNotRead) {
  for (const Shape& shape : Shapes()) {
    if (shape.window == 0) continue;
    const Sequence sequence(*GetParam(), shape, 700);
    GuardedVector<float> whole(sequence.length() * sequence.q_width()), windowed(whole);
    Scratch scratch(shape.head_dim);
    for (const size_t position : {31u, 64u, 128u, 163u, 639u, 699u}) {
      Attend(*GetParam(), sequence, position, 1, &whole);
      const std::vector<std::byte*> pages = sequence.PagesSeenFrom(position);
      std::vector<AttentionRow> rows = sequence.Rows(position, 1, &windowed);
      rows[0].pages = pages.data();
      for (size_t h = 0; h < shape.num_kv_heads; h++)
        GetParam()->attention.attend(sequence.Task(rows), h, 0, 1, scratch.get());
    }
    ASSERT_EQ(std::memcmp(whole.data(), windowed.data(), whole.size() * sizeof(float)), 0)
        << GetParam()->name << " head_dim " << shape.head_dim;
  }
}

// Attends to `rows` segment by segment, the last first, and merges.
void AttendInSegments(const KernelTable& kernels, const Shape& shape, const AttentionTask& task,
                      size_t num_rows) {
  size_t first = SIZE_MAX, last = 0;
  for (size_t r = 0; r < num_rows; r++) {
    const SegmentRange range = VisibleSegments(task.rows[r].position, task.window);
    first = std::min(first, range.first), last = std::max(last, range.last);
  }
  Scratch scratch(shape.head_dim);
  const size_t row_floats = shape.group * (2 + shape.head_dim), stride = num_rows * row_floats;
  GuardedVector<float> partials((last - first + 1) * stride);
  for (size_t h = 0; h < shape.num_kv_heads; h++) {
    for (size_t s = last + 1; s-- > first;) {
      kernels.attention.attend_segment(task, h, 0, num_rows, s,
                                       partials.data() + (s - first) * stride, scratch.get());
    }
    for (size_t r = 0; r < num_rows; r++) {
      const size_t begin = VisibleSegments(task.rows[r].position, task.window).first - first;
      kernels.attention.merge_segments(task, h, r,
                                       partials.data() + begin * stride + r * row_floats, stride);
    }
  }
}

TEST_P(AttentionTest, SegmentsMergedAreTheWhole) {
  for (const Shape& shape : Shapes()) {
    const Sequence sequence(*GetParam(), shape, 1700);
    GuardedVector<float> whole(sequence.length() * sequence.q_width()), merged(whole);
    const std::vector<size_t> positions = {0, 40, 511, 512, 513, 1024, 1300, 1699};
    std::vector<AttentionRow> rows;
    for (size_t position : positions) {
      Attend(*GetParam(), sequence, position, 1, &whole);
      rows.push_back(sequence.Row(position, &merged));
    }
    AttendInSegments(*GetParam(), shape, sequence.Task(rows), rows.size());
    ASSERT_EQ(std::memcmp(whole.data(), merged.data(), whole.size() * sizeof(float)), 0)
        << GetParam()->name << " head_dim " << shape.head_dim;
  }
}

// A sequence of a tree and the rows of it that a step has.
struct Member {
  std::unique_ptr<Sequence> sequence;
  size_t first, num_rows;
  GuardedVector<float> alone, together;
};

// A trunk, branches off it and off a branch, and one that shares nothing, some decoding, some
// prefilling; those that share pages are neighbours.
std::vector<Member> Tree(const KernelTable& kernels, const Shape& shape) {
  std::vector<Member> tree;
  const auto add = [&](size_t length, size_t num_rows, size_t from, size_t shared_pages) {
    auto sequence = shared_pages == 0
                        ? std::make_unique<Sequence>(kernels, shape, length)
                        : std::make_unique<Sequence>(kernels, shape, length, *tree[from].sequence,
                                                     shared_pages);
    const GuardedVector<float> out(length * sequence->q_width());
    tree.push_back({std::move(sequence), length - num_rows, num_rows, out, out});
  };
  add(640, 40, 0, 0);
  add(641, 1, 0, 20);
  add(651, 1, 0, 18);
  add(645, 1, 2, 19);
  add(570, 10, 0, 16);
  add(70, 2, 0, 0);
  return tree;
}

TEST_P(AttentionTest, SharingPagesDoesNotChangeABit) {
  for (const Shape& shape : Shapes()) {
    std::vector<Member> tree = Tree(*GetParam(), shape);
    std::vector<AttentionRow> rows;
    for (Member& m : tree) {
      for (size_t r = 0; r < m.num_rows; r++)
        Attend(*GetParam(), *m.sequence, m.first + r, 1, &m.alone);
      for (const AttentionRow& row : m.sequence->Rows(m.first, m.num_rows, &m.together))
        rows.push_back(row);
    }
    const AttentionTask task = tree[0].sequence->Task(rows);
    Scratch scratch(shape.head_dim);
    const auto expect_equal = [&](const std::string& how) {
      for (Member& m : tree) {
        ASSERT_EQ(std::memcmp(m.alone.data(), m.together.data(), m.alone.size() * sizeof(float)), 0)
            << GetParam()->name << " head_dim " << shape.head_dim << ", length "
            << m.sequence->length() << ", " << how;
        std::fill(m.together.begin(), m.together.end(), 0.0f);
      }
    };
    const bool is_slow = GetParam()->isa == Isa::kScalar;
    for (size_t block :
         is_slow ? std::vector{rows.size()} : std::vector{rows.size(), size_t{43}, size_t{7}}) {
      for (size_t h = 0; h < shape.num_kv_heads; h++) {
        for (size_t begin = 0; begin < rows.size(); begin += block) {
          GetParam()->attention.attend(task, h, begin, std::min(begin + block, rows.size()),
                                       scratch.get());
        }
      }
      expect_equal("blocks of " + std::to_string(block));
    }
    AttendInSegments(*GetParam(), shape, task, rows.size());
    expect_equal("in segments");
    std::shuffle(rows.begin(), rows.end(), std::mt19937(1));
    for (size_t h = 0; h < shape.num_kv_heads; h++)
      GetParam()->attention.attend(task, h, 0, rows.size(), scratch.get());
    expect_equal("in any order");
  }
}

std::string IsaName(const testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->name;
}
// Tables whose attention is another one's are left out.
std::vector<const KernelTable*> Tables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table : AvailableKernels()) {
    const auto same = [&](const KernelTable* t) {
      return t->attention.attend == table->attention.attend;
    };
    if (std::none_of(tables.begin(), tables.end(), same)) tables.push_back(table);
  }
  return tables;
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, testing::ValuesIn(Tables()), IsaName);

}  // namespace
}  // namespace trellis
