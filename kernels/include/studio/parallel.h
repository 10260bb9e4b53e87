// Loops over several threads: torch's OpenMP threads where they are, else a pool of our own.
#pragma once

#include <sched.h>
#include <stdint.h>

#include "studio/entry.h"

namespace studio {

using ParallelTask = void (*)(void* context, int64_t index, int worker);

// Runs task(context, i, worker) for 0 <= i < count on at most `threads` threads, worker < threads. Indices are handed
// out in rising order. Which worker takes which is left to chance, so a task must write to places of its index alone.
// Called from two threads at once, one of them runs its loop by itself. The first exception of a task is thrown again
// here.
void parallel_run(int threads, int64_t count, ParallelTask task, void* context);

inline namespace STUDIO_ISA {

// body(index, worker)
template <class Body>
void parallel_for(int threads, int64_t count, Body&& body) {
  parallel_run(
      threads, count,
      [](void* context, int64_t index, int worker) { (*static_cast<Body*>(context))(index, worker); }, &body);
}

// How many tasks of a loop have left what others of the same loop wait for. A task may wait for tasks of lower indices
// alone, which are done or on a worker, and none of them may throw.
class Progress {
 public:
  void add_one() { __atomic_fetch_add(&done_, 1, __ATOMIC_RELEASE); }
  void wait_for(int64_t count) const {
    while (__atomic_load_n(&done_, __ATOMIC_ACQUIRE) < count) sched_yield();
  }

 private:
  int64_t done_ = 0;
};

}  // namespace STUDIO_ISA
}  // namespace studio
