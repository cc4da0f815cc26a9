// From the name in a request to a lease of that model. Internal to server/.
#pragma once

#include <chrono>
#include <functional>

#include "api/errors.h"
#include "server/model_pool.h"
#include "server/session.h"

namespace trellis {

// The name of the model that the request means, in the query of one that looks or in the body;
// empty: none.
ApiResult<std::string> ModelNameOf(const HttpRequest& request);

// Of the error where the client has left: nobody is to be told.
inline constexpr int kLeftStatus = 499;

// Leases it, when it is loaded. Every keep_alive_interval until then `keep_alive` is called, which
// may be empty; false: the client is gone.
// ERRORS: no such model; it cannot be loaded; `deadline` has come; kLeftStatus: the client has
// left.
using KeepAlive = std::function<net::awaitable<bool>()>;
net::awaitable<ApiResult<ModelLease>> AcquireModel(const HttpRequest& request, const Caller& caller,
                                                   Stream& stream, ServerState& state,
                                                   std::chrono::steady_clock::time_point deadline,
                                                   const KeepAlive& keep_alive);

// Of a model that is loaded, for who only looks.
ApiResult<ModelLease> LookAtModel(const HttpRequest& request, ServerState& state);

}  // namespace trellis
