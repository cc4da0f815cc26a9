#include "hub/model_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "hub/http_client.h"
#include "hub/hub.h"
#include "hub/sha256.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;

class ModelStoreTest : public testing::Test {
 protected:
  ModelStoreTest()
      : store_(testing::TempDir() + "trellis_store_" + std::to_string(getpid()) + "/") {}
  ~ModelStoreTest() override { fs::remove_all(store_.folder()); }

  void Put(const std::string& path, size_t bytes = 4) {
    const fs::path file = fs::path(store_.folder()) / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << std::string(bytes, 'x');
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const auto models = store_.List();
    for (const StoredModel& model : *models) {
      names.push_back(model.name + (model.is_whole ? "" : " (partial)"));
    }
    return names;
  }
  std::string Find(const std::string& name) {
    const auto found = store_.Find(name);
    return found.ok() ? found->name : found.status().message();
  }

  ModelStore store_;
};

using Strings = std::vector<std::string>;

TEST_F(ModelStoreTest, AFolderThatIsNotThereIsEmpty) {
  EXPECT_EQ(Names(), Strings{});
  EXPECT_EQ(store_.Find("x").status().code(), StatusCode::kNotFound);
}

// As ext4's lost+found.
TEST_F(ModelStoreTest, AFolderThatMayNotBeReadHasNone) {
  Put("plain.gguf");
  Put("secret/hidden.gguf");
  const fs::path secret = fs::path(store_.folder()) / "secret";
  fs::permissions(secret, fs::perms::none);
  const bool is_root = geteuid() == 0;  // who may read all
  const auto become = [&](uid_t user) { return !is_root || seteuid(user) == 0; };
  ASSERT_TRUE(become(65534));
  const Strings names = Names();
  ASSERT_TRUE(become(0));
  fs::permissions(secret, fs::perms::owner_all);
  EXPECT_EQ(names, Strings{"plain"});
}

TEST_F(ModelStoreTest, NamesAreThoseOfTheHubWhereThatIsClear) {
  Put("plain.gguf");
  Put("u/r/m-Q4_K_M.gguf");
  Put("u/r/m-Q8_0.gguf");
  Put("u/s/one-Q8_0.gguf");
  Put("u/s/two-Q8_0.gguf");
  Put("u/r/F16/m-F16-00001-of-00002.gguf", 10);
  Put("u/r/F16/m-F16-00002-of-00002.gguf", 20);
  Put("u/t/gone-Q4_0.gguf.0123456789ab.partial");
  Put("u/t/half-Q4_1-00001-of-00002.gguf");
  Put("u/r/.lock");
  Put("u/r/README.md");
  EXPECT_EQ(Names(), (Strings{"plain", "u/r:F16", "u/r:Q4_K_M", "u/r:Q8_0", "u/s/one-Q8_0",
                              "u/s/two-Q8_0", "u/t:Q4_0 (partial)", "u/t:Q4_1 (partial)"}));
  const auto split = store_.Find("u/r:F16");
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->bytes, 30u);
  ASSERT_EQ(split->files.size(), 2u);
  EXPECT_EQ(split->files[0], store_.folder() + "/u/r/F16/m-F16-00001-of-00002.gguf");
}

TEST_F(ModelStoreTest, FindsAModelByEachOfItsNames) {
  Put("plain.gguf");
  Put("u/r/m-Q4_K_M.gguf");
  Put("u/r/m-Q8_0.gguf");
  Put("u/s/m-Q8_0.gguf");
  Put("u/t/x-UD-Q4_K_XL.gguf");
  for (const char* name : {"u/r:Q8_0", "u/r:q8_0", "u/r/m-Q8_0", "u/r/m-Q8_0.gguf"})
    EXPECT_EQ(Find(name), "u/r:Q8_0") << name;
  EXPECT_EQ(Find("u/r"), "u/r:Q4_K_M") << "the default";
  for (const char* name : {"m-Q4_K_M", "m-Q4_K_M.gguf"})
    EXPECT_EQ(Find(name), "u/r:Q4_K_M") << name;
  for (const char* name : {"u/t", "u/t:UD-Q4_K_XL", "u/t:Q4_K_XL", "x-UD-Q4_K_XL"})
    EXPECT_EQ(Find(name), "u/t:Q4_K_XL") << name;
  EXPECT_EQ(Find("plain"), "plain");
  EXPECT_EQ(Find("m-Q8_0"), "'m-Q8_0' may be u/r:Q8_0, u/s:Q8_0");
  for (const char* name : {"", "r", "u", "u/r:Q2_K", "lain"})
    EXPECT_EQ(store_.Find(name).status().code(), StatusCode::kNotFound) << name;
}

