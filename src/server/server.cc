#include "server/server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <thread>
#include <vector>

#include "server/session.h"

namespace trellis {

struct Server::Impl {
  explicit Impl(const Options& options)
      : io(static_cast<int>(options.num_threads)), acceptor(io), signals(io) {
    state.options = options;
  }

  // Sessions use the service: it goes last.
  std::unique_ptr<Service> service;
  ServerState state;
  net::io_context io;
  net::ip::tcp::acceptor acceptor;
  net::signal_set signals;
  std::atomic<bool> stopping{false};
  std::thread drainer;

  net::awaitable<void> Accept() {
    for (;;) {
      auto strand = net::make_strand(io.get_executor());
      Stream stream(strand);
      boost::system::error_code error;
      co_await acceptor.async_accept(stream.socket(),
                                     net::redirect_error(net::use_awaitable, error));
      if (error == net::error::operation_aborted || stopping) co_return;
      if (error) {  // out of descriptors: let some close
        net::steady_timer pause(io, std::chrono::milliseconds(50));
        co_await pause.async_wait(net::redirect_error(net::use_awaitable, error));
        continue;
      }
      stream.socket().set_option(net::ip::tcp::no_delay(true), error);
      net::co_spawn(strand, RunSession(std::move(stream), state), net::detached);
    }
  }

  // Lets what runs finish, then ends the loop. Own thread: Drain() blocks.
  void Stop() {
    if (stopping.exchange(true)) return;
    state.draining = true;
    net::post(io, [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
      signals.cancel(ignored);
    });
    drainer = std::thread([this] {
      const auto deadline =
          std::chrono::steady_clock::now() + state.options.drain_timeout + std::chrono::seconds(2);
      if (Service* s = state.service.load()) s->engine->Drain(state.options.drain_timeout);
      // The last tokens are still on their way to the clients.
      while (state.active_requests > 0 && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      io.stop();
    });
  }
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Create(const Options& options) {
  auto impl = std::make_unique<Impl>(options);
  boost::system::error_code error;
  const auto address =
      net::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
  if (error)
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("--host {}: not an IP address", options.host));
  const net::ip::tcp::endpoint endpoint(address, options.port);
  impl->acceptor.open(endpoint.protocol(), error);
  if (!error) impl->acceptor.set_option(net::socket_base::reuse_address(true), error);
  if (!error) impl->acceptor.bind(endpoint, error);
  if (!error) impl->acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error) {
    return Status(StatusCode::kIo, fmt::format("cannot listen on {}:{}: {}", options.host,
                                               options.port, error.message()));
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

uint16_t Server::port() const {
  return impl_->acceptor.local_endpoint().port();
}
LoadProgress& Server::load_progress() {
  return impl_->state.progress;
}

void Server::SetService(std::unique_ptr<Service> service) {
  impl_->service = std::move(service);
  impl_->state.service = impl_->service.get();
}

void Server::Run() {
  Impl& impl = *impl_;
  impl.signals.add(SIGINT);
  impl.signals.add(SIGTERM);
  impl.signals.async_wait([&impl](const boost::system::error_code& error, int) {
    if (error) return;
    spdlog::info("stopping: running answers have {} s to finish",
                 impl.state.options.drain_timeout.count() / 1000);
    impl.Stop();
  });
  auto work = net::make_work_guard(impl.io);
  net::co_spawn(impl.io, impl.Accept(), net::detached);
  std::vector<std::thread> threads;
  for (size_t t = 1; t < impl.state.options.num_threads; t++)
    threads.emplace_back([&impl] { impl.io.run(); });
  impl.io.run();
  for (std::thread& thread : threads) thread.join();
  if (impl.drainer.joinable()) impl.drainer.join();
}

void Server::Stop() {
  impl_->Stop();
}

}  // namespace trellis
