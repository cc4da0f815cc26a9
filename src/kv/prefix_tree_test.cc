// The tree alone. Its pictures are Dump()'s: a node's rows, its first tokens, the pages it owns.
#include "kv/prefix_tree.h"

#include <gtest/gtest.h>

#include <random>

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

// `n` times `token`, behind `head`.
Tokens Repeat(size_t n, TokenId token, Tokens head = {}) {
  for (size_t i = 0; i < n; i++) head.push_back(token);
  return head;
}

Tokens Cut(Tokens tokens, size_t n) {
  tokens.resize(n);
  return tokens;
}

class PrefixTreeTest : public testing::Test {
 protected:
  static constexpr size_t kPageBytes = 64, kFrames = 400;

  // A lease on `tokens`, whose rows the tree has from now on.
  Node& Hold(const Tokens& tokens, const std::string& scope = "s") {
    Root& root = tree_.FindOrAddRoot(scope);
    auto [node, row] = tree_.Match(root, tokens);
    if (row < node->end()) node = &tree_.Split(*node, row);
    tree_.AddLease(*node);
    if (row < tokens.size()) {
      if (node->is_leaf() && node->has_open_tail()) pool_->Free(tree_.TakeTail(*node));
      std::vector<FrameId> frames;
      for (size_t page = row / kPageTokens; page < PagesFor(tokens.size()); page++) {
        frames.push_back(pool_->Allocate());
      }
      Node& child = tree_.AddChild(*node, std::span(tokens).subspan(row), frames);
      tree_.AddLease(child);
      tree_.RemoveLease(root, *node);
      node = &child;
    }
    tree_.Validate();
    return *node;
  }
  void LetGo(Node& node, const std::string& scope = "s") {
    tree_.RemoveLease(*tree_.FindRoot(scope), node);
    tree_.Validate();
  }
  void Insert(const Tokens& tokens) { LetGo(Hold(tokens)); }
  // What an acquire and a release do to what is there already.
  void Touch(const Tokens& tokens) { Insert(tokens); }
  size_t MatchedRows(const Tokens& tokens) {
    Root* root = tree_.FindRoot("s");
    return root == nullptr ? 0 : tree_.Match(*root, tokens).row;
  }
  void Evict() {
    const size_t before = pool_->num_free();
    tree_.EvictPage();
    EXPECT_EQ(pool_->num_free(), before + 1) << "it frees exactly one page";
    tree_.Validate();
  }
  void ExpectTree(const std::string& picture) { EXPECT_EQ("\n" + tree_.Dump(), picture); }

  std::unique_ptr<PagePool> pool_ = PagePool::Create(kPageBytes, kFrames* kPageBytes).value();
  PrefixTree tree_{*pool_, EvictionPolicyKind::kLru, kFrames};
};

// --- Splits ---

TEST_F(PrefixTreeTest, ABranchInsideAPageSplitsTheEdgeAndHasItsOwnCopyOfThePage) {
  Insert(Repeat(70, 1));
  ExpectTree(R"(
scope "s"
  [0, 70) 1 1 1 1 1 1 1 1 ..  pages 0..2  used 1
)");
  EXPECT_EQ(pool_->num_committed(), 3u);

  // Row 40 is in page 1: the upper part keeps page 0 only, both lower ones have a page 1.
  Insert(Repeat(10, 2, Repeat(40, 1)));
  ExpectTree(R"(
scope "s"
  [0, 40) 1 1 1 1 1 1 1 1 ..  pages 0..0  used 2
    [40, 70) 1 1 1 1 1 1 1 1 ..  pages 1..2  used 1
    [40, 50) 2 2 2 2 2 2 2 2 ..  pages 1..1  used 2
)");
  EXPECT_EQ(pool_->num_committed(), 4u);
}

TEST_F(PrefixTreeTest, ABranchAtThePageBorderSharesEveryPageAboveIt) {
  Insert(Repeat(70, 1));
  Insert(Repeat(1, 2, Repeat(64, 1)));
  ExpectTree(R"(
scope "s"
  [0, 64) 1 1 1 1 1 1 1 1 ..  pages 0..1  used 2
    [64, 70) 1 1 1 1 1 1  pages 2..2  used 1
    [64, 65) 2  pages 2..2  used 2
)");
}

