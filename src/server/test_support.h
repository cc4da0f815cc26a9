// What the server's tests share: a server in this process on a real socket, whose model is a fake
// with a small vocabulary, and a client that can misbehave.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/json_text.h"
#include "engine/test_support.h"
#include "server/server.h"
#include "text/stream_decoder.h"
#include "text/test_vocab.h"

namespace trellis {

// --- A vocabulary: bytes, and the small letters ---

inline constexpr TokenId kEnd = 2;
inline constexpr size_t kTestVocab = 3 + 256 + 27;

inline std::unique_ptr<Tokenizer> TestTokenizer() {
  TestVocab vocab;
  vocab.model = "llama";
  vocab.tokens = {
      {"<unk>", TokenType::kUnknown}, {"<s>", TokenType::kControl}, {"</s>", TokenType::kControl}};
  for (int byte = 0; byte < 256; byte++) {
    vocab.tokens.push_back({fmt::format("<0x{:02X}>", byte), TokenType::kByte});
  }
  vocab.tokens.push_back({"\xE2\x96\x81"});  // SentencePiece's space
  for (char c = 'a'; c <= 'z'; c++) vocab.tokens.push_back({std::string(1, c)});
  for (size_t i = 0; i < vocab.tokens.size(); i++) {
    vocab.tokens[i].score = -static_cast<float>(i);
  }
  TRELLIS_CHECK(vocab.tokens.size() == kTestVocab);
  vocab.add_bos = vocab.add_space_prefix = true;
  vocab.bos = 1;
  vocab.eos = kEnd;
  return trellis::Load(vocab);
}

// --- The server ---

// Holds the engine before its next step while it is closed.
class Gate {
 public:
  void Close() { Set(false); }
  void Open() { Set(true); }
  void Pass() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

 private:
  void Set(bool open) {
    std::lock_guard lock(mutex_);
    open_ = open;
    opened_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = true;
};

struct TestOptions {
  Server::Options server;
  size_t max_queue = 2000, max_running = 64, num_pages = 4000;
  std::string model_name = "fake";
  std::vector<TokenId> end_tokens = {};  // none: an answer is as long as it may be
};

// `before_step` is called on the engine's thread.
inline std::unique_ptr<Service> FakeService(const TestOptions& options,
                                            std::unique_ptr<FakeModel> model,
                                            std::function<void()> before_step) {
  auto service = std::make_unique<Service>();
  model->on_forward = [f = std::move(before_step)](std::span<const SequenceRows>) { f(); };
  service->model_name = options.model_name;
  service->end_tokens = options.end_tokens;
  service->fingerprint = "fp_test";
  service->tokenizer = TestTokenizer();
  service->chat_template = std::move(ChatTemplate::Create(*service->tokenizer, "")).value();
  Engine::Options engine;
  engine.max_queue = options.max_queue;
  engine.max_running = options.max_running;
  service->engine =
      std::move(Engine::Create(*model, MakeCache(*model, options.num_pages), engine)).value();
  service->model = std::move(model);
  return service;
}

class TestServer {
 public:
  TestServer() : TestServer([](TestOptions&) {}) {}
  explicit TestServer(const std::function<void(TestOptions&)>& change) {
    change(options_);
    options_.server.port = 0;
    auto server = Server::Create(options_.server);
    TRELLIS_CHECK(server.ok());
    server_ = std::move(*server);
    thread_ = std::thread([this] { server_->Run(); });
  }
  ~TestServer() {
    gate_.Open();
    Stop();
  }
  void Stop() {
    server_->Stop();
    if (thread_.joinable()) thread_.join();
  }

  TestServer& Load() {
    const auto before_step = [this] {
      gate_.Pass();
      if (on_step) on_step();
    };
    auto model = std::make_unique<FakeModel>(4096, kTestVocab);
    model_ = model.get();
    auto service = FakeService(options_, std::move(model), before_step);
    service_ = service.get();
    server_->SetModels(std::make_unique<ModelPool>(std::move(service)));
    return *this;
  }

