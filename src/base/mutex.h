// Mutex, MutexLock, CondVar: the standard ones with names that clang's thread safety analysis
// (-Wthread-safety) understands, so that "guarded by" is checked by the compiler and not only
// written in a comment.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TRELLIS_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define TRELLIS_THREAD_ANNOTATION(x)
#endif

#define TRELLIS_CAPABILITY(name) TRELLIS_THREAD_ANNOTATION(capability(name))
#define TRELLIS_SCOPED_CAPABILITY TRELLIS_THREAD_ANNOTATION(scoped_lockable)
#define TRELLIS_GUARDED_BY(mutex) TRELLIS_THREAD_ANNOTATION(guarded_by(mutex))
#define TRELLIS_REQUIRES(...) TRELLIS_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define TRELLIS_ACQUIRE(...) TRELLIS_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TRELLIS_RELEASE(...) TRELLIS_THREAD_ANNOTATION(release_capability(__VA_ARGS__))

namespace trellis {

class TRELLIS_CAPABILITY("mutex") Mutex {
 public:
  void Lock() TRELLIS_ACQUIRE() { mutex_.lock(); }
  void Unlock() TRELLIS_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class TRELLIS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TRELLIS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() TRELLIS_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// As std::condition_variable: wake-ups may be spurious, so wait in a loop over the condition.
class CondVar {
 public:
  void Wait(Mutex& mutex) TRELLIS_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      TRELLIS_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait_until(lock, deadline);
    lock.release();
  }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace trellis
