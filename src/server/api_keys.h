// ApiKeys: who may use the server. A key is a tenant: it has a share of the machine
// (sched/fair_share.h) and a cache scope of its own, unless its line puts it into one with others.
//
// The file has a line for each key; a word that begins with '#' begins a comment.
//
//   KEY                  a cache of its own
//   KEY scope=NAME       shares what is cached with the other keys of NAME
//   KEY admin            may also reset the cache of everyone
//
// THREADS: ApiKeys is immutable once read.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace trellis {

enum class Role { kUser, kAdmin };

struct ApiKey {
  std::string secret;
  std::string scope;  // different for keys that share nothing
  Role role = Role::kUser;
};

class ApiKeys {
 public:
  // No keys: everybody may do everything.
  ApiKeys() = default;
  // ERRORS: kIo (cannot be read), kInvalidArgument (no key in it, one twice, a word that means
  // nothing), with the line's number; never with what is in it.
  static Result<ApiKeys> Read(const std::string& path);
  static Result<ApiKeys> Parse(std::string_view text);

  bool empty() const { return keys_.empty(); }
  size_t size() const { return keys_.size(); }
  // The key that equals `secret`, or null. Takes as long whatever it begins with.
  const ApiKey* Find(std::string_view secret) const;

 private:
  std::vector<ApiKey> keys_;
};

// The keys that count now. They may be exchanged while requests are served: who has looked one up
// keeps it. A key that is in both files keeps its name, and so its cache, its pins and its share.
// THREADS: any.
class CurrentKeys {
 public:
  explicit CurrentKeys(ApiKeys keys) { Set(std::move(keys)); }

  std::shared_ptr<const ApiKeys> Get() const {
    MutexLock lock(mutex_);
    return keys_;
  }
  void Set(ApiKeys keys) {
    auto exchanged = std::make_shared<const ApiKeys>(std::move(keys));
    MutexLock lock(mutex_);
    keys_.swap(exchanged);  // the old ones go without the lock
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_ TRELLIS_GUARDED_BY(mutex_);
};

// What a request carries: "Authorization: Bearer KEY" (OpenAI's), or "x-api-key: KEY"
// (Anthropic's).
std::string_view SecretOf(std::string_view authorization, std::string_view x_api_key);

}  // namespace trellis
