#include "server/api_keys.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "server/test_support.h"

namespace trellis {
namespace {

ApiKeys Parsed(std::string_view text) {
  auto keys = ApiKeys::Parse(text);
  EXPECT_TRUE(keys.ok());
  return std::move(*keys);
}

TEST(ApiKeysTest, ALineForEach) {
  const ApiKeys keys = Parsed(
      "# our keys\n\n"
      "one\n  two   scope=team # both of the team\nthree scope=team admin\r\n"
      "four#4\n");
  EXPECT_EQ(keys.size(), 4u);
  EXPECT_EQ(keys.Find("one")->role, Role::kUser);
  EXPECT_EQ(keys.Find("three")->role, Role::kAdmin);
  EXPECT_EQ(keys.Find("two")->scope, keys.Find("three")->scope);
  EXPECT_NE(keys.Find("one")->scope, keys.Find("four#4")->scope);
  EXPECT_NE(keys.Find("one")->scope, keys.Find("two")->scope);
  for (const char* other : {"", "on", "onee", "ONE", "team", "scope=team", "oneone"}) {
    EXPECT_EQ(keys.Find(other), nullptr) << other;
  }
}

TEST(ApiKeysTest, AScopeIsNotTheKeyOfThatName) {
  const ApiKeys keys = Parsed("team\nother scope=team\n");
  EXPECT_NE(keys.Find("team")->scope, keys.Find("other")->scope);
}

TEST(ApiKeysTest, ErrorsNameTheLineAndNoKey) {
  for (const char* text :
       {"", "# nothing\n", "secret\nsecret\n", "a\nsecret admim\n", "a\nsecret scope=\n"}) {
    const auto keys = ApiKeys::Parse(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_EQ(keys.status().message().find("secret"), std::string::npos);
    if (*text != '\0' && *text != '#') {
      EXPECT_NE(keys.status().message().find("line 2"), std::string::npos);
    }
  }
  EXPECT_EQ(ApiKeys::Read("/nonexistent/keys").status().code(), StatusCode::kIo);
}

TEST(ApiKeysTest, EitherHeaderCarriesIt) {
  EXPECT_EQ(SecretOf("Bearer abc", ""), "abc");
  EXPECT_EQ(SecretOf("bearer  abc", ""), "abc");
  EXPECT_EQ(SecretOf("", "abc"), "abc");
  EXPECT_EQ(SecretOf("Basic abc", "def"), "def");
  EXPECT_EQ(SecretOf("Bearer ", ""), "");
  EXPECT_EQ(SecretOf("abc", ""), "");
}

// --- At the door ---

constexpr const char* kCompletions = "/v1/completions";

class KeyedServerTest : public testing::Test {
 protected:
  KeyedServerTest()
      : server_([](TestOptions& options) {
          options.max_queue = 150;
          options.server.keys = Parsed("one\ntwo\nboss admin\nleft scope=t\nright scope=t\n");
        }) {
    server_.Load();
  }
  Answer Send(const std::string& verb, const std::string& path, const std::string& key,
              const Json& body = nullptr) {
    Client client(server_);
    client.SendRequest(verb, path, body.is_null() ? "" : body.dump(),
                       key.empty() ? "" : "Authorization: Bearer " + key + "\r\n");
    return client.Read();
  }
  // How many tokens of `prompt` came from the cache.
  int Cached(const std::string& key, const std::string& prompt, const std::string& salt = "") {
    const Json answer = Send("POST", kCompletions, key,
                             {{"prompt", prompt}, {"max_tokens", 4}, {"cache_salt", salt}})
                            .json();
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"];
  }

  TestServer server_;
};

TEST_F(KeyedServerTest, WithoutAKeyOnlyWhatIsPublic) {
  for (const char* key : {"", "wrong", "on"}) {
    const Answer refused = Send("POST", kCompletions, key, {{"prompt", "a"}});
    EXPECT_EQ(refused.status, 401u);
    EXPECT_EQ(refused.json()["error"]["code"], "invalid_api_key");
    EXPECT_EQ(refused.headers["WWW-Authenticate"], "Bearer");
    for (const char* path : {"/v1/models", "/metrics", "/v1/cache"}) {
      EXPECT_EQ(Send("GET", path, key).status, 401u) << path;
    }
    EXPECT_EQ(Send("GET", "/health", key).status, 200u);
    EXPECT_EQ(Send("OPTIONS", kCompletions, key).status, 204u);
  }
  EXPECT_EQ(server_.engine().Stats().requests_total, 0u);
}

TEST_F(KeyedServerTest, TheBodyOfWhoHasNoKeyIsNotWaitedFor) {
  Client client(server_);
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
      "30000000\r\n\r\n{");
  const Answer refused = client.Read();
  EXPECT_EQ(refused.status, 401u);
  EXPECT_EQ(client.ReadSome(10), "") << "and the connection ends";
  Client again(server_);  // without a body there is nothing to be rid of
  for (int i = 0; i < 2; i++) EXPECT_EQ(again.Get("/v1/models").status, 401u);
}

TEST_F(KeyedServerTest, AFullQueueOfOneKeyIsNotAnothers) {
  server_.gate().Close();
  std::vector<std::unique_ptr<Client>> clients;
  const auto send = [&](const std::string& key) {
    clients.push_back(std::make_unique<Client>(server_));
    clients.back()->SendRequest("POST", kCompletions,
                                Json{{"prompt", "q"}, {"max_tokens", 1}}.dump(),
                                "Authorization: Bearer " + key + "\r\n");
  };
  for (int i = 0; i < 250; i++) send("one");
  server_.Await([](const EngineStats& stats) { return stats.rejected_total > 0; });
  send("two");
  server_.gate().Open();
  EXPECT_EQ(clients.back()->Read().status, 200u);
}

TEST_F(KeyedServerTest, EitherHeaderOpens) {
  Client client(server_);
  client.SendRequest("GET", "/v1/models", "", "x-api-key: two\r\n");
  EXPECT_EQ(client.Read().status, 200u);
  EXPECT_EQ(Send("GET", "/v1/models", "one").status, 200u);
}

TEST_F(KeyedServerTest, NoKeysPromptIsAHitForAnother) {
  const std::string prompt(100, 'a');
  EXPECT_EQ(Cached("one", prompt), 0);
  EXPECT_EQ(Cached("two", prompt), 0);
  EXPECT_GT(Cached("one", prompt), 90);
  EXPECT_EQ(Cached("one", prompt, "salted"), 0);
  EXPECT_GT(Cached("one", prompt, "salted"), 90);
  // A salt does not lead into another's scope, whatever it says.
  EXPECT_EQ(Cached("two", prompt, "salted"), 0);
}

TEST_F(KeyedServerTest, KeysOfOneScopeShare) {
  const std::string prompt(100, 'b');
  EXPECT_EQ(Cached("left", prompt), 0);
  EXPECT_GT(Cached("right", prompt), 90);
}

TEST_F(KeyedServerTest, ADivergenceShowsOnesOwnText) {
  const auto report = [&](const std::string& key, const std::string& prompt) {
    return Send("POST", kCompletions, key,
                {{"prompt", prompt}, {"max_tokens", 1}, {"cache_report", true}})
        .json()["timings"]["cache_report"];
  };
  report("one", std::string(80, 'c') + "mine");
  const Json own = report("one", std::string(80, 'c') + "zzzz");
  EXPECT_EQ(own["diverged"]["cached"].get<std::string>().substr(0, 4), "mine");
  const Json others = report("two", std::string(80, 'c') + "zzzz");
  EXPECT_FALSE(others.contains("diverged"));
  EXPECT_EQ(others.dump().find("mine"), std::string::npos);
}

TEST_F(KeyedServerTest, OnlyAnAdminResetsTheCacheOfAll) {
  EXPECT_EQ(Send("POST", "/v1/cache/reset", "one").status, 403u);
  EXPECT_EQ(Send("POST", "/v1/cache/reset", "boss").status, 200u);
}

TEST_F(KeyedServerTest, TheTreeShowsOnesOwnScopeAndAnAdminAllWithoutText) {
  Cached("one", std::string(40, 'f'));
  Cached("two", std::string(40, 'g'));
  const Json own = Send("GET", "/v1/cache/tree", "one").json();
  ASSERT_GE(own["nodes"].size(), 2u);
  std::string text;
  for (const Json& node : own["nodes"]) {
    EXPECT_EQ(node["scope"], own["own_scope"]);
    text += node.value("text", "");
  }
  EXPECT_NE(text.find("ffff"), std::string::npos);
  const Json all = Send("GET", "/v1/cache/tree", "boss").json();
  EXPECT_EQ(all["nodes"].size(), all["total"]["nodes"]);
  EXPECT_EQ(all.dump().find("ffff"), std::string::npos);
  EXPECT_EQ(Send("GET", "/v1/cache/tree?cache_salt=x", "two").json().dump().find("ffff"),
            std::string::npos);
}

// --- Exchanged while it runs ---

class ReloadedKeysTest : public testing::Test {
 protected:
  ReloadedKeysTest()
      : path_(testing::TempDir() + "keys"), server_([this](TestOptions& options) {
          WriteKeys("one\ngone\nleft scope=t\n");
          options.server.keys = std::move(*ApiKeys::Read(path_));
          options.server.key_file = path_;
        }) {
    server_.Load();
  }
  void WriteKeys(const std::string& text) { std::ofstream(path_) << text; }
  Answer Complete(const std::string& key, const std::string& prompt) {
    Client client(server_);
    client.SendRequest("POST", kCompletions, Json{{"prompt", prompt}, {"max_tokens", 4}}.dump(),
                       "Authorization: Bearer " + key + "\r\n");
    return client.Read();
  }
  int Cached(const std::string& key, const std::string& prompt) {
    return Complete(key, prompt).json()["usage"]["prompt_tokens_details"]["cached_tokens"];
  }

