#include "server/log.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>

#include "server/test_support.h"

namespace trellis {
namespace {

// What is logged while it lives.
class CapturedLog {
 public:
  CapturedLog() : before_(spdlog::default_logger()) {
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(text_);
    auto logger = std::make_shared<spdlog::logger>("captured", sink);
    logger->set_pattern("%v");
    spdlog::set_default_logger(logger);
  }
  ~CapturedLog() { spdlog::set_default_logger(before_); }

  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    std::istringstream in(text_.str());
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  Json Line(const std::string& event) const {
    for (const std::string& line : Lines()) {
      Json json = Json::parse(line);
      if (json["event"] == event) return json;
    }
    ADD_FAILURE() << "no " << event << " in " << text_.str();
    return {};
  }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST(LogTest, TextIsALineOfPairs) {
  const CapturedLog captured;
  const Log log(LogFormat::kText);
  log.Info("answer", {{"id", "a-1"}, {"n", 3}, {"ok", true}, {"missed", {{"cold", 5}, {"x", 1}}}});
  log.Warning("odd", {{"message", "two\nlines = \"one\""}, {"path", "/a b\n=\"c"}, {"none", ""}});
  log.Info("bare");
  const std::vector<std::string> expected = {"answer id=a-1 n=3 ok=true missed=cold:5,x:1",
                                             R"(odd path="/a b\n=\"c" none="": two lines = "one")",
                                             "bare"};
  EXPECT_EQ(captured.Lines(), expected);
}

TEST(LogTest, JsonIsAnObjectOfTypedFields) {
  const CapturedLog captured;
  const Log log(LogFormat::kJson);
  log.Info("answer", {{"n", 3}, {"path", "/a \"b\"\n"}, {"missed", {{"cold", 5}}}});
  log.Error("odd", {{"message", "not UTF-8: \xFF"}});
  ASSERT_EQ(captured.Lines().size(), 2u);
  const Json answer = captured.Line("answer");
  EXPECT_EQ(answer["level"], "info");
  EXPECT_EQ(answer["n"], 3);
  EXPECT_EQ(answer["path"], "/a \"b\"\n");
  EXPECT_EQ(answer["missed"]["cold"], 5);
  const std::string time = answer["time"];
  EXPECT_EQ(time.size(), std::string("2026-11-29T02:18:06.123Z").size());
  EXPECT_EQ(time.back(), 'Z');
  EXPECT_EQ(captured.Line("odd")["level"], "error");
}

TEST(LogTest, AnswersAndRefusalsAreLines) {
  const CapturedLog captured;
  const auto serve = [](bool log_prompts) {
    TestServer server([&](TestOptions& o) {
      o.server.log_format = LogFormat::kJson;
      o.server.log_prompts = log_prompts;
    });
    server.Load();
    Client client(server);
    const std::string own = "x-request-id: mine-1\r\nAuthorization: Bearer sk-secret\r\n";
    client.SendRequest("POST", "/v1/completions", R"({"prompt":"my words","max_tokens":2})", own);
    EXPECT_EQ(client.Read().status, 200u);
    client.SendRequest("POST", "/v1/completions", R"({"prompt":"x","model":"my words"})", own);
    EXPECT_EQ(client.Read().status, 404u);
  };
  serve(false);
  const Json answer = captured.Line("answer");
  EXPECT_EQ(answer["request_id"], "mine-1");
  EXPECT_EQ(answer["path"], "/v1/completions");
  EXPECT_EQ(answer["finish_reason"], "length");
  EXPECT_EQ(answer["generated_tokens"], 2);
  EXPECT_EQ(answer["missed"]["cold"], answer["prompt_tokens"]);
  EXPECT_EQ(answer["stream"], false);
  const Json refused = captured.Line("refused");
  EXPECT_EQ(refused["request_id"], "mine-1");
  EXPECT_EQ(refused["status"], 404);
  EXPECT_EQ(refused["code"], "model_not_found");
  for (const std::string& line : captured.Lines()) {
    EXPECT_EQ(line.find("my words"), std::string::npos) << line;
    EXPECT_EQ(line.find("secret"), std::string::npos) << line;
  }
  serve(true);
  EXPECT_NE(captured.Line("prompt")["text"].get<std::string>().find("my words"), std::string::npos);
}

}  // namespace
}  // namespace trellis