TEST_F(PrefixTreeTest, ANodeThatEndsNoPageOwnsNone) {
  Insert(Repeat(30, 1));
  Insert(Repeat(1, 3, Repeat(5, 1)));
  Insert(Repeat(1, 2, Repeat(9, 1)));
  ExpectTree(R"(
scope "s"
  [0, 5) 1 1 1 1 1  used 3
    [5, 9) 1 1 1 1  used 3
      [9, 30) 1 1 1 1 1 1 1 1 ..  pages 0..0  used 1
      [9, 10) 2  pages 0..0  used 3
    [5, 6) 3  pages 0..0  used 2
)");
}

TEST_F(PrefixTreeTest, EverySplitOfEveryLengthMatchesExactly) {
  for (size_t length : {1u, 31u, 32u, 33u, 64u, 70u}) {
    for (size_t row = 1; row < length; row++) {
      Insert(Repeat(length, 1));
      Insert(Repeat(1, 2, Repeat(row, 1)));
      EXPECT_EQ(MatchedRows(Repeat(length + 9, 1)), length);
      EXPECT_EQ(MatchedRows(Repeat(9, 2, Repeat(row, 1))), row + 1);
      for (size_t n = 0; n <= length; n++) EXPECT_EQ(MatchedRows(Repeat(1, 3, Repeat(n, 1))), n);
      EXPECT_EQ(pool_->num_committed(), PagesFor(length) + 1);
      tree_.Reset();
      EXPECT_EQ(pool_->num_committed(), 0u);
    }
  }
}

// --- A page that is not full ---

TEST_F(PrefixTreeTest, AnInnerNodeReadsItsOpenPageThroughAChildAndKeepsItWhenThatIsTheLast) {
  Node& held = Hold(Repeat(40, 1));
  Insert(Repeat(2, 2, Repeat(40, 1)));
  const FrameId copy = tree_.TailFrame(held);
  EXPECT_EQ(copy, held.first_child->frames[0]);
  Insert(Repeat(2, 3, Repeat(40, 1)));
  Evict();  // the branch of twos
  EXPECT_NE(tree_.TailFrame(held), copy);
  EXPECT_EQ(pool_->num_committed(), 2u);
  EXPECT_EQ(tree_.num_pinned_pages(), 2u) << "the page of the threes holds the lease's rows";
  ExpectTree(R"(
scope "s"
  [0, 40) 1 1 1 1 1 1 1 1 ..  pages 0..0  leases 1
    [40, 42) 3 3  pages 1..1  used 2
)");
  EXPECT_EQ(tree_.DropBelow(held), 0u) << "its rows go, its frame stays with the lease";
  ExpectTree(R"(
scope "s"
  [0, 40) 1 1 1 1 1 1 1 1 ..  pages 0..1  leases 1
)");
}

// --- Merging ---

TEST_F(PrefixTreeTest, WhatNoLongerPartsIsOneNodeAgain) {
  Node& whole = Hold(Repeat(70, 1));
  Node& part = Hold(Repeat(40, 1));
  ExpectTree(R"(
scope "s"
  [0, 40) 1 1 1 1 1 1 1 1 ..  pages 0..0  leases 1
    [40, 70) 1 1 1 1 1 1 1 1 ..  pages 1..2  leases 1
)");
  LetGo(part);
  ExpectTree(R"(
scope "s"
  [0, 70) 1 1 1 1 1 1 1 1 ..  pages 0..2  leases 1
)");
  LetGo(whole);
  Insert(Repeat(1, 2, Repeat(40, 1)));
  EXPECT_EQ(tree_.num_nodes(), 3u);
  while (MatchedRows(Repeat(70, 1)) > 40) Evict();
  ExpectTree(R"(
scope "s"
  [0, 41) 1 1 1 1 1 1 1 1 ..  pages 0..1  used 2
)");
}

