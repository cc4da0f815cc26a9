#include "kv/pin_table.h"

#include <gtest/gtest.h>

#include "kv/test_session.h"

namespace trellis {
namespace {

using std::chrono::seconds;
using Tokens = std::vector<TokenId>;

PinTable::TimePoint At(int second) {
  return PinTable::TimePoint(seconds(second));
}

Tokens Prompt(TokenId first, size_t n) {
  Tokens tokens(n);
  for (size_t i = 0; i < n; i++) tokens[i] = first + static_cast<TokenId>(i % 7);
  return tokens;
}

class PinTableTest : public testing::Test {
 protected:
  static constexpr size_t kCapacity = 40;

  PinTableTest() {
    const PageLayout layout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 2};
    auto cache =
        PageCache::Create({.layout = layout, .capacity_bytes = kCapacity * layout.page_bytes()});
    cache_ = std::move(*cache);
    pins_.emplace(*cache_, 10);
  }

  void Compute(const Tokens& tokens, const ScopeKey& scope = "") {
    TestSession session(*cache_, scope, tokens);
    ASSERT_TRUE(session.Reserve(tokens.size()).ok());
    session.Commit(std::span(tokens).subspan(session.tokens().size()));
  }
  // Fills the cache with other things.
  void Flood(TokenId first) {
    for (TokenId i = 0; i < 40; i++) Compute(Prompt(first + 10 * i, 100));
  }
  size_t Resident(const Tokens& tokens) const { return cache_->MatchLength("", tokens); }
  size_t Add(const std::string& owner, const Tokens& tokens, int expires) {
    last_ = pins_->Add(owner, "", tokens, At(expires));
    cache_->Validate();
    EXPECT_LE(pins_->num_pages(), pins_->max_pages());
    return last_.num_tokens;
  }

