#include "kernels/table.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nearly::kernels {

namespace baseline { extern const Table table; }
#ifdef NEARLY_HAS_AVX2
namespace avx2 { extern const Table table; }
#endif
#ifdef NEARLY_HAS_AVX512
namespace avx512 { extern const Table table; }
#endif

namespace {

struct Target {
  const Table* table;
  bool runs;
};

// Best first.
const Target* targets() {
  static const Target list[] = {
#ifdef NEARLY_HAS_AVX512
      // The Ice Lake / Zen 4 set; machines with less take avx2.
      {&avx512::table, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
                           __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq")},
#endif
#ifdef NEARLY_HAS_AVX2
      {&avx2::table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")},
#endif
      {&baseline::table, true},
      {nullptr, false}};
  return list;
}

std::atomic<const Table*> g_active{nullptr};

const Table* find(const char* name) {
  for (const Target* t = targets(); t->table; ++t)
    if (t->runs && (!name || std::strcmp(name, t->table->name) == 0)) return t->table;
  return nullptr;
}

const Table* choose() {
  const char* forced = std::getenv("NEARLY_SIMD");
  const Table* table = find(forced && *forced ? forced : nullptr);
  if (!table) {
    std::string names;
    for (const char* const* name = available(); *name; ++name) names += (names.empty() ? "" : ", ") + std::string(*name);
    throw std::invalid_argument("NEARLY_SIMD=" + std::string(forced) + " names no target that this machine can run; choose " +
                                names + ", or unset it");
  }
  g_active.store(table);
  return table;
}

}  // namespace

const Table& active() {
  const Table* table = g_active.load(std::memory_order_relaxed);
  return table ? *table : *choose();
}

bool use(const char* name) {
  const Table* table = find(name);
  if (table) g_active.store(table);
  return table != nullptr;
}

bool tiles_granted() {
#if defined(__linux__) && defined(__x86_64__)
  static const bool granted = [] {
    constexpr unsigned kInt8 = 1u << 25;                       // of leaf 7
    constexpr long kAskForState = 0x1023, kTilesOfState = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, since Linux 5.16
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kInt8) &&
           syscall(SYS_arch_prctl, kAskForState, kTilesOfState) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

const char* const* available() {
  static const char* names[8] = {};
  size_t n = 0;
  for (const Target* t = targets(); t->table; ++t)
    if (t->runs) names[n++] = t->table->name;
  names[n] = nullptr;
  return names;
}

}  // namespace nearly::kernels
