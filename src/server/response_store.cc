#include "server/response_store.h"

#include <utility>

namespace trellis {
namespace {

size_t BytesOf(const std::vector<ChatMessage>& messages) {
  size_t sum = 0;
  for (const ChatMessage& message : messages) {
    sum += sizeof(message) + message.role.size() + message.content.size() +
           message.tool_calls_json.size() + message.tool_call_id.size() + message.name.size() +
           message.reasoning_content.size();
    for (const std::string& part : message.content_parts) sum += sizeof(part) + part.size();
  }
  return sum;
}

}  // namespace

void ResponseStore::Put(const std::string& owner, const std::string& id,
                        std::vector<ChatMessage> messages) {
  const size_t num_bytes = BytesOf(messages);
  if (num_bytes > max_bytes_) return;
  MutexLock lock(mutex_);
  while (num_bytes_ + num_bytes > max_bytes_) {
    num_bytes_ -= chats_.back().num_bytes;
    by_id_.erase(chats_.back().id);
    chats_.pop_back();
  }
  chats_.push_front({owner, id, std::move(messages), num_bytes});
  by_id_[id] = chats_.begin();
  num_bytes_ += num_bytes;
}

std::optional<std::vector<ChatMessage>> ResponseStore::Find(const std::string& owner,
                                                            const std::string& id) {
  MutexLock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->owner != owner) return std::nullopt;
  chats_.splice(chats_.begin(), chats_, found->second);
  return found->second->messages;
}

}  // namespace trellis
