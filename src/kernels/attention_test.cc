// Attention on every instruction set of this machine: against double precision, and bit for bit
// against itself, cut differently.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"
#include "kernels/kernels.h"

namespace trellis {
namespace {

struct Shape {
  size_t num_kv_heads, group, head_dim, window;
  float softcap = 0;
};

// Some rows have keys or values that f16 cannot hold.
enum class Values { kModest, kSomeOverflow };

// A sequence of `length` positions with random keys and values; rows beyond it are NaN.
class Sequence {
 public:
  Sequence(const KernelTable& kernels, const Shape& shape, size_t length,
           Values values = Values::kModest)
      : shape_(shape), layout_{2, shape.num_kv_heads, shape.head_dim}, length_(length) {
    std::mt19937 random(7);
    std::normal_distribution<float> value;
    const size_t width = shape.num_kv_heads * shape.head_dim, q_width = width * shape.group;
    k_.resize(length * width), v_.resize(length * width), q_.resize(length * q_width);
    for (float& x : k_) x = value(random);
    for (float& x : v_) x = value(random);
    for (float& x : q_) x = value(random);
    if (values == Values::kSomeOverflow) Overflow(width);
    storage_.assign(PagesFor(length) * layout_.page_bytes() / 2, 0x7e00);
    for (size_t i = 0; i < PagesFor(length); i++) {
      pages_.push_back(reinterpret_cast<std::byte*>(storage_.data()) + i * layout_.page_bytes());
    }
    kernels.attention.write_rows({&layout_, pages_.data()}, 1, 0, length, k_.data(), v_.data(),
                                 width);
  }

  size_t q_width() const { return shape_.num_kv_heads * shape_.group * shape_.head_dim; }

  AttentionTask Task(size_t first, size_t rows, float* out) const {
    return {.kv = {&layout_, pages_.data()},
            .layer = 1,
            .first_position = first,
            .num_rows = rows,
            .window = shape_.window,
            .num_heads = shape_.num_kv_heads * shape_.group,
            .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
            .softcap = shape_.softcap,
            .q = q_.data() + first * q_width(),
            .q_stride = q_width(),
            .out = out,
            .out_stride = q_width()};
  }

  double KeyValue(const std::vector<float>& m, size_t position, size_t kv_head, size_t d) const {
    return HalfToFloat(
        FloatToHalf(m[(position * shape_.num_kv_heads + kv_head) * shape_.head_dim + d]));
  }

  // softmax(q k / sqrt(d)) v of one position and head.
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

  const Shape& shape() const { return shape_; }
  size_t length() const { return length_; }

