// GET /v1/cache/tree: the live tree, for people and programs that look into it. Internal to
// server/.
#pragma once

#include "server/service.h"
#include "server/session.h"

namespace trellis {

// Waits for the engine's thread, which is between two steps meanwhile.
Reply CacheTreeReply(const HttpRequest& request, const Caller& caller, const Service& service);

}  // namespace trellis
