// Limits for the Jinja engine and for grammars: a template comes with a model file, so it may be
// hostile, and messages, schemas and grammars come from anyone. They must end, and neither their
// nesting nor that of their values may use up the stack. Our patches to common/jinja and
// src/llama-grammar.cpp call what is here (see CMakeLists.txt).
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace jinja {
struct value_t;
}

namespace trellis_llama {

// Nothing more is done for what went too far once: llama.cpp tries each template in many ways.
// `why` goes on from the budget's name, "the template". THROWS std::runtime_error, which is what
// Budget::refusal() says from then on.
[[noreturn]] void Refuse(const std::string& why);

// Takes `work` from what this thread may still do for the text in hand: about one for a byte that
// is looked at. THROWS std::runtime_error when nothing is left.
void Charge(size_t work);
// The same for text that is made, of which there may be less: it stays in memory.
void ChargeText(size_t bytes);

// For a template with messages: a thousand turns take 10^8, by a template that looks at all of them
// for each 10^10, which are seconds.
constexpr size_t kRenderWork = size_t{1} << 34;
// For the few messages that llama.cpp tries a new template with, in some twenty ways: about a
// second.
constexpr size_t kTrialWork = size_t{1} << 28;

// While it lives, `what` ("the template") is parsed or run with limits of its own.
class Budget {
 public:
  explicit Budget(size_t work, const char* what = "the template");
  ~Budget();
  Budget(const Budget&) = delete;
  // Which limit was met, even if what was thrown went no further than llama.cpp; or empty.
  const std::string& refusal() const;
};

// A member of each value, which counts how many there are. THROWS std::runtime_error when there are
// too many.
class LiveValue {
 public:
  LiveValue();
  LiveValue(const LiveValue&) : LiveValue() {}
  ~LiveValue();
};

// One step, and one level of nesting while it lives. THROWS std::runtime_error.
class Step {
 public:
  Step();
  ~Step();
  Step(const Step&) = delete;
};

// Values are destroyed one after the other instead of one inside the other.
template <typename Value>
void Bury(Value&& value) {
  thread_local std::vector<Value> graves;
  thread_local bool digging = false;
  if (value == nullptr || value.use_count() > 1) return;
  graves.push_back(std::move(value));
  if (digging) return;
  digging = true;
  while (!graves.empty()) {
    const Value next = std::move(graves.back());
    graves.pop_back();
  }
  digging = false;
}

// Something is put into `container`, which may make it hold itself, so that reference counts would
// never free it: when the Budget ends it is emptied.
void Changes(const std::shared_ptr<jinja::value_t>& container);

// A `{{ }}` or `{% %}` of the template is as deep as it has operators in a row. THROWS
// std::runtime_error.
template <typename Tokens>
void RefuseLongTags(const Tokens& tokens) {
  constexpr size_t kMaxTokens = 4096;
  size_t size = 0;
  for (const auto& token : tokens) {
    using Type = std::decay_t<decltype(token)>;
    size = token.t == Type::open_statement || token.t == Type::open_expression ? 0 : size + 1;
    if (size > kMaxTokens) Refuse("has more than 4096 tokens in one tag");
  }
}

}  // namespace trellis_llama
