// Every call to the operating system, in one place: address space, pages, threads' hints.
#pragma once
#include <cstddef>

namespace nearly::os {

// Address space without memory behind it; nullptr when the system refuses.
void* reserve(size_t bytes);
// Makes the first `bytes` of a reservation usable, zero-filled; false when memory is short.
bool commit(void* address, size_t bytes, size_t already);
void release(void* address, size_t bytes);
size_t page_size();
size_t hardware_threads();
// Runs `child` in the child process after each fork; `before` and `parent` around it in the parent, where there are any.
void around_fork(void (*before)(), void (*parent)(), void (*child)());
inline void after_fork(void (*child)()) { around_fork(nullptr, nullptr, child); }

}  // namespace nearly::os
