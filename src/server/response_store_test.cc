#include "server/response_store.h"

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

}  // namespace
}  // namespace trellis
