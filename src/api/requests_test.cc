#include "api/requests.h"

#include <gtest/gtest.h>

#include <string>

#include "api/json_text.h"

namespace trellis {
namespace {

std::string Chat(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"hi"}],)" + fields + "}";
}

// --- Chat ---

TEST(ChatRequestTest, DefaultsAreOpenAis) {
  auto parsed = ParseChatRequest(R"({"messages":[{"role":"user","content":"hi"}]})");
  ASSERT_TRUE(parsed.ok());
  const ChatRequest& request = parsed.value();
  ASSERT_EQ(request.messages.size(), 1u);
  EXPECT_EQ(request.messages[0].role, "user");
  EXPECT_EQ(request.messages[0].content, "hi");
  const GenerationFields& g = request.generation;
  EXPECT_EQ(g.max_tokens, 0u);
  EXPECT_EQ(g.num_choices, 1u);
  EXPECT_FALSE(g.stream);
  EXPECT_TRUE(g.cache_prompt);
  EXPECT_FLOAT_EQ(g.sampling.temperature, 1);
  EXPECT_FLOAT_EQ(g.sampling.top_p, 1);
  EXPECT_EQ(g.sampling.top_k, 0);
  EXPECT_EQ(g.sampling.num_logprobs, -1);
  EXPECT_FALSE(g.sampling.seed.has_value());
}

TEST(ChatRequestTest, EveryFieldArrives) {
  auto parsed = ParseChatRequest(Chat(R"(
    "temperature":0.5,"top_k":7,"top_p":0.25,"min_p":0.125,"typ_p":0.75,
    "repeat_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"repeat_last_n":-1,
    "logit_bias":{"5":-100,"6":1.5},"seed":9223372036854775807,"logprobs":true,"top_logprobs":3,
    "stop":["a","","b"],"max_tokens":9,"n":2,"stream":true,
    "stream_options":{"include_usage":true},"ignore_eos":true,"cache_prompt":false,
    "cache_salt":"s","user":"u","prompt_cache_key":"k","priority":-7,"metadata":{"whatever":[1]},"store":true)"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const GenerationFields& g = parsed.value().generation;
  EXPECT_FLOAT_EQ(g.sampling.temperature, 0.5);
  EXPECT_EQ(g.sampling.top_k, 7);
  EXPECT_FLOAT_EQ(g.sampling.top_p, 0.25);
  EXPECT_FLOAT_EQ(g.sampling.min_p, 0.125);
  EXPECT_FLOAT_EQ(g.sampling.typical_p, 0.75);
  EXPECT_FLOAT_EQ(g.sampling.repetition_penalty, 1.5);
  EXPECT_FLOAT_EQ(g.sampling.presence_penalty, -1);
  EXPECT_FLOAT_EQ(g.sampling.frequency_penalty, 2);
  EXPECT_EQ(g.sampling.penalty_last_n, -1);
  const std::vector<std::pair<TokenId, float>> bias = {{5, -100.0f}, {6, 1.5f}};
  EXPECT_EQ(g.sampling.logit_bias, bias);
  EXPECT_EQ(g.sampling.seed, 9223372036854775807);
  EXPECT_EQ(g.sampling.num_logprobs, 3);
  EXPECT_EQ(g.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(g.max_tokens, 9u);
  EXPECT_EQ(g.num_choices, 2u);
  EXPECT_TRUE(g.stream);
  EXPECT_TRUE(g.include_usage);
  EXPECT_TRUE(g.ignore_eos);
  EXPECT_FALSE(g.cache_prompt);
  EXPECT_EQ(g.cache_salt, "s");
  EXPECT_EQ(g.user, "u");
  EXPECT_EQ(g.prompt_cache_key, "k");
  EXPECT_EQ(g.priority, -7);
}

TEST(ChatRequestTest, NullIsAbsent) {
  auto parsed = ParseChatRequest(Chat(R"("temperature":null,"stop":null,"seed":null,
    "max_tokens":null,"tools":null,"logit_bias":null,"stream_options":null,"n":null,"user":null)"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_FLOAT_EQ(parsed.value().generation.sampling.temperature, 1);
}

TEST(ChatRequestTest, MessagesOfEveryKind) {
  auto parsed = ParseChatRequest(R"({"messages":[
    {"role":"developer","content":"be brief"},
    {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"N"},
    {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
      {"id":"1","type":"function","function":{"name":"f","arguments":"{\"b\": 1, \"a\": 2}"}}]},
    {"role":"tool","content":"42","tool_call_id":"1"},
    {"role":"assistant"}]})");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const auto& m = parsed.value().messages;
  ASSERT_EQ(m.size(), 5u);
  EXPECT_EQ(m[0].role, "system");
  EXPECT_EQ(m[1].content, "");
  EXPECT_EQ(m[1].content_parts, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(m[1].name, "N");
  EXPECT_EQ(Json::parse(m[2].tool_calls_json), Json::parse(R"([{"id":"1","type":"function",
    "function":{"name":"f","arguments":"{\"b\": 1, \"a\": 2}"}}])"));
  EXPECT_EQ(m[2].reasoning_content, "hm");
  EXPECT_EQ(m[3].tool_call_id, "1");
}

