#include "base/os.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <thread>

#ifdef __linux__
#include <sched.h>
#include <sys/uio.h>
#endif

namespace nearly::os {
namespace {
constexpr size_t kHuge = size_t{2} << 20;

[[noreturn]] void fail(int error, const char* what) { throw std::system_error(error, std::generic_category(), what); }
}  // namespace

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

void read_at(int file, void* to, size_t bytes, uint64_t at) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = pread(file, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(at + done));
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n == 0) {
      fail(EIO, "the file of the vectors ends before them: it was changed while it was open");
    } else if (errno != EINTR) {
      fail(errno, "reading vectors from their file");
    }
  }
}

void write_at(int file, const void* from, size_t bytes, uint64_t at) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = pwrite(file, static_cast<const char*>(from) + done, bytes - done, static_cast<off_t>(at + done));
    if (n >= 0)
      done += static_cast<size_t>(n);
    else if (errno != EINTR)
      fail(errno, "writing vectors to their file");
  }
}

bool read_ready(int file, void* to, size_t bytes, uint64_t at) {
#ifdef RWF_NOWAIT
  const iovec part{to, bytes};
  return preadv2(file, &part, 1, static_cast<off_t>(at), RWF_NOWAIT) == static_cast<ssize_t>(bytes);
#else
  (void)file, (void)to, (void)bytes, (void)at;
  return false;
#endif
}

void ask_for(int file, size_t bytes, uint64_t at) {
#ifdef POSIX_FADV_WILLNEED
  posix_fadvise(file, static_cast<off_t>(at), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);  // a hint
#else
  (void)file, (void)bytes, (void)at;
#endif
}

void set_length(int file, uint64_t bytes) {
  while (ftruncate(file, static_cast<off_t>(bytes)) != 0)
    if (errno != EINTR) fail(errno, "making room in the file of the vectors");
}

uint64_t length(int file) {
  struct stat status;
  if (fstat(file, &status) != 0) fail(errno, "looking at the file of the vectors");
  return static_cast<uint64_t>(status.st_size);
}

void close_file(int file) { close(file); }

long process() { return static_cast<long>(getpid()); }

void around_fork(void (*before)(), void (*parent)(), void (*child)()) { pthread_atfork(before, parent, child); }

}  // namespace nearly::os
