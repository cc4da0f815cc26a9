#include "server/page.h"

#include <gtest/gtest.h>

#include <regex>

#include "server/test_support.h"

namespace trellis {
namespace {

Answer Get(TestServer& server, const std::string& path, const std::string& headers = "") {
  Client client(server);
  client.SendRequest("GET", path, "", headers);
  return client.Read();
}

// A script or style that the page needs.
std::string AnAsset(const Answer& page) {
  std::smatch found;
  EXPECT_TRUE(std::regex_search(page.body, found, std::regex("/assets/[-\\w.]+\\.js")));
  return found[0];
}

TEST(PageTest, IsThereForEverybodyAndWhileTheModelLoads) {
  TestServer server(
      [](TestOptions& options) { options.server.keys = std::move(*ApiKeys::Parse("secret\n")); });
  const Answer page = Get(server, "/");
  EXPECT_EQ(page.status, 200u);
  EXPECT_EQ(page.headers["Content-Type"], "text/html; charset=utf-8");
  EXPECT_EQ(page.headers["Cache-Control"], "no-cache");
  EXPECT_EQ(Get(server, AnAsset(page)).status, 200u);
  EXPECT_EQ(Get(server, "/assets/none.js").status, 404u);
}

TEST(PageTest, TrustsNobodyElse) {
  TestServer server;
  const Answer page = Get(server, "/");
  const std::string policy(page.headers["Content-Security-Policy"]);
  for (const char* part : {"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"}) {
    EXPECT_NE(policy.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(page.headers["X-Content-Type-Options"], "nosniff");
  for (const PageFile& file : PageFiles()) {
    // But for names of XML's kinds, and links that people follow.
    EXPECT_FALSE(
        std::regex_search(std::string(file.plain), std::regex("(src|href)=\"?(https?:)?//")))
        << file.path;
  }
}

TEST(PageTest, AssetsStayForEverAndAreNotSentTwice) {
  TestServer server;
  for (const std::string& path : {std::string("/"), AnAsset(Get(server, "/"))}) {
    const Answer first = Get(server, path);
    const std::string etag(first.headers["ETag"]);
    const Answer again = Get(server, path, "If-None-Match: " + etag + "\r\n");
    EXPECT_EQ(again.status, 304u);
    EXPECT_EQ(again.body, "");
    EXPECT_EQ(again.headers["ETag"], etag);
    EXPECT_EQ(Get(server, path, "If-None-Match: \"other\"\r\n").status, 200u);
    const bool is_asset = path.starts_with(kPageAssets);
    EXPECT_EQ(std::string(first.headers["Cache-Control"]).find("immutable") != std::string::npos,
              is_asset);
  }
}

TEST(PageTest, IsZippedForThoseWhoTakeIt) {
  TestServer server;
  const Answer plain = Get(server, "/", "Accept-Encoding: br, gzip;q=0\r\n");
  EXPECT_EQ(plain.headers["Content-Encoding"], "");
  EXPECT_EQ(plain.body.substr(0, 9), "<!doctype");
  EXPECT_EQ(plain.headers["Vary"], "Accept-Encoding");
  const Answer zipped = Get(server, "/", "Accept-Encoding: br, GZIP;q=0.5\r\n");
  EXPECT_EQ(zipped.headers["Content-Encoding"], "gzip");
  EXPECT_EQ(zipped.body.substr(0, 2), "\x1f\x8b");
  EXPECT_NE(zipped.headers["ETag"], plain.headers["ETag"]);
}

TEST(PageTest, TakesGetAndHeadOnly) {
  TestServer server;
  Client client(server);
  EXPECT_EQ(client.Post("/", {}).status, 405u);
  client.SendRequest("HEAD", "/");
  const Answer head = client.Read("HEAD");
  EXPECT_EQ(head.status, 200u);
  EXPECT_EQ(head.headers["Content-Length"], std::to_string(Get(server, "/").body.size()));
}

TEST(PageTest, CanBeLeftOut) {
  TestServer server([](TestOptions& options) { options.server.has_page = false; });
  EXPECT_EQ(Get(server, "/").status, 404u);
  EXPECT_EQ(Get(server, "/assets/").status, 404u);
  EXPECT_EQ(Get(server, "/version").status, 200u);
}

}  // namespace
}  // namespace trellis
