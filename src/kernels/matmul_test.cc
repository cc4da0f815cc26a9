// Packed matrix products on every instruction set of this machine: against double precision on what
// the packed bytes stand for, against the scalar oracle, and bit for bit against themselves, cut
// differently.
#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>
#include <random>
#include <string_view>
#include <vector>

#include "base/half.h"
#include "kernels/guarded_vector.h"
#include "kernels/kernels.h"
#include "kernels/matmul_emulated.h"
#include "kernels/pack.h"

namespace trellis {
namespace {

struct Format {
  int32_t ggml_type;
  size_t block_depth, block_bytes;
  std::vector<size_t> half_offsets;  // where a block's f16 scales lie: given plausible values
};

const Format kFormats[] = {{0, 1, 4, {}},          {1, 1, 2, {0}},        {30, 1, 2, {}},
                           {2, 32, 18, {0}},       {3, 32, 20, {0, 2}},   {6, 32, 22, {0}},
                           {7, 32, 24, {0, 2}},    {8, 32, 34, {0}},      {20, 32, 18, {0}},
                           {39, 32, 17, {}},       {11, 256, 110, {108}}, {12, 256, 144, {0, 2}},
                           {13, 256, 176, {0, 2}}, {14, 256, 210, {208}}};

// What the bytes of quants and integer scales are, -1: random.
constexpr int kRandom = -1;

// Rows of a GGUF tensor, packed.
class Weights {
 public:
  Weights(const Format& format, size_t num_outputs, size_t depth, int fill = kRandom) {
    std::mt19937 random(static_cast<uint32_t>(format.ggml_type * 1000 + static_cast<int>(depth)));
    std::uniform_real_distribution<float> scale(0.001f, 0.01f);
    const size_t blocks = num_outputs * depth / format.block_depth;
    rows_.resize(blocks * format.block_bytes);
    for (std::byte& b : rows_)
      b = static_cast<std::byte>(fill == kRandom ? static_cast<int>(random()) : fill);
    for (size_t i = 0; i < blocks; i++) {
      std::byte* block = rows_.data() + i * format.block_bytes;
      if (format.ggml_type == 0) {
        const float value = scale(random) - 0.005f;
        std::memcpy(block, &value, 4);
      } else if (format.ggml_type == 30) {
        const uint16_t value = FloatToBf16(scale(random) - 0.005f);
        std::memcpy(block, &value, 2);
      }
      if (format.ggml_type == 39) *block = std::byte{120};  // 2^-8
      for (size_t at = 0; at < format.half_offsets.size(); at++) {
        // The second is a min: Q4_1's and Q5_1's is negative for centred weights.
        const float sign = at == 1 && format.block_depth == 32 ? -8.0f : 1.0f;
        const uint16_t half = FloatToHalf(scale(random) * sign);
        std::memcpy(block + format.half_offsets[at], &half, 2);
      }
    }
    matrix_ = {PackedTypeFor(format.ggml_type), num_outputs, depth, nullptr};
    storage_.resize(matrix_.num_panels() * matrix_.panel_bytes());  // a multiple of 64
    matrix_.panels = storage_.data();
    const PackSource source{.ggml_type = format.ggml_type,
                            .rows = rows_.data(),
                            .row_bytes = depth / format.block_depth * format.block_bytes,
                            .num_outputs = num_outputs,
                            .depth = depth};
    PackPanels(source, matrix_.type, 0, matrix_.num_panels(), storage_.data());
  }
  const PackedMatrix& matrix() const { return matrix_; }
  size_t source_bytes() const { return rows_.size(); }

 private:
  GuardedVector<std::byte> rows_, storage_;
  PackedMatrix matrix_;
};

// Random activations in the form that weights of `type` read, quantised by `kernels`.
class Rows {
 public:
  // `all`: every activation has this value; 0: normally distributed.
  Rows(const KernelTable& kernels, PackedType type, size_t num_rows, size_t depth, float all = 0)
      : form_(FormFor(type)), f32_(num_rows * depth) {
    std::mt19937 random(99);
    std::normal_distribution<float> value;
    for (float& v : f32_) v = all != 0 ? all : value(random);
    quantized_.depth = depth;
    quantized_.scale_depth = form_ == ActivationForm::kPerGroup ? kGroupDepth : kBlockDepth;
    values_.resize(num_rows * quantized_.value_stride());
    scales_.resize(num_rows * quantized_.num_scales());
    scaled_sums_.resize(scales_.size());
    group_sums_.resize(num_rows * quantized_.group_stride(), -1);
    half_sums_.resize(2 * group_sums_.size(), -1);
    quantized_.values = values_.data(), quantized_.scales = scales_.data();
    quantized_.group_sums = group_sums_.data();
    if (form_ == ActivationForm::kPerGroup) {
      quantized_.scaled_sums = scaled_sums_.data();
    } else {
      quantized_.half_sums = half_sums_.data();
    }
    kernels.matmul.quantize_rows(f32_.data(), depth, num_rows, quantized_);
  }
  Activations View() const {
    Activations view{
        .f32 = f32_.data(), .f32_stride = quantized_.depth, .per_group = {}, .per_block = {}};
    (form_ == ActivationForm::kPerGroup ? view.per_group : view.per_block) = quantized_;
    return view;
  }
  // What the matmul sees of element k of row r.
  double Value(size_t r, size_t k) const {
    if (form_ == ActivationForm::kF32) return double{f32_[r * quantized_.depth + k]};
    return double{scales_[r * quantized_.num_scales() + k / quantized_.scale_depth]} *
           values_[r * quantized_.value_stride() + k];
  }
  // Everything that quantize_rows wrote.
  bool operator==(const Rows& other) const {
    return values_ == other.values_ && scales_ == other.scales_ &&
           scaled_sums_ == other.scaled_sums_ && group_sums_ == other.group_sums_ &&
           half_sums_ == other.half_sums_;
  }

