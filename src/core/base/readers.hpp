// Who reads now: a writer that took something out waits until nobody can still see it, then uses its place again.
//
// A reader counts itself in the half of the epoch in which it begins. A writer moves on to the next epoch, whose readers
// cannot find what was taken out before, and waits for the old half to be empty: what Linux calls SRCU (McKenney, "Sleepable
// Read-Copy Update", LWN 2006), with one pair of counters for all threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <stdexcept>

#include "base/threads.hpp"

namespace nearly {

class Readers {
 public:
  Readers();
  ~Readers();
  Readers(const Readers&) = delete;

  // One reader, from its beginning to its end.
  class Reading {
   public:
    explicit Reading(Readers& readers);
    ~Reading();
    Reading(const Reading&) = delete;
    uint64_t epoch() const { return epoch_; }

   private:
    Readers& readers_;
    uint64_t epoch_;
    const uint32_t forks_;
  };

  uint64_t epoch() const { return epoch_.load(); }
  // Returns when every reader that was here at the call has ended. Writers wait one after the other; a reader that waits
  // for itself waits for ever.
  void wait(const Poll& poll);
  // The two halves of `wait`, for a writer that does something between them: readers to come are of the next epoch; those
  // of this epoch, the one before the last move, have ended.
  void move_on(const Poll& poll);
  void drain(uint64_t epoch, const Poll& poll) const;

 private:
  static void before_fork();
  static void after_fork_in_parent();
  static void after_fork_in_child();

  alignas(64) std::atomic<uint64_t> epoch_{0};
  std::atomic<uint32_t> inside_[2] = {};
  std::atomic<bool> waited_for_{false};
  Readers *previous_ = nullptr, *next_ = nullptr;  // all that exist, for forks
};

// What was read is no longer kept up to date, and the reader came too late for it: look for what took its place.
struct Retired : std::runtime_error {
  Retired() : std::runtime_error("another object took the place of this one; read that") {}
};

// Whether a thing of tables that readers go through is kept up to date. Once another one took its place, it is right for
// the readers of that epoch only: later, places that it still names may be used again.
class Validity {
 public:
  void retire(const Readers& readers) { last_.store(readers.epoch(), std::memory_order_release); }
  // Throws Retired.
  void check(const Readers::Reading& reading) const {
    if (reading.epoch() > last_.load(std::memory_order_acquire)) throw Retired();
  }

 private:
  std::atomic<uint64_t> last_{~uint64_t{0}};
};

}  // namespace nearly
