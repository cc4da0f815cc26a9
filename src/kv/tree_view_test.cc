// PageCache::View: what it shows, in which order, and that it counts what it does not show.
#include "kv/tree_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "kv/test_session.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;
using ViewNode = TreeView::Node;

constexpr size_t kAll = std::numeric_limits<size_t>::max();

// `n` tokens that `stream` alone has.
Tokens Stream(TokenId stream, size_t n) {
  Tokens tokens(n);
  std::iota(tokens.begin(), tokens.end(), 1000 * stream);
  return tokens;
}

Tokens Concat(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class TreeViewTest : public testing::Test {
 protected:
  static constexpr PageLayout kLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 4};

  void Start(size_t num_pages) {
    cache_ =
        PageCache::Create({.layout = kLayout, .capacity_bytes = num_pages * kLayout.page_bytes()})
            .value();
  }
  TestSession Compute(const Tokens& tokens, const ScopeKey& scope = "") {
    TestSession session(*cache_, scope, tokens);
    EXPECT_TRUE(session.Reserve(tokens.size()).ok());
    session.Commit(std::span(tokens).subspan(session.lease().num_rows()));
    return session;
  }

  // A view, in which everything adds up.
  TreeView View(const TreeViewOptions& options) {
    TreeView view = cache_->View(options);
    const PageCacheStats stats = cache_->Stats();
    EXPECT_LE(view.nodes.size(), options.max_nodes);
    EXPECT_EQ(view.num_pages, stats.committed);
    EXPECT_GE(view.num_nodes, stats.num_nodes + stats.num_scopes);
    std::map<uint64_t, const ViewNode*> by_id;
    std::map<uint64_t, size_t> num_shown;
    for (const ViewNode& node : view.nodes) {
      EXPECT_TRUE(by_id.emplace(node.id, &node).second) << "an id is one node's";
      EXPECT_EQ(node.age > 0 && node.num_leases > 0, false) << "what is pinned is in use";
      if (node.parent == 0) {
        EXPECT_EQ(node.scope, node.id);
        EXPECT_EQ(node.begin + node.num_tokens + node.num_pages, 0u);
        continue;
      }
      EXPECT_TRUE(by_id.contains(node.parent)) << "parents come first";
      if (!by_id.contains(node.parent)) continue;
      const ViewNode& parent = *by_id[node.parent];
      num_shown[node.parent]++;
      EXPECT_EQ(node.begin, parent.begin + parent.num_tokens);
      EXPECT_EQ(node.scope, parent.scope);
      EXPECT_GT(node.num_tokens, 0u);
      EXPECT_LE(node.num_leases, parent.num_leases);
    }
    size_t num_pages = 0;
    for (const ViewNode& node : view.nodes) {
      EXPECT_EQ(node.num_children - node.num_hidden, num_shown[node.id]);
      num_pages += node.num_pages;
    }
    EXPECT_LE(num_pages, view.num_pages);
    if (view.nodes.size() == view.num_nodes) {
      EXPECT_EQ(num_pages, view.num_pages);
    }
    return view;
  }
  TreeView ViewAll() {
    TreeView view = View({.max_nodes = kAll});
    EXPECT_EQ(view.nodes.size(), view.num_nodes);
    return view;
  }

  std::unique_ptr<PageCache> cache_;
};

TEST_F(TreeViewTest, AnEmptyCacheShowsNothing) {
  Start(4);
  EXPECT_EQ(ViewAll().num_nodes, 0u);
  EXPECT_EQ(View({.readable_scope = "mine"}).readable_scope, 0u);
}

TEST_F(TreeViewTest, ShowsTheTree) {
  Start(20);
  Compute(Concat(Stream(1, 64), Stream(2, 40)));
  TestSession held = Compute(Concat(Stream(1, 64), Stream(3, 10)));
  const TreeView view = ViewAll();
  ASSERT_EQ(view.nodes.size(), 4u);
  const auto expect = [&](size_t i, size_t begin, size_t tokens, size_t pages, size_t leases,
                          size_t children, uint64_t age) {
    const ViewNode& node = view.nodes[i];
    EXPECT_EQ(node.begin, begin) << i;
    EXPECT_EQ(node.num_tokens, tokens) << i;
    EXPECT_EQ(node.num_pages, pages) << i;
    EXPECT_EQ(node.num_leases, leases) << i;
    EXPECT_EQ(node.num_children, children) << i;
    EXPECT_EQ(node.age, age) << i;
    EXPECT_TRUE(node.tokens.empty());
  };
  expect(0, 0, 0, 0, 1, 1, 0);
  expect(1, 0, 64, 2, 1, 2, 0);
  expect(2, 64, 10, 1, 1, 0, 0);
  EXPECT_EQ(view.nodes[3].num_leases, 0u);
  expect(3, 64, 40, 2, 0, 0, view.nodes[3].age);
}

