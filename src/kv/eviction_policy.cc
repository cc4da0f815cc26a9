#include "kv/eviction_policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace trellis {
namespace {

using Class = EvictionPolicy::Class;

size_t LowestWithNodes(std::span<const Class> classes) {
  size_t i = 0;
  while (classes[i].num_nodes == 0) i++;
  return i;
}

class Lru : public EvictionPolicy {
 public:
  size_t num_classes() const override { return 1; }
  size_t ClassOf(const Use&) const override { return 0; }
  size_t Victim(std::span<const Class>, int64_t) const override { return 0; }
};

// Karedla et al., "Caching strategies to improve disk system performance", 1994.
class Slru : public EvictionPolicy {
 public:
  size_t num_classes() const override { return 2; }
  size_t ClassOf(const Use& use) const override { return use.uses > 1 ? 1 : 0; }
  size_t Victim(std::span<const Class> classes, int64_t) const override {
    const size_t all = classes[0].num_pages + classes[1].num_pages;
    if (classes[1].num_pages * 5 > all * 4) return 1;
    return LowestWithNodes(classes);
  }
};

class Lfu : public EvictionPolicy {
 public:
  size_t num_classes() const override { return kMaxClasses; }
  size_t ClassOf(const Use& use) const override {
    return std::min<size_t>(std::bit_width(std::max<uint64_t>(use.uses, 1)) - 1, kMaxClasses - 1);
  }
  size_t Victim(std::span<const Class> classes, int64_t) const override {
    return LowestWithNodes(classes);
  }
};

// Priorities from -8 to 7 are told apart; the usual one, 0, is in the middle.
class Priority : public EvictionPolicy {
 public:
  size_t num_classes() const override { return kMaxClasses; }
  size_t ClassOf(const Use& use) const override {
    constexpr int32_t kHalf = kMaxClasses / 2;
    return static_cast<size_t>(kHalf - 1 - std::clamp(use.priority, -kHalf, kHalf - 1));
  }
  size_t Victim(std::span<const Class> classes, int64_t) const override {
    return LowestWithNodes(classes);
  }
};

// As GreedyDual (Young 1994; with sizes and costs: Cao and Irani 1997), by ratio instead of sum, so
// that no unit of time has to be chosen.
class Cost : public EvictionPolicy {
 public:
  size_t num_classes() const override { return kMaxClasses; }
  size_t ClassOf(const Use& use) const override {
    // Attention over so many tokens costs about what the rest of a token's forward pass does.
    constexpr double kEvenDepth = 4096;
    constexpr uint64_t kMostUses = 4;
    const double worth = static_cast<double>(std::clamp<uint64_t>(use.uses, 1, kMostUses)) *
                         (1 + static_cast<double>(use.end) / kEvenDepth);
    return std::min(static_cast<size_t>(2 * std::log2(worth)), kMaxClasses - 1);
  }
  size_t Victim(std::span<const Class> classes, int64_t now) const override {
    size_t victim = LowestWithNodes(classes);
    double most = 0;
    for (size_t i = victim; i < classes.size(); i++) {
      if (classes[i].num_nodes == 0) continue;
      const double age = static_cast<double>(now - classes[i].last_used + 1) *
                         std::exp2(-static_cast<double>(i) / 2);
      if (age > most) most = age, victim = i;
    }
    return victim;
  }
};

constexpr std::array<std::string_view, std::size(kEvictionPolicies)> kNames = {"lru", "slru", "lfu",
                                                                               "priority", "cost"};

}  // namespace

std::string_view EvictionPolicyName(EvictionPolicyKind kind) {
  return kNames[static_cast<size_t>(kind)];
}

std::optional<EvictionPolicyKind> FindEvictionPolicy(std::string_view name) {
  for (const EvictionPolicyKind kind : kEvictionPolicies)
    if (EvictionPolicyName(kind) == name) return kind;
  return std::nullopt;
}

std::unique_ptr<EvictionPolicy> EvictionPolicy::Make(EvictionPolicyKind kind) {
  switch (kind) {
    case EvictionPolicyKind::kLru:
      return std::make_unique<Lru>();
    case EvictionPolicyKind::kSlru:
      return std::make_unique<Slru>();
    case EvictionPolicyKind::kLfu:
      return std::make_unique<Lfu>();
    case EvictionPolicyKind::kPriority:
      return std::make_unique<Priority>();
    case EvictionPolicyKind::kCost:
      return std::make_unique<Cost>();
  }
  TRELLIS_CHECK(false);
  return nullptr;
}

}  // namespace trellis