TEST_F(PrefixTreeTest, ThePartThatWasUsedLaterStaysApartAtThePageBorderUntilALeaseHoldsBoth) {
  Insert(Repeat(100, 1));
  Touch(Repeat(40, 1));  // which is evicted with its page: rows 40..63 are as warm
  ExpectTree(R"(
scope "s"
  [0, 64) 1 1 1 1 1 1 1 1 ..  pages 0..1  used 2
    [64, 100) 1 1 1 1 1 1 1 1 ..  pages 2..3  used 1
)");
  Node& held = Hold(Repeat(100, 1));
  ExpectTree(R"(
scope "s"
  [0, 100) 1 1 1 1 1 1 1 1 ..  pages 0..3  leases 1
)");
  LetGo(held);
}

// --- Pins ---

TEST_F(PrefixTreeTest, PinnedPagesAreThoseThatALeaseNeeds) {
  Node& a = Hold(Repeat(70, 1));
  EXPECT_EQ(tree_.num_pinned_pages(), 3u);
  Node& b = Hold(Repeat(10, 2, Repeat(40, 1)));
  EXPECT_EQ(tree_.num_pinned_pages(), 4u);
  Node& trunk = Hold(Repeat(40, 1));  // in both of them
  EXPECT_EQ(tree_.num_pinned_pages(), 4u);
  LetGo(a);
  EXPECT_EQ(tree_.num_pinned_pages(), 2u);
  LetGo(b);
  EXPECT_EQ(tree_.num_pinned_pages(), 2u) << "page 0, and one page with rows 32 to 39";
  while (tree_.num_pinned_pages() < pool_->num_committed()) Evict();
  EXPECT_EQ(MatchedRows(Repeat(70, 1)), 40u);
  LetGo(trunk);
  EXPECT_EQ(tree_.num_pinned_pages(), 0u);
}

// --- Eviction ---

TEST_F(PrefixTreeTest, EvictsPageByPageFromTheColdEndOfTheLeafUsedLongestAgo) {
  const Tokens a = Repeat(100, 1), b = Repeat(64, 2), c = Repeat(33, 3);
  Insert(a);
  Insert(b);
  Insert(c);
  Touch(a);
  const auto expect = [&](size_t rows_a, size_t rows_b, size_t rows_c) {
    EXPECT_EQ(MatchedRows(a), rows_a);
    EXPECT_EQ(MatchedRows(b), rows_b);
    EXPECT_EQ(MatchedRows(c), rows_c);
  };
  expect(100, 64, 33);
  Evict();
  expect(100, 32, 33);
  Evict();
  expect(100, 0, 33);
  Evict();
  expect(100, 0, 32);
  Evict();
  expect(100, 0, 0);
  Evict();
  expect(96, 0, 0);
  for (size_t i = 0; i < 3; i++) Evict();
  expect(0, 0, 0);
  EXPECT_EQ(tree_.num_scopes(), 0u) << "an empty scope is forgotten";
  EXPECT_EQ(tree_.num_bytes(), 0u);
}

TEST_F(PrefixTreeTest, ATrunkIsEvictedAfterAllThatHangsOnIt) {
  const Tokens trunk = Repeat(64, 1);
  for (TokenId branch = 2; branch < 6; branch++) Insert(Repeat(40, branch, trunk));
  for (size_t i = 0; i < 8; i++) {
    EXPECT_EQ(MatchedRows(trunk), 64u);
    Evict();
  }
  EXPECT_EQ(MatchedRows(trunk), 64u);
  Evict();
  EXPECT_EQ(MatchedRows(trunk), 32u);
}

TEST_F(PrefixTreeTest, NothingPinnedIsEvictedAndThatIsWhereEvictionEnds) {
  std::vector<Node*> held;
  std::vector<Tokens> paths;
  for (TokenId i = 0; i < 20; i++) {
    paths.push_back(Repeat(50, 100 + i));
    held.push_back(&Hold(paths.back()));
    Insert(Repeat(50, 200 + i));
    Insert(Repeat(30, 1, Cut(paths.back(), 41)));  // beside a pinned path
  }
  while (tree_.num_pinned_pages() < pool_->num_committed()) Evict();
  EXPECT_EQ(pool_->num_committed(), 2 * held.size());
  for (const Tokens& path : paths) EXPECT_EQ(MatchedRows(path), path.size());
  for (Node* node : held) LetGo(*node);
}

