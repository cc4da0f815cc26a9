#include "page_cache_player.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <span>
#include <utility>

#include "base/check.h"
#include "kv/page_cache.h"
#include "kv/pin_table.h"
#include "kv/test_session.h"
#include "pin_oracle.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

constexpr PageLayout kLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 2};
constexpr size_t kRemembered = 12;  // token sequences of leases that are gone
const char* const kScopes[] = {"", "tenant"};

// Around the borders of pages, mostly.
size_t NastyLength(size_t choice) {
  constexpr size_t kLengths[] = {0,  1,  2,  31, 32, 33,  63,  64,  65, 95,
                                 96, 97, 16, 48, 80, 127, 128, 129, 3,  30};
  return choice < std::size(kLengths) ? kLengths[choice] : choice % 150;
}

size_t CommonPrefix(const Tokens& a, const Tokens& b) {
  const size_t size = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<long>(size), b.begin()).first - a.begin());
}

class Player {
 public:
  explicit Player(const PlaySetup& setup)
      : setup_(setup),
        oracle_(
            setup.capacity, setup.keep_finished,
            IsLru() ? PageCacheOracle::Resident()
                    : [this](const std::string& scope, std::span<const TokenId> tokens) {
                        return cache_->MatchLength(scope, tokens);
                      }) {
    auto cache = PageCache::Create({.layout = kLayout,
                                    .capacity_bytes = setup.capacity * kLayout.page_bytes(),
                                    .eviction = setup.eviction,
                                    .keep_finished = setup.keep_finished});
    TRELLIS_CHECK(cache.ok());
    cache_ = std::move(cache).value();
    pins_.emplace(*cache_, setup.capacity / 2);
  }

  // What differs, if anything does.
  std::optional<std::string> Do(const Op& op) {
    Apply(op);
    if (!difference_) CompareCounts();
    for (Held& held : held_) {
      if (!difference_) CompareLease(held);
    }
    for (const Tokens& tokens : remembered_) {
      if (!difference_) CompareMatch(tokens);
    }
    cache_->Validate();
    return difference_;
  }

  // The last step: nothing is left behind.
  std::optional<std::string> Finish() {
    while (!held_.empty()) Release(held_.front());
    EndPins();
    CompareCounts();
    Same("pages pinned in the end", cache_->Stats().pinned, 0);
    Same("private pages in the end", cache_->Stats().private_pages, 0);
    return difference_;
  }

  const PageCacheOracle::Rare& rare() const { return oracle_.rare(); }
  size_t num_pins() const { return num_pins_; }
  size_t num_pins_given_up() const { return oracle_pins_.num_given_up(); }

 private:
  struct Held {
    TestSession session;
    PageCacheOracle::Lease* oracle;
    Tokens goal;   // its prompt: what it appends before it makes up tokens
    size_t epoch;  // resets before it was acquired

    const Lease& lease() const { return session.lease(); }
  };

  bool IsLru() const { return setup_.eviction == EvictionPolicyKind::kLru; }

  void Apply(const Op& op) {
    const bool full = held_.size() == setup_.max_leases;
    switch (op.kind) {
      case OpKind::kAcquire:
      case OpKind::kFork:
      case OpKind::kRecall:
        if (full) return Release(Chosen(op));
        return Acquire(op);
      case OpKind::kReset:
        return Reset();
      case OpKind::kPin:
        return Pin(op);
      case OpKind::kUnpin:
        return Unpin(op);
      default:
        break;
    }
    if (held_.empty()) return Acquire(op);
    Held& held = Chosen(op);
    switch (op.kind) {
      case OpKind::kReserve:
        return Reserve(held, held.lease().num_rows() + NastyLength(op.length));
      case OpKind::kCommit:
        return Commit(held, NastyLength(op.length), op.stream);
      case OpKind::kAppend:
        Reserve(held, held.lease().num_rows() + NastyLength(op.length));
        return Commit(held, NastyLength(op.length), op.stream);
      case OpKind::kSqueeze:
        Reserve(held,
                (PagesFor(held.lease().num_reserved()) + cache_->AvailablePages()) * kPageTokens);
        return Commit(held, NastyLength(op.length), op.stream);
      case OpKind::kOverdraw:
        return Reserve(
            held,
            (PagesFor(held.lease().num_reserved()) + cache_->AvailablePages()) * kPageTokens + 1);
      case OpKind::kGiveUp:
        return GiveUp(held, std::min(NastyLength(op.length), held.lease().num_rows()));
      default:
        return Release(held);
    }
  }

