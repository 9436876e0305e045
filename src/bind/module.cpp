#include "bind.hpp"

NB_MODULE(_core, m) {
  using namespace nearly::bind;
  m.doc() = "The loops that touch vectors. Private: shapes and ranges are checked, nothing else.";
  kernels(m);
  tables(m);
  quant(m);
  lists(m);
  graph(m);
  callable(m);
}
