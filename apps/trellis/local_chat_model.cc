#include "chat_model.h"

namespace trellis {
namespace {

class LocalChatModel : public ChatModel {
 public:
  explicit LocalChatModel(std::unique_ptr<Service> service) : service_(std::move(service)) {}

  const std::string& name() const override { return service_->model->spec().name; }

  Result<GenerationStats> Answer(const std::vector<ChatMessage>& messages,
                                 const GenerationOptions& options,
                                 const ChatListener& listener) override {
    TRELLIS_ASSIGN_OR_RETURN(ChatPrompt prompt, service_->chat_template->Render(messages));
    return Generate(*service_, std::move(prompt.tokens), options, listener);
  }

 private:
  std::unique_ptr<Service> service_;
};

}  // namespace

Result<std::unique_ptr<ChatModel>> LoadChatModel(const ModelOptions& options) {
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Service> service, LoadService(options, {}));
  return std::unique_ptr<ChatModel>(std::make_unique<LocalChatModel>(std::move(service)));
}

}  // namespace trellis