  // Instead of Load(): these.
  TestServer& Serve(std::unique_ptr<ModelPool> models) {
    server_->SetModels(std::move(models));
    return *this;
  }

  Server& server() { return *server_; }
  Engine& engine() { return *service_->engine; }
  const Tokenizer& tokenizer() { return *service_->tokenizer; }
  FakeModel& model() { return *model_; }
  Gate& gate() { return gate_; }
  uint16_t port() const { return server_->port(); }

  // Until `condition` of the engine's statistics holds.
  template <typename Condition>
  void Await(const Condition& condition) {
    while (!condition(engine().Stats())) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // What the model says to `prompt`, from the tokens alone.
  std::string ReferenceText(const Tokens& prompt, SamplingParams sampling, size_t max_tokens) {
    GenerateRequest request;
    request.prompt = prompt;
    request.sampling = std::move(sampling);
    return ReferenceText(ReferenceTokens(model(), request, max_tokens));
  }
  std::string ReferenceText(const Tokens& tokens) {
    StreamDecoder decoder(tokenizer(), {}, SpecialTokens::kAsText);
    std::string text;
    for (TokenId token : tokens) text += decoder.Push(token);
    return text + decoder.Finish();
  }

  std::function<void()> on_step;  // on the engine's thread; set before Load

 private:
  TestOptions options_;
  Gate gate_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  Service* service_ = nullptr;
  FakeModel* model_ = nullptr;
};

// --- The client ---

struct Answer {
  unsigned status = 0;
  std::string body;
  boost::beast::http::fields headers;
  Json json() const { return Json::parse(body); }
};

// Blocking; one connection.
class Client {
 public:
  using tcp = boost::asio::ip::tcp;

  explicit Client(const TestServer& server, int receive_buffer_bytes = 0) : socket_(io_) {
    socket_.open(tcp::v4());
    if (receive_buffer_bytes > 0) {
      socket_.set_option(boost::asio::socket_base::receive_buffer_size(receive_buffer_bytes));
    }
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), server.port()});
  }

  void Send(const std::string& bytes) { boost::asio::write(socket_, boost::asio::buffer(bytes)); }
  void SendRequest(const std::string& verb, const std::string& path, const std::string& body = "",
                   const std::string& headers = "") {
    Send(verb + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
  }
  // The next answer. `verb` HEAD has no body.
  Answer Read(const std::string& verb = "GET") {
    boost::beast::http::response_parser<boost::beast::http::string_body> parser;
    parser.body_limit(boost::none);
    parser.skip(verb == "HEAD");
    boost::system::error_code error;
    boost::beast::http::read(socket_, buffer_, parser, error);
    if (error) return {};
    auto message = parser.release();
    Answer answer{message.result_int(), std::move(message.body()), {}};
    answer.headers = std::move(message.base());
    return answer;
  }
  Answer Get(const std::string& path) {
    SendRequest("GET", path);
    return Read();
  }
  Answer Post(const std::string& path, const Json& body) {
    SendRequest("POST", path, body.dump());
    return Read();
  }
  // The bytes that come next, at most `n`; none at the end.
  std::string ReadSome(size_t n) {
    std::string bytes(n, '\0');
    boost::system::error_code error;
    bytes.resize(socket_.read_some(boost::asio::buffer(bytes), error));
    return bytes;
  }
  // Whether an answer has begun to arrive.
  bool HasSomething() { return socket_.available() > 0; }
  void Close() { socket_.close(); }

 private:
  boost::asio::io_context io_;
  tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
};

// The `data:` of each event. Anything else in the stream is a failure.
inline std::vector<std::string> EventsOf(const std::string& stream) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    const std::string event = stream.substr(at, end - at);
    EXPECT_TRUE(end != std::string::npos && event.starts_with("data: ")) << event;
    if (end == std::string::npos) break;
    events.push_back(event.substr(6));
    at = end + 2;
  }
  return events;
}

}  // namespace trellis
