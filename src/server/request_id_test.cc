#include "server/request_id.h"

#include <gtest/gtest.h>

#include <set>

#include "server/test_support.h"

namespace trellis {
namespace {

TEST(RequestIdTest, AClientsOwnIsTakenIfItIsPlain) {
  for (const std::string id :
       {"a", "0f8fad5b-d9cb-469f-a165-70867728950e", "Root=1-67a:b/c+d_e.f@g"})
    EXPECT_EQ(RequestIdFrom(id), id);
  EXPECT_EQ(RequestIdFrom(std::string(128, 'x')), std::string(128, 'x'));
  for (const std::string id : {"", "a b", "a\"b", "a\\b", "a\tb", "caf\xC3\xA9", "a;b"}) {
    const std::string given = RequestIdFrom(id);
    EXPECT_NE(given, id);
    EXPECT_TRUE(given.starts_with("req_")) << given;
  }
  EXPECT_NE(RequestIdFrom(std::string(129, 'x')), std::string(129, 'x'));
}

TEST(RequestIdTest, NewOnesAreLongAndDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; i++) ids.insert(RequestIdFrom(""));
  EXPECT_EQ(ids.size(), 1000u);
  for (const std::string& id : ids) EXPECT_EQ(id.size(), 4u + 32u);
}

constexpr const char* kCompletions = "/v1/completions";

std::string IdOf(const Answer& answer, const char* header = "x-request-id") {
  return std::string(answer.headers[header]);
}

Answer Send(const TestServer& server, const std::string& path, const std::string& body,
            const std::string& headers = "") {
  Client client(server);
  client.SendRequest(body.empty() ? "GET" : "POST", path, body, headers);
  return client.Read();
}

TEST(RequestIdTest, EveryAnswerHasOne) {
  TestServer server([](TestOptions& o) { o.server.max_body_bytes = 1000; });
  server.Load();
  const std::string stream = R"({"prompt":"a","max_tokens":2,"stream":true})";
  std::set<std::string> ids;
  for (const Answer& answer :
       {Send(server, "/health", ""), Send(server, "/", ""), Send(server, "/nothing", ""),
        Send(server, kCompletions, R"({"prompt":"a","max_tokens":2})"),
        Send(server, kCompletions, stream), Send(server, kCompletions, "{"),
        Send(server, kCompletions, std::string(2000, ' ')),
        Send(server, "/health", "", "X: " + std::string(20000, 'x') + "\r\n"),
        Send(server, "/health", "", "Origin: http://page\r\n")}) {
    const std::string id = IdOf(answer);
    EXPECT_TRUE(id.starts_with("req_")) << answer.status;
    EXPECT_TRUE(ids.insert(id).second);
    if (answer.status >= 400) {
      EXPECT_EQ(answer.json()["request_id"], id) << answer.body;
    }
    EXPECT_EQ(answer.headers.count("request-id"), 0u);
  }
}

TEST(RequestIdTest, TheClientsOwnComesBack) {
  TestServer server([](TestOptions& o) { o.server.max_body_bytes = 1000; });
  server.Load();
  const std::string own = "x-request-id: my.id-7\r\n";
  for (const std::string body : {R"({"prompt":"a","max_tokens":2})", "{", " "})
    EXPECT_EQ(IdOf(Send(server, kCompletions, body, own)), "my.id-7");
  const Answer too_large = Send(server, kCompletions, std::string(2000, ' '), own);
  EXPECT_EQ(too_large.status, 413u);
  EXPECT_EQ(IdOf(too_large), "my.id-7");
  const Answer quoted = Send(server, "/nothing", "", "x-request-id: \"},{\r\n");
  EXPECT_TRUE(quoted.json()["request_id"].get<std::string>().starts_with("req_"));
  // Each request of a connection has its own.
  Client client(server);
  client.SendRequest("GET", "/health", "", own);
  EXPECT_EQ(IdOf(client.Read()), "my.id-7");
  EXPECT_NE(IdOf(client.Get("/health")), "my.id-7");
}

TEST(RequestIdTest, AnthropicsClientsFindItWhereTheyLook) {
  TestServer server([](TestOptions& o) { o.server.max_body_bytes = 1000; });
  server.Load();
  for (const std::string& body : {std::string("{"), std::string(2000, ' ')}) {
    const Answer refused = Send(server, "/v1/messages", body);
    EXPECT_EQ(refused.json()["type"], "error");
    EXPECT_EQ(refused.json()["request_id"], IdOf(refused, "request-id"));
    EXPECT_EQ(IdOf(refused, "request-id"), IdOf(refused));
  }
}

TEST(RequestIdTest, AnErrorInAStreamNamesIt) {
  TestServer server;
  server.Load();
  server.gate().Close();
  const Answer late = Send(server, kCompletions, R"({"prompt":"a","max_tokens":2,"stream":true})",
                           "x-request-id: late-one\r\nx-request-timeout: 0.01\r\n");
  EXPECT_NE(late.body.find(R"("request_id":"late-one")"), std::string::npos) << late.body;
}

TEST(RequestIdTest, PagesMayReadIt) {
  TestServer server([](TestOptions& o) { o.server.origins.allowed = {"http://page"}; });
  server.Load();
  const Answer answer = Send(server, "/health", "", "Origin: http://page\r\n");
  EXPECT_EQ(answer.headers["Access-Control-Expose-Headers"], "x-request-id, request-id");
}

}  // namespace
}  // namespace trellis