TEST_F(TreeViewTest, TokensAreShownOfTheReadableScopeOnly) {
  Start(20);
  Compute(Stream(1, 100), "mine");
  Compute(Stream(2, 100), "theirs");
  Compute(Stream(3, 100));
  for (const ViewNode& node : ViewAll().nodes) EXPECT_TRUE(node.tokens.empty());
  const TreeView view = View({.readable_scope = "mine"});
  ASSERT_EQ(view.nodes.size(), 6u);
  EXPECT_EQ(view.nodes[0].id, view.readable_scope) << "it is looked at first";
  for (const ViewNode& node : view.nodes) {
    const bool readable = node.scope == view.readable_scope && node.parent != 0;
    EXPECT_EQ(node.tokens, readable ? Stream(1, TreeView::kShownTokens) : Tokens());
  }
  EXPECT_EQ(View({.readable_scope = "nobody's"}).readable_scope, 0u);
  EXPECT_NE(View({.readable_scope = ""}).readable_scope, 0u) << "it is for the caller to refuse";
}

TEST_F(TreeViewTest, WhatWasUsedLastComesFirstAndTheRestIsCounted) {
  Start(200);
  const Tokens trunk = Stream(1, 32);
  for (TokenId branch = 2; branch < 52; branch++) Compute(Concat(trunk, Stream(branch, 32)));
  Compute(Concat(trunk, Stream(20, 32)));  // again
  const TreeView all = ViewAll();
  ASSERT_EQ(all.nodes.size(), 52u);
  EXPECT_EQ(all.nodes[1].age, 0u);
  EXPECT_EQ(all.nodes[2].age, 0u) << "branch 20";
  for (size_t i = 3; i < 52; i++) EXPECT_GT(all.nodes[i].age, all.nodes[i - 1].age);
  for (const size_t limit : {1u, 2u, 3u, 10u, 51u}) {
    const TreeView some = View({.max_nodes = limit});
    ASSERT_EQ(some.nodes.size(), limit);
    for (size_t i = 0; i < limit; i++) EXPECT_EQ(some.nodes[i].id, all.nodes[i].id);
    if (limit > 1) {
      EXPECT_EQ(some.nodes[1].num_hidden, 52 - limit);
    }
  }
}

TEST_F(TreeViewTest, OfThoseAsWarmTheLargerComesFirst) {
  Start(20);
  TestSession small = Compute(Stream(1, 32)), large = Compute(Stream(2, 96)),
              medium = Compute(Stream(3, 64));
  const TreeView view = ViewAll();
  ASSERT_EQ(view.nodes.size(), 4u);
  EXPECT_EQ(view.nodes[1].num_tokens, 96u);
  EXPECT_EQ(view.nodes[2].num_tokens, 64u);
  EXPECT_EQ(view.nodes[3].num_tokens, 32u);
}

TEST_F(TreeViewTest, BelowTheDepthThereAreCounts) {
  Start(40);
  Tokens path;
  for (TokenId i = 1; i < 6; i++) {
    path = Concat(path, Stream(i, 32));
    Compute(Concat(path, Stream(10 + i, 32)));
  }
  Compute(path);
  const TreeView scopes = View({.max_nodes = kAll, .max_depth = 0});
  ASSERT_EQ(scopes.nodes.size(), 1u);
  EXPECT_EQ(scopes.nodes[0].num_hidden, 1u);
  const TreeView two = View({.max_nodes = kAll, .max_depth = 2});
  ASSERT_EQ(two.nodes.size(), 4u);
  size_t num_hidden = 0;
  for (const ViewNode& node : two.nodes) num_hidden += node.num_hidden;
  EXPECT_EQ(num_hidden, 2u);
  EXPECT_GT(two.num_nodes, 8u);
}