TEST(ChatRequestTest, TheNewestNameOfTheLimitWins) {
  EXPECT_EQ(ParseChatRequest(Chat(R"("max_tokens":5,"max_completion_tokens":7,"n_predict":3)"))
                .value()
                .generation.max_tokens,
            7u);
  EXPECT_EQ(ParseChatRequest(Chat(R"("max_tokens":-1)")).value().generation.max_tokens, 0u);
  EXPECT_FALSE(ParseChatRequest(Chat(R"("max_tokens":-1)")).value().generation.only_prompt);
  EXPECT_TRUE(ParseChatRequest(Chat(R"("max_tokens":0)")).value().generation.only_prompt);
  EXPECT_FALSE(
      ParseChatRequest(Chat(R"("n_predict":0,"max_tokens":5)")).value().generation.only_prompt);
}

TEST(ChatRequestTest, ThinkingIsTurnedOffInBothWays) {
  const auto thinks = [](const char* fields) {
    return ParseChatRequest(Chat(fields)).value().thinks;
  };
  EXPECT_TRUE(thinks(R"("n":1)"));
  EXPECT_TRUE(thinks(R"("reasoning_effort":"low")"));
  EXPECT_FALSE(thinks(R"("reasoning_effort":"none")"));
  EXPECT_FALSE(thinks(R"("chat_template_kwargs":{"enable_thinking":false})"));
  EXPECT_TRUE(
      thinks(R"("reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true})"));
  EXPECT_EQ(ParseChatRequest(Chat(R"("chat_template_kwargs":{"thinking_budget":5})")).error().param,
            "chat_template_kwargs.thinking_budget");
  EXPECT_EQ(ParseChatRequest(Chat(R"("chat_template_kwargs":{"enable_thinking":1})")).error().param,
            "chat_template_kwargs.enable_thinking");
}

TEST(ChatRequestTest, ALastMessageOfTheAssistantIsContinuedUnlessTheClientSaysOtherwise) {
  const auto parse = [](const std::string& role, const std::string& fields) {
    return ParseChatRequest(R"({"messages":[{"role":"user","content":"a"},{"role":")" + role +
                            R"(","content":"b"}])" + fields + "}");
  };
  EXPECT_TRUE(parse("assistant", "").value().continues);
  EXPECT_FALSE(parse("user", "").value().continues);
  EXPECT_FALSE(parse("assistant", R"(,"continue_final_message":false)").value().continues);
  EXPECT_FALSE(parse("assistant", R"(,"add_generation_prompt":true)").value().continues);
  EXPECT_TRUE(parse("assistant", R"(,"add_generation_prompt":false)").value().continues);
  EXPECT_TRUE(parse("assistant", R"(,"add_generation_prompt":false,"continue_final_message":true)")
                  .value()
                  .continues);
  EXPECT_EQ(parse("user", R"(,"continue_final_message":true)").error().param,
            "continue_final_message");
  EXPECT_EQ(parse("assistant", R"(,"continue_final_message":true,"add_generation_prompt":true)")
                .error()
                .param,
            "continue_final_message");
  EXPECT_EQ(parse("user", R"(,"add_generation_prompt":false)").error().param,
            "add_generation_prompt");
}

TEST(ChatRequestTest, Seeds) {
  EXPECT_FALSE(ParseChatRequest(Chat(R"("seed":-1)")).value().generation.sampling.seed);
  EXPECT_EQ(ParseChatRequest(Chat(R"("seed":0)")).value().generation.sampling.seed, 0);
  EXPECT_EQ(ParseChatRequest(Chat(R"("seed":-2)")).value().generation.sampling.seed, -2);
}

