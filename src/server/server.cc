#include "server/server.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <thread>
#include <vector>

#include "server/session.h"

namespace trellis {

namespace {

// Every connection costs a descriptor, and the usual soft limit is 1,024.
void RaiseDescriptorLimit(const Log& log) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
    log.Warning("open_files", {{"message", "cannot raise the limit of open files"}});
}

}  // namespace

struct Server::Impl {
  explicit Impl(const Options& options)
      : state(options),
        io(static_cast<int>(options.num_threads)),
        strand(net::make_strand(io)),
        acceptor(strand),
        signals(strand),
        hangup(strand) {}

  // Sessions have leases: it goes last.
  std::unique_ptr<ModelPool> models;
  ServerState state;
  net::io_context io;
  net::strand<net::io_context::executor_type> strand;  // of the acceptor and the signals
  net::ip::tcp::acceptor acceptor;
  net::signal_set signals, hangup;
  std::atomic<bool> stopping{false};
  std::promise<void> stop_wanted;

  net::awaitable<void> Accept() {
    for (;;) {
      while (state.open_connections >= state.options.max_connections && !stopping) {
        net::steady_timer pause(strand, std::chrono::milliseconds(50));
        boost::system::error_code ignored;
        co_await pause.async_wait(net::redirect_error(net::use_awaitable, ignored));
      }
      auto connection = net::make_strand(io.get_executor());
      Stream stream(connection);
      boost::system::error_code error;
      co_await acceptor.async_accept(stream.socket(),
                                     net::redirect_error(net::use_awaitable, error));
      if (error == net::error::operation_aborted || stopping) co_return;
      if (error) {  // out of descriptors: let some close
        net::steady_timer pause(strand, std::chrono::milliseconds(50));
        co_await pause.async_wait(net::redirect_error(net::use_awaitable, error));
        continue;
      }
      stream.socket().set_option(net::ip::tcp::no_delay(true), error);
      auto open_connection = std::make_unique<Counted>(state.open_connections);
      net::co_spawn(connection, RunSession(std::move(stream), std::move(open_connection), state),
                    net::detached);
    }
  }

  // What is thrown, when there is no memory for a connection, is not the end of accepting.
  void StartAccepting() {
    net::co_spawn(strand, Accept(), [this](const std::exception_ptr& thrown) {
      if (!thrown) return;
      try {
        std::rethrow_exception(thrown);
      } catch (const std::exception& error) {
        state.log.Error("exception", {{"message", error.what()}});
      }
      StartAccepting();
    });
  }

  // What a handler throws, when there is no memory for it, is the end of that handler alone.
  void Serve() {
    for (bool is_over = false; !is_over;) {
      try {
        io.run();
        is_over = true;
      } catch (const std::exception& error) {
        state.log.Error("exception", {{"message", error.what()}});
      }
    }
  }

  // The first signal stops in order, a second one at once.
  void WaitForSignal() {
    signals.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      if (stopping) {
        signals.clear();  // which brings back what the signal does by itself
        std::raise(signal);
        return;
      }
      const auto seconds = state.options.drain_timeout.count() / 1000;
      state.log.Info("stopping", {{"message", fmt::format("running answers have {} s to finish; "
                                                          "another signal stops at once",
                                                          seconds)}});
      Stop();
      WaitForSignal();
    });
  }

  void WaitForHangup() {
    hangup.async_wait([this](const boost::system::error_code& error, int) {
      if (error) return;
      // A file may be on a disk that is slow.
      net::post(state.blocking, [this] { (void)ReloadKeys(); });
      WaitForHangup();
    });
  }

  Status ReloadKeys() {
    if (state.options.key_file.empty()) {
      state.log.Info("keys_kept", {{"message", "there is no file of keys (--api-key-file)"}});
      return Status::Ok();
    }
    Result<ApiKeys> keys = ApiKeys::Read(state.options.key_file);
    if (!keys.ok()) {
      const std::string& why = keys.status().message();
      state.log.Error("keys_kept", {{"message", "the keys stay as they were: " + why}});
      return keys.status();
    }
    const size_t num_keys = keys->size();
    state.keys.Set(std::move(*keys));
    state.log.Info("keys_reloaded", {{"keys", num_keys}});
    return Status::Ok();
  }

  // From any thread, also before Run().
  void Stop() {
    if (stopping.exchange(true)) return;
    state.draining = true;
    net::post(strand, [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
    });
    stop_wanted.set_value();
  }

  // Returns when running answers have finished and are written, or their time is up.
  void Drain() {
    const auto deadline =
        std::chrono::steady_clock::now() + state.options.drain_timeout + std::chrono::seconds(2);
    if (ModelPool* all = state.models) all->Drain(state.options.drain_timeout);
    // The last tokens are still on their way to the clients.
    while (state.active_requests > 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Create(const Options& options) {
  auto impl = std::make_unique<Impl>(options);
  RaiseDescriptorLimit(impl->state.log);
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

void Server::SetModels(std::unique_ptr<ModelPool> models) {
  impl_->models = std::move(models);
  impl_->state.models = impl_->models.get();
}

void Server::Run() {
  Impl& impl = *impl_;
  impl.signals.add(SIGINT);
  impl.signals.add(SIGTERM);
  impl.WaitForSignal();
  // Without keys it is what a service manager asks for all the same; to who has closed the terminal
  // it means the end.
  if (!impl.state.options.key_file.empty() || isatty(STDIN_FILENO) == 0) {
    impl.hangup.add(SIGHUP);
    impl.WaitForHangup();
  }
  const auto work = net::make_work_guard(impl.io);
  impl.StartAccepting();
  std::vector<std::thread> threads;
  for (size_t t = 0; t < impl.state.options.num_threads; t++) {
    threads.emplace_back([&impl] { impl.Serve(); });
  }
  impl.stop_wanted.get_future().wait();
  impl.Drain();
  impl.state.stopped = true;
  impl.io.stop();
  for (std::thread& thread : threads) thread.join();
  // Nothing may post to connections that are gone: neither these pools nor the engines.
  impl.state.blocking.join();
  impl.state.text.join();
  if (ModelPool* models = impl.state.models) models->Drain(std::chrono::milliseconds(0));
}

void Server::Stop() {
  impl_->Stop();
}
Status Server::ReloadKeys() {
  return impl_->ReloadKeys();
}

}  // namespace trellis
