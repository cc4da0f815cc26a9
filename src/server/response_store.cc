#include "server/response_store.h"

#include <algorithm>
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
  if (num_bytes > max_bytes_) return;  // else all of the owner's would go first
  MutexLock lock(mutex_);
  Share& share = shares_[owner];
  share.chats.push_front({owner, id, std::move(messages), num_bytes});
  share.num_bytes += num_bytes;
  by_id_[id] = share.chats.begin();
  num_bytes_ += num_bytes;
  while (num_bytes_ > max_bytes_) DropOne();
}

std::optional<std::vector<ChatMessage>> ResponseStore::Find(const std::string& owner,
                                                            const std::string& id) {
  MutexLock lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->owner != owner) return std::nullopt;
  Chats& chats = shares_.at(owner).chats;
  chats.splice(chats.begin(), chats, found->second);
  return found->second->messages;
}

// Of the owner that has most, what was used longest ago.
void ResponseStore::DropOne() {
  const auto largest = std::max_element(
      shares_.begin(), shares_.end(),
      [](const auto& a, const auto& b) { return a.second.num_bytes < b.second.num_bytes; });
  Share& share = largest->second;
  const Chat& oldest = share.chats.back();
  share.num_bytes -= oldest.num_bytes;
  num_bytes_ -= oldest.num_bytes;
  by_id_.erase(oldest.id);
  share.chats.pop_back();
  if (share.chats.empty()) shares_.erase(largest);
}

}  // namespace trellis
