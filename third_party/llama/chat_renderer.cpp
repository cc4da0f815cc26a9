#include <algorithm>
#include <set>
#include <stdexcept>

#include "chat-auto-parser.h"
#include "chat.h"
#include "jinja/runtime.h"
#include "jinja/string.h"
#include "jinja/value.h"
#include "json-schema-to-grammar.h"
#include "work_limits.h"
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
  Recording() : before_(renders) { renders = &kept_; }
  ~Recording() { renders = before_; }
  Recording(const Recording&) = delete;
  // The parts of `text`, which llama.cpp made of one of its renders, perhaps by cutting at the ends. What cannot be
  // found in any render is not literal.
  std::vector<RenderedPart> PartsOf(const std::string& text) const;

 private:
  std::vector<std::vector<RenderedPart>>* const before_;
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
    if (budget.refusal().empty()) throw;
  }
  if (!budget.refusal().empty()) throw std::runtime_error(budget.refusal());
  return templates.release();
}

bool HasOwnCode(const common_chat_template& parsed) {
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

std::string GrammarOfSchema(const std::string& schema_json) {
  const Budget budget(kTrialWork, "the schema");
  return json_schema_to_grammar(common_json::parse(schema_json), /*force_gbnf=*/true);
}

struct AnswerSyntax::Impl {
  common_chat_parser_params params;
};

// What of a template is found out once.
struct ChatAnalysis {
  ChatAnalysis(const std::string& source, const std::string& bos, const std::string& eos)
      : parsed(source, bos, eos), has_own_code(HasOwnCode(parsed)) {
    if (has_own_code) return;
    try {
      writes.analyze_template(parsed);
    } catch (const std::exception&) {
      writes = {};
    }
  }

  common_chat_template parsed;
  // Some families have code of their own in llama.cpp, which rewrites messages before they are rendered.
  bool has_own_code;
  autoparser::autoparser writes;  // of the others; if that cannot be found out, they write text alone
  bool is_known() const { return has_own_code || writes.analysis_complete; }
  std::vector<std::string> generation_prompts;
  bool thinks = false;
};

namespace {

thread_local const ChatAnalysis* analysis_in_use = nullptr;

class Using {
 public:
  explicit Using(const ChatAnalysis& analysis) : before_(analysis_in_use) { analysis_in_use = &analysis; }
  ~Using() { analysis_in_use = before_; }
  Using(const Using&) = delete;

 private:
  const ChatAnalysis* const before_;
};

bool EndsWith(const std::vector<RenderedPart>& parts, const std::string& end) {
  size_t left = end.size();
  for (auto part = parts.rbegin(); left > 0; ++part) {
    if (part == parts.rend()) return false;
    const size_t size = std::min(left, part->text.size());
    if (part->text.compare(part->text.size() - size, size, end, left - size, size) != 0) return false;
    left -= size;
  }
  return true;
}

std::string RegexOf(const common_grammar_trigger& trigger) {
  if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL) return trigger.value;
  const bool begins = trigger.value.rfind('^', 0) == 0;
  const bool ends = !trigger.value.empty() && trigger.value.back() == '$';
  return (begins ? "" : "^") + trigger.value + (ends ? "" : "$");
}

common_chat_templates_inputs ToInputs(const ChatRequest& request, const ChatAnalysis& analysis) {
  common_chat_templates_inputs inputs;
  inputs.messages = ToMessages(request.turns);
  if (!request.tools_json.empty()) {
    inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(request.tools_json));
  }
  using Calls = ChatRequest::Calls;
  inputs.tool_choice = request.calls == Calls::kNone   ? COMMON_CHAT_TOOL_CHOICE_NONE
                       : request.calls == Calls::kMust ? COMMON_CHAT_TOOL_CHOICE_REQUIRED
                                                       : COMMON_CHAT_TOOL_CHOICE_AUTO;
  inputs.parallel_tool_calls = request.parallel_calls.value_or(analysis.parsed.caps.supports_parallel_tool_calls);
  inputs.json_schema = request.json_schema;
  inputs.reasoning_format = COMMON_REASONING_FORMAT_AUTO;
  inputs.enable_thinking = request.thinks;
  return inputs;
}

std::string KeyOf(const ChatRequest& request, const std::string& generation_prompt) {
  std::string key;
  const auto add = [&](const std::string& part) { key += std::to_string(part.size()) + ":" + part; };
  add(generation_prompt);
  add(request.tools_json);
  add(request.only_tool);
  add(request.json_schema);
  key += static_cast<char>('0' + static_cast<int>(request.calls));
  key += request.parallel_calls ? (*request.parallel_calls ? 'y' : 'n') : '-';
  key += request.thinks ? 'y' : 'n';
  return key;
}

// The grammar of an answer counts what the prompt has begun of it, if it holds from the start.
AnswerRules RulesOf(const common_chat_params& params) {
  AnswerRules rules;
  auto impl = std::make_unique<AnswerSyntax::Impl>();
  impl->params = common_chat_parser_params(params);
  impl->params.reasoning_format = COMMON_REASONING_FORMAT_AUTO;
  if (!params.parser.empty()) impl->params.parser.load(params.parser);
  rules.syntax = std::make_shared<const AnswerSyntax>(std::move(impl));
  rules.grammar = params.grammar;
  if (params.grammar_lazy) {
    for (const common_grammar_trigger& trigger : params.grammar_triggers) {
      if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD || trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN) {
        rules.trigger_words.push_back(trigger.value);
      } else {
        rules.trigger_patterns.push_back(RegexOf(trigger));
      }
    }
  } else if (!params.grammar.empty()) {
    rules.grammar_prefix = params.generation_prompt;
  }
  rules.shown_tokens = params.preserved_tokens;
  rules.stops = params.additional_stops;
  return rules;
}

}  // namespace