  const std::string path_;
  TestServer server_;
};

TEST_F(ReloadedKeysTest, NewOnesCountOldOnesDoNotAndOthersKeepTheirCache) {
  const std::string prompt(100, 'a');
  EXPECT_EQ(Cached("one", prompt), 0);
  EXPECT_EQ(Cached("left", prompt), 0);
  EXPECT_EQ(Complete("new", prompt).status, 401u);
  WriteKeys("new\none\nright scope=t\n");
  EXPECT_TRUE(server_.server().ReloadKeys().ok());
  EXPECT_EQ(Complete("gone", prompt).status, 401u);
  EXPECT_EQ(Cached("new", prompt), 0);
  EXPECT_GT(Cached("one", prompt), 90);
  EXPECT_GT(Cached("right", prompt), 90);
}

TEST_F(ReloadedKeysTest, AWrongFileChangesNothing) {
  for (const char* text : {"", "# none\n", "one\nsecret admim\n", "one\none\n"}) {
    WriteKeys(text);
    EXPECT_EQ(server_.server().ReloadKeys().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(Complete("gone", "a").status, 200u) << text;
  }
  std::remove(path_.c_str());
  EXPECT_EQ(server_.server().ReloadKeys().code(), StatusCode::kIo);
  EXPECT_EQ(Complete("gone", "a").status, 200u);
}

TEST_F(ReloadedKeysTest, WhatWasLetInIsAnsweredAndItsConnectionIsLookedAtAnew) {
  server_.gate().Close();
  Client client(server_);
  const std::string gone = "Authorization: Bearer gone\r\n";
  client.SendRequest("POST", kCompletions, R"({"prompt":"abc","max_tokens":4})", gone);
  server_.Await([](const EngineStats& stats) { return stats.waiting + stats.running == 1; });
  WriteKeys("one\n");
  EXPECT_TRUE(server_.server().ReloadKeys().ok());
  server_.gate().Open();
  EXPECT_EQ(client.Read().status, 200u);
  client.SendRequest("GET", "/v1/models", "", gone);
  EXPECT_EQ(client.Read().status, 401u);
}

// Prompts of one key cannot hold up those of another, however many.
TEST_F(KeyedServerTest, AFloodWaitsForItself) {
  server_.gate().Close();
  std::vector<std::unique_ptr<Client>> flood;
  for (int i = 0; i < 100; i++) {
    flood.push_back(std::make_unique<Client>(server_));
    flood.back()->SendRequest("POST", kCompletions,
                              Json{{"prompt", std::to_string(i) + std::string(2000, 'd')},
                                   {"max_tokens", 50},
                                   {"ignore_eos", true}}
                                  .dump(),
                              "Authorization: Bearer one\r\n");
  }
  server_.Await([](const EngineStats& stats) { return stats.waiting + stats.running >= 100; });
  Client other(server_);
  other.SendRequest("POST", kCompletions,
                    Json{{"prompt", std::string(100, 'e')}, {"max_tokens", 4}}.dump(),
                    "Authorization: Bearer two\r\n");
  server_.Await([](const EngineStats& stats) { return stats.waiting + stats.running >= 101; });
  server_.gate().Open();
  EXPECT_EQ(other.Read().status, 200u);
  EXPECT_LT(server_.engine().Stats().finished_total, 10u);
}

}  // namespace
}  // namespace trellis
