#include "server/response_store.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace trellis {
namespace {

std::vector<ChatMessage> Chat(const std::string& text) {
  ChatMessage message;
  message.role = "user";
  message.content = text;
  return {message};
}

TEST(ResponseStoreTest, FindsWhatItsOwnerPut) {
  ResponseStore store;
  store.Put("anna", "resp_1", Chat("hello"));
  ASSERT_TRUE(store.Find("anna", "resp_1"));
  EXPECT_EQ(store.Find("anna", "resp_1")->at(0).content, "hello");
  EXPECT_FALSE(store.Find("ben", "resp_1"));
  EXPECT_FALSE(store.Find("anna", "resp_2"));
}

TEST(ResponseStoreTest, WhatWasNotAskedForLongestGoesFirst) {
  ResponseStore store(3000);
  for (const char* id : {"a", "b"}) store.Put("", id, Chat(std::string(1000, 'x')));
  ASSERT_TRUE(store.Find("", "a"));
  store.Put("", "c", Chat(std::string(1000, 'x')));
  EXPECT_TRUE(store.Find("", "a"));
  EXPECT_FALSE(store.Find("", "b"));
  store.Put("", "d", Chat(std::string(5000, 'x')));  // larger than all of it
  EXPECT_FALSE(store.Find("", "d"));
  EXPECT_TRUE(store.Find("", "c"));
}

TEST(ResponseStoreTest, WhoKeepsMuchMakesNoneOfAnothersBeForgotten) {
  ResponseStore store(10000);
  store.Put("ben", "ben_1", Chat(std::string(1000, 'x')));
  store.Put("ben", "ben_2", Chat(std::string(1000, 'x')));
  for (int i = 0; i < 100; ++i)
    store.Put("anna", fmt::format("anna_{}", i), Chat(std::string(1000, 'x')));
  EXPECT_TRUE(store.Find("ben", "ben_1"));
  EXPECT_TRUE(store.Find("ben", "ben_2"));
  EXPECT_TRUE(store.Find("anna", "anna_99"));
  EXPECT_TRUE(store.Find("anna", "anna_98")) << "what the others do not need is anna's";
  EXPECT_FALSE(store.Find("anna", "anna_0"));
  // Ben has fewer, and gets room from who has more.
  store.Put("ben", "ben_3", Chat(std::string(1000, 'x')));
  for (const char* id : {"ben_1", "ben_2", "ben_3"}) EXPECT_TRUE(store.Find("ben", id)) << id;
  EXPECT_TRUE(store.Find("anna", "anna_99"));
}

TEST(ResponseStoreTest, WhatIsLargerThanAllThatOthersHaveIsNotKept) {
  ResponseStore store(10000);
  store.Put("ben", "ben_1", Chat(std::string(4000, 'x')));
  store.Put("anna", "anna_1", Chat(std::string(8000, 'x')));
  EXPECT_TRUE(store.Find("ben", "ben_1"));
  EXPECT_FALSE(store.Find("anna", "anna_1"));
  store.Put("anna", "anna_2", Chat(std::string(4000, 'x')));
  EXPECT_TRUE(store.Find("anna", "anna_2"));
}

}  // namespace
}  // namespace trellis