TEST(ChatRequestTest, ValuesThatAskForNothingAreNoError) {
  auto parsed = ParseChatRequest(Chat(R"("tools":[],"response_format":{"type":"text"},
    "modalities":["text"],"mirostat":0,"xtc_probability":0.0,"grammar":"","suffix":"",
    "chat_template_kwargs":{},"add_generation_prompt":true,"best_of":1,"tool_choice":"auto")"));
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
}

TEST(ChatRequestTest, FormatsOfTheAnswer) {
  const auto format = [](const char* fields) {
    auto parsed = ParseChatRequest(Chat(fields));
    EXPECT_TRUE(parsed.ok()) << parsed.error().message;
    return parsed.value().generation.format;
  };
  const TextFormat none = format(R"("response_format":{"type":"text"},"json_schema":{})");
  EXPECT_EQ(none.json_schema + none.grammar + none.param, "");
  EXPECT_EQ(format(R"("response_format":{"type":"json_object"})").json_schema,
            R"({"type": "object"})");
  EXPECT_EQ(
      format(R"("response_format":{"type":"json_object","schema":{"b":1,"a":2}})").json_schema,
      R"({"b":1,"a":2})")
      << "as the client wrote it: its order is the answer's";
  const TextFormat strict = format(R"("response_format":{"type":"json_schema","json_schema":{
      "name":"n","strict":true,"schema":{"properties":{"not":{"type":"string"}}}}})");
  EXPECT_EQ(strict.json_schema, R"({"properties":{"not":{"type":"string"}}})")
      << "a member may be called as a keyword";
  EXPECT_EQ(strict.param, "response_format.json_schema.schema");
  EXPECT_EQ(format(R"("json_schema":{"type":"array"})").param, "json_schema");
  EXPECT_EQ(format(R"("grammar":"root ::= \"a\"")").grammar, "root ::= \"a\"");
}

TEST(CompletionRequestTest, TheBestOfSeveral) {
  const auto parse = [](const char* fields) {
    return ParseCompletionRequest(std::string(R"({"prompt":"a",)") + fields + "}");
  };
  auto parsed = parse(R"("n":2,"best_of":5)");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value().generation.num_choices, 2u);
  EXPECT_EQ(parsed.value().generation.best_of, 5u);
  EXPECT_EQ(parse(R"("n":3)").value().generation.best_of, 3u);
  EXPECT_EQ(parse(R"("best_of":5,"stream":true)").error().param, "best_of");
  EXPECT_TRUE(parse(R"("n":5,"best_of":5,"stream":true)").ok());
}

// --- How long a prompt stays cached ---

std::vector<std::pair<size_t, int64_t>> Breakpoints(const std::string& body) {
  auto parsed = ParseChatRequest(body);
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
  std::vector<std::pair<size_t, int64_t>> breakpoints;
  for (const CacheBreakpoint& b : parsed.value().generation.breakpoints) {
    breakpoints.emplace_back(b.num_messages, b.lifetime.count());
  }
  return breakpoints;
}

TEST(CacheFieldsTest, WhereverAClientPutsThem) {
  using Expected = std::vector<std::pair<size_t, int64_t>>;
  EXPECT_EQ(Breakpoints(Chat(R"("stop":null)")), Expected{});
  EXPECT_EQ(Breakpoints(Chat(R"("cache_control":{"type":"ephemeral"})")),
            (Expected{{kWholePrompt, 300}}));
  EXPECT_EQ(Breakpoints(Chat(R"("prompt_cache_retention":"24h")")),
            (Expected{{kWholePrompt, 86400}}));
  EXPECT_EQ(Breakpoints(Chat(R"("prompt_cache_retention":"in-memory")")), Expected{});
  EXPECT_EQ(Breakpoints(R"({"messages":[
      {"role":"system","content":[{"type":"text","text":"a"},
        {"type":"text","text":"b","cache_control":{"type":"ephemeral","ttl":"1h"}}]},
      {"role":"user","content":"c"},
      {"role":"assistant","content":"d","cache_control":{"type":"ephemeral"}},
      {"role":"user","content":"e"}],
      "tools":[{"type":"function","function":{"name":"f"},"cache_control":{"type":"ephemeral"}}]})"),
            (Expected{{1, 3600}, {3, 300}, {1, 300}}));
}

TEST(CacheFieldsTest, AMarkOnAToolIsNoPartOfThePrompt) {
  const auto tools = [](const std::string& mark) {
    auto parsed = ParseChatRequest(
        Chat(R"("tools":[{"type":"function","function":{"name":"f","z":1,"a":2})" + mark + "}]"));
    EXPECT_TRUE(parsed.ok());
    return parsed.value().tools_json;
  };
  EXPECT_EQ(tools(R"(,"cache_control":{"type":"ephemeral"})"), tools(""));
}

