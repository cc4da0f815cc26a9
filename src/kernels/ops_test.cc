// Every operation on every instruction set of this machine, against double precision.
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/guarded_vector.h"
#include "kernels/kernels.h"
#include "kernels/simd_math.h"
#include "kernels/simd_scalar.h"

namespace trellis {
namespace {

GuardedVector<float> RandomValues(size_t n, uint32_t seed, float range = 4) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-range, range);
  GuardedVector<float> out(n);
  for (float& v : out) v = value(random);
  return out;
}

class OpsTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  const OpKernels& ops() const { return GetParam()->ops; }
};

TEST_P(OpsTest, RmsNormMatchesItsDefinitionAtEverySize) {
  for (size_t n : {1u, 7u, 8u, 15u, 16u, 33u, 64u, 100u, 576u, 896u}) {
    const auto x = RandomValues(3 * n, 1), w = RandomValues(n, 2);
    GuardedVector<float> out(3 * n);
    ops().rms_norm(x.data(), n, w.data(), 1e-5f, n, 3, out.data(), n);
    for (size_t r = 0; r < 3; r++) {
      double sum = 0;
      for (size_t i = 0; i < n; i++) sum += double{x[r * n + i]} * x[r * n + i];
      const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-5);
      for (size_t i = 0; i < n; i++) {
        const double want = x[r * n + i] * factor * w[i];
        EXPECT_NEAR(out[r * n + i], want, 1e-6 * (1 + std::fabs(want)))
            << GetParam()->name << " n=" << n;
      }
    }
  }
}

TEST_P(OpsTest, GatesMatchTheirDefinitions) {
  const size_t n = 1003;
  auto gate = RandomValues(n, 3, 20), up = RandomValues(n, 4);
  gate[0] = 0, gate[1] = -200, gate[2] = 200, gate[3] = -87.5f;
  GuardedVector<float> silu(n), gelu(n);
  ops().silu_mul(gate.data(), up.data(), n, n, 1, silu.data(), n);
  ops().gelu_mul(gate.data(), up.data(), n, n, 1, gelu.data(), n);
  for (size_t i = 0; i < n; i++) {
    const double g = gate[i], u = up[i];
    const double want_silu = g / (1 + std::exp(-g)) * u;
    const double want_gelu =
        0.5 * g * (1 + std::tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g))) * u;
    EXPECT_NEAR(silu[i], want_silu, 2e-6 * (1e-3 + std::fabs(want_silu)))
        << GetParam()->name << " " << g;
    EXPECT_NEAR(gelu[i], want_gelu, 2e-6 * (0.5 + std::fabs(g * u)))
        << GetParam()->name << " " << g;
  }
}

TEST(SimdMathTest, Exp2OfNegativeIsAsExactAsItSays) {
  for (float x = -126; x <= 0; x += 0x1p-11f) {
    const double want = std::exp2(double{x});
    EXPECT_NEAR(Exp2OfNegative<SimdScalar>(x), want, 2e-7 * want) << x;
  }
  EXPECT_EQ(Exp2OfNegative<SimdScalar>(0), 1);
  for (const float x : {-126.6f, -127.0f, -1e3f, -1e30f, -INFINITY})
    EXPECT_EQ(Exp2OfNegative<SimdScalar>(x), 0) << x;
}

TEST_P(OpsTest, AValueDoesNotDependOnWhereItStands) {
  const auto gate = RandomValues(257, 5, 10), up = RandomValues(257, 6);
  GuardedVector<float> whole(257), one(1);
  ops().silu_mul(gate.data(), up.data(), 257, 257, 1, whole.data(), 257);
  for (size_t i = 0; i < 257; i++) {
    ops().silu_mul(&gate[i], &up[i], 1, 1, 1, one.data(), 1);
    EXPECT_EQ(std::memcmp(&one[0], &whole[i], sizeof(float)), 0) << GetParam()->name << " " << i;
  }
}

TEST_P(OpsTest, RopeRotatesBothPairings) {
  for (size_t head_dim : {8u, 64u, 80u, 96u}) {
    for (const RopePairing pairing : {RopePairing::kAdjacent, RopePairing::kHalves}) {
      const size_t rope_dim = head_dim == 80 ? 32 : head_dim, half = rope_dim / 2;
      auto x = RandomValues(2 * 3 * head_dim, 7);
      const auto before = x, angles = RandomValues(2 * half, 8, 100);
      GuardedVector<float> cos(2 * half), sin(2 * half);
      for (size_t i = 0; i < 2 * half; i++)
        cos[i] = std::cos(angles[i]), sin[i] = std::sin(angles[i]);
      ops().rope(x.data(), 3 * head_dim, 2, 3, head_dim, rope_dim, pairing, cos.data(), sin.data());
      for (size_t r = 0; r < 2; r++) {
        for (size_t h = 0; h < 3; h++) {
          const size_t base = (r * 3 + h) * head_dim;
          for (size_t i = 0; i < half; i++) {
            const size_t a = base + (pairing == RopePairing::kHalves ? i : 2 * i);
            const size_t b = pairing == RopePairing::kHalves ? a + half : a + 1;
            const double c = cos[r * half + i], s = sin[r * half + i];
            EXPECT_NEAR(x[a], before[a] * c - before[b] * s, 1e-6);
            EXPECT_NEAR(x[b], before[a] * s + before[b] * c, 1e-6);
          }
          for (size_t i = rope_dim; i < head_dim; i++) EXPECT_EQ(x[base + i], before[base + i]);
        }
      }
    }
  }
}

TEST_P(OpsTest, AddAndScale) {
  auto x = RandomValues(37, 9);
  const auto y = RandomValues(37, 10), before = x;
  ops().add(x.data(), y.data(), 37);
  for (size_t i = 0; i < 37; i++) EXPECT_EQ(x[i], before[i] + y[i]);
  ops().scale(x.data(), 3.0f, 37);
  for (size_t i = 0; i < 37; i++) EXPECT_EQ(x[i], (before[i] + y[i]) * 3.0f);
}

std::string IsaName(const testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->name;
}
INSTANTIATE_TEST_SUITE_P(Isa, OpsTest, testing::ValuesIn(AvailableKernels()), IsaName);

TEST(SelectKernelsTest, ForcingTakesAndUnknownNamesListWhatThereIs) {
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_EQ(SelectKernels(table->name).value(), table);
  }
  const auto unknown = SelectKernels("mmx");
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.status().message().find("scalar"), std::string::npos);
  setenv("TRELLIS_ISA", "scalar", 1);
  EXPECT_EQ(SelectKernelsFromEnvironment().value()->isa, Isa::kScalar);
  unsetenv("TRELLIS_ISA");
  EXPECT_EQ(SelectKernelsFromEnvironment().value(), AvailableKernels().back());
}

}  // namespace
}  // namespace trellis
