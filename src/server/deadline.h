// Until when an answer is of use to its client: the header x-request-timeout. Internal to server/.
#pragma once

#include <chrono>

#include "api/errors.h"
#include "server/session.h"

namespace trellis {

// Never, without the header. ERRORS: it is not seconds.
ApiResult<std::chrono::steady_clock::time_point> DeadlineOf(const HttpRequest& request);
// What has happened then.
Status TooLate();

}  // namespace trellis
