// Any bytes as a file of API keys: an error that shows nothing of it, or keys of which each is
// found.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/api_keys.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trellis;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<ApiKeys> keys = ApiKeys::Parse(text);
  if (!keys.ok()) {
    TRELLIS_CHECK(keys.status().code() == StatusCode::kInvalidArgument);
    return 0;
  }
  TRELLIS_CHECK(!keys->empty() && keys->Find("") == nullptr);
  size_t num_found = 0;
  for (size_t begin = 0; begin < size;) {
    const size_t end = std::min(text.find_first_of(" \t\r\n\v\f", begin), size);
    const ApiKey* key = keys->Find(text.substr(begin, end - begin));
    if (key != nullptr) {
      TRELLIS_CHECK(key->secret == text.substr(begin, end - begin));
      num_found++;
    }
    begin = end + 1;
  }
  TRELLIS_CHECK(num_found >= keys->size());
  const auto [bearer, other] = std::pair(text.substr(0, size / 2), text.substr(size / 2));
  TRELLIS_CHECK(SecretOf(bearer, other).size() <= size);
  return 0;
}
