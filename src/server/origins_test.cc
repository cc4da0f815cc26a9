#include "server/origins.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

int Status(std::string_view origin, std::string_view host, const OriginPolicy& policy) {
  const auto error = ErrorOfOrigin(origin, host, policy);
  return error ? error->http_status : 200;
}

TEST(OriginsTest, OnlyItsOwnPagesAndThoseThatAreAllowed) {
  const OriginPolicy none;
  EXPECT_EQ(Status("", "127.0.0.1:8080", none), 200) << "no page";
  EXPECT_EQ(Status("http://127.0.0.1:8080", "127.0.0.1:8080", none), 200);
  EXPECT_EQ(Status("https://trellis.example", "trellis.example", none), 200) << "behind a proxy";
  EXPECT_EQ(Status("http://127.0.0.1:3000", "127.0.0.1:8080", none), 403);
  EXPECT_EQ(Status("http://127.0.0.1", "127.0.0.1:8080", none), 403);
  EXPECT_EQ(Status("null", "127.0.0.1:8080", none), 403);
  EXPECT_EQ(Status("ftp://127.0.0.1:8080", "127.0.0.1:8080", none), 403);
  const OriginPolicy one{.allowed = {"https://chat.example"}};
  EXPECT_EQ(Status("https://chat.example", "127.0.0.1:8080", one), 200);
  EXPECT_EQ(Status("https://chat.example.evil", "127.0.0.1:8080", one), 403);
  EXPECT_EQ(Status("http://chat.example", "127.0.0.1:8080", one), 403);
  EXPECT_EQ(Status("https://any", "127.0.0.1:8080", {.allowed = {"*"}}), 200);
}

TEST(OriginsTest, ANameThatIsMadeToPointHereIsNotThisMachines) {
  const OriginPolicy local{.needs_local_host = true};
  EXPECT_EQ(Status("http://evil.example:8080", "evil.example:8080", local), 403);
  EXPECT_EQ(Status("", "evil.example", local), 403);
  for (const char* host : {"localhost", "localhost:8080", "a.localhost:1", "127.0.0.1:8080",
                           "[::1]:8080", "10.0.0.2", ""})
    EXPECT_EQ(Status("", host, local), 200) << host;
  EXPECT_EQ(Status("", "localhost.evil.example", local), 403);
  EXPECT_EQ(Status("", "[::1", local), 403);
  EXPECT_EQ(Status("", "evil", local), 403) << "a domain that is searched makes it evil.example";
  EXPECT_NE(ErrorOfOrigin("", "evil.example", local)->message.find("--allowed-hosts"),
            std::string::npos);
}

TEST(OriginsTest, NamesThatTheServerMayBeCalledBy) {
  const OriginPolicy named{.needs_local_host = true, .hosts = {"trellis", "Chat.example"}};
  for (const char* host : {"trellis", "trellis:8080", "chat.example", "CHAT.EXAMPLE:8080",
                           "localhost:8080", "10.0.0.2", "[::1]:8080"})
    EXPECT_EQ(Status("", host, named), 200) << host;
  for (const char* host : {"evil.example", "trellis.evil.example", "eviltrellis", "a.chat.example",
                           "chat.example.", "chat"})
    EXPECT_EQ(Status("", host, named), 403) << host;
  EXPECT_EQ(Status("http://chat.example", "chat.example", named), 200) << "its own page";
  EXPECT_EQ(Status("http://evil.example", "chat.example", named), 403) << "another one's";
}

TEST(OriginsTest, Loopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "::1"})
    EXPECT_TRUE(IsLoopback(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "example", ""})
    EXPECT_FALSE(IsLoopback(host)) << host;
}

}  // namespace
}  // namespace trellis
