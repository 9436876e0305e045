// A column of metadata as filters read it: what Python's `Column` is made of, looked at once.
#pragma once
#include <memory>
#include <mutex>

#include "bind.hpp"
#include "filters/spans.hpp"

namespace nearly::bind {

class HeldColumn {
 public:
  using Values = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  using Bits = std::optional<In<uint64_t, 1>>;
  enum class Kind : int { kOther, kBool, kWhole, kFloat, kText };  // what constants it compares with, in plain conditions

  // `offsets` and `octets`: of the texts whose positions the values are, if that is their kind.
  HeldColumn(Values values, Bits valid, Kind kind, std::optional<In<int64_t, 1>> offsets, std::optional<In<uint8_t, 1>> octets);

  // Finds its zones when it is first called.
  filters::Column column() const;
  filters::Stored stored() const { return stored_; }
  Kind kind() const { return kind_; }
  size_t rows() const { return values_.shape(0); }
  // How many texts are before this one, and whether it is among them.
  std::pair<size_t, bool> place(const char* text, size_t bytes) const;

 private:
  const Values values_;
  const Bits valid_;
  const Kind kind_;
  const std::optional<In<int64_t, 1>> offsets_;
  const std::optional<In<uint8_t, 1>> octets_;
  filters::Stored stored_;
  mutable std::once_flag found_;
  mutable filters::Zones zones_;
};

void conditions(nb::module_& m);

}  // namespace nearly::bind
