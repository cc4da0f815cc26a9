// Server-sent events with names, as tests of writers read them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "api/json_text.h"

namespace trellis {

// [event, data] of each.
inline std::vector<std::pair<std::string, Json>> EventsOf(const std::string& stream) {
  std::vector<std::pair<std::string, Json>> events;
  for (size_t at = 0; at < stream.size();) {
    const size_t line = stream.find('\n', at), end = stream.find("\n\n", at);
    EXPECT_EQ(stream.compare(at, 7, "event: "), 0);
    EXPECT_EQ(stream.compare(line, 7, "\ndata: "), 0);
    const std::string name = stream.substr(at + 7, line - at - 7);
    events.emplace_back(name, Json::parse(stream.substr(line + 7, end - line - 7)));
    EXPECT_EQ(events.back().second["type"], name);
    at = end + 2;
  }
  return events;
}

}  // namespace trellis
