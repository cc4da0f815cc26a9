// What our patches to common/chat.cpp call (see CMakeLists.txt).
#pragma once

#include <string>

namespace jinja {
struct context;
struct string;
}  // namespace jinja
namespace autoparser {
struct autoparser;
}
struct common_chat_template;

namespace trellis_llama {

// Before a template runs: its variables that are no one's input become literal.
void TrustVariables(jinja::context& context);
// After it ran: keeps what it wrote, in parts, for ChatRenderer::Render.
void RecordRender(const jinja::string& rendered);

// How a template writes answers: found out once, by some fifty renders, not for each request.
const autoparser::autoparser& AnalysisOf(const common_chat_template& tmpl);
// What the last render, which had a generation prompt, ends with, if that is a generation prompt
// that the template is known for; else null, and two more renders will tell.
const std::string* KnownGenerationPrompt();

}  // namespace trellis_llama
