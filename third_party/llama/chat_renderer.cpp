#include <algorithm>
#include <set>
#include <stdexcept>

#include "chat-auto-parser.h"
#include "chat.h"
#include "jinja/runtime.h"
#include "jinja/string.h"
#include "jinja/value.h"
#include "jinja_limits.h"
#include "json.h"
#include "render_hook.h"
#include "trellis_llama.h"

namespace trellis_llama {
namespace {

// llama.cpp returns what it rendered as one string; which parts were input is known only to the Jinja engine, deep
// inside. So the engine's results of the render in progress are kept here: null when no one wants them.
thread_local std::vector<std::vector<RenderedPart>>* renders = nullptr;

class Recording {
 public:
  Recording() { renders = &kept_; }
  ~Recording() { renders = nullptr; }
  // The parts of `text`, which llama.cpp made of one of its renders, perhaps by cutting at the ends. What cannot be
  // found in any render is not literal.
  std::vector<RenderedPart> PartsOf(const std::string& text) const;

 private:
  std::vector<std::vector<RenderedPart>> kept_;
};

std::string Join(const std::vector<RenderedPart>& parts) {
  std::string text;
  for (const RenderedPart& part : parts) text += part.text;
  return text;
}

// Characters [begin, end) of `parts`.
std::vector<RenderedPart> Slice(const std::vector<RenderedPart>& parts, size_t begin, size_t end) {
  std::vector<RenderedPart> slice;
  size_t offset = 0;
  for (const RenderedPart& part : parts) {
    const size_t from = std::max(begin, offset), to = std::min(end, offset + part.text.size());
    if (from < to) slice.push_back({part.text.substr(from - offset, to - from), part.literal});
    offset += part.text.size();
  }
  return slice;
}

std::vector<RenderedPart> Recording::PartsOf(const std::string& text) const {
  std::vector<RenderedPart> best;
  size_t best_size = 0;
  for (auto render = kept_.rbegin(); render != kept_.rend(); ++render) {
    const std::string whole = Join(*render);
    if (const size_t at = whole.find(text); at != std::string::npos) return Slice(*render, at, at + text.size());
    const auto [mine, theirs] = std::mismatch(text.begin(), text.end(), whole.begin(), whole.end());
    const size_t common = mine - text.begin();
    if (common > best_size) best = Slice(*render, 0, common), best_size = common;
  }
  best.push_back({text.substr(best_size), false});
  return best;
}

void SetLiteral(const jinja::value& value) {
  if (!jinja::is_val<jinja::value_string>(value)) return;
  for (jinja::string_part& part : value->val_str.parts) part.is_input = false;
}

std::vector<common_chat_msg> ToMessages(const std::vector<ChatTurn>& turns) {
  common_json messages = common_json::array();
  for (const ChatTurn& turn : turns) {
    common_json message = common_json::object();
    message["role"] = turn.role;
    message["content"] = turn.content;
    if (!turn.content_parts.empty()) {
      common_json parts = common_json::array();
      for (const std::string& text : turn.content_parts) {
        common_json part = common_json::object();
        part["type"] = "text";
        part["text"] = text;
        parts.push_back(part);
      }
      message["content"] = parts;
    }
    if (!turn.tool_calls_json.empty()) message["tool_calls"] = common_json::parse(turn.tool_calls_json);
    if (!turn.tool_call_id.empty()) message["tool_call_id"] = turn.tool_call_id;
    if (!turn.name.empty()) message["name"] = turn.name;
    if (!turn.reasoning_content.empty()) message["reasoning_content"] = turn.reasoning_content;
    messages.push_back(message);
  }
  return common_chat_msgs_parse_oaicompat(messages);
}

common_chat_templates* Parse(const std::string& source, const std::string& bos, const std::string& eos) {
  const Budget budget(kTrialWork);
  common_chat_templates_ptr templates;
  try {
    templates = common_chat_templates_init(nullptr, source, bos, eos);
  } catch (const std::exception&) {
    if (budget.refusal() == nullptr) throw;
  }
  if (budget.refusal() != nullptr) throw std::runtime_error(budget.refusal());
  return templates.release();
}

bool HasOwnCode(const common_chat_templates* templates, const std::string& bos, const std::string& eos) {
  const Budget budget(kTrialWork);
  const common_chat_template parsed(common_chat_templates_source(templates), bos, eos);
  autoparser::generation_params params;
  params.messages = common_json::array();
  params.messages.push_back(common_json::object({{"role", "user"}, {"content", "x"}}));
  try {
    return common_chat_try_specialized_template(parsed, parsed.source(), params).has_value();
  } catch (const std::exception&) {
    return true;  // it has, and the code did not like our message
  }
}

}  // namespace

void TrustVariables(jinja::context& context) {
  SetLiteral(context.get_val("bos_token"));
  SetLiteral(context.get_val("eos_token"));
  // Templates write '<|' + message.role + '|>'. A role of the client's own invention stays input.
  static const std::set<std::string> known = {"system", "developer", "user", "assistant", "tool"};
  const jinja::value messages = context.get_val("messages");
  if (!jinja::is_val<jinja::value_array>(messages)) return;
  for (const jinja::value& message : messages->as_array()) {
    if (!jinja::is_val<jinja::value_object>(message)) continue;
    jinja::value none = jinja::mk_val<jinja::value_undefined>();
    const jinja::value role = message->at("role", none);
    if (jinja::is_val<jinja::value_string>(role) && known.count(role->as_string().str())) SetLiteral(role);
  }
}

void RecordRender(const jinja::string& rendered) {
  if (renders == nullptr) return;
  std::vector<RenderedPart>& parts = renders->emplace_back();
  for (const jinja::string_part& part : rendered.parts) parts.push_back({part.val, !part.is_input});
}

ChatRenderer::ChatRenderer(const std::string& source, const std::string& bos, const std::string& eos)
    : templates_(Parse(source, bos, eos)), has_own_code_(HasOwnCode(templates_, bos, eos)) {}

ChatRenderer::~ChatRenderer() { common_chat_templates_free(templates_); }

std::vector<RenderedPart> ChatRenderer::Render(const std::vector<ChatTurn>& turns,
                                               const std::string& tools_json) const {
  common_chat_templates_inputs inputs;
  inputs.messages = ToMessages(turns);
  if (!tools_json.empty()) inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(tools_json));
  // Without code of its own, everything after rendering is about parsing the answer, and takes many more renders.
  inputs.force_pure_content = !has_own_code_;
  const Budget budget(kRenderWork);
  Recording recording;
  return recording.PartsOf(common_chat_templates_apply(templates_, inputs).prompt);
}

}  // namespace trellis_llama