 private:
  ActivationForm form_;
  GuardedVector<float> f32_, scales_, scaled_sums_;
  GuardedVector<int8_t> values_;
  GuardedVector<int16_t> group_sums_, half_sums_;
  QuantizedRows quantized_;
};

GuardedVector<float> Multiply(const KernelTable& kernels, const PackedMatrix& w, const Rows& x,
                              size_t num_rows, size_t row_step, size_t panel_step,
                              const float* bias = nullptr) {
  GuardedVector<float> out(num_rows * w.num_outputs, NAN);
  GuardedVector<std::byte> scratch(kMatmulScratchBytes);
  for (size_t r = 0; r < num_rows; r += row_step) {
    for (size_t p = 0; p < w.num_panels(); p += panel_step) {
      kernels.matmul.matmul(w, x.View(), r, std::min(r + row_step, num_rows), p,
                            std::min(p + panel_step, w.num_panels()), bias, out.data(),
                            w.num_outputs, scratch.data());
    }
  }
  return out;
}

std::vector<size_t> Depths(const Format& format) {
  return format.block_depth == 256 ? std::vector<size_t>{256, 768}
                                   : std::vector<size_t>{32, 256, 288, 576, 896};
}

class MatmulTest : public testing::TestWithParam<const KernelTable*> {};

TEST_P(MatmulTest, MatchesDoublePrecision) {
  for (const Format& format : kFormats) {
    for (size_t depth : Depths(format)) {
      const size_t num_outputs = 70, num_rows = 5;
      const Weights weights(format, num_outputs, depth);
      const PackedMatrix& w = weights.matrix();
      const Rows x(*GetParam(), w.type, num_rows, depth);
      GuardedVector<float> bias(num_outputs);
      for (size_t o = 0; o < num_outputs; o++) bias[o] = static_cast<float>(o);
      const GuardedVector<float> out =
          Multiply(*GetParam(), w, x, num_rows, num_rows, 3, bias.data());
      GuardedVector<float> values(num_outputs * depth);
      UnpackWeights(w, values.data());
      for (size_t r = 0; r < num_rows; r++) {
        for (size_t o = 0; o < num_outputs; o++) {
          double want = static_cast<double>(o), size = want;
          for (size_t k = 0; k < depth; k++) {
            const double product = x.Value(r, k) * double{values[o * depth + k]};
            want += product, size += std::fabs(product);
          }
          // f32 rounding of at most depth additions.
          ASSERT_NEAR(out[r * num_outputs + o], want, size * 1e-6)
              << GetParam()->name << " type " << format.ggml_type << " depth " << depth
              << " output " << o;
        }
      }
    }
  }
}

TEST_P(MatmulTest, RowsAndPanelsTogetherOrApartGiveTheSameBits) {
  for (const Format& format : kFormats) {
    const size_t num_rows = 37, depth = Depths(format).back();
    const Weights weights(format, 70, depth);
    const Rows x(*GetParam(), weights.matrix().type, num_rows, depth);
    const GuardedVector<float> whole =
        Multiply(*GetParam(), weights.matrix(), x, num_rows, num_rows, 3);
    for (size_t row_step : {1u, 2u, 5u, 7u, 12u, 13u, 16u, 19u}) {
      const GuardedVector<float> cut =
          Multiply(*GetParam(), weights.matrix(), x, num_rows, row_step, 1 + row_step % 2);
      ASSERT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0)
          << GetParam()->name << " type " << format.ggml_type << " rows " << row_step;
    }
  }
}

TEST_P(MatmulTest, MoreRowsThanScratchHoldsGiveTheSameBits) {
  for (int32_t type : {0, 3, 12}) {
    const Format& format = *std::find_if(std::begin(kFormats), std::end(kFormats),
                                         [&](const Format& f) { return f.ggml_type == type; });
    const size_t num_rows = kScratchRows + 3;
    const Weights weights(format, 33, 256);
    const Rows x(*GetParam(), weights.matrix().type, num_rows, 256);
    const GuardedVector<float> bias(33, 0.5f);
    const auto multiply = [&](size_t row_step) {
      return Multiply(*GetParam(), weights.matrix(), x, num_rows, row_step, 2, bias.data());
    };
    const GuardedVector<float> whole = multiply(num_rows), cut = multiply(13);
    ASSERT_EQ(std::memcmp(cut.data(), whole.data(), whole.size() * sizeof(float)), 0) << type;
  }
}

// Where 127 / max is no number.
TEST_P(MatmulTest, VerySmallActivationsAreZeros) {
  const Rows x(*GetParam(), PackedType::kQ4_0, 2, 64, 1e-38f);
  for (size_t k = 0; k < 64; k++) ASSERT_EQ(x.Value(1, k), 0);
}

// Rows enough for every kind of tile, and some over.
TEST_P(MatmulTest, BitsAreTheOraclesBits) {
  constexpr size_t kRows = 37;
  const KernelTable& oracle = *SelectKernels("scalar").value();
  for (const Format& format : kFormats) {
    for (size_t depth : Depths(format)) {
      const Weights weights(format, 70, depth);
      const PackedType type = weights.matrix().type;
      const Rows x(*GetParam(), type, kRows, depth), oracle_x(oracle, type, kRows, depth);
      ASSERT_TRUE(x == oracle_x) << GetParam()->name << " activations of depth " << depth;
      const GuardedVector<float> got = Multiply(*GetParam(), weights.matrix(), x, kRows, kRows, 3);
      const GuardedVector<float> want =
          Multiply(oracle, weights.matrix(), oracle_x, kRows, kRows, 3);
      ASSERT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
          << GetParam()->name << " type " << format.ggml_type << " depth " << depth;
    }
  }
}

// The largest sums that 16 or 32 bits must hold: every quant at its top, every activation at +-127.
TEST_P(MatmulTest, TheLargestProductsDoNotOverflow) {
  constexpr size_t kRows = 17;
  const KernelTable& oracle = *SelectKernels("scalar").value();
  for (const Format& format : kFormats) {
    for (int fill : {0xff, 0x00, 0x80, 0x7f}) {
      const Weights weights(format, 32, 512, fill);
      const PackedType type = weights.matrix().type;
      for (float sign : {1.0f, -1.0f}) {
        const Rows x(*GetParam(), type, kRows, 512, sign);
        const GuardedVector<float> got =
            Multiply(*GetParam(), weights.matrix(), x, kRows, kRows, 1);
        const GuardedVector<float> want = Multiply(oracle, weights.matrix(), x, kRows, kRows, 1);
        ASSERT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
            << GetParam()->name << " type " << format.ggml_type << " sign " << sign;
      }
    }
  }
}

#if defined(__x86_64__)
// The table called `base`, if the machine has it, with another matmul.
const KernelTable* Emulated(std::string_view base, Isa isa, const char* name,
                            MatmulKernels (*matmul)()) {
  static std::list<KernelTable> tables;
  const Result<const KernelTable*> table = SelectKernels(base);
  if (!table.ok()) return nullptr;
  tables.push_back(*table.value());
  tables.back().isa = isa, tables.back().name = name, tables.back().matmul = matmul();
  return &tables.back();
}
#endif

// The machine's tables, and those that it can emulate.
std::vector<const KernelTable*> TestedKernels() {
  std::vector<const KernelTable*> tested = AvailableKernels();
#if defined(__x86_64__)
  for (const KernelTable* table :
       {Emulated("avx2", Isa::kAvxVnni, "avxvnni_emulated", EmulatedAvxVnniMatmulKernels),
        Emulated("avx512", Isa::kAmx, "amx_emulated", EmulatedAmxMatmulKernels)}) {
    if (table != nullptr) tested.push_back(table);
  }
#endif
  return tested;
}

std::string IsaName(const testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->name;
}
INSTANTIATE_TEST_SUITE_P(Isa, MatmulTest, testing::ValuesIn(TestedKernels()), IsaName);

// What packing may cost in memory: decode is bound by it.
TEST(PackTest, CommonTypesGrowByLessThanThreePercent) {
  for (const Format& format : kFormats) {
    for (size_t depth : {768u, 1536u}) {
      const Weights weights(format, 64, depth);
      const double packed =
          static_cast<double>(weights.matrix().num_panels() * weights.matrix().panel_bytes());
      const bool rare =  // 4 and 3 bits in more
          format.ggml_type == 20 || format.ggml_type == 39 || format.ggml_type == 11;
      if (rare) continue;
      EXPECT_LT(packed, 1.03 * static_cast<double>(weights.source_bytes())) << format.ggml_type;
    }
  }
}

}  // namespace
}  // namespace trellis
