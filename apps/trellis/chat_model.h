// ChatModel: what a chat is with, a model in this process or a server elsewhere.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "generation.h"
#include "loading.h"
#include "text/chat_template.h"

namespace trellis {

struct ChatListener : GenerationListener {
  // What a model thinks before it answers, where a server sends that apart.
  std::function<void(std::string_view)> on_thought;
};

class ChatModel {
 public:
  virtual ~ChatModel() = default;
  virtual const std::string& name() const = 0;
  // Streams the answer to `messages`. What a listener throws ends it.
  // ERRORS: those of the model or server; the chat can go on.
  virtual Result<GenerationStats> Answer(const std::vector<ChatMessage>& messages,
                                         const GenerationOptions& options,
                                         const ChatListener& listener) = 0;
};

// Loads the model of `options`, which ResolveModel has seen. ERRORS: those of LoadService.
Result<std::unique_ptr<ChatModel>> LoadChatModel(const ModelOptions& options);

// A server that has OpenAI's POST /v1/chat/completions. `model`: what it calls the model; empty:
// the first that it lists. Options that are the default are not sent, as others' servers refuse
// what they do not know. ERRORS: it cannot be reached, refuses the key, lists no model.
Result<std::unique_ptr<ChatModel>> ConnectChatModel(const std::string& url,
                                                    const std::string& api_key,
                                                    const std::string& model);

}  // namespace trellis
