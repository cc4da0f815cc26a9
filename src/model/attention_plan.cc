#include "model/attention_plan.h"

#include <algorithm>

namespace trellis {
namespace {

// Items are cut until none is more than this share of what a thread has to do.
constexpr double kItemsPerThread = 4;

// Positions [first, last] that a row sees.
size_t FirstSeen(const AttentionRow& row, size_t window) {
  return window == 0 || row.position < window ? 0 : row.position + 1 - window;
}

// By page path: sequences that share pages become neighbours, the more they share the nearer.
bool PathLess(const AttentionRow& a, const AttentionRow& b) {
  return std::lexicographical_compare(a.pages, a.pages + PagesFor(a.position + 1), b.pages,
                                      b.pages + PagesFor(b.position + 1));
}

// Whether both see a page that they have in common. Pages are shared from the first on: it is
// enough to look at the first that both might see.
bool ShareAPage(const AttentionRow& a, const AttentionRow& b, size_t window) {
  const size_t first = std::max(FirstSeen(a, window), FirstSeen(b, window));
  if (first > std::min(a.position, b.position)) return false;
  return a.pages[first / kPageTokens] == b.pages[first / kPageTokens];
}

// Pairs of a query and a position within [begin, end) that it sees.
double Work(std::span<const AttentionRow> rows, const AttentionPlanOptions& options, size_t begin,
            size_t end) {
  size_t seen = 0;
  for (const AttentionRow& row : rows) {
    const size_t from = std::max(begin, FirstSeen(row, options.window));
    const size_t to = std::min(end, row.position + 1);
    if (from < to) seen += to - from;
  }
  return static_cast<double>(seen * options.group);
}

}  // namespace

void AttentionPlan::Make(std::span<const AttentionRow> rows, const AttentionPlanOptions& options) {
  Order(rows);
  MakeBlocks(options);
  MakeItems(options);
}

void AttentionPlan::Order(std::span<const AttentionRow> rows) {
  runs_.clear(), rows_.clear(), places_.clear();
  for (size_t r = 0; r < rows.size(); r++) {
    if (r == 0 || rows[r].pages != rows[r - 1].pages) runs_.push_back({r, r});
    runs_.back().end = r + 1;
  }
  std::sort(runs_.begin(), runs_.end(),
            [&](const Run& a, const Run& b) { return PathLess(rows[a.end - 1], rows[b.end - 1]); });
  for (const Run& run : runs_) {
    for (size_t r = run.begin; r < run.end; r++) {
      rows_.push_back(rows[r]);
      places_.push_back({.source = r, .block = 0});
    }
  }
}

void AttentionPlan::MakeBlocks(const AttentionPlanOptions& options) {
  const size_t most = AttentionBlockRows(options.group);
  blocks_.clear();
  for (size_t r = 0; r < rows_.size(); r++) {
    const SegmentRange seen = VisibleSegments(rows_[r].position, options.window);
    if (r == 0 || blocks_.back().num_rows() == most ||
        !ShareAPage(rows_[r - 1], rows_[r], options.window)) {
      blocks_.push_back(
          {.begin = r, .end = r, .segments = seen, .is_cut = false, .first_state = 0});
    }
    AttentionBlock& block = blocks_.back();
    block.end = r + 1;
    block.segments.first = std::min(block.segments.first, seen.first);
    block.segments.last = std::max(block.segments.last, seen.last);
    places_[r].block = blocks_.size() - 1;
  }
}

void AttentionPlan::MakeItems(const AttentionPlanOptions& options) {
  const auto work_of = [&](const AttentionBlock& block, size_t begin, size_t end) {
    return Work(std::span(rows_).subspan(block.begin, block.num_rows()), options, begin, end);
  };
  const double all = Work(rows_, options, 0, SIZE_MAX) * static_cast<double>(options.num_kv_heads);
  const double most = all / (kItemsPerThread * static_cast<double>(options.num_threads));
  items_.clear();
  num_states_ = 0;
  for (size_t b = 0; b < blocks_.size(); b++) {
    AttentionBlock& block = blocks_[b];
    const double whole = work_of(block, 0, SIZE_MAX);
    block.is_cut = whole > most && block.num_segments() > 1 && options.num_threads > 1;
    block.first_state = num_states_;
    if (block.is_cut) num_states_ += options.num_kv_heads * block.num_segments() * block.num_rows();
    for (size_t head = 0; head < options.num_kv_heads; head++) {
      if (!block.is_cut) {
        items_.push_back({.block = b, .kv_head = head, .segment = 0, .work = whole});
        continue;
      }
      for (size_t s = block.segments.first; s <= block.segments.last; s++) {
        const double work = work_of(block, s * kSegmentTokens, (s + 1) * kSegmentTokens);
        items_.push_back({.block = b, .kv_head = head, .segment = s, .work = work});
      }
    }
  }
  // What balances the end should be small.
  std::sort(items_.begin(), items_.end(),
            [](const AttentionItem& a, const AttentionItem& b) { return a.work > b.work; });
}

}  // namespace trellis