  Held& Chosen(const Op& op) { return held_[op.which % held_.size()]; }

  // --- Tokens ---

  // Streams follow stream 0 for a nasty length and then go their own way.
  TokenId StreamToken(size_t stream, size_t position) const {
    const bool own = stream > 0 && position >= NastyLength(stream);
    const uint64_t mixed = MixRow(own ? stream : 0, position + 1);
    return static_cast<TokenId>(mixed % setup_.alphabet);
  }
  void AppendStream(Tokens& tokens, size_t stream, size_t count) const {
    while (count-- > 0) tokens.push_back(StreamToken(stream, tokens.size()));
  }

  // --- Operations ---

  Tokens TokensToAcquire(const Op& op) {
    Tokens tokens;
    const size_t length = NastyLength(op.length);
    if (op.kind == OpKind::kFork && !held_.empty()) {
      tokens = Chosen(op).session.tokens();
    } else if (op.kind == OpKind::kRecall && !remembered_.empty()) {
      tokens = remembered_[op.which % remembered_.size()];
    } else {
      AppendStream(tokens, op.stream % 8, length);
      return tokens;
    }
    if (op.stream % 2 == 0 && length < tokens.size()) tokens.resize(length);
    AppendStream(tokens, op.stream, op.stream % 5);
    return tokens;
  }

  void Acquire(const Op& op) {
    const char* scope = kScopes[op.which % 7 == 0 ? 1 : 0];
    Tokens tokens = TokensToAcquire(op);
    CompareMatch(tokens);
    Held held{.session = TestSession(*cache_, scope, tokens),
              .oracle = oracle_.Acquire(scope, tokens),
              .goal = tokens,
              .epoch = epoch_};
    Same("rows matched", held.lease().num_matched(), held.oracle->num_rows);
    held_.push_back(std::move(held));
  }

  void Reserve(Held& held, size_t num_tokens) {
    const size_t needed = cache_->PagesNeeded(held.lease(), num_tokens);
    Same("pages needed", needed, oracle_.PagesNeeded(*held.oracle, num_tokens));
    const bool fits = needed <= cache_->AvailablePages();
    const Status status = held.session.Reserve(num_tokens);
    Same("whether Reserve succeeds", status.ok(), oracle_.Reserve(*held.oracle, num_tokens));
    Same("whether Reserve keeps to what PagesNeeded says", status.ok(), fits);
    Same("whether the lease has what it reserved", held.lease().num_reserved() >= num_tokens, fits);
    Same("length of the page table", held.lease().pages().size(),
         PagesFor(held.lease().num_reserved()));
    // All that is behind the last row may be written, so nobody else's row is there.
    if (!difference_) held.session.Scribble();
  }

  void Commit(Held& held, size_t most, size_t stream) {
    const size_t begin = held.lease().num_rows();
    const size_t count = std::min(most, held.lease().num_reserved() - begin);
    Tokens added;
    for (size_t row = begin; row < begin + count; row++) {
      added.push_back(row < held.goal.size() ? held.goal[row] : StreamToken(stream % 4, row));
    }
    held.session.Commit(added);
    oracle_.Commit(*held.oracle, added);
    if (held.epoch == epoch_) journal_.push_back({held.session.scope(), held.session.tokens()});
  }

  void Release(Held& held) { GiveUp(held, held.lease().num_rows()); }

  void GiveUp(Held& held, size_t num_useful) {
    remembered_.push_back(held.session.tokens());
    if (remembered_.size() > kRemembered) remembered_.erase(remembered_.begin());
    oracle_.Release(*held.oracle, num_useful);
    held.session.Release(num_useful);
    held_.erase(held_.begin() + (&held - held_.data()));
  }

  static std::string OwnerOf(const Op& op) { return op.which % 3 == 0 ? "a" : "b"; }
  static PinTable::TimePoint At(int second) {
    return PinTable::TimePoint(std::chrono::seconds(second));
  }