  std::unique_ptr<PageCache> cache_;
  std::optional<PinTable> pins_;
  PinTable::Added last_;
};

TEST_F(PinTableTest, HoldsWholePagesUntilItsTimeIsUp) {
  const Tokens prompt = Prompt(1, 100);
  Compute(prompt);
  EXPECT_EQ(Add("a", prompt, 300), 96u);
  EXPECT_EQ(pins_->num_pages(), 3u);
  Flood(1000);
  EXPECT_EQ(Resident(prompt), 96u);
  pins_->Expire(At(299));
  Flood(2000);
  EXPECT_EQ(Resident(prompt), 96u);
  EXPECT_EQ(pins_->NextExpiry(), At(300));
  pins_->Expire(At(300));
  EXPECT_EQ(pins_->size(), 0u);
  EXPECT_EQ(pins_->NextExpiry(), std::nullopt);
  EXPECT_EQ(cache_->Stats().pinned, 0u);
  Flood(3000);
  EXPECT_EQ(Resident(prompt), 0u);
}

TEST_F(PinTableTest, WhatIsNotThereIsNotPinned) {
  EXPECT_EQ(Add("a", Prompt(1, 100), 300), 0u);
  Compute(Prompt(1, 20));
  EXPECT_EQ(Add("a", Prompt(1, 100), 300), 0u) << "less than a page";
  EXPECT_EQ(pins_->size(), 0u);
}

TEST_F(PinTableTest, AConversationIsOnePin) {
  for (size_t turn = 1; turn <= 5; turn++) {
    Compute(Prompt(1, 60 * turn));
    EXPECT_EQ(Add("a", Prompt(1, 60 * turn), 300 + static_cast<int>(turn)),
              60 * turn / kPageTokens * kPageTokens);
    EXPECT_EQ(pins_->size(), 1u);
    EXPECT_EQ(last_.id.value(), 1u);
    EXPECT_EQ(last_.expires, At(300 + static_cast<int>(turn)));
  }
  EXPECT_EQ(Add("a", Prompt(1, 60), 200), 32u) << "the longer one holds it";
  EXPECT_EQ(last_.id.value(), 1u);
  EXPECT_EQ(last_.expires, At(305)) << "and for longer";
  EXPECT_EQ(pins_->size(), 1u);
  Add("a", Prompt(1, 60), 900);
  EXPECT_EQ(pins_->size(), 2u) << "but not for so long";
  EXPECT_EQ(pins_->num_pages(), 9u) << "pages of both count once";
  Add("b", Prompt(1, 300), 300);
  EXPECT_EQ(pins_->size(), 3u) << "and another's pins are its own";
}

TEST_F(PinTableTest, WhoHoldsMostGivesUpWhatEndsFirst) {
  for (TokenId first : {100, 200, 300, 400, 500}) Compute(Prompt(first, 96));
  Add("hoarder", Prompt(100, 96), 500);
  Add("hoarder", Prompt(200, 96), 400);
  Add("hoarder", Prompt(300, 96), 600);
  Add("other", Prompt(400, 96), 50);
  EXPECT_EQ(pins_->num_pages(), 9u);
  Flood(9000);
  EXPECT_EQ(Resident(Prompt(200, 96)), 0u);
  for (TokenId first : {100, 300, 400}) EXPECT_EQ(Resident(Prompt(first, 96)), 96u) << first;
}

TEST_F(PinTableTest, ALongPromptIsPinnedAsFarAsTheShareGoes) {
  Compute(Prompt(1, 900));
  EXPECT_EQ(Add("a", Prompt(1, 900), 300), 320u);
}

TEST_F(PinTableTest, RemovesOnesOwnOnly) {
  Compute(Prompt(1, 64));
  const PinId id = pins_->Add("a", "", Prompt(1, 64), At(9)).id;
  EXPECT_FALSE(pins_->Remove(id, "b"));
  EXPECT_EQ(pins_->RemoveAll("b"), 0u);
  EXPECT_TRUE(pins_->Remove(id, "a"));
  EXPECT_FALSE(pins_->Remove(id, "a"));
  Add("a", Prompt(1, 64), 9);
  EXPECT_EQ(pins_->RemoveAll("a"), 1u);
  EXPECT_EQ(pins_->num_pages(), 0u);
}

TEST_F(PinTableTest, ReleasesWhatEndsFirst) {
  Compute(Prompt(1, 64));
  Compute(Prompt(100, 64));
  Add("a", Prompt(1, 64), 20);
  Add("b", Prompt(100, 64), 10);
  EXPECT_TRUE(pins_->ReleaseOne());
  EXPECT_EQ(pins_->NextExpiry(), At(20));
  EXPECT_TRUE(pins_->ReleaseOne());
  EXPECT_FALSE(pins_->ReleaseOne());
}

TEST_F(PinTableTest, ANewcomerTakesNoMoreThanItLeavesOthers) {
  for (TokenId first : {100, 200, 300}) Compute(Prompt(first, 96));
  Compute(Prompt(1, 320));
  Add("a", Prompt(100, 96), 500);
  Add("b", Prompt(200, 96), 500);
  Add("c", Prompt(300, 96), 500);
  EXPECT_EQ(Add("newcomer", Prompt(1, 320), 900), 32u) << "what the others leave";
  EXPECT_EQ(pins_->size(), 4u);
  EXPECT_EQ(Add("d", Prompt(100, 96), 900), 96u) << "pages that are held already cost nothing";
}

TEST_F(PinTableTest, AnOwnerHasSoManyPinsAndNoMore) {
  Compute(Prompt(1, 32));
  Tokens prompt = Prompt(1, 32);
  Add("other", prompt, 1);
  for (size_t i = 0; i < PinTable::kMaxPins + 10; i++) {
    pins_->Add("many", "scope" + std::to_string(i), prompt, At(100));
    Compute(prompt, "scope" + std::to_string(i));
    pins_->Add("many", "scope" + std::to_string(i), prompt, At(100 + static_cast<int>(i)));
    EXPECT_LE(pins_->size(), PinTable::kMaxPins + 1);
    EXPECT_LE(pins_->num_pages(), pins_->max_pages());
  }
  EXPECT_TRUE(pins_->RemoveAll("other") == 1) << "and takes none of others'";
}

}  // namespace
}  // namespace trellis
