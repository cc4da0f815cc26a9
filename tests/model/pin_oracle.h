// PinOracle: what a PinTable must do, by definition: a list, and sets of token sequences built anew
// for every question. Its pins are leases of the PageCacheOracle.
#pragma once

#include <algorithm>
#include <list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "page_cache_oracle.h"

namespace trellis {

class PinOracle {
 public:
  using Tokens = std::vector<TokenId>;

  PinOracle(PageCacheOracle& cache, size_t max_pages) : cache_(cache), max_pages_(max_pages) {}

  struct Added {
    uint64_t id = 0;
    size_t num_tokens = 0;
    int expires = 0;
  };
  Added Add(const std::string& owner, const std::string& scope, Tokens tokens, int expires) {
    const size_t num_pages = std::min(cache_.MatchLength(scope, tokens) / kPageTokens, max_pages_);
    if (num_pages == 0) return {};
    tokens.resize(num_pages * kPageTokens);
    uint64_t id = 0;
    size_t longest = 0;  // of those that are replaced
    for (auto pin = pins_.begin(); pin != pins_.end();) {
      const bool same = pin->owner == owner && pin->scope == scope;
      if (same && pin->expires >= expires && BeginsWith(pin->tokens, tokens)) {
        return {pin->id, tokens.size(), pin->expires};
      }
      const bool replaced = same && pin->expires <= expires && BeginsWith(tokens, pin->tokens);
      if (replaced && pin->tokens.size() > longest) id = pin->id, longest = pin->tokens.size();
      pin = replaced ? End(pin) : std::next(pin);
    }
    while (PagesWith(scope, tokens) > max_pages_) {
      std::map<std::string, size_t> held{{owner, tokens.size()}};
      for (const Pin& pin : pins_) held[pin.owner] += pin.tokens.size();
      std::string most = owner;
      for (const auto& [name, size] : held) {
        if (size > held[most]) most = name;
      }
      const auto first = std::find_if(pins_.begin(), pins_.end(),
                                      [&](const Pin& pin) { return pin.owner == most; });
      num_given_up_++;
      if (first != pins_.end()) {
        End(first);
        continue;
      }
      // It has nothing but what it asks for: as much of that as fits.
      while (PagesWith(scope, tokens) > max_pages_) tokens.resize(tokens.size() - kPageTokens);
    }
    if (tokens.empty()) return {};
    auto place = pins_.begin();
    while (place != pins_.end() && place->expires <= expires) ++place;
    if (longest == 0) id = next_id_++;
    pins_.insert(place, Pin{id, owner, scope, tokens, expires, cache_.Acquire(scope, tokens)});
    return {id, tokens.size(), expires};
  }
  // `owner`: of whom all are ended.
  void RemoveAll(const std::string& owner) {
    EndIf([&](const Pin& pin) { return pin.owner == owner; });
  }
  void Expire(int now) {
    EndIf([&](const Pin& pin) { return pin.expires <= now; });
  }
  void ReleaseOne() {
    if (!pins_.empty()) End(pins_.begin());
  }
  void Clear() {
    EndIf([](const Pin&) { return true; });
  }

  size_t size() const { return pins_.size(); }
  size_t num_pages() const { return PagesWith("", {}); }
  size_t num_given_up() const { return num_given_up_; }

 private:
  struct Pin {
    uint64_t id;
    std::string owner, scope;
    Tokens tokens;
    int expires;
    PageCacheOracle::Lease* lease;
  };
  using Place = std::list<Pin>::iterator;

  static bool BeginsWith(const Tokens& longer, const Tokens& shorter) {
    return shorter.size() <= longer.size() &&
           std::equal(shorter.begin(), shorter.end(), longer.begin());
  }
  // Different pages of all pins and of these tokens.
  size_t PagesWith(const std::string& scope, const Tokens& tokens) const {
    std::set<std::pair<std::string, Tokens>> pages;
    const auto add = [&](const std::string& of_scope, const Tokens& of) {
      for (size_t end = kPageTokens; end <= of.size(); end += kPageTokens) {
        pages.emplace(of_scope, Tokens(of.begin(), of.begin() + static_cast<ptrdiff_t>(end)));
      }
    };
    add(scope, tokens);
    for (const Pin& pin : pins_) add(pin.scope, pin.tokens);
    return pages.size();
  }
  Place End(Place pin) {
    cache_.Release(*pin->lease, pin->tokens.size());
    return pins_.erase(pin);
  }
  template <typename Condition>
  void EndIf(const Condition& condition) {
    for (auto pin = pins_.begin(); pin != pins_.end();) {
      pin = condition(*pin) ? End(pin) : std::next(pin);
    }
  }

  PageCacheOracle& cache_;
  const size_t max_pages_;
  std::list<Pin> pins_;  // the one that ends first is first
  uint64_t next_id_ = 1;
  size_t num_given_up_ = 0;
};

}  // namespace trellis