  void Pin(const Op& op) {
    const char* scope = kScopes[op.which % 7 == 0 ? 1 : 0];
    const Op tokens_op{.kind = op.stream % 3 == 0 ? OpKind::kRecall : OpKind::kFork,
                       .which = op.which,
                       .length = op.length,
                       .stream = op.stream};
    const Tokens tokens = TokensToAcquire(tokens_op);
    const int expires = now_ + 1 + op.length % 40;
    const PinTable::Added is = pins_->Add(OwnerOf(op), scope, tokens, At(expires));
    const PinOracle::Added should = oracle_pins_.Add(OwnerOf(op), scope, tokens, expires);
    Same("tokens pinned", is.num_tokens, should.num_tokens);
    Same("the pin's id", is.id.value(), should.id);
    if (is.num_tokens > 0) Same("until when", is.expires == At(should.expires), true);
    if (is.num_tokens > 0) num_pins_++;
  }

  void Unpin(const Op& op) {
    switch (op.which % 4) {
      case 0:
        pins_->ReleaseOne();
        return oracle_pins_.ReleaseOne();
      case 1:
        pins_->RemoveAll(OwnerOf(op));
        return oracle_pins_.RemoveAll(OwnerOf(op));
      default:
        now_ += op.length % 30;
        pins_->Expire(At(now_));
        return oracle_pins_.Expire(now_);
    }
  }

  void EndPins() {
    pins_->Clear();
    oracle_pins_.Clear();
  }

  void Reset() {
    EndPins();
    const PageCacheStats stats = cache_->Stats();
    before_reset_.evicted += stats.pages_evicted;
    before_reset_.rows_copied += stats.rows_copied;
    before_reset_.deduplicated += stats.pages_deduplicated;
    before_reset_.dropped_below = oracle_.rare().dropped_below;
    cache_->Reset();
    oracle_.Reset();
    journal_.clear();
    epoch_++;
  }

  // --- Comparing ---

  void Same(const char* what, size_t is, size_t should_be) {
    if (is == should_be || difference_) return;
    difference_ = fmt::format("{}: is {}, should be {}\n{}", what, is, should_be, cache_->Dump());
  }

  void CompareCounts() {
    const PageCacheStats stats = cache_->Stats();
    Same("capacity", stats.free + stats.private_pages + stats.committed, setup_.capacity);
    Same("committed pages", stats.committed, oracle_.num_committed());
    Same("private pages", stats.private_pages, oracle_.num_private());
    Same("pinned pages", stats.pinned, oracle_.num_pinned());
    Same("pins", pins_->size(), oracle_pins_.size());
    Same("pages of pins", pins_->num_pages(), oracle_pins_.num_pages());
    Same("available pages", cache_->AvailablePages(), oracle_.num_available());
    if (IsLru()) Same("nodes", stats.num_nodes, oracle_.num_nodes());
    if (!oracle_.wrongly_evicted().empty() && !difference_)
      difference_ = "evicted were " + oracle_.wrongly_evicted();
    Same("leases", stats.num_leases, oracle_.num_leases());
    Same("scopes", stats.num_scopes, oracle_.num_scopes());
    Same("look-ups", stats.lookups, oracle_.lookups().lookups);
    Same("tokens looked up", stats.tokens_looked_up, oracle_.lookups().looked_up);
    Same("tokens matched", stats.tokens_matched, oracle_.lookups().matched);
    const PageCacheOracle::Rare& rare = oracle_.rare();
    Same("pages evicted", before_reset_.evicted + stats.pages_evicted, rare.evicted);
    Same("rows copied", before_reset_.rows_copied + stats.rows_copied, rare.rows_copied);
    Same("pages deduplicated", before_reset_.deduplicated + stats.pages_deduplicated,
         rare.deduplicated);
  }

  void CompareLease(const Held& held) {
    Same("rows of a lease", held.lease().num_rows(), held.oracle->num_rows);
    Same("rows committed through a lease", held.lease().num_rows(), held.session.tokens().size());
    Same("rows reserved", held.lease().num_reserved(), held.oracle->num_reserved);
    for (const size_t more : {0, 1, 31, 32, 33}) {
      const size_t num_tokens = held.lease().num_rows() + more;
      Same("pages needed", cache_->PagesNeeded(held.lease(), num_tokens),
           oracle_.PagesNeeded(*held.oracle, num_tokens));
    }
    if (difference_) return;
    const size_t wrong = held.session.FirstWrongRow();
    if (wrong < held.lease().num_rows()) {
      difference_ = fmt::format("row {} of a lease with {} holds something else\n{}", wrong,
                                held.lease().num_rows(), cache_->Dump());
    }
    // What is pinned can be found, but for what a reset took out of the tree.
    if (held.epoch == epoch_ && setup_.keep_finished) {
      Same("rows of a lease that are found",
           cache_->MatchLength(held.session.scope(), held.session.tokens()),
           held.session.tokens().size());
    }
  }

