#include "base/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "base/os.hpp"

namespace nearly {
namespace {

thread_local bool t_helper = false;  // a thread of the pool

struct Job {
  size_t n, grain;
  const std::function<void(size_t, size_t)>* body;
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  size_t helpers_wanted = 0, helpers_inside = 0;  // under the pool's mutex
  std::exception_ptr error{};                     // under the pool's mutex
};

class Pool {
 public:
  void run(Job& job, size_t threads, const Poll& poll) {
    {
      std::lock_guard lock(mutex_);
      job.helpers_wanted = threads - 1;
      try {
        for (; workers_ < threads - 1; ++workers_) std::thread([this] { work(); }).detach();
      } catch (const std::system_error&) {  // the system gives no more: those there are do it all, if only the caller
      }
      jobs_.push_back(&job);
    }
    wake_.notify_all();
    drain(job, &poll);
    require_same_process();
    std::unique_lock lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    while (job.helpers_inside > 0) {
      done_.wait_for(lock, std::chrono::milliseconds(20));
      if (!poll || job.stop) continue;
      lock.unlock();
      poll_once(job, poll);  // one slow chunk on another thread must not hold up Ctrl-C
      require_same_process();
      lock.lock();
    }
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  // A signal handler that forks: its child is here too, but none of the threads that had chunks of the loop.
  void require_same_process() const;

  void fail(Job& job, std::exception_ptr error) {
    job.stop = true;
    std::lock_guard lock(mutex_);
    if (!job.error) job.error = std::move(error);
  }

  void poll_once(Job& job, const Poll& poll) {
    try {
      poll_if_due(poll);
    } catch (...) {
      fail(job, std::current_exception());
    }
  }

  void drain(Job& job, const Poll* poll) {
    while (!job.stop.load(std::memory_order_relaxed)) {
      const size_t begin = job.next.fetch_add(job.grain);
      if (begin >= job.n) return;
      try {
        (*job.body)(begin, std::min(job.n, begin + job.grain));
      } catch (...) {
        return fail(job, std::current_exception());
      }
      if (poll) poll_once(job, *poll);
    }
  }

  void work() {
    t_helper = true;
    std::unique_lock lock(mutex_);
    for (;;) {
      Job* job = nullptr;
      for (Job* j : jobs_)
        if (j->helpers_wanted > 0 && j->next.load() < j->n && !j->stop) {
          job = j;
          break;
        }
      if (!job) {
        wake_.wait(lock);
        continue;
      }
      --job->helpers_wanted;
      ++job->helpers_inside;
      lock.unlock();
      drain(*job, nullptr);
      lock.lock();
      if (--job->helpers_inside == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  size_t workers_ = 0;
};

// Never destroyed: detached workers may outlive main, and a forked child has none of its parent's threads, so it gets a
// pool of its own and leaves the parent's alone.
std::atomic<Pool*> g_pool{nullptr};
std::atomic<size_t> g_threads{0};

Pool& pool() {
  Pool* current = g_pool.load(std::memory_order_acquire);
  if (current) return *current;
  auto* fresh = new Pool;
  if (g_pool.compare_exchange_strong(current, fresh)) {
    static std::once_flag once;
    std::call_once(once, [] { os::after_fork([] { g_pool.store(nullptr); }); });
    return *fresh;
  }
  delete fresh;
  return *current;
}

void Pool::require_same_process() const {
  if (g_pool.load() != this) throw std::runtime_error("this process was forked in the middle of a loop of several threads");
}

}  // namespace

// Counted over all loops of a thread: a build is many short ones.
void poll_if_due(const Poll& poll) {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point last = Clock::now();
  if (!poll || t_helper) return;
  const auto now = Clock::now();
  if (now - last < std::chrono::milliseconds(50)) return;
  last = now;
  poll();
}

size_t default_threads() {
  const size_t set = g_threads.load();
  return set ? set : os::hardware_threads();
}

void set_default_threads(size_t n) { g_threads = n; }

void parallel_for(size_t n, size_t grain, size_t threads, const std::function<void(size_t, size_t)>& body,
                  const Poll& poll) {
  if (n == 0) return;
  grain = std::max<size_t>(1, grain);
  threads = std::min(threads ? threads : default_threads(), (n + grain - 1) / grain);
  Job job{.n = n, .grain = grain, .body = &body};
  if (threads > 1) return pool().run(job, threads, poll);
  for (size_t begin = 0; begin < n; begin += grain) {
    body(begin, std::min(n, begin + grain));
    if (begin + grain < n) poll_if_due(poll);
  }
}

}  // namespace nearly
