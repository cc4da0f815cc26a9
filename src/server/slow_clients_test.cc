// Clients that take their time: what they hold, and that nobody else waits for them.
#include <gtest/gtest.h>

#include "server/test_support.h"

namespace trellis {
namespace {

constexpr std::chrono::seconds kSoon{1};

TEST(SlowClientTest, HeadersThatDoNotArriveAreA408) {
  TestServer server([](TestOptions& o) { o.server.header_timeout = kSoon; });
  server.Load();
  Client client(server);
  EXPECT_EQ(client.Get("/health").status, 200u);
  client.Send("POST /v1/messages HTTP/1.1\r\nx-request-id: mine\r\nContent-Le");
  const Answer late = client.Read();
  EXPECT_EQ(late.status, 408u);
  EXPECT_EQ(late.headers["x-request-id"], "mine");
  EXPECT_EQ(late.headers["Connection"], "close");
  EXPECT_EQ(late.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(client.ReadSome(1), "");
}

// A byte now and then does not help.
TEST(SlowClientTest, TheTimeOfHeadersIsThatOfAllOfThem) {
  TestServer server([](TestOptions& o) { o.server.header_timeout = kSoon; });
  server.Load();
  Client client(server);
  while (!client.HasSomething()) {
    client.Send("G");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const unsigned status = client.Read().status;
  EXPECT_TRUE(status == 408 || status == 0) << status;  // 0: what it sent on reset the connection
}

TEST(SlowClientTest, ABodyThatDoesNotArriveIsA408) {
  TestServer server([](TestOptions& o) { o.server.body_timeout = kSoon; });
  server.Load();
  for (const char* length :
       {"Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n4\r\n{"}) {
    Client client(server);
    client.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + std::string(length));
    const Answer late = client.Read();
    EXPECT_EQ(late.status, 408u) << length;
    EXPECT_EQ(late.json()["error"]["code"], "request_timeout");
  }
  EXPECT_EQ(server.engine().Stats().requests_total, 0u);
}

TEST(SlowClientTest, ABodyThatComesSteadilyHasMoreTime) {
  TestServer server([](TestOptions& o) {
    o.server.body_timeout = kSoon;
    o.server.min_body_rate = 1;  // what is sent at first is worth a minute
  });
  server.Load();
  Client client(server);
  const std::string first(60, ' ');
  client.Send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 75\r\n\r\n" + first);
  std::this_thread::sleep_for(2 * kSoon);
  client.Send(R"({"content":"a"})");
  EXPECT_EQ(client.Read().status, 200u);
}

TEST(SlowClientTest, ASilentConnectionEndsWithoutAWord) {
  TestServer server([](TestOptions& o) { o.server.idle_timeout = kSoon; });
  server.Load();
  Client silent(server), done(server);
  EXPECT_EQ(done.Get("/health").status, 200u);
  EXPECT_EQ(silent.ReadSome(1), "");
  EXPECT_EQ(done.ReadSome(1), "");
}

TEST(SlowClientTest, MoreConnectionsThanMayBeOpenWait) {
  TestServer server([](TestOptions& o) { o.server.max_connections = 2; });
  server.Load();
  Client first(server), second(server), third(server);
  EXPECT_EQ(first.Get("/health").status, 200u);
  EXPECT_EQ(second.Get("/health").status, 200u);
  third.SendRequest("GET", "/health");
  for (int i = 0; i < 20; i++) {
    EXPECT_EQ(first.Get("/health").status, 200u);
    EXPECT_FALSE(third.HasSomething());
  }
  second.Close();
  EXPECT_EQ(third.Read().status, 200u);
  EXPECT_EQ(first.Get("/health").status, 200u);
}

// Their answers are computed, wait as tokens, and are taken in the end; others' go on.
TEST(SlowClientTest, WhoReadsSlowlyHoldsUpNoOne) {
  TestServer server;
  server.Load();
  const Json request = {{"prompt", "abc"}, {"max_tokens", 3000}, {"stream", true}, {"seed", 1}};
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 20; i++) {
    slow.push_back(std::make_unique<Client>(server, 2048));
    slow.back()->SendRequest("POST", "/v1/completions", request.dump());
  }
  server.Await([](const EngineStats& stats) { return stats.finished_total == 20; });
  Client other(server);
  EXPECT_EQ(other.Post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 5}}).status, 200u);
  std::string first;
  for (const auto& client : slow) {
    std::string text;
    for (const std::string& event : EventsOf(client->Read().body)) {
      if (event != "[DONE]") text += Json::parse(event)["choices"][0]["text"];
    }
    EXPECT_FALSE(text.empty());
    if (first.empty()) first = text;
    EXPECT_EQ(text, first);
  }
}

}  // namespace
}  // namespace trellis
