#include "studio/parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace studio {
namespace {

struct Loop {
  int64_t count;
  ParallelTask task;
  void* context;
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;

  void work(int worker) {
    try {
      for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
        task(context, index, worker);
      }
    } catch (...) {
      next.store(count);
      std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  }
};

// Threads sleep between loops and live as long as the process.
class Pool {
 public:
  // False when another thread's loop holds the pool.
  bool run(int threads, Loop& loop) {
    std::unique_lock owner(owner_, std::try_to_lock);
    if (!owner) return false;
    while (static_cast<int>(helpers_.size()) < threads - 1) {
      helpers_.emplace_back([this, worker = static_cast<int>(helpers_.size()) + 1] { help(worker); });
      helpers_.back().detach();
    }
    {
      std::lock_guard lock(mutex_);
      loop_ = &loop;
      invited_ = running_ = threads - 1;
      ++round_;
    }
    wake_.notify_all();
    loop.work(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    return true;
  }

 private:
  void help(int worker) {
    uint64_t seen = 0;
    for (std::unique_lock lock(mutex_);;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (worker > invited_) continue;
      Loop* loop = loop_;
      lock.unlock();
      loop->work(worker);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> helpers_;
  Loop* loop_ = nullptr;
  int invited_ = 0, running_ = 0;
  uint64_t round_ = 0;
};

// Never destroyed: its threads may outlive static destructors. A forked child has no threads and starts anew.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<bool> forked{false};

Pool& pool() {
  static const bool once = [] {
    the_pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool, forked = true; });
    return true;
  }();
  (void)once;
  return *the_pool;
}

// Runs the loop on the OpenMP threads that the process already has, torch's; false where it has none. After each of
// torch's own loops these spin for milliseconds, on cores that threads of our own would have to share with them.
// All of them are asked for, however short the loop: the runtime ends those that a smaller team leaves over. In a
// forked child it would wait for threads that are no more.
bool run_on_openmp(int threads, Loop& loop) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (parallel == nullptr || forked) return false;
  struct Team {
    Loop* loop;
    std::atomic<int> workers;
  } team{&loop, {0}};
  const auto work = [](void* context) {
    Team& team = *static_cast<Team*>(context);
    team.loop->work(team.workers.fetch_add(1, std::memory_order_relaxed));
  };
  parallel(work, &team, static_cast<unsigned>(threads), 0);
  return true;
}

}  // namespace

void parallel_run(int threads, int64_t count, ParallelTask task, void* context) {
  Loop loop{count, task, context, {}, {}, {}};
  if (threads <= 1 || count <= 1) {
    loop.work(0);
  } else if (Pool& own = pool(); !run_on_openmp(threads, loop)) {
    if (!own.run(static_cast<int>(std::min<int64_t>(threads, count)), loop)) loop.work(0);
  }
  if (loop.failure) std::rethrow_exception(loop.failure);
}

}  // namespace studio