TEST(CacheFieldsTest, FourAtMost) {
  std::string parts;
  for (int i = 0; i < 5; i++) {
    parts += std::string(i == 0 ? "" : ",") +
             R"({"type":"text","text":"a","cache_control":{"type":"ephemeral"}})";
  }
  const auto parsed =
      ParseChatRequest(R"({"messages":[{"role":"user","content":[)" + parts + "]}]}");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().param, "messages[0].content[4].cache_control");
}

TEST(CacheFieldsTest, LifetimesOfPins) {
  const auto seconds = [](const std::string& ttl) -> int64_t {
    auto parsed = ParsePinFields(R"({"prompt":"a","ttl":)" + ttl + "}");
    if (parsed.ok()) return parsed.value().lifetime.value_or(kDefaultLifetime).count();
    EXPECT_EQ(parsed.error().param, "ttl");
    return -1;
  };
  EXPECT_EQ(seconds("null"), 300);
  EXPECT_EQ(seconds("\"90s\""), 90);
  EXPECT_EQ(seconds("\"5m\""), 300);
  EXPECT_EQ(seconds("\"24h\""), 86400);
  EXPECT_EQ(seconds("17"), 17);
  for (const char* wrong : {"0", "-1", "1.5", "604801", "\"\"", "\"5\"", "\"m\"", "\"0m\"",
                            "\"5 m\"", "\"5d\"", "\"169h\"", "\"99999999999999999h\"", "[]"}) {
    EXPECT_EQ(seconds(wrong), -1) << wrong;
  }
  EXPECT_TRUE(ParsePinFields(R"({"messages":[]})").value().is_chat);
  EXPECT_FALSE(ParsePinFields("[]").ok());
}

TEST(CacheFieldsTest, Unpinning) {
  EXPECT_EQ(ParseUnpinRequest(R"({"pin":"pin-12"})").value().id, 12u);
  EXPECT_EQ(ParseUnpinRequest(R"({"all":true})").value().id, std::nullopt);
  for (const char* wrong :
       {"{}", R"({"all":false})", R"({"pin":"12"})", R"({"pin":"pin-"})", R"({"pin":"pin-x"})",
        R"({"pin":"pin-1","all":true})", R"({"pin":3})", R"({"pin":"pin-99999999999999999999"})"}) {
    EXPECT_FALSE(ParseUnpinRequest(wrong).ok()) << wrong;
  }
}

// The model sees the tools, and may use them; the order of members is the client's.
TEST(ChatRequestTest, ToolsArriveAsTheyWereWritten) {
  for (const char* choice : {"\"auto\"", "\"none\"", "null"}) {
    auto parsed = ParseChatRequest(
        Chat(std::string(R"("tools":[{"type":"function","function":{"name":"f","description":"d",
    "parameters":{"z":1,"a":{"y":2,"b":"}]"}}}}],"parallel_tool_calls":false,"tool_choice":)") +
             choice));
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed.value().tools_json,
              R"([{"type":"function","function":{"name":"f","description":"d",
    "parameters":{"z":1,"a":{"y":2,"b":"}]"}}}}])");
  }
  EXPECT_EQ(ParseChatRequest(Chat(R"("tools":[])")).value().tools_json, "");
}

TEST(ChatRequestTest, HugeToolsAreRefused) {
  std::string members = "\"m\":0";
  for (int i = 0; i < 1100; i++) members += ",\"m" + std::to_string(i) + "\":0";
  for (const std::string& parameters : {members, "\"x\":\"" + std::string(5 << 20, 'x') + "\""}) {
    auto parsed = ParseChatRequest(
        Chat(R"("tools":[{"function":{"name":"f","parameters":{)" + parameters + "}}}]"));
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.error().param, "tools");
  }
}

struct BadField {
  const char* fields;
  const char* param;
  const char* code;
};

class BadChatField : public testing::TestWithParam<BadField> {};

