// ResponseStore: the chats of answered /v1/responses, so that another request can go on from one by
// its id. In memory alone, max_bytes of them. Where a new one does not fit, the owner that has
// most, counting the new one, loses what it did not ask for longest, which may be the new one
// itself: so none makes what another one needs be forgotten. Any thread.
#pragma once

#include <list>
#include <map>
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

  // `messages`: with the answer, without instructions. `owner`: whose it is; of owners there are
  // few, as of keys. `id`: a new one. COST: O(owners) for each that goes.
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
  struct Share {
    Chats chats;  // last used first; never empty
    size_t num_bytes = 0;
  };

  void DropOne() TRELLIS_REQUIRES(mutex_);

  const size_t max_bytes_;
  Mutex mutex_;
  std::map<std::string, Share> shares_ TRELLIS_GUARDED_BY(mutex_);  // by owner
  std::unordered_map<std::string, Chats::iterator> by_id_ TRELLIS_GUARDED_BY(mutex_);
  size_t num_bytes_ TRELLIS_GUARDED_BY(mutex_) = 0;
};

}  // namespace trellis
