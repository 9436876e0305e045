#include "base/os.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace nearly::os {
namespace {
constexpr size_t kHuge = size_t{2} << 20;
}

size_t page_size() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void* reserve(size_t bytes) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  // One huge page more than asked, so that the start can be aligned; the loose ends go back.
  void* address = mmap(nullptr, bytes + kHuge, PROT_NONE, flags, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(address);
  const uintptr_t aligned = (start + kHuge - 1) / kHuge * kHuge;
  if (aligned > start) munmap(address, aligned - start);
  if (aligned + bytes < start + bytes + kHuge)
    munmap(reinterpret_cast<void*>(aligned + bytes), start + kHuge - aligned);
  return reinterpret_cast<void*>(aligned);
}

bool commit(void* address, size_t bytes, size_t already) {
  const size_t page = page_size();
  const size_t from = already / page * page, to = (bytes + page - 1) / page * page;
  if (to <= from) return true;
  char* start = static_cast<char*>(address) + from;
  if (mprotect(start, to - from, PROT_READ | PROT_WRITE) != 0) return false;
#ifdef MADV_HUGEPAGE
  if (to >= kHuge) madvise(address, to, MADV_HUGEPAGE);  // a hint: refused is fine
#endif
  return true;
}

void release(void* address, size_t bytes) { munmap(address, bytes); }

size_t hardware_threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<size_t>(CPU_COUNT(&set));
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? n : 1;
}

void around_fork(void (*before)(), void (*parent)(), void (*child)()) { pthread_atfork(before, parent, child); }

}  // namespace nearly::os