TEST_P(BadChatField, IsNamed) {
  auto parsed = ParseChatRequest(Chat(GetParam().fields));
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().http_status, 400);
  EXPECT_EQ(parsed.error().type, "invalid_request_error");
  EXPECT_EQ(parsed.error().param, GetParam().param);
  EXPECT_EQ(parsed.error().code, GetParam().code);
  EXPECT_NE(parsed.error().message.find(GetParam().param), std::string::npos)
      << parsed.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadChatField,
    testing::Values(
        BadField{R"("temperature":"hot")", "temperature", "invalid_type"},
        BadField{R"("temperature":-0.1)", "temperature", "invalid_value"},
        BadField{R"("samplers":5)", "samplers", "invalid_type"},
        BadField{R"("samplers":"kq")", "samplers", "unsupported"},
        BadField{R"("samplers":"pk")", "samplers", "unsupported"},
        BadField{R"("samplers":["top_k",5])", "samplers[1]", "invalid_type"},
        BadField{R"("samplers":["mirostat"])", "samplers[0]", "unsupported"},
        BadField{R"("samplers":["dry","temperature","xtc","top_p"])", "samplers[3]", "unsupported"},
        BadField{R"("adaptive_target":0.5)", "adaptive_target", "unsupported"},
        BadField{R"("t_max_predict_ms":-2)", "t_max_predict_ms", "invalid_value"},
        BadField{R"("n_indent":-1)", "n_indent", "invalid_value"},
        BadField{R"("top_p":1.5)", "top_p", "invalid_value"},
        BadField{R"("min_p":-1)", "min_p", "invalid_value"},
        BadField{R"("top_k":1.5)", "top_k", "invalid_value"},
        BadField{R"("top_k":[])", "top_k", "invalid_type"},
        BadField{R"("repeat_penalty":0)", "repeat_penalty", "invalid_value"},
        BadField{R"("presence_penalty":3)", "presence_penalty", "invalid_value"},
        BadField{R"("frequency_penalty":-2.5)", "frequency_penalty", "invalid_value"},
        BadField{R"("max_tokens":-2)", "max_tokens", "invalid_value"},
        BadField{R"("max_tokens":"5")", "max_tokens", "invalid_type"},
        BadField{R"("max_completion_tokens":true)", "max_completion_tokens", "invalid_type"},
        BadField{R"("max_tokens":99999999999999999999)", "max_tokens", "invalid_value"},
        BadField{R"("n":0)", "n", "invalid_value"}, BadField{R"("n":129)", "n", "invalid_value"},
        BadField{R"("best_of":2)", "best_of", "unsupported"},
        BadField{R"("best_of":2,"n":3)", "best_of", "invalid_value"},
        BadField{R"("cache_control":"ephemeral")", "cache_control", "invalid_type"},
        BadField{R"("cache_control":{"type":"for ever"})", "cache_control.type", "invalid_value"},
        BadField{R"("cache_control":{"type":"ephemeral","ttl":"2h"})", "cache_control.ttl",
                 "invalid_value"},
        BadField{R"("prompt_cache_retention":"48h")", "prompt_cache_retention", "invalid_value"},
        BadField{R"("seed":"x")", "seed", "invalid_type"},
        BadField{R"("seed":0.5)", "seed", "invalid_value"},
        BadField{R"("seed":9223372036854775808)", "seed", "invalid_value"},
        BadField{R"("stream":"yes")", "stream", "invalid_type"},
        BadField{R"("stream":1)", "stream", "invalid_type"},
        BadField{R"("stream":true,"stream_options":3)", "stream_options", "invalid_type"},
        BadField{R"("stream":true,"stream_options":{"include_usage":1})",
                 "stream_options.include_usage", "invalid_type"},
        BadField{R"("stream_options":{"include_usage":true})", "stream_options", "invalid_value"},
        BadField{R"("stop":5)", "stop", "invalid_type"},
        BadField{R"("stop":["a",5])", "stop[1]", "invalid_type"},
        BadField{R"("logit_bias":7)", "logit_bias", "invalid_type"},
        BadField{R"("logit_bias":{"x":1})", "logit_bias[\"x\"]", "invalid_value"},
        BadField{R"("logit_bias":{"-3":1})", "logit_bias[\"-3\"]", "invalid_value"},
        BadField{R"("logit_bias":{"3":101})", "logit_bias[\"3\"]", "invalid_value"},
        BadField{R"("logit_bias":{"3":true})", "logit_bias[\"3\"]", "invalid_type"},
        BadField{R"("logit_bias":[[1]])", "logit_bias[0]", "invalid_type"},
        BadField{R"("logit_bias":[["a",1]])", "logit_bias[0][0]", "invalid_type"},
        BadField{R"("logprobs":3)", "logprobs", "invalid_type"},
        BadField{R"("top_logprobs":2)", "top_logprobs", "invalid_value"},
        BadField{R"("logprobs":true,"top_logprobs":21)", "top_logprobs", "invalid_value"},
        BadField{R"("user":3)", "user", "invalid_type"},
        BadField{R"("priority":"high")", "priority", "invalid_type"},
        BadField{R"("priority":4000000000)", "priority", "invalid_value"},
        BadField{R"("cache_prompt":0)", "cache_prompt", "invalid_type"},
        BadField{R"("tools":{})", "tools", "invalid_type"},
        BadField{R"("tools":[5])", "tools[0]", "invalid_type"},
        BadField{R"("tools":[{"type":"function"}])", "tools[0].function", "invalid_value"},
        BadField{R"("tools":[{"type":"web_search"}])", "tools[0].type", "unsupported"},
        BadField{R"("tools":[{"type":"function","function":{}}])", "tools[0].function.name",
                 "invalid_value"},
        BadField{R"("tools":[{"function":{"name":"f","parameters":[]}}])",
                 "tools[0].function.parameters", "invalid_type"},
        BadField{R"("tools":[{"function":{"name":"f","description":5}}])",
                 "tools[0].function.description", "invalid_type"},
        BadField{R"("tool_choice":"required")", "tool_choice", "invalid_value"},
        BadField{R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice",
                 "invalid_value"},
        BadField{R"("tools":[{"function":{"name":"g"}}],
                    "tool_choice":{"type":"function","function":{"name":"f"}})",
                 "tool_choice.function.name", "invalid_value"},
        BadField{R"("tools":[{"function":{"name":"g"}}],"tool_choice":{"type":"allowed_tools"})",
                 "tool_choice.type", "unsupported"},
        BadField{R"("tool_choice":"maybe")", "tool_choice", "invalid_value"},
        BadField{R"("tool_choice":5)", "tool_choice", "invalid_type"},
        BadField{R"("parallel_tool_calls":"yes")", "parallel_tool_calls", "invalid_type"},
        BadField{R"("functions":[{"name":"f"}])", "functions", "unsupported"},
        BadField{R"("function_call":{"name":"f"})", "function_call", "unsupported"},
        BadField{R"("response_format":{"type":"json_schema","json_schema":{}})",
                 "response_format.json_schema.schema", "invalid_value"},
        BadField{R"("response_format":{"type":"json_schema"})", "response_format.json_schema",
                 "invalid_value"},
        BadField{R"("response_format":{"type":"json_schema","json_schema":{"schema":[]}})",
                 "response_format.json_schema.schema", "invalid_type"},
        BadField{R"("response_format":{"type":"xml"})", "response_format.type", "invalid_value"},
        BadField{R"("response_format":"json")", "response_format", "invalid_type"},
        BadField{R"("json_schema":{"properties":{"a":{"items":{"uniqueItems":true}}}})",
                 "json_schema", "unsupported"},
        BadField{R"("json_schema":{"anyOf":[{"not":{}}]})", "json_schema", "unsupported"},
        BadField{R"("response_format":{"type":"json_object"},"grammar":"root ::= \"a\"")",
                 "response_format", "invalid_value"},
        BadField{R"("grammar":5)", "grammar", "invalid_type"},
        BadField{R"("min_tokens":4)", "min_tokens", "unsupported"}));

