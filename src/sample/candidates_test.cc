// Candidates against the slow, obvious version: everything sorted, everything in double.
#include "sample/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace trellis {
namespace {

struct Element {
  TokenId token;
  double logit;
  double p = 0;
};

// llama.cpp's stages (llama-sampler.cpp), one statement each. `near` is set when a decision hung on
// a difference that rounding can turn; then only the sizes are compared, roughly.
class Reference {
 public:
  explicit Reference(std::span<const float> logits) {
    for (size_t i = 0; i < logits.size(); i++) {
      if (std::isnan(logits[i]) || logits[i] == kBanned) continue;
      elements_.push_back({static_cast<TokenId>(i),
                           std::min<double>(logits[i], std::numeric_limits<float>::max())});
    }
    Normalize();
  }

  void TopK(size_t k) { Resize(k == 0 ? elements_.size() : k); }
  void TopP(double p) {
    double sum = 0;
    for (size_t i = 0; i < elements_.size(); i++) {
      sum += elements_[i].p;
      NoteNear(sum, p);
      if (sum >= p) return Resize(i + 1);
    }
  }
  void MinP(double min_p) {
    const float least =
        static_cast<float>(elements_[0].logit) + std::log(static_cast<float>(min_p));
    size_t n = 1;
    while (n < elements_.size() && static_cast<float>(elements_[n].logit) >= least) n++;
    Resize(n);
  }
  void Typical(double p) {
    double entropy = 0;
    for (const Element& e : elements_) entropy -= e.p > 0 ? e.p * std::log(e.p) : 0;
    const auto distance = [&](const Element& e) { return std::fabs(-std::log(e.p) - entropy); };
    std::stable_sort(elements_.begin(), elements_.end(),
                     [&](const Element& a, const Element& b) { return distance(a) < distance(b); });
    double sum = 0;
    for (size_t i = 0; i < elements_.size(); i++) {
      sum += elements_[i].p;
      NoteNear(sum, p);
      if (sum <= p) continue;
      // Equal ones go by id, as do those that rounding cannot tell apart.
      if (i + 1 < elements_.size() && elements_[i].logit != elements_[i + 1].logit) {
        NoteNear(distance(elements_[i]), distance(elements_[i + 1]));
      }
      return Resize(i + 1);
    }
  }

  std::vector<TokenId> Tokens() const {
    std::vector<TokenId> tokens;
    for (const Element& e : elements_) tokens.push_back(e.token);
    std::sort(tokens.begin(), tokens.end());
    return tokens;
  }
  // By id, as Draw: the cumulative probabilities.
  std::vector<std::pair<TokenId, double>> Cumulative(double temperature) const {
    std::vector<Element> by_id = elements_;
    std::sort(by_id.begin(), by_id.end(), [](auto& a, auto& b) { return a.token < b.token; });
    double sum = 0;
    for (Element& e : by_id) sum += e.p = std::exp((e.logit - elements_[0].logit) / temperature);
    std::vector<std::pair<TokenId, double>> cumulative;
    double running = 0;
    for (const Element& e : by_id) cumulative.emplace_back(e.token, (running += e.p) / sum);
    return cumulative;
  }

  bool near = false;

 private:
  void NoteNear(double a, double b) { near = near || std::fabs(a - b) < 1e-5; }
  void Resize(size_t n) {
    elements_.resize(std::min(n, elements_.size()));
    Normalize();
  }
  void Normalize() {
    std::sort(elements_.begin(), elements_.end(), [](const Element& a, const Element& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
    });
    double sum = 0;
    for (Element& e : elements_) sum += e.p = std::exp(e.logit - elements_[0].logit);
    for (Element& e : elements_) e.p /= sum;
  }

