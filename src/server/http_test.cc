// The HTTP side: routes, methods, framing, and clients that do not behave.
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "server/test_support.h"

namespace trellis {
namespace {

TEST(HttpTest, WhileLoadingItSaysHowFar) {
  TestServer server;
  server.server().load_progress().total = 200;
  server.server().load_progress().done = 50;
  Client client(server);
  const Answer health = client.Get("/health");
  EXPECT_EQ(health.status, 503u);
  EXPECT_EQ(health.json()["status"], "loading");
  EXPECT_EQ(health.json()["progress"], 0.25);
  EXPECT_EQ(client.Get("/version").status, 200u);
  for (const char* path : {"/v1/models", "/v1/cache", "/metrics"}) {
    EXPECT_EQ(client.Get(path).status, 503u) << path;
  }
  const Answer answer = client.Post("/v1/completions", {{"prompt", "a"}});
  EXPECT_EQ(answer.status, 503u);
  EXPECT_EQ(answer.headers["Retry-After"], "1");
  EXPECT_EQ(answer.json()["error"]["type"], "unavailable_error");
  server.Load();
  EXPECT_EQ(client.Get("/health").body, R"({"status":"ok"})");
  EXPECT_EQ(client.Post("/v1/completions", {{"prompt", "a"}}).status, 200u);
}

TEST(HttpTest, EveryPathTakesItsMethodsOnly) {
  TestServer server;
  server.Load();
  Client client(server);
  for (const char* path :
       {"/health", "/version", "/v1/models", "/metrics", "/v1/cache", "/v1/cache/tree", "/"}) {
    const Answer got = client.Get(path);
    EXPECT_EQ(got.status, 200u) << path;
    client.SendRequest("HEAD", path);
    const Answer head = client.Read("HEAD");
    EXPECT_EQ(head.status, 200u);
    EXPECT_EQ(head.body, "");
    if (std::string(path) != "/metrics") {  // which counts this very request
      EXPECT_EQ(head.headers["Content-Length"], std::to_string(got.body.size())) << path;
    }
    const Answer post = client.Post(path, {});
    EXPECT_EQ(post.status, 405u) << path;
    EXPECT_EQ(post.headers["Allow"], "GET, HEAD, OPTIONS");
    EXPECT_EQ(post.json()["error"]["code"], "method_not_allowed");
  }
  for (const char* path :
       {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/cache/reset"}) {
    EXPECT_EQ(client.Get(path).status, 405u) << path;
    client.SendRequest("BREW", path);
    EXPECT_EQ(client.Read().status, 405u) << path;
  }
  const Answer nothing = client.Get("/a\"b?c=d");
  EXPECT_EQ(nothing.status, 404u);
  EXPECT_NE(nothing.json()["error"]["message"].get<std::string>().find("/a\"b"), std::string::npos);
  EXPECT_EQ(client.Get("/health?x=y").status, 200u);
}

TEST(HttpTest, PagesThatAreAllowedMayAsk) {
  TestServer server([](TestOptions& o) { o.server.origins.allowed = {"http://page"}; });
  server.Load();
  Client client(server);
  client.SendRequest("OPTIONS", "/v1/chat/completions", "",
                     "Origin: http://page\r\nAccess-Control-Request-Headers: authorization\r\n");
  const Answer answer = client.Read();
  EXPECT_EQ(answer.status, 204u);
  EXPECT_EQ(answer.headers["Access-Control-Allow-Origin"], "http://page");
  EXPECT_EQ(answer.headers["Access-Control-Allow-Headers"], "authorization");
  EXPECT_NE(answer.headers["Access-Control-Allow-Methods"].find("POST"), std::string::npos);
  client.SendRequest("GET", "/health", "", "Origin: http://page\r\n");
  EXPECT_EQ(client.Read().headers["Access-Control-Allow-Origin"], "http://page");
  EXPECT_EQ(client.Get("/health").headers.count("Access-Control-Allow-Origin"), 0u);
}

TEST(HttpTest, OtherPagesMayNot) {
  TestServer server;
  server.Load();
  for (const char* verb : {"OPTIONS", "POST", "GET"}) {
    Client client(server);
    client.SendRequest(verb, "/v1/cache/reset", "{}", "Origin: http://page\r\n");
    const Answer answer = client.Read();
    EXPECT_EQ(answer.status, 403u);
    EXPECT_EQ(answer.json()["error"]["code"], "origin_not_allowed");
    EXPECT_EQ(answer.headers.count("Access-Control-Allow-Origin"), 0u);
  }
  TestServer local([](TestOptions& o) { o.server.origins.needs_local_host = true; });
  Client client(local);
  client.Send("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(client.Read().json()["error"]["code"], "host_not_allowed");
}

TEST(HttpTest, ANameWithQuotesIsStillJson) {
  const std::string name = "a\"b\\c\n";
  TestServer server([&](TestOptions& o) { o.model_name = name; });
  server.Load();
  Client client(server);
  EXPECT_EQ(client.Get("/v1/models").json()["data"][0]["id"], name);
  const Json request = {{"prompt", "a"}, {"model", name}, {"max_tokens", 1}};
  EXPECT_EQ(client.Post("/v1/completions", request).json()["model"], name);
  const Answer unknown = client.Post("/v1/completions", {{"prompt", "a"}, {"model", "x\"y"}});
  EXPECT_EQ(unknown.status, 404u);
  EXPECT_EQ(unknown.json()["error"]["code"], "model_not_found");
}

TEST(HttpTest, AModelHasAPath) {
  TestServer server([&](TestOptions& o) { o.model_name = "org/a b%"; });
  server.Load();
  Client client(server);
  const Json listed = client.Get("/v1/models").json()["data"][0];
  for (const char* path : {"/v1/models/org/a%20b%25", "/v1/models/org%2Fa%20b%"}) {
    EXPECT_EQ(client.Get(path).json(), listed) << path;
  }
  for (const char* path :
       {"/v1/models/other", "/v1/models/", "/v1/models/org/a%2", "/v1/models/%zz"}) {
    const Answer answer = client.Get(path);
    EXPECT_EQ(answer.status, 404u) << path;
    EXPECT_EQ(answer.json()["error"]["code"], "model_not_found") << path;
  }
}

TEST(HttpTest, AProxysFormOfThePathIsUnderstood) {
  TestServer server;
  server.Load();
  Client client(server);
  for (const char* path : {"http://x/health", "http://x:80/health?a=b", "HTTP://x/health"}) {
    EXPECT_EQ(client.Get(path).status, 200u) << path;
  }
  EXPECT_EQ(client.Get("http://x").status, 200u);
  EXPECT_EQ(client.Get("/nothing?http://x/health").status, 404u);
}

// Four bodies that take long leave the connections' threads, of which there are two, to others.
TEST(HttpTest, LargeBodiesHoldUpNoOne) {
  TestServer server;
  server.Load();
  const Json large = {{"content", std::string(3 << 20, 'a')}};
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; i++) {
    clients.push_back(std::make_unique<Client>(server));
    clients.back()->SendRequest("POST", "/tokenize", large.dump());
  }
  Client client(server);
  for (int i = 0; i < 10; i++) {
    EXPECT_EQ(client.Post("/tokenize", {{"content", "a"}}).json()["tokens"].size(), 2u);
    EXPECT_EQ(client.Post("/v1/completions", {{"prompt", "a"}, {"max_tokens", 1}}).status, 200u);
    // Else it was answered first, and the others had to wait.
    EXPECT_TRUE(std::none_of(clients.begin(), clients.end(),
                             [](const auto& c) { return c->HasSomething(); }));
  }
  for (const auto& c : clients) EXPECT_GT(c->Read().json()["tokens"].size(), 1000000u);
}

TEST(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  TestServer server;
  server.Load();
  Client client(server);
  const std::string body = R"({"prompt":"abc","max_tokens":2})";
  client.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body +
              "GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.Read().json().contains("choices"));
  EXPECT_TRUE(client.Read().json().contains("version"));
  EXPECT_TRUE(client.Read().json().contains("status"));
}

TEST(HttpTest, ABodyMayBeAskedForAndMayComeInChunks) {
  TestServer server;
  server.Load();
  Client client(server);
  client.Send(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadSome(100), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send(R"({"content":"a"})");
  EXPECT_EQ(client.Read().status, 200u);
  client.Send("POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.Send("8\r\n{\"conten\r\n");
  client.Send("7\r\nt\":\"a\"}\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().json()["tokens"].size(), 2u);
}

TEST(HttpTest, WhatIsNoRequestIsRefused) {
  TestServer server([&](TestOptions& o) { o.server.max_body_bytes = 1000; });
  server.Load();
  const auto status = [&](const std::string& bytes) {
    Client client(server);
    client.Send(bytes);
    const Answer answer = client.Read();
    EXPECT_EQ(answer.json().contains("error"), answer.status != 200) << bytes;
    return answer.status;
  };
  const std::string post = "POST /tokenize HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(status("hello\r\n\r\n"), 400u);
  EXPECT_EQ(status("GET / HTTP/9.9\r\n\r\n"), 400u);
  EXPECT_EQ(status(std::string("GET /\0 HTTP/1.1\r\n\r\n", 20)), 400u);
  EXPECT_EQ(status("\x16\x03\x01\x02\x00\x01\x00"), 400u);  // TLS
  EXPECT_EQ(status(post + "Content-Length: 99999999999999999999999\r\n\r\n"), 400u);
  EXPECT_EQ(status(post + "Content-Length: -1\r\n\r\n"), 400u);
  EXPECT_EQ(status(post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 400u);
  EXPECT_EQ(status(post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400u);
  EXPECT_EQ(status(post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501u);
  EXPECT_EQ(status(post + "Content-Length: 9223372036854775807\r\n\r\n"), 413u);
  EXPECT_EQ(status(post + "Transfer-Encoding: chunked\r\n\r\n7FFFFFFF\r\n"), 413u);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"), 431u);
  EXPECT_EQ(status("GET /health HTTP/1.1\r\n\r\n"), 400u);
  EXPECT_EQ(status("GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), 400u);
  EXPECT_EQ(status("GET /health HTTP/1.0\r\n\r\n"), 200u);
  EXPECT_EQ(status(post + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab"), 415u);
  EXPECT_EQ(Client(server).Get("/health").status, 200u);
}

// The client is still sending when the answer comes: it must not lose it.
TEST(HttpTest, ARefusedBodysClientReadsWhy) {
  TestServer server([&](TestOptions& o) { o.server.max_body_bytes = 1000; });
  server.Load();
  for (int i = 0; i < 20; i++) {
    Client client(server);
    client.SendRequest("POST", "/tokenize", std::string(3'000'000, 'x'));
    const Answer answer = client.Read();
    EXPECT_EQ(answer.status, 413u);
    EXPECT_EQ(answer.json()["error"]["code"], "request_too_large");
  }
}

TEST(HttpTest, MetricsAreValid) {
  TestServer server;
  server.Load();
  Client client(server);
  for (int i = 0; i < 3; i++) {
    client.Post("/v1/completions", {{"prompt", "abcdefgh"}, {"max_tokens", 5}});
  }
  const Answer answer = client.Get("/metrics");
  EXPECT_TRUE(answer.headers["Content-Type"].starts_with("text/plain; version=0.0.4"));
  const std::regex sample(
      R"re(([a-z_0-9]+(?:\{(?:cause|finished_reason)="[a-z_]+"\})?)(\{le="([^"]+)"\})? ([-+.0-9e]+))re");
  const std::regex comment(R"(# (HELP|TYPE) ([a-z_0-9]+) (.+))");
  std::map<std::string, std::string> type_of, help_of;
  std::map<std::string, double> values;
  double last_bucket = 0;
  std::istringstream lines(answer.body);
  for (std::string line; std::getline(lines, line);) {
    std::smatch m;
    if (std::regex_match(line, m, comment)) {
      EXPECT_TRUE((m[1] == "TYPE" ? type_of : help_of).emplace(m[2], m[3]).second) << line;
      last_bucket = 0;
      continue;
    }
    ASSERT_TRUE(std::regex_match(line, m, sample)) << line;
    const double value = std::stod(m[4]);
    if (m[2].matched) {
      EXPECT_GE(value, last_bucket) << line;
      last_bucket = value;
      if (m[3] == "+Inf") values[m[1].str() + "_inf"] = value;
    } else {
      EXPECT_TRUE(values.emplace(m[1], value).second) << "twice: " << line;
    }
  }
  for (const auto& [name, type] : type_of) {
    EXPECT_TRUE(help_of.contains(name)) << name;
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
    if (type == "histogram") {
      EXPECT_EQ(values[name + "_count"], values[name + "_bucket_inf"]) << name;
    }
  }
  EXPECT_EQ(values["trellis_request_success_total{finished_reason=\"length\"}"], 3);
  EXPECT_EQ(values["trellis_request_success_total{finished_reason=\"stop\"}"], 0);
  EXPECT_EQ(values["trellis_generation_tokens_total"], 15);
  EXPECT_EQ(values["trellis_time_to_first_token_seconds_count"], 3);
  EXPECT_EQ(values["trellis_inter_token_latency_seconds_count"], 12);
  EXPECT_EQ(values["trellis_request_queue_time_seconds_count"], 3);
  EXPECT_EQ(values["trellis_e2e_request_latency_seconds_count"], 3);
  EXPECT_EQ(values["trellis_request_prompt_tokens_sum"], values["trellis_prompt_tokens_total"]);
  EXPECT_EQ(values["trellis_request_prefill_kv_computed_tokens_sum"],
            values["trellis_computed_tokens_total"]);
  EXPECT_EQ(values["trellis_prompt_tokens_total"],
            values["trellis_prompt_tokens_cached_total"] + values["trellis_computed_tokens_total"]);
  EXPECT_EQ(values["trellis_prefix_cache_queries_total"], values["trellis_prompt_tokens_total"]);
  EXPECT_EQ(values["trellis_prefix_cache_hits_total"],
            values["trellis_prompt_tokens_cached_total"]);
}

TEST(HttpTest, TheTreeIsShownAndItsTextToItsOwnerAlone) {
  TestServer server;
  server.Load();
  Client client(server);
  const auto complete = [&](const char* prompt, const Json& salt) {
    const Json request = {{"prompt", prompt}, {"max_tokens", 1}, {"cache_salt", salt}};
    EXPECT_EQ(client.Post("/v1/completions", request).status, 200u);
  };
  complete("mine alone", "a b&c");
  complete("theirs", "other");
  complete("everybodys", nullptr);
  const auto texts = [&](const std::string& query) {
    const Json tree = client.Get("/v1/cache/tree" + query).json();
    EXPECT_EQ(tree["total"]["nodes"], 6);
    EXPECT_EQ(tree["total"]["leases"], 0);
    EXPECT_EQ(tree["total"]["pages"], 3);
    std::string all;
    for (const Json& node : tree["nodes"]) {
      EXPECT_EQ(node["bytes"], node["pages"].get<size_t>() * tree["page_bytes"].get<size_t>());
      if (!node.contains("text")) continue;
      EXPECT_EQ(node["scope"], tree["own_scope"]);
      all += node["text"];
    }
    EXPECT_EQ(tree["own_scope"].is_null(), all.empty()) << query;
    return all;
  };
  for (const char* query : {"", "?", "?cache_salt", "?cache_salt=", "?cache_salt=nobody's",
                            "?limit=6&cache_salt=", "?x=cache_salt=other", "?cache_sal=other"}) {
    EXPECT_EQ(texts(query), "") << query;
  }
  for (const char* query :
       {"?cache_salt=a+b%26c", "?cache_salt=a%20b%26c", "?cache%5fsalt=a%20b%26c",
        "?depth=1&&limit=6&cache_salt=a+b%26c&cache_salt=other"}) {
    EXPECT_NE(texts(query).find("mine alone"), std::string::npos) << query;
  }
  const Json two = client.Get("/v1/cache/tree?limit=2").json();
  EXPECT_EQ(two["nodes"].size(), 2u);
  EXPECT_EQ(two["hidden"]["nodes"], 4);
  const Json roots = client.Get("/v1/cache/tree?depth=0").json();
  EXPECT_EQ(roots["hidden"], Json({{"nodes", 3}, {"pages", 3}}));
  for (const Json& root : roots["nodes"]) {
    EXPECT_TRUE(root["parent"].is_null());
    EXPECT_EQ(root["hidden_children"], 1);
  }
  for (const char* wrong : {"limit=0", "limit=5001", "limit=-1", "limit=1.5", "limit=", "depth=x",
                            "depth=99999999999999999999"}) {
    const Answer answer = client.Get(std::string("/v1/cache/tree?") + wrong);
    EXPECT_EQ(answer.status, 400u) << wrong;
    EXPECT_EQ(answer.json()["error"]["param"], std::string(wrong).substr(0, 5)) << wrong;
  }
}

TEST(HttpTest, TextAndTokensAreLimited) {
  TestServer server;
  server.Load();
  Client client(server);
  const Answer text = client.Post("/tokenize", {{"content", std::string((8 << 20) + 1, 'a')}});
  EXPECT_EQ(text.status, 413u);
  EXPECT_EQ(text.json()["error"]["code"], "request_too_large");
  const std::vector<int> ids((1 << 18) + 1, 40);
  EXPECT_EQ(client.Post("/detokenize", {{"tokens", ids}}).status, 413u);
}

TEST(HttpTest, TokensGoBothWays) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json tokens = client.Post("/tokenize", {{"content", "ab\xC3\xA9"}}).json()["tokens"];
  EXPECT_EQ(client.Post("/detokenize", {{"tokens", tokens}}).json()["content"], "ab\xC3\xA9");
  const Answer wrong = client.Post("/detokenize", {{"tokens", {5, kTestVocab}}});
  EXPECT_EQ(wrong.status, 400u);
  EXPECT_EQ(wrong.json()["error"]["param"], "tokens[1]");
}

}  // namespace
}  // namespace trellis