struct BadBody {
  const char* body;
  const char* param;
};

class BadChatBody : public testing::TestWithParam<BadBody> {};

TEST_P(BadChatBody, IsNamed) {
  auto parsed = ParseChatRequest(GetParam().body);
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().http_status, 400);
  EXPECT_EQ(parsed.error().param, GetParam().param);
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadChatBody,
    testing::Values(
        BadBody{"[]", ""}, BadBody{"{}", "messages"}, BadBody{R"({"messages":"hi"})", "messages"},
        BadBody{R"({"messages":[]})", "messages"}, BadBody{R"({"messages":["hi"]})", "messages[0]"},
        BadBody{R"({"messages":[{"content":"hi"}]})", "messages[0].role"},
        BadBody{R"({"messages":[{"role":5,"content":"hi"}]})", "messages[0].role"},
        BadBody{R"({"messages":[{"role":"robot","content":"hi"}]})", "messages[0].role"},
        BadBody{R"({"messages":[{"role":"user"}]})", "messages[0].content"},
        BadBody{R"({"messages":[{"role":"user","content":5}]})", "messages[0].content"},
        BadBody{R"({"messages":[{"role":"user","content":["a"]}]})", "messages[0].content[0]"},
        BadBody{R"({"messages":[{"role":"assistant","tool_calls":{}}]})", "messages[0].tool_calls"},
        BadBody{R"({"messages":[{"role":"assistant","tool_calls":[1]}]})",
                "messages[0].tool_calls[0]"},
        BadBody{R"({"messages":[{"role":"assistant","tool_calls":[{"id":"1"}]}]})",
                "messages[0].tool_calls[0].function"},
        BadBody{
            R"({"messages":[{"role":"assistant","tool_calls":[{"id":1,"function":{"name":"f"}}]}]})",
            "messages[0].tool_calls[0].id"},
        BadBody{R"({"messages":[{"role":"assistant","tool_calls":[
          {"function":{"name":"f","arguments":5}}]}]})",
                "messages[0].tool_calls[0].function.arguments"},
        BadBody{R"({"messages":[{"role":"user","content":[{"text":"a"}]}]})",
                "messages[0].content[0].type"},
        BadBody{R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
                "messages[0].content[0].text"},
        BadBody{R"({"messages":[{"role":"user","content":[{"type":"text","text":1}]}]})",
                "messages[0].content[0].text"},
        BadBody{R"({"messages":[{"role":"user","content":"a"},
          {"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]})",
                "messages[1].content[0].type"}));

