// Every row is attended to once, those who share pages together, and the work is spread.
#include "model/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

namespace trellis {
namespace {

constexpr AttentionPlanOptions kOptions{
    .num_kv_heads = 2, .group = 3, .window = 0, .num_threads = 2};

class AttentionPlanTest : public testing::Test {
 protected:
  using PageTable = std::vector<std::byte*>;

  // A page table for `length` positions, the first `shared` pages those of `trunk`.
  const PageTable& Pages(size_t length, const PageTable* trunk = nullptr, size_t shared = 0) {
    PageTable pages;
    if (trunk != nullptr) pages.assign(trunk->begin(), trunk->begin() + static_cast<long>(shared));
    // From above: the order of addresses is not the order in which they were made.
    while (pages.size() < PagesFor(length))
      pages.push_back(memory_.data() + memory_.size() - ++used_);
    tables_.push_back(std::make_unique<PageTable>(std::move(pages)));
    return *tables_.back();
  }
  void Add(const PageTable& pages, size_t first, size_t num_rows = 1) {
    for (size_t p = first; p < first + num_rows; p++)
      rows_.push_back({.pages = pages.data(), .position = p, .q = nullptr, .out = nullptr});
  }

  // Makes the plan and expects of it what must hold of every plan.
  void Make(const AttentionPlanOptions& options) {
    plan_.Make(rows_, options);
    ExpectSameRows();
    // How often each row is attended to, in which segment.
    std::map<std::pair<size_t, size_t>, std::map<size_t, size_t>> times;
    std::vector<bool> state_used(plan_.num_states());
    for (const AttentionItem& item : plan_.items()) {
      const AttentionBlock& block = plan_.blocks()[item.block];
      for (size_t r = block.begin; r < block.end; r++) {
        EXPECT_EQ(&plan_.block_of(r), &block);
        times[{r, item.kv_head}][block.is_cut ? item.segment : 0]++;
        if (!block.is_cut) continue;
        const size_t state = block.StateOf(item.kv_head, item.segment, r);
        ASSERT_LT(state, state_used.size());
        EXPECT_FALSE(state_used[state]);
        state_used[state] = true;
      }
    }
    EXPECT_EQ(times.size(), rows_.size() * options.num_kv_heads);
    for (const auto& [row_and_head, segments] : times) {
      const size_t row = row_and_head.first;
      const SegmentRange seen = VisibleSegments(plan_.rows()[row].position, options.window);
      const bool is_cut = plan_.block_of(row).is_cut;
      for (size_t s = seen.first; s <= seen.last; s++)
        EXPECT_EQ(segments.count(is_cut ? s : 0), 1u);
      for (const auto& [segment, count] : segments) EXPECT_EQ(count, 1u);
    }
    EXPECT_TRUE(std::is_sorted(plan_.items().begin(), plan_.items().end(),
                               [](const auto& a, const auto& b) { return a.work > b.work; }));
  }
  void ExpectSameRows() {
    std::vector<bool> seen(rows_.size());
    ASSERT_EQ(plan_.rows().size(), rows_.size());
    for (size_t r = 0; r < rows_.size(); r++) {
      const size_t source = plan_.source(r);
      EXPECT_FALSE(seen[source]);
      seen[source] = true;
      EXPECT_EQ(plan_.rows()[r].pages, rows_[source].pages);
      EXPECT_EQ(plan_.rows()[r].position, rows_[source].position);
    }
  }
  // The block of the row that was the nth.
  size_t BlockOf(size_t source) const {
    for (size_t r = 0; r < rows_.size(); r++) {
      if (plan_.source(r) == source)
        return static_cast<size_t>(&plan_.block_of(r) - plan_.blocks().data());
    }
    return SIZE_MAX;
  }
  std::vector<AttentionRow> rows_;
  AttentionPlan plan_;

 private:
  std::vector<std::byte> memory_ = std::vector<std::byte>(4096);
  size_t used_ = 0;
  std::vector<std::unique_ptr<PageTable>> tables_;
};

TEST_F(AttentionPlanTest, ALongDecodeIsCutIntoItsSegments) {
  Add(Pages(4097), 4096);
  Make(kOptions);
  EXPECT_EQ(plan_.items().size(), 9 * kOptions.num_kv_heads);
  EXPECT_EQ(plan_.num_states(), 9 * kOptions.num_kv_heads);
}

TEST_F(AttentionPlanTest, OneThreadCutsNothing) {
  Add(Pages(4097), 4096);
  AttentionPlanOptions options = kOptions;
  options.num_threads = 1;
  Make(options);
  EXPECT_EQ(plan_.items().size(), kOptions.num_kv_heads);
}

TEST_F(AttentionPlanTest, ManyDecodesAreShareEnough) {
  for (size_t i = 0; i < 8; i++) Add(Pages(1000), 999);
  Make(kOptions);
  EXPECT_EQ(plan_.blocks().size(), 8u);  // no two have a page in common
  EXPECT_EQ(plan_.items().size(), 8 * kOptions.num_kv_heads);
}

TEST_F(AttentionPlanTest, SharersAreABlockWhateverTheirOrder) {
  const PageTable& trunk = Pages(640);
  const PageTable& other = Pages(640);
  const PageTable& branch = Pages(700, &trunk, 18);
  Add(trunk, 639);
  Add(other, 639);
  Add(branch, 699);
  Add(Pages(660, &other, 20), 659);
  Add(Pages(700, &branch, 20), 690, 10);
  Add(Pages(700, &trunk, 1), 699);
  Make(kOptions);
  EXPECT_EQ(plan_.blocks().size(), 2u);
  for (size_t source : {2u, 4u, 13u, 14u}) EXPECT_EQ(BlockOf(source), BlockOf(0)) << source;
  EXPECT_EQ(BlockOf(3), BlockOf(1));
  EXPECT_TRUE(plan_.blocks()[BlockOf(0)].is_cut);  // most of the step's work
}

TEST_F(AttentionPlanTest, PagesBehindTheWindowAreNotShared) {
  const PageTable& trunk = Pages(2000);
  Add(trunk, 1999);
  Add(Pages(2000, &trunk, 40), 1999);
  Make(kOptions);
  EXPECT_EQ(plan_.blocks().size(), 1u);
  AttentionPlanOptions local = kOptions;
  local.window = 512;
  Make(local);
  EXPECT_EQ(plan_.blocks().size(), 2u);
}

TEST_F(AttentionPlanTest, PrefillIsBlocksOfRows) {
  Add(Pages(612), 100, 512);
  Make(kOptions);
  EXPECT_EQ(plan_.blocks().size(), 512 / AttentionBlockRows(kOptions.group));
  EXPECT_EQ(plan_.num_states(), 0u);
}

TEST_F(AttentionPlanTest, AStepOfEverything) {
  const PageTable& trunk = Pages(2048);
  for (size_t i = 0; i < 4; i++) Add(Pages(2080, &trunk, 64), 2079);
  Add(Pages(300), 0, 300);
  Add(trunk, 2040, 8);
  Add(Pages(10), 9);
  for (const size_t window : {0u, 1u, 33u, 512u, 600u}) {
    for (const size_t threads : {1u, 2u, 16u}) {
      SCOPED_TRACE(testing::Message() << "window " << window << ", threads " << threads);
      AttentionPlanOptions options = kOptions;
      options.window = window, options.num_threads = threads;
      Make(options);
    }
  }
}

}  // namespace
}  // namespace trellis