 private:
  // Of every 16 rows from the 12th on, one has one bad key and one only bad values.
  void Overflow(size_t width) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kBad[] = {kInfinity, 1e6f, std::numeric_limits<float>::quiet_NaN(), -kInfinity,
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
  std::vector<float> k_, v_, q_;
  std::vector<uint16_t> storage_;
  std::vector<std::byte*> pages_;
};

struct Scratch {
  explicit Scratch(size_t head_dim) : bytes(AttentionScratchBytes(head_dim) + 64) {}
  std::byte* get() {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  }
  std::vector<std::byte> bytes;
};

// Rows [first, first + num_rows) in one task, into their places in `out`.
void Attend(const KernelTable& kernels, const Sequence& sequence, size_t first, size_t num_rows,
            std::vector<float>* out) {
  Scratch scratch(sequence.shape().head_dim);
  const AttentionTask task =
      sequence.Task(first, num_rows, out->data() + first * sequence.q_width());
  for (size_t h = 0; h < sequence.shape().num_kv_heads; h++)
    kernels.attention.attend(task, h, 0, num_rows, scratch.get());
}

std::vector<float> AttendAll(const KernelTable& kernels, const Sequence& sequence, size_t chunk) {
  std::vector<float> out(sequence.length() * sequence.q_width());
  for (size_t first = 0; first < sequence.length(); first += chunk)
    Attend(kernels, sequence, first, std::min(chunk, sequence.length() - first), &out);
  return out;
}

class AttentionTest : public testing::TestWithParam<const KernelTable*> {};

// All of them, or every nth where the machine is slow: TRELLIS_TEST_STRIDE=n, for emulators and
// sanitizers.
std::vector<Shape> Shapes() {
  const std::vector<Shape> all = {{1, 1, 8, 0},        {2, 3, 32, 0},   {3, 3, 64, 0},
                                  {2, 7, 64, 100},     {1, 4, 256, 0},  {1, 4, 256, 40},
                                  {2, 6, 128, 0},      {1, 5, 80, 0},   {2, 2, 96, 33},
                                  {1, 2, 64, 0, 5.0f}, {1, 14, 24, 600}};
  const char* stride = std::getenv("TRELLIS_TEST_STRIDE");
  const size_t step = stride != nullptr ? std::max(1ul, std::strtoul(stride, nullptr, 10)) : 1;
  std::vector<Shape> shapes;
  for (size_t i = 0; i < all.size(); i += step) shapes.push_back(all[i]);
  return shapes;
}

TEST_P(AttentionTest, MatchesDoublePrecision) {
  for (const Shape& shape : Shapes()) {
    const Sequence sequence(*GetParam(), shape, 1100);
    std::vector<float> out(sequence.length() * sequence.q_width());
    Attend(*GetParam(), sequence, 0, 34, &out);
    Attend(*GetParam(), sequence, 95, 1, &out);
    Attend(*GetParam(), sequence, 500, 20, &out);
    Attend(*GetParam(), sequence, 1020, 80, &out);
    for (size_t position : {0u, 1u, 31u, 32u, 33u, 95u, 511u, 512u, 513u, 1023u, 1024u, 1099u}) {
      for (size_t head = 0; head < shape.num_kv_heads * shape.group; head++) {
        const std::vector<double> want = sequence.Reference(position, head);
        for (size_t d = 0; d < shape.head_dim; d++) {
          ASSERT_NEAR(out[position * sequence.q_width() + head * shape.head_dim + d], want[d], 4e-6)
              << GetParam()->name << " head_dim " << shape.head_dim << " position " << position;
        }
      }
    }
  }
}

TEST_P(AttentionTest, ChunksAndBlocksDoNotChangeABit) {
  for (const Shape& shape : Shapes()) {
    const Sequence sequence(*GetParam(), shape, GetParam()->isa == Isa::kScalar ? 140 : 560);
    const std::vector<float> whole = AttendAll(*GetParam(), sequence, sequence.length());
    for (size_t chunk : {1u, 5u, 32u, 33u, 64u}) {
      const std::vector<float> cut = AttendAll(*GetParam(), sequence, chunk);
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
    const std::vector<float> whole = AttendAll(*GetParam(), sequence, length);
    EXPECT_TRUE(std::all_of(whole.begin(), whole.end(), [](float x) { return std::isfinite(x); }))
        << GetParam()->name << " head_dim " << shape.head_dim;
    for (size_t chunk : {1u, 5u, 33u}) {
      const std::vector<float> cut = AttendAll(*GetParam(), sequence, chunk);
      ASSERT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0)
          << GetParam()->name << " head_dim " << shape.head_dim << " chunk " << chunk;
    }
    const std::vector<float> before = AttendAll(*GetParam(), modest, length);
    ASSERT_EQ(std::memcmp(before.data(), whole.data(), 11 * sequence.q_width() * sizeof(float)), 0)
        << GetParam()->name << " head_dim " << shape.head_dim;
  }
}

TEST_P(AttentionTest, SegmentsMergedAreTheWhole) {
  for (const Shape& shape : Shapes()) {
    const Sequence sequence(*GetParam(), shape, 1700);
    const size_t group = shape.group, stride = group * (2 + shape.head_dim);
    Scratch scratch(shape.head_dim);
    for (size_t position : {0u, 40u, 511u, 512u, 1024u, 1699u}) {
      std::vector<float> whole(sequence.q_width()), merged(sequence.q_width());
      const AttentionTask a = sequence.Task(position, 1, whole.data()),
                          b = sequence.Task(position, 1, merged.data());
      const SegmentRange range = VisibleSegments(position, shape.window);
      for (size_t h = 0; h < shape.num_kv_heads; h++) {
        GetParam()->attention.attend(a, h, 0, 1, scratch.get());
        std::vector<float> partials((range.last - range.first + 1) * stride);
        for (size_t s = range.last + 1; s-- > range.first;) {
          float* partial = partials.data() + (s - range.first) * stride;
          GetParam()->attention.attend_segment(b, h, 0, s, partial, scratch.get());
        }
        GetParam()->attention.merge_segments(b, h, 0, partials.data(),
                                             range.last - range.first + 1);
      }
      ASSERT_EQ(std::memcmp(whole.data(), merged.data(), whole.size() * sizeof(float)), 0)
          << GetParam()->name << " head_dim " << shape.head_dim << " position " << position;
    }
  }
}

std::string IsaName(const testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->name;
}
INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, testing::ValuesIn(AvailableKernels()), IsaName);

}  // namespace
}  // namespace trellis
