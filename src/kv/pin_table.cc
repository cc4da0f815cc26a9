#include "kv/pin_table.h"

#include <algorithm>
#include <map>
#include <utility>

namespace trellis {
namespace {

std::vector<PageKey> KeysOf(const ScopeKey& scope, std::span<const TokenId> tokens,
                            size_t num_pages) {
  std::vector<PageKey> keys;
  PageKey key = KeyOfScope(scope);
  for (size_t page = 0; page < num_pages; page++) {
    key = KeyOfPage(key, tokens.subspan(page * kPageTokens, kPageTokens));
    keys.push_back(key);
  }
  return keys;
}

// A key names all pages before its own too.
bool BeginsWith(const std::vector<PageKey>& keys, const std::vector<PageKey>& beginning) {
  return beginning.size() <= keys.size() && keys[beginning.size() - 1] == beginning.back();
}

}  // namespace

PinTable::Added PinTable::Add(const std::string& owner, const ScopeKey& scope,
                              std::span<const TokenId> tokens, TimePoint expires) {
  const size_t num_pages = std::min(cache_.MatchLength(scope, tokens) / kPageTokens, max_pages_);
  if (num_pages == 0) return {};
  tokens = tokens.first(num_pages * kPageTokens);
  std::vector<PageKey> keys = KeysOf(scope, tokens, num_pages);
  PinId id;
  size_t num_replaced = 0;
  for (Place pin = pins_.begin(); pin != pins_.end();) {
    if (pin->owner == owner && pin->expires >= expires && BeginsWith(pin->keys, keys)) {
      return {pin->id, tokens.size(), pin->expires};
    }
    const bool is_replaced =
        pin->owner == owner && pin->expires <= expires && BeginsWith(keys, pin->keys);
    if (is_replaced && pin->keys.size() > num_replaced) {
      id = pin->id;
      num_replaced = pin->keys.size();
    }
    pin = is_replaced ? Erase(pin) : std::next(pin);
  }
  keys.resize(MakeRoom(owner, keys));
  if (keys.empty()) return {};
  tokens = tokens.first(keys.size() * kPageTokens);
  if (num_replaced == 0) id = PinId(next_id_++);
  for (const PageKey& key : keys) holders_[key]++;
  Place place = pins_.end();
  while (place != pins_.begin() && std::prev(place)->expires > expires) --place;
  place = pins_.insert(place, Pin{.id = id,
                                  .owner = owner,
                                  .keys = keys,
                                  .expires = expires,
                                  .lease = cache_.Acquire(scope, tokens)});
  return {id, tokens.size(), expires};
}

size_t PinTable::CountNewPages(std::span<const PageKey> keys) const {
  return static_cast<size_t>(std::count_if(
      keys.begin(), keys.end(), [&](const PageKey& key) { return !holders_.contains(key); }));
}

// Ends pins until one more of these pages fits. Returns how many of them do: fewer where their
// owner would hold most, and has nothing but them.
size_t PinTable::MakeRoom(const std::string& owner, std::span<const PageKey> keys) {
  for (;;) {
    std::map<std::string, size_t> held{{owner, keys.size()}};
    for (const Pin& pin : pins_) held[pin.owner] += pin.keys.size();
    const size_t num_needed = num_pages() + CountNewPages(keys);
    const auto is_owners = [&](const Pin& pin) { return pin.owner == owner; };
    const bool has_too_many =
        std::count_if(pins_.begin(), pins_.end(), is_owners) >= static_cast<ptrdiff_t>(kMaxPins);
    if (num_needed <= max_pages_ && !has_too_many) return keys.size();
    // Of several that hold most, the newcomer.
    std::string most = owner;
    for (const auto& [name, size] : held) {
      if (size > held[most] && !has_too_many) most = name;
    }
    const Place first =
        std::find_if(pins_.begin(), pins_.end(), [&](const Pin& pin) { return pin.owner == most; });
    // It has nothing but what it asks for: then it gets what the others leave. Pages that nobody
    // holds yet are the last of them.
    if (first == pins_.end()) return keys.size() - (num_needed - max_pages_);
    Erase(first);
  }
}

PinTable::Place PinTable::Erase(Place pin) {
  for (const PageKey& key : pin->keys) {
    const auto holders = holders_.find(key);
    if (--holders->second == 0) holders_.erase(holders);
  }
  return pins_.erase(pin);
}

bool PinTable::Remove(PinId id, const std::string& owner) {
  const Place pin = std::find_if(pins_.begin(), pins_.end(), [&](const Pin& other) {
    return other.id == id && other.owner == owner;
  });
  if (pin == pins_.end()) return false;
  Erase(pin);
  return true;
}

size_t PinTable::RemoveAll(const std::string& owner) {
  size_t num_removed = 0;
  for (Place pin = pins_.begin(); pin != pins_.end();) {
    if (pin->owner != owner) {
      ++pin;
      continue;
    }
    pin = Erase(pin);
    num_removed++;
  }
  return num_removed;
}

std::vector<PinTable::View> PinTable::List() const {
  std::vector<View> list;
  for (const Pin& pin : pins_) list.push_back({pin.id, pin.owner, pin.keys.size(), pin.expires});
  return list;
}

void PinTable::Expire(TimePoint now) {
  while (!pins_.empty() && pins_.front().expires <= now) Erase(pins_.begin());
}

std::optional<PinTable::TimePoint> PinTable::NextExpiry() const {
  if (pins_.empty()) return std::nullopt;
  return pins_.front().expires;
}

bool PinTable::ReleaseOne() {
  if (pins_.empty()) return false;
  Erase(pins_.begin());
  return true;
}

}  // namespace trellis
