// GET /openapi.json: what it says there is, is there, and the other way round. Whether that does
// what the document says is tested with the real server (tests/contract).
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "server/page.h"
#include "server/session.h"
#include "server/test_support.h"

namespace trellis {
namespace {

Json Description() {
  TestServer server;
  Client client(server);
  const Answer answer = client.Get("/openapi.json");
  EXPECT_EQ(answer.status, 200u) << "while the model loads, too";
  EXPECT_EQ(answer.headers["Content-Type"], "application/json");
  return answer.json();
}

// "/v1/models/{name}" is a route "/v1/models/".
std::string RouteOf(const std::string& path) {
  return path.substr(0, path.find('{'));
}

TEST(DescriptionTest, HasEveryRouteAndNoOther) {
  std::set<std::string> routes, described;
  for (const auto& [verb, path] : Routes())
    routes.insert(std::string(http::to_string(verb)) + " " + std::string(path));
  const Json description = Description();
  for (const auto& [path, operations] : description["paths"].items()) {
    for (const auto& operation : operations.items()) {
      std::string verb = operation.key();
      std::transform(verb.begin(), verb.end(), verb.begin(), ::toupper);
      described.insert(verb + " " + RouteOf(path));
    }
  }
  EXPECT_EQ(described, routes);
}

TEST(DescriptionTest, SaysWhatTakesNoKey) {
  const Json description = Description();
  for (const auto& [path, operations] : description["paths"].items()) {
    for (const auto& [verb, operation] : operations.items()) {
      const bool takes_none = operation.contains("security") && operation["security"].empty();
      HttpRequest request(verb == "get" ? http::verb::get : http::verb::post, RouteOf(path), 11);
      EXPECT_EQ(takes_none, IsPublic(request)) << verb << " " << path;
    }
  }
}

TEST(DescriptionTest, NamesTheVersion) {
  TestServer server;
  Client client(server);
  EXPECT_EQ(Description()["info"]["version"], client.Get("/version").json()["version"]);
}

bool NamesModelInQuery(const Json& operation) {
  const Json parameters = operation.value("parameters", Json::array());
  return std::any_of(parameters.begin(), parameters.end(), [](const Json& parameter) {
    return parameter.value("$ref", "") == "#/components/parameters/ModelName";
  });
}

TEST(DescriptionTest, SaysWhereAModelIsNamed) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json description = Description();
  for (const auto& [path, operations] : description["paths"].items()) {
    for (const auto& [verb, operation] : operations.items()) {
      std::string target = RouteOf(path) + "?model=nope";
      if (path != RouteOf(path)) target.insert(RouteOf(path).size(), "fake");
      client.SendRequest(verb == "get" ? "GET" : "POST", target, verb == "get" ? "" : "{}");
      const Answer answer = client.Read();
      const bool is_refused = answer.status == 404 && answer.body.find("nope") != std::string::npos;
      EXPECT_EQ(is_refused, NamesModelInQuery(operation)) << verb << " " << path << answer.body;
    }
  }
}

void CheckReferences(const Json& part, const Json& whole) {
  if (part.is_object() && part.contains("$ref")) {
    const std::string reference = part["$ref"];
    ASSERT_EQ(reference[0], '#') << reference;
    EXPECT_TRUE(whole.contains(Json::json_pointer(reference.substr(1)))) << reference;
  }
  if (!part.is_structured()) return;
  for (const Json& inner : part) CheckReferences(inner, whole);
}

TEST(DescriptionTest, RefersToWhatIsInIt) {
  const Json description = Description();
  CheckReferences(description, description);
}

}  // namespace
}  // namespace trellis
