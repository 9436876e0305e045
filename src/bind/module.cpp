#include "bind.hpp"

NB_MODULE(_core, m) {
  using namespace nearly::bind;
  nb::set_leak_warnings(false);  // objects alive at exit are the interpreter's affair, not a message to the user
  m.doc() = "The loops that touch vectors. Private: shapes and ranges are checked, nothing else.";
  kernels(m);
  tables(m);
  quant(m);
  codes(m);
  lists(m);
  inverted(m);
  graph(m);
  callable(m);
  filters(m);
}
