#include "work_limits.h"

#include "jinja/value.h"

namespace trellis_llama {
namespace {

constexpr size_t kMaxText = size_t{1} << 28;
// About 400 bytes each.
constexpr size_t kMaxValues = 1 << 18;
constexpr size_t kStep = 128;
// Each level takes up to two kilobytes of the stack.
constexpr size_t kMaxDepth = 1000;

// Outside of a Budget only depth is limited.
struct State {
  const char* what = "the template";
  std::string refusal;
  int budgets = 0;
  size_t work_left = 0, text_left = 0;
  size_t num_values = 0;
  size_t depth = 0;
  std::vector<std::shared_ptr<jinja::value_t>> changed;
};
thread_local State state;

void Take(size_t amount, size_t& left) {
  if (state.budgets == 0) return;
  if (amount > left) Refuse("takes too long or writes too much");
  left -= amount;
}

}  // namespace

void Refuse(const std::string& why) {
  state.work_left = 0;
  if (state.refusal.empty()) state.refusal = state.what + (" " + why);
  throw std::runtime_error(state.refusal);
}

void Charge(size_t work) { Take(work, state.work_left); }
void ChargeText(size_t bytes) {
  Take(bytes, state.work_left);
  Take(bytes, state.text_left);
}

Budget::Budget(size_t work, const char* what) {
  if (state.budgets++ > 0) return;
  state.what = what;
  state.refusal.clear();
  state.work_left = work;
  state.text_left = kMaxText;
}
Budget::~Budget() {
  if (--state.budgets > 0) return;
  for (const auto& value : state.changed) {
    value->val_arr.clear();
    value->val_obj.clear();
    if (auto* object = dynamic_cast<jinja::value_object_t*>(value.get())) object->unordered.clear();
  }
  state.changed.clear();
}

const std::string& Budget::refusal() const { return state.refusal; }

void Changes(const std::shared_ptr<jinja::value_t>& container) {
  if (state.budgets > 0 && (state.changed.empty() || state.changed.back() != container)) {
    state.changed.push_back(container);
  }
}

LiveValue::LiveValue() {
  if (state.budgets > 0 && state.num_values >= kMaxValues) {
    Refuse("makes too many values");
  }
  ++state.num_values;
}
LiveValue::~LiveValue() { --state.num_values; }

Step::Step() {
  Charge(kStep);
  if (state.depth >= kMaxDepth) Refuse("is nested too deep");
  ++state.depth;
}
Step::~Step() { --state.depth; }

}  // namespace trellis_llama
