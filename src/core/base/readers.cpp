#include "base/readers.hpp"

#include <chrono>
#include <mutex>
#include <thread>

#include "base/os.hpp"

namespace nearly {
namespace {

// All that exist. Never destroyed: a static one might be gone before the last Readers.
std::mutex& registry() {
  static auto* mutex = new std::mutex;
  return *mutex;
}
Readers* g_first = nullptr;            // under the registry
std::atomic<uint32_t> g_forks{0};      // of this process and its parents, since the first Readers

// First politely, then asleep: readers take from microseconds to seconds.
class Patience {
 public:
  explicit Patience(const Poll& poll) : poll_(poll) {}
  void wait() {
    if (++turns_ < 64)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(turns_ < 1024 ? 50 : 1000));
    poll_if_due(poll_);
  }

 private:
  const Poll& poll_;
  size_t turns_ = 0;
};

}  // namespace

Readers::Readers() {
  static std::once_flag once;
  std::call_once(once, [] { os::around_fork(before_fork, after_fork_in_parent, after_fork_in_child); });
  const std::lock_guard lock(registry());
  next_ = g_first;
  if (next_) next_->previous_ = this;
  g_first = this;
}

Readers::~Readers() {
  const std::lock_guard lock(registry());
  if (next_) next_->previous_ = previous_;
  (previous_ ? previous_->next_ : g_first) = next_;
}

// Sequential order throughout: count first, then look whether the epoch is still the same, as the writer moves the epoch
// first and then looks at the count.
Readers::Reading::Reading(Readers& readers) : readers_(readers), epoch_(readers.epoch_.load()), forks_(g_forks.load()) {
  for (;;) {
    readers_.inside_[epoch_ & 1].fetch_add(1);
    const uint64_t now = readers_.epoch_.load();
    // Moved on twice is as good: what was counted is the half of now.
    if ((now & 1) == (epoch_ & 1)) {
      epoch_ = now;
      return;
    }
    readers_.inside_[epoch_ & 1].fetch_sub(1);
    epoch_ = now;
  }
}

Readers::Reading::~Reading() {
  if (forks_ == g_forks.load(std::memory_order_relaxed)) readers_.inside_[epoch_ & 1].fetch_sub(1);
}

void Readers::wait(const Poll& poll) {
  Patience patience(poll);
  while (waited_for_.exchange(true)) patience.wait();
  struct Done {
    std::atomic<bool>& flag;
    ~Done() { flag.store(false); }
  };
  const Done done{waited_for_};
  const uint64_t old = epoch_.load();
  move_on(poll);
  drain(old, poll);
}

void Readers::move_on(const Poll& poll) {
  // The half to come may still hold readers whom a writer was kept from waiting for, by Ctrl-C.
  const uint64_t old = epoch_.load();
  drain(old + 1, poll);
  epoch_.store(old + 1);
}

void Readers::drain(uint64_t epoch, const Poll& poll) const {
  Patience patience(poll);
  while (inside_[epoch & 1].load() > 0) patience.wait();
}

// A child has none of its parent's threads but the one that forked: nobody reads there. The registry is whole meanwhile.
void Readers::before_fork() { registry().lock(); }

void Readers::after_fork_in_parent() { registry().unlock(); }

void Readers::after_fork_in_child() {
  g_forks.fetch_add(1);
  for (Readers* readers = g_first; readers; readers = readers->next_) {
    readers->inside_[0].store(0);
    readers->inside_[1].store(0);
    readers->waited_for_.store(false);
  }
  registry().unlock();
}

}  // namespace nearly
