// Our own thread pool: chunks of a loop handed out in order, results independent of who ran them.
#pragma once
#include <cstddef>
#include <functional>

namespace nearly {

// Called on the thread that started a loop, about every 50 ms; throws to end the loop (Ctrl-C, a callback's error).
using Poll = std::function<void()>;

// body(begin, end) over [0, n) in chunks of `grain`, on at most `threads` threads, the caller's among them.
// The first exception of any chunk is thrown here after all running chunks have ended.
void parallel_for(size_t n, size_t grain, size_t threads, const std::function<void(size_t, size_t)>& body,
                  const Poll& poll = {});

// For bodies that take long: polls when 50 ms have passed since this thread polled last. Helpers do not poll.
void poll_if_due(const Poll& poll);

size_t default_threads();
void set_default_threads(size_t n);  // 0: as many as the machine gives this process

}  // namespace nearly
