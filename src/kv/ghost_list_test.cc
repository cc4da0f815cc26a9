#include "kv/ghost_list.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

PageKey Key(uint64_t i) {
  return {i, 7 * i};
}

TEST(GhostListTest, RemembersTheLatest) {
  GhostList ghosts(3);
  for (uint64_t i = 0; i < 10; i++) ghosts.Add(Key(i));
  for (uint64_t i = 0; i < 10; i++) EXPECT_EQ(ghosts.Contains(Key(i)), i >= 7) << i;
  EXPECT_EQ(ghosts.size(), 3u);
  ghosts.Clear();
  EXPECT_FALSE(ghosts.Contains(Key(9)));
  EXPECT_EQ(ghosts.num_bytes(), 0u);
}

TEST(GhostListTest, WhatIsAddedAgainIsTheLatest) {
  GhostList ghosts(3);
  for (const uint64_t i : {0, 1, 0, 2}) ghosts.Add(Key(i));
  EXPECT_TRUE(ghosts.Contains(Key(0)));
  ghosts.Add(Key(3));
  ghosts.Add(Key(4));
  EXPECT_FALSE(ghosts.Contains(Key(1)));
  EXPECT_FALSE(ghosts.Contains(Key(0)));
  EXPECT_TRUE(ghosts.Contains(Key(2)));
}

TEST(GhostListTest, IsBoundedWhateverComes) {
  GhostList ghosts(100), none(0);
  for (uint64_t i = 0; i < 100'000; i++) {
    ghosts.Add(Key(i % 37 * (i % 11)));
    none.Add(Key(i));
    ASSERT_LE(ghosts.size(), 100u);
    ASSERT_LE(ghosts.num_bytes(), 100u * 100);
  }
  EXPECT_FALSE(none.Contains(Key(99'999)));
}

}  // namespace
}  // namespace trellis
