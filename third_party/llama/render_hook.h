// What our patches to common/chat.cpp call (see CMakeLists.txt).
#pragma once

namespace jinja {
struct context;
struct string;
}  // namespace jinja

namespace trellis_llama {

// Before a template runs: its variables that are no one's input become literal.
void TrustVariables(jinja::context& context);
// After it ran: keeps what it wrote, in parts, for ChatRenderer::Render.
void RecordRender(const jinja::string& rendered);

}  // namespace trellis_llama