// Rows that share their page with others free nothing; they go with the first page that does.
TEST_F(PrefixTreeTest, RowsOfASharedPageGoWithoutCountingAsAPage) {
  Insert(Repeat(40, 1));
  Node& held = Hold(Repeat(36, 1));
  Insert(Repeat(32, 2));
  EXPECT_EQ(pool_->num_committed(), 3u);
  Evict();
  EXPECT_EQ(MatchedRows(Repeat(40, 1)), 36u);
  EXPECT_EQ(MatchedRows(Repeat(32, 2)), 0u);
  LetGo(held);
}

// --- Roots ---

TEST_F(PrefixTreeTest, ResetDropsWhatIsNotHeldAndHidesTheRest) {
  Insert(Repeat(70, 2));
  Node& held = Hold(Repeat(40, 1));
  Root& root = *tree_.FindRoot("s");
  Insert(Repeat(40, 3, Repeat(40, 1)));
  tree_.Reset();
  tree_.Validate();
  ExpectTree(R"(
detached
  [0, 40) 1 1 1 1 1 1 1 1 ..  pages 0..1  leases 1
)");
  EXPECT_EQ(tree_.FindRoot("s"), nullptr);
  Insert(Repeat(40, 1));  // of its own, beside the other
  EXPECT_EQ(pool_->num_committed(), 4u);
  tree_.RemoveLease(root, held);
  tree_.Validate();
  EXPECT_EQ(pool_->num_committed(), 2u) << "what nobody can find goes with its last lease";
}

TEST_F(PrefixTreeTest, ScopesAreTreesOfTheirOwn) {
  Node& a = Hold(Repeat(40, 1), "a");
  Node& b = Hold(Repeat(40, 1), std::string("a\0", 2));
  EXPECT_NE(&a, &b);
  EXPECT_EQ(tree_.num_scopes(), 2u);
  LetGo(a, "a");
  LetGo(b, std::string("a\0", 2));
  EXPECT_EQ(pool_->num_committed(), 4u);
  EXPECT_NE(tree_.Dump().find("scope \"a\\x00\"\n  [0, 40)"), std::string::npos);
}

// --- Many ---

TEST_F(PrefixTreeTest, ANodeWithManyChildrenFindsEachOfThem) {
  const size_t num_children = 300;
  const Tokens trunk = Repeat(32, 1);
  for (size_t i = 0; i < num_children; i++) Insert(Repeat(8, static_cast<TokenId>(i), trunk));
  EXPECT_EQ(tree_.num_nodes(), num_children + 1);
  for (size_t i = 0; i < num_children; i++) {
    EXPECT_EQ(MatchedRows(Repeat(9, static_cast<TokenId>(i), trunk)), 40u);
  }
  EXPECT_EQ(MatchedRows(Repeat(1, -7, trunk)), 32u);
}

TEST_F(PrefixTreeTest, NodesStayWithinThreeTimesTheFramesAndTheLeases) {
  std::mt19937 random(3);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::vector<Node*> held;
  size_t most = 0;
  for (int i = 0; i < 3000; i++) {
    while (pool_->num_free() < 8) Evict();
    if (below(3) == 0 && !held.empty()) {
      const size_t which = below(held.size());
      LetGo(*held[which]);
      held.erase(held.begin() + static_cast<ptrdiff_t>(which));
    } else if (held.size() < 10) {
      Tokens tokens(1 + below(130), 0);
      for (size_t n = below(4); n > 0; n--) tokens[below(tokens.size())] = 1;
      held.push_back(&Hold(tokens));
    }
    EXPECT_LE(tree_.num_nodes(), 3 * pool_->num_committed() + held.size());
    most = std::max(most, tree_.num_nodes());
  }
  EXPECT_GT(most, pool_->num_committed()) << "that was no test";
  for (Node* node : held) LetGo(*node);
}

}  // namespace
}  // namespace trellis