  std::vector<Element> elements_;
};

// Peaked, flat, with many equal ones, with banned ones and numbers that are none.
std::vector<float> RandomLogits(std::mt19937& random, size_t n) {
  std::normal_distribution<float> normal(0.0f, random() % 2 == 0 ? 0.5f : 4.0f);
  const bool rounded = random() % 3 == 0, holes = random() % 3 == 0;
  std::vector<float> logits(n);
  for (float& logit : logits) {
    logit = normal(random);
    if (rounded) logit = std::round(logit);
    if (holes && random() % 4 == 0) logit = random() % 2 == 0 ? kBanned : std::nanf("");
  }
  logits[random() % n] = 9.0f;
  return logits;
}

constexpr size_t kSizes[] = {1, 2, 5, 255, 256, 257, 1000, 5000};

template <typename Fast, typename Slow>
void Compare(const Fast& fast, const Slow& slow) {
  std::mt19937 random(5);
  int compared = 0, skipped = 0;
  for (int round = 0; round < 60; round++) {
    for (size_t n : kSizes) {
      const std::vector<float> logits = RandomLogits(random, n);
      const auto choice = static_cast<uint32_t>(random());
      Candidates candidates;
      candidates.Load(logits);
      Reference reference(logits);
      fast(candidates, choice);
      slow(reference, choice);
      if (reference.near) {
        skipped++;
        continue;
      }
      compared++;
      ASSERT_EQ(candidates.Tokens(), reference.Tokens()) << "of " << n << ", round " << round;
    }
  }
  EXPECT_GT(compared, 9 * skipped);
}

float Share(uint32_t choice) {
  constexpr float kShares[] = {0.0f, 0.05f, 0.3f, 0.5f, 0.9f, 0.95f, 0.999f};
  return kShares[choice % std::size(kShares)];
}
size_t Count(uint32_t choice) {
  constexpr size_t kCounts[] = {1, 2, 5, 19, 40, 300, 4999};
  return kCounts[choice % std::size(kCounts)];
}

TEST(CandidatesTest, TopK) {
  Compare([](Candidates& c, uint32_t i) { c.KeepTopK(Count(i)); },
          [](Reference& r, uint32_t i) { r.TopK(Count(i)); });
}

TEST(CandidatesTest, TopP) {
  Compare([](Candidates& c, uint32_t i) { c.KeepTopP(Share(i)); },
          [](Reference& r, uint32_t i) { r.TopP(Share(i)); });
}

TEST(CandidatesTest, MinP) {
  Compare([](Candidates& c, uint32_t i) { c.KeepMinP(Share(i) + 0.001f); },
          [](Reference& r, uint32_t i) { r.MinP(Share(i) + 0.001f); });
}

TEST(CandidatesTest, Typical) {
  Compare([](Candidates& c, uint32_t i) { c.KeepTypical(Share(i)); },
          [](Reference& r, uint32_t i) { r.Typical(Share(i)); });
}

TEST(CandidatesTest, StagesOneAfterTheOther) {
  Compare(
      [](Candidates& c, uint32_t i) {
        c.KeepTopK(Count(i));
        if (i % 2 == 0) c.KeepTypical(Share(i / 2));
        c.KeepTopP(Share(i / 7));
        c.KeepMinP(Share(i / 49) + 0.001f);
      },
      [](Reference& r, uint32_t i) {
        r.TopK(Count(i));
        if (i % 2 == 0) r.Typical(Share(i / 2));
        r.TopP(Share(i / 7));
        r.MinP(Share(i / 49) + 0.001f);
      });
}

TEST(CandidatesTest, DrawWalksTheCumulativeDistributionById) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 300; round++) {
    const std::vector<float> logits = RandomLogits(random, kSizes[random() % std::size(kSizes)]);
    Candidates candidates;
    candidates.Load(logits);
    Reference reference(logits);
    if (round % 2 == 0) candidates.KeepTopK(10), reference.TopK(10);
    const float temperature = round % 3 == 0 ? 0.3f : 1.7f;
    const auto cumulative = reference.Cumulative(temperature);
    for (int draw = 0; draw < 20; draw++) {
      const double u = uniform(random);
      // Any token whose interval is within rounding of u.
      const TokenId token = candidates.Draw(u, temperature);
      double low = 0;
      bool found = false;
      for (const auto& [id, high] : cumulative) {
        if (id == token) found = u >= low - 1e-5 && u <= high + 1e-5;
        low = high;
      }
      EXPECT_TRUE(found) << token << " at " << u;
    }
  }
}

TEST(CandidatesTest, BestAndTopAreInOrderOfLogitThenId) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; round++) {
    const std::vector<float> logits = RandomLogits(random, kSizes[random() % std::size(kSizes)]);
    std::vector<TokenId> order(logits.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<TokenId>(i);
    const auto key = [&](TokenId t) {
      const float logit = logits[static_cast<size_t>(t)];
      return std::isnan(logit) ? kBanned : logit;
    };
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return key(a) > key(b); });
    order.resize(std::min<size_t>(order.size(), 20));
    Candidates candidates;
    candidates.Load(logits);
    EXPECT_EQ(candidates.Top(20), order);
    EXPECT_EQ(candidates.Best(), order[0]);
  }
}

TEST(CandidatesTest, LogSumExpIsThatOfDoubles) {
  std::mt19937 random(4);
  for (size_t n : kSizes) {
    const std::vector<float> logits = RandomLogits(random, n);
    double sum = 0;
    for (float logit : logits) sum += std::isnan(logit) ? 0 : std::exp(static_cast<double>(logit));
    Candidates candidates;
    candidates.Load(logits);
    EXPECT_NEAR(candidates.LogSumExp(), std::log(sum), 1e-6);
  }
}

// Whatever the numbers, an answer is a token, and the stages come to an end.
TEST(CandidatesTest, NumbersThatAreNone) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const float kInf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits :
       {std::vector<float>(300, kBanned), std::vector<float>(300, std::nanf("")),
        std::vector<float>(300, kInf), std::vector<float>{kMax, -kMax, kInf, kBanned},
        std::vector<float>{-kMax, -kMax}}) {
    for (int stage = 0; stage < 5; stage++) {
      Candidates candidates;
      candidates.Load(logits);
      if (stage == 1) candidates.KeepTopK(2);
      if (stage == 2) candidates.KeepTopP(0.5f);
      if (stage == 3) candidates.KeepMinP(0.5f);
      if (stage == 4) candidates.KeepTypical(0.5f);
      for (double u : {0.0, 0.5, 0.999999}) {
        const TokenId token = candidates.Draw(u, 0.7f);
        EXPECT_GE(token, 0);
        EXPECT_LT(static_cast<size_t>(token), logits.size());
      }
    }
  }
}

}  // namespace
}  // namespace trellis