TEST_F(ModelStoreTest, RemovesOneModelAndTheFoldersThatItLeavesEmpty) {
  Put("u/r/a-Q8_0.gguf");
  Put("u/r/b-Q4_0.gguf.0123456789ab.partial");
  Put("u/r/.lock");
  Put("plain.gguf");
  EXPECT_EQ(store_.Remove("u/r").status().code(), StatusCode::kInvalidArgument) << "it has two";
  EXPECT_EQ(store_.Remove("u/r:Q4_0")->name, "u/r:Q4_0");
  EXPECT_EQ(Names(), (Strings{"plain", "u/r:Q8_0"}));
  EXPECT_TRUE(store_.Remove("u/r").ok());
  EXPECT_FALSE(fs::exists(store_.folder() + "/u"));
  EXPECT_TRUE(store_.Remove("plain").ok());
  EXPECT_TRUE(fs::exists(store_.folder()));
  EXPECT_EQ(store_.Remove("plain").status().code(), StatusCode::kNotFound);
}

TEST_F(ModelStoreTest, NothingIsKeptOutside) {
  EXPECT_EQ(*store_.PathOf("u/r", "a/b.gguf"), store_.folder() + "/u/r/a/b.gguf");
  for (const char* path :
       {"../x.gguf", "a/../../x.gguf", "/etc/x.gguf", "", ".x.gguf", "a/./x.gguf"})
    EXPECT_FALSE(store_.PathOf("u/r", path).ok()) << path;
  EXPECT_FALSE(store_.PathOf("..", "x.gguf").ok());
  EXPECT_EQ(*store_.PathOfUrl("https://Example.org:81/a/x-Q8_0.gguf?token=1"),
            store_.folder() + "/example.org/x-Q8_0.gguf");
  for (const char* url : {"https://example.org/", "https://example.org/x.zip", "ftp://x/y.gguf",
                          "x.gguf", "https://example.org/.gguf"})
    EXPECT_FALSE(store_.PathOfUrl(url).ok()) << url;
}

TEST(Http, OriginsAreComparedAsWebBrowsersDo) {
  EXPECT_EQ(OriginOf("https://Hub.example/a?b"), "https://hub.example:443");
  EXPECT_EQ(OriginOf("http://hub.example:80/"), OriginOf("HTTP://hub.example"));
  EXPECT_NE(OriginOf("http://hub.example:8080/"), OriginOf("http://hub.example/"));
  for (const char* url : {"", "hub.example", "ftp://hub.example", "file:///etc/passwd"})
    EXPECT_EQ(OriginOf(url), "") << url;
  EXPECT_EQ(WithoutSecrets("https://me:pw@hub.example/a.gguf?sig=1"), "https://hub.example/a.gguf");
  EXPECT_EQ(PercentEncoded("a b/ä%.gguf"), "a%20b/%C3%A4%25.gguf");
}

TEST(Hub, TheNextPageIsInTheLinkHeader) {
  EXPECT_EQ(NextPage(R"(<https://h/x?cursor=1>; rel="next")"), "https://h/x?cursor=1");
  EXPECT_EQ(NextPage(R"(<https://h/first>; rel="first", <https://h/2>; rel="next")"),
            "https://h/2");
  EXPECT_EQ(NextPage(R"(<https://h/first>; rel="first")"), "");
  EXPECT_EQ(NextPage("<"), "");
  EXPECT_EQ(NextPage(""), "");
}

TEST(Sha256, IsThatOfTheStandard) {
  Sha256 digest;
  digest.Update("a");
  digest.Update("bc");
  EXPECT_EQ(digest.HexDigest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest.HexDigest(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace trellis