// What llama.cpp would parse without any limit.
TEST(ChatRequestTest, ToolArgumentsAreLimitedInside) {
  const auto parse = [](const Json& arguments) {
    const Json body = {
        {"messages",
         {{{"role", "assistant"},
           {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", arguments}}}}}}}}}};
    return ParseChatRequest(body.dump());
  };
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  Json wide = Json::object();
  for (int i = 0; i < 2000; i++) wide[std::to_string(i)] = i;
  EXPECT_TRUE(parse(nullptr).ok());
  EXPECT_TRUE(parse("no JSON [[").ok());
  EXPECT_TRUE(parse(nested(kMaxJsonDepth)).ok());
  for (const Json& arguments : {Json(nested(kMaxJsonDepth + 1)), Json(wide.dump()), wide,
                                Json(std::string(5 << 20, ' ') + "{}")}) {
    auto parsed = parse(arguments);
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.error().http_status, 400);
    EXPECT_EQ(parsed.error().param, "messages[0].tool_calls[0].function.arguments");
  }
}

TEST(ChatRequestTest, WhatStaysInMemoryIsLimited) {
  const auto refused = [](const Json& fields) {
    Json body = fields;
    body["messages"] = {{{"role", "user"}, {"content", "hi"}}};
    auto parsed = ParseChatRequest(body.dump());
    return parsed.ok() ? "" : parsed.error().param;
  };
  EXPECT_EQ(refused({{"cache_salt", std::string(256, 'x')}}), "");
  for (const char* name : {"cache_salt", "user", "prompt_cache_key"}) {
    EXPECT_EQ(refused({{name, std::string(257, 'x')}}), name);
  }
  EXPECT_EQ(refused({{"stop", std::vector<std::string>(32, std::string(512, 'x'))}}), "");
  EXPECT_EQ(refused({{"stop", std::vector<std::string>(33, "x")}}), "stop");
  EXPECT_EQ(refused({{"stop", {"a", std::string(513, 'x')}}}), "stop[1]");
}

// --- Text completions ---

CompletionRequest Completion(const std::string& body) {
  auto parsed = ParseCompletionRequest(body);
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
  return parsed.value();
}

TEST(CompletionRequestTest, PromptForms) {
  using Tokens = std::vector<TokenId>;
  EXPECT_EQ(Completion(R"({"prompt":"hi"})").prompts, std::vector<Prompt>{"hi"});
  EXPECT_EQ(Completion(R"({"prompt":[1,2]})").prompts, (std::vector<Prompt>{Tokens{1, 2}}));
  EXPECT_EQ(Completion(R"({"prompt":["a","b"]})").prompts, (std::vector<Prompt>{"a", "b"}));
  EXPECT_EQ(Completion(R"({"prompt":[[1],[2,3]]})").prompts,
            (std::vector<Prompt>{Tokens{1}, Tokens{2, 3}}));
  EXPECT_EQ(Completion(R"({"prompt":["a",[7]]})").prompts, (std::vector<Prompt>{"a", Tokens{7}}));
}

TEST(CompletionRequestTest, Defaults) {
  const CompletionRequest request = Completion(R"({"prompt":"hi"})");
  EXPECT_EQ(request.generation.max_tokens, 16u);
  EXPECT_FALSE(request.echo);
  EXPECT_EQ(Completion(R"({"prompt":"hi","logprobs":2})").generation.sampling.num_logprobs, 2);
  EXPECT_EQ(Completion(R"({"prompt":"hi","max_tokens":-1})").generation.max_tokens, 0u);
  EXPECT_EQ(Completion(R"({"prompt":"hi","max_tokens":-1.0})").generation.max_tokens, 0u);
}

class BadCompletionBody : public testing::TestWithParam<BadBody> {};

TEST_P(BadCompletionBody, IsNamed) {
  auto parsed = ParseCompletionRequest(GetParam().body);
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().http_status, 400);
  EXPECT_EQ(parsed.error().param, GetParam().param);
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadCompletionBody,
    testing::Values(BadBody{"{}", "prompt"}, BadBody{R"({"prompt":5})", "prompt"},
                    BadBody{R"({"prompt":[]})", "prompt"},
                    BadBody{R"({"prompt":[1,"a"]})", "prompt[1]"},
                    BadBody{R"({"prompt":[1,-2]})", "prompt[1]"},
                    BadBody{R"({"prompt":[1,2.5]})", "prompt[1]"},
                    BadBody{R"({"prompt":[4294967296]})", "prompt[0]"},
                    BadBody{R"({"prompt":["a",{}]})", "prompt[1]"},
                    BadBody{R"({"prompt":["a",[]]})", "prompt[1]"},
                    BadBody{R"({"prompt":[[1],[null]]})", "prompt[1][0]"},
                    BadBody{R"({"prompt":["a","b"],"n":65})", "n"},
                    BadBody{R"({"prompt":"a","logprobs":true})", "logprobs"},
                    BadBody{R"({"prompt":"a","echo":true,"logprobs":0})", "echo"},
                    BadBody{R"({"prompt":"a","tools":[{}]})", "tools"},
                    BadBody{R"({"prompt":[1],"suffix":"b"})", "suffix"},
                    BadBody{R"({"prompt":["a","b"],"suffix":"b"})", "suffix"},
                    BadBody{R"({"prompt":"a","suffix":"b","echo":true})", "suffix"}));

TEST(CompletionRequestTest, ASuffixIsFilledInBefore) {
  auto parsed = ParseCompletionRequest(R"({"prompt":"a","suffix":"b"})");
  ASSERT_TRUE(parsed.ok());
  ASSERT_TRUE(parsed.value().infill);
  EXPECT_EQ(parsed.value().infill->prefix, "a");
  EXPECT_EQ(parsed.value().infill->suffix, "b");
  auto infill = ParseLlamaInfill(
      R"({"input_prefix":"a","input_suffix":"","prompt":"c","input_extra":[{"text":"t"},{"filename":"f","text":"u"}]})");
  ASSERT_TRUE(infill.ok()) << infill.error().message;
  EXPECT_EQ(infill.value().infill->begun, "c");
  ASSERT_EQ(infill.value().infill->files.size(), 2u);
  EXPECT_EQ(infill.value().infill->files[0].name, "tmp");
  EXPECT_EQ(infill.value().infill->files[1].text, "u");
  EXPECT_EQ(infill.value().generation.max_tokens, 0u);
  EXPECT_EQ(ParseLlamaInfill(R"({"input_prefix":"a"})").error().param, "input_suffix");
  EXPECT_EQ(ParseLlamaInfill(R"({"input_prefix":"a","input_suffix":"b","input_extra":[1]})")
                .error()
                .param,
            "input_extra[0]");
}

// --- Tokenize ---

TEST(TokenizeRequestTest, Fields) {
  auto parsed = ParseTokenizeRequest(R"({"content":"x","add_special":true,"with_pieces":true})");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().content, "x");
  EXPECT_TRUE(parsed.value().add_special);
  EXPECT_TRUE(parsed.value().parse_special);
  EXPECT_TRUE(parsed.value().with_pieces);
  EXPECT_EQ(ParseTokenizeRequest("{}").error().param, "content");
  EXPECT_EQ(ParseTokenizeRequest("5").error().message, "the body must be an object, not a number");
}

TEST(DetokenizeRequestTest, Fields) {
  EXPECT_EQ(ParseDetokenizeRequest(R"({"tokens":[1,2]})").value(), (std::vector<TokenId>{1, 2}));
  EXPECT_TRUE(ParseDetokenizeRequest(R"({"tokens":[]})").ok());
  EXPECT_EQ(ParseDetokenizeRequest(R"({"tokens":"x"})").error().param, "tokens");
  EXPECT_EQ(ParseDetokenizeRequest(R"({"tokens":[-1]})").error().param, "tokens[0]");
}

}  // namespace
}  // namespace trellis
