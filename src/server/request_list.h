// GET /v1/requests: what requests are doing and how the last ones went, as JSON. Internal to
// server/.
#pragma once

#include "server/service.h"
#include "server/session.h"

namespace trellis {

Reply RequestListReply(const HttpRequest& request, const Caller& caller, const Service& service);

}  // namespace trellis