const autoparser::autoparser& AnalysisOf(const common_chat_template& tmpl) {
  if (analysis_in_use != nullptr && !analysis_in_use->has_own_code) return analysis_in_use->writes;
  thread_local autoparser::autoparser own;  // of a template that is tried for the first time
  own = {};
  own.analyze_template(tmpl);
  return own;
}

const std::string* KnownGenerationPrompt() {
  if (analysis_in_use == nullptr || renders == nullptr || renders->empty()) return nullptr;
  const std::string* longest = nullptr;
  for (const std::string& known : analysis_in_use->generation_prompts) {
    const bool is_longer = longest == nullptr || known.size() > longest->size();
    if (is_longer && EndsWith(renders->back(), known)) longest = &known;
  }
  return longest;
}

AnswerSyntax::AnswerSyntax(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AnswerSyntax::~AnswerSyntax() = default;

ParsedAnswer AnswerSyntax::Parse(const std::string& text, bool is_whole) const {
  const Budget budget(kRenderWork, "the answer");
  common_chat_msg message = common_chat_parse(text, !is_whole, impl_->params);
  ParsedAnswer answer{std::move(message.reasoning_content), std::move(message.content), {}};
  for (common_chat_tool_call& call : message.tool_calls) {
    answer.calls.push_back({std::move(call.id), std::move(call.name), std::move(call.arguments)});
  }
  return answer;
}

ChatRenderer::ChatRenderer(const std::string& source, const std::string& bos, const std::string& eos)
    : templates_(Parse(source, bos, eos), common_chat_templates_free) {
  const Budget budget(kTrialWork);
  analysis_ = std::make_unique<ChatAnalysis>(common_chat_templates_source(templates_.get()), bos, eos);
  // What a prompt ends with, of thinking answers and others; of a template that refuses this, each request will tell.
  for (const bool thinks : {true, false}) {
    const Using use(*analysis_);
    ChatRequest tiny;
    tiny.turns = {{"user", "x", {}, "", "", "", ""}};
    tiny.thinks = thinks;
    try {
      const auto params = common_chat_templates_apply(templates_.get(), ToInputs(tiny, *analysis_));
      if (!params.generation_prompt.empty()) analysis_->generation_prompts.push_back(params.generation_prompt);
      analysis_->thinks = analysis_->thinks || params.supports_thinking;
    } catch (const std::exception&) {
    }
  }
}

ChatRenderer::~ChatRenderer() = default;

bool ChatRenderer::CanCallTools() const { return analysis_->parsed.caps.supports_tool_calls; }
bool ChatRenderer::CanThink() const { return analysis_->thinks; }

bool ChatRenderer::HasRules(const ChatRequest& request) const {
  const bool may_call = request.calls != ChatRequest::Calls::kNone && !request.tools_json.empty();
  const bool may_think = analysis_->writes.reasoning.mode != autoparser::reasoning_mode::NONE;
  return analysis_->has_own_code || may_think || may_call || !request.json_schema.empty();
}

RenderedChat ChatRenderer::Render(const ChatRequest& request) const {
  const Using use(*analysis_);
  const Budget budget(kRenderWork);
  Recording recording;
  common_chat_templates_inputs inputs = ToInputs(request, *analysis_);
  inputs.force_pure_content = !analysis_->has_own_code;  // the same prompt, and nothing more
  const common_chat_params params = common_chat_templates_apply(templates_.get(), inputs);
  RenderedChat chat;
  chat.prompt = recording.PartsOf(params.prompt);
  if (!HasRules(request)) return chat;
  if (!analysis_->is_known()) {
    if (!request.json_schema.empty()) chat.rules = {nullptr, GrammarOfSchema(request.json_schema), "", {}, {}, {}, {}};
    return chat;
  }
  const std::string* generation_prompt = KnownGenerationPrompt();
  if (inputs.force_pure_content && generation_prompt != nullptr) {
    chat.rules_key = KeyOf(request, *generation_prompt);
  } else {
    chat.rules = inputs.force_pure_content || !request.only_tool.empty() ? RulesFor(request)
                                                                         : RulesOf(params);
  }
  return chat;
}

AnswerRules ChatRenderer::RulesFor(const ChatRequest& request) const {
  const Using use(*analysis_);
  const Budget budget(kRenderWork);
  common_chat_templates_inputs inputs = ToInputs(request, *analysis_);
  if (!request.only_tool.empty()) {
    // The prompt has all tools, as that of every other turn; the answer only the one that it is to call.
    const auto is_other = [&](const common_chat_tool& tool) { return tool.name != request.only_tool; };
    inputs.tools.erase(std::remove_if(inputs.tools.begin(), inputs.tools.end(), is_other), inputs.tools.end());
  }
  Recording recording;
  return RulesOf(common_chat_templates_apply(templates_.get(), inputs));
}

}  // namespace trellis_llama
