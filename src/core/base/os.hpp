// Every call to the operating system, in one place: address space, pages, files, threads' hints.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearly::os {

// Address space without memory behind it; nullptr when the system refuses.
void* reserve(size_t bytes);
// Makes the first `bytes` of a reservation usable, zero-filled; false when memory is short.
bool commit(void* address, size_t bytes, size_t already);
void release(void* address, size_t bytes);
size_t page_size();
size_t hardware_threads();

// Files by descriptor, at positions: threads share one without a lock. What fails throws std::system_error.
void read_at(int file, void* to, size_t bytes, uint64_t at);  // a file that ends before counts as failed
void write_at(int file, const void* from, size_t bytes, uint64_t at);
// Reads what lies in memory already; false, with nothing read, where the drive would have to be asked.
bool read_ready(int file, void* to, size_t bytes, uint64_t at);
// Has the system fetch a part that is read soon.
void ask_for(int file, size_t bytes, uint64_t at);
void set_length(int file, uint64_t bytes);
uint64_t length(int file);
void close_file(int file);
long process();  // which one this is: a child of a fork is another

// Runs `child` in the child process after each fork; `before` and `parent` around it in the parent, where there are any.
void around_fork(void (*before)(), void (*parent)(), void (*child)());
inline void after_fork(void (*child)()) { around_fork(nullptr, nullptr, child); }

}  // namespace nearly::os
