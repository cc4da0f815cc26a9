// ResponseStore: the chats of answered /v1/responses, so that another request can go on from one by
// its id. In memory alone: what was not asked for longest goes first. Any thread.
#pragma once

#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "text/chat_template.h"

namespace trellis {

class ResponseStore {
 public:
  static constexpr size_t kMaxBytes = size_t{64} << 20;
  explicit ResponseStore(size_t max_bytes = kMaxBytes) : max_bytes_(max_bytes) {}

  // `messages`: with the answer, without instructions. `owner`: whose it is. What is larger than
  // all there may be is not kept.
  void Put(const std::string& owner, const std::string& id, std::vector<ChatMessage> messages);
  // Of this owner's; none when it was never there, or no longer is.
  std::optional<std::vector<ChatMessage>> Find(const std::string& owner, const std::string& id);

 private:
  struct Chat {
    std::string owner, id;
    std::vector<ChatMessage> messages;
    size_t num_bytes;
  };
  using Chats = std::list<Chat>;

  const size_t max_bytes_;
  Mutex mutex_;
  Chats chats_ TRELLIS_GUARDED_BY(mutex_);  // last used first
  std::unordered_map<std::string, Chats::iterator> by_id_ TRELLIS_GUARDED_BY(mutex_);
  size_t num_bytes_ TRELLIS_GUARDED_BY(mutex_) = 0;
};

}  // namespace trellis