// However many warmer siblings it has.
TEST_F(TreeViewTest, WhatALeaseHoldsIsFound) {
  Start(300);
  const Tokens trunk = Stream(1, 32), old = Concat(trunk, Stream(2, 32));
  Compute(old);
  for (TokenId branch = 3; branch < 100; branch++) Compute(Concat(trunk, Stream(branch, 32)));
  TestSession one = Compute(old), two = Compute(old);
  for (TokenId branch = 100; branch < 150; branch++) Compute(Concat(trunk, Stream(branch, 32)));
  const TreeView view = View({.max_nodes = 3});
  ASSERT_EQ(view.nodes.size(), 3u);
  for (const ViewNode& node : view.nodes) EXPECT_EQ(node.num_leases, 2u);
  EXPECT_EQ(view.nodes[1].num_hidden, 147u);
  one.Release();
  EXPECT_EQ(View({.max_nodes = 3}).nodes[2].num_leases, 1u);
}

TEST_F(TreeViewTest, AnIdStaysWithTheEndOfItsNode) {
  Start(40);
  Compute(Stream(1, 96));
  const uint64_t whole = ViewAll().nodes[1].id;
  Compute(Concat(Stream(1, 40), Stream(2, 40)));
  TreeView view = ViewAll();
  ASSERT_EQ(view.nodes.size(), 4u);
  std::set<uint64_t> ids;
  for (const ViewNode& node : view.nodes) {
    ids.insert(node.id);
    EXPECT_EQ(node.id == whole, node.begin + node.num_tokens == 96) << node.begin;
  }
  cache_->Reset();
  Compute(Stream(1, 96));
  for (const ViewNode& node : ViewAll().nodes) EXPECT_FALSE(ids.contains(node.id));
}

TEST_F(TreeViewTest, WhatAResetHidesIsShownWhileALeaseHoldsIt) {
  Start(20);
  TestSession held = Compute(Stream(1, 40), "mine");
  cache_->Reset();
  Compute(Stream(2, 40), "mine");
  const TreeView view = View({.readable_scope = "mine"});
  ASSERT_EQ(view.nodes.size(), 4u);
  for (const ViewNode& node : view.nodes) {
    EXPECT_EQ(node.num_leases, node.scope == view.readable_scope ? 0u : 1u);
    EXPECT_TRUE(node.num_leases == 0 || node.tokens.empty()) << "it is nobody's any more";
  }
}

// Of more scopes than are asked for, those that are in use.
TEST_F(TreeViewTest, ManyScopes) {
  Start(300);
  for (int i = 0; i < 100; i++) Compute(Stream(i, 20), std::to_string(i));
  TestSession held = Compute(Stream(7, 20), "7");
  const TreeView view = View({.max_nodes = 10, .readable_scope = "33"});
  ASSERT_EQ(view.nodes.size(), 10u);
  EXPECT_EQ(view.num_nodes, 200u);
  size_t num_leases = 0, num_readable = 0;
  for (const ViewNode& node : view.nodes) {
    num_leases += node.num_leases;
    num_readable += node.scope == view.readable_scope ? 1 : 0;
  }
  EXPECT_EQ(num_leases, 2u) << "the root of scope 7 and its node";
  EXPECT_GE(num_readable, 1u);
}

// A smaller view is the beginning of a larger one, whatever happened, and warmth never grows in it.
TEST_F(TreeViewTest, OfAnyTreeItShowsTheWarmestPart) {
  for (unsigned seed = 0; seed < 30; seed++) {
    Start(40);
    std::mt19937 random(seed);
    const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
    std::vector<TestSession> held;
    for (size_t i = 0; i < 60; i++) {
      Tokens tokens;
      for (size_t part = below(4); part-- > 0;) {
        tokens = Concat(tokens, Stream(static_cast<TokenId>(below(3)), 1 + below(60)));
      }
      TestSession session(*cache_, below(3) == 0 ? "mine" : "", tokens);
      if (session.Reserve(tokens.size()).ok()) {
        session.Commit(std::span(tokens).subspan(session.lease().num_rows()));
      }
      if (below(3) == 0) held.push_back(std::move(session));
      if (held.size() > below(6)) {
        std::swap(held.back(), held[below(held.size())]);
        held.pop_back();
      }
      const TreeView all = ViewAll();
      for (size_t n = 1; n < all.nodes.size(); n++) {
        EXPECT_GE(all.nodes[n].age, all.nodes[n - 1].age);
      }
      if (all.nodes.size() < 3) continue;
      const size_t limit = 2 + below(all.nodes.size() - 1);  // both scopes at least
      const TreeView some = View({.max_nodes = limit});
      ASSERT_EQ(some.nodes.size(), limit);
      for (size_t n = 0; n < limit; n++) EXPECT_EQ(some.nodes[n].age, all.nodes[n].age);
    }
  }
}

}  // namespace
}  // namespace trellis