  void CompareMatch(const Tokens& tokens) {
    for (const char* scope : kScopes) {
      const size_t found = cache_->MatchLength(scope, tokens);
      Same("rows found", found, oracle_.MatchLength(scope, tokens));
      CompareReport(scope, tokens, found);
      if (!setup_.keep_finished || cache_->Stats().pages_evicted > 0) continue;
      // Rows that shared a page with others can go without freeing one.
      if (oracle_.rare().dropped_below > before_reset_.dropped_below) continue;
      size_t committed = 0;
      for (const auto& [of_scope, entry] : journal_) {
        if (of_scope == scope) committed = std::max(committed, CommonPrefix(entry, tokens));
      }
      Same("rows found of what was committed and never evicted", found, committed);
    }
  }

  void CompareReport(const char* scope, const Tokens& tokens, size_t found) {
    const MissReport report = cache_->Explain(scope, tokens);
    Same("rows found and explained", report.matched, found);
    Same("tokens explained", report.matched + report.evicted + report.rest, tokens.size());
    // Only what was committed can have been evicted, and with ghosts enough all of it is known.
    size_t committed = 0;
    for (const auto& [of_scope, entry] : journal_) {
      if (of_scope == scope) committed = std::max(committed, CommonPrefix(entry, tokens));
    }
    if (report.evicted > 0 && report.matched + report.evicted > committed)
      Same("rows evicted that were committed", report.matched + report.evicted, committed);
    const bool knows_all = cache_->Stats().num_ghosts < setup_.capacity;
    if (setup_.keep_finished && knows_all && committed / kPageTokens > found / kPageTokens)
      Same("rows known to be evicted", report.matched + report.evicted,
           committed / kPageTokens * kPageTokens);
  }

  struct Committed {
    ScopeKey scope;
    Tokens tokens;
  };

  const PlaySetup setup_;
  std::unique_ptr<PageCache> cache_;
  std::optional<PinTable> pins_;
  PageCacheOracle oracle_;
  PinOracle oracle_pins_{oracle_, setup_.capacity / 2};
  int now_ = 0;
  size_t num_pins_ = 0;
  std::vector<Held> held_;  // before cache_ in death
  std::vector<Tokens> remembered_;
  std::vector<Committed> journal_;  // since the last reset
  PageCacheOracle::Rare before_reset_;
  size_t epoch_ = 0;
  std::optional<std::string> difference_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Op& op) {
  constexpr const char* kNames[] = {"acquire", "fork",    "recall",   "reserve", "commit",
                                    "append",  "squeeze", "overdraw", "release", "give up",
                                    "pin",     "unpin",   "reset"};
  static_assert(std::size(kNames) == static_cast<size_t>(OpKind::kNumKinds));
  return out << fmt::format("{} {} {} {}", kNames[static_cast<size_t>(op.kind)], op.which,
                            op.length, op.stream);
}

std::ostream& operator<<(std::ostream& out, const PlaySetup& setup) {
  return out << fmt::format("{}, {} pages, {} tokens, {} leases{}",
                            EvictionPolicyName(setup.eviction), setup.capacity, setup.alphabet,
                            setup.max_leases, setup.keep_finished ? "" : ", nothing kept");
}

PlayResult Play(const PlaySetup& setup, const std::vector<Op>& ops) {
  Player player(setup);
  std::optional<std::string> difference;
  for (size_t i = 0; i < ops.size() && !difference; i++) {
    difference = player.Do(ops[i]);
    if (difference) difference = fmt::format("after operation {}, {}", i, *difference);
  }
  if (!difference) difference = player.Finish();
  return {difference, player.rare(), player.num_pins(), player.num_pins_given_up()};
}

}  // namespace trellis
