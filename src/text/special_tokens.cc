#include "text/special_tokens.h"

#include <algorithm>
#include <map>
#include <optional>
#include <queue>

#include "llama-vocab.h"
#include "text/utf8.h"

namespace trellis {

SpecialTokenFinder::SpecialTokenFinder(const llama_vocab& vocab, const std::vector<TokenId>& tokens)
    : vocab_(vocab) {
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    entries_.push_back({vocab.token_get_text(tokens[rank]), tokens[rank], rank});
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.text < b.text; });
  size_t entry = 0;
  for (size_t byte = 0; byte < of_first_byte_.size(); ++byte) {
    while (entry < entries_.size() &&
           static_cast<unsigned char>(entries_[entry].text.front()) < byte) {
      ++entry;
    }
    of_first_byte_[byte] = entry;
  }
}

// One text. Every place holds one candidate at a time, the most important that still fits there;
// since shorter tokens come later, a place whose candidate does not fit any more comes back with
// the next one. So a long run of one character costs no more than its length.
class SpecialTokenFinder::Search {
 public:
  Search(const SpecialTokenFinder& finder, std::string_view text, const Accept& accept)
      : finder_(finder), text_(text), accept_(accept) {}

  std::vector<SpecialTokenMatch> Run() {
    for (size_t i = 0; i < text_.size(); ++i) Consider(i, text_.size());
    while (!candidates_.empty()) {
      const Candidate candidate = candidates_.top();
      candidates_.pop();
      const auto next = taken_.lower_bound(candidate.begin);
      if (next != taken_.begin() && std::prev(next)->second.end > candidate.begin) continue;
      const size_t limit = next == taken_.end() ? text_.size() : next->second.begin;
      if (limit < candidate.begin + candidate.entry->text.size()) {
        Consider(candidate.begin, limit);
      } else {
        const size_t start = next == taken_.begin() ? 0 : std::prev(next)->second.end;
        Take(candidate, start, limit);
      }
    }
    std::vector<SpecialTokenMatch> matches;
    matches.reserve(taken_.size());
    for (const auto& [begin, match] : taken_) matches.push_back(match);
    return matches;
  }

 private:
  struct Candidate {
    const Entry* entry;
    size_t begin;

    bool operator<(const Candidate& other) const {  // the greatest is the most important
      if (entry->rank != other.entry->rank) return entry->rank > other.entry->rank;
      return begin > other.begin;
    }
  };

  // The longest acceptable token that starts at `begin` and ends by `limit` becomes a candidate.
  void Consider(size_t begin, size_t limit) {
    const auto& entries = finder_.entries_;
    const auto first = static_cast<unsigned char>(text_[begin]);
    // [low, high): the entries that start with text_[begin, begin + size).
    size_t low = finder_.of_first_byte_[first], high = finder_.of_first_byte_[first + 1];
    const Entry* best = nullptr;
    for (size_t size = 1; low < high; ++size) {
      if (entries[low].text.size() == size) {
        if (accept_(entries[low].token, begin, begin + size)) best = &entries[low];
        ++low;
      }
      if (begin + size == limit) break;
      const auto byte = static_cast<unsigned char>(text_[begin + size]);
      const auto at = [size](const Entry& entry) {
        return static_cast<unsigned char>(entry.text[size]);
      };
      const auto from = entries.begin() + static_cast<ptrdiff_t>(low);
      const auto to = entries.begin() + static_cast<ptrdiff_t>(high);
      const auto lower =
          std::partition_point(from, to, [&](const Entry& e) { return at(e) < byte; });
      const auto upper =
          std::partition_point(lower, to, [&](const Entry& e) { return at(e) == byte; });
      low = static_cast<size_t>(lower - entries.begin());
      high = static_cast<size_t>(upper - entries.begin());
    }
    if (best != nullptr) candidates_.push({best, begin});
  }

  // [start, limit): what no other token has taken.
  void Take(const Candidate& candidate, size_t start, size_t limit) {
    SpecialTokenMatch match = {candidate.begin, candidate.begin + candidate.entry->text.size(),
                               candidate.entry->token};
    const llama_token_attr attributes = finder_.vocab_.token_get_attr(match.token);
    if ((attributes & LLAMA_TOKEN_ATTR_LSTRIP) != 0) {
      while (match.begin > start && IsAsciiSpace(text_[match.begin - 1])) --match.begin;
    }
    if ((attributes & LLAMA_TOKEN_ATTR_RSTRIP) != 0) {
      while (match.end < limit && IsAsciiSpace(text_[match.end])) ++match.end;
    }
    taken_.emplace(match.begin, match);
  }

  const SpecialTokenFinder& finder_;
  const std::string_view text_;
  const Accept& accept_;
  std::priority_queue<Candidate> candidates_;
  std::map<size_t, SpecialTokenMatch> taken_;  // by begin
};

std::vector<SpecialTokenMatch> SpecialTokenFinder::Find(std::string_view text,
                                                        const Accept& accept) const {
  return Search(*this, text, accept).Run();
}

}  // namespace trellis
