// Everything a target compiles, in order; NEARLY_TARGET and NEARLY_BYTES are set by the includer.
// No std:: templates below: a weak symbol compiled for a new CPU could be given to every caller by the linker.
#include <math.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/table.hpp"

namespace nearly::kernels::NEARLY_TARGET {
namespace {
#include "kernels/body/vectors.inl.hpp"
#include "kernels/body/rows_float.inl.hpp"
#include "kernels/body/rows_integer.inl.hpp"
#include "kernels/body/codes.inl.hpp"
#include "kernels/body/fastscan.inl.hpp"
#include "kernels/body/interleave.inl.hpp"
#include "kernels/body/packed.inl.hpp"
#include "kernels/body/rotate.inl.hpp"
#include "kernels/body/products.inl.hpp"
#include "kernels/body/screen.inl.hpp"
#include "kernels/body/tiles.inl.hpp"
#include "kernels/body/sweep.inl.hpp"
#include "kernels/body/nearest.inl.hpp"
#include "kernels/body/finite.inl.hpp"
#include "kernels/body/pool.inl.hpp"
#include "kernels/body/spans.inl.hpp"
#include "kernels/body/listed.inl.hpp"
}  // namespace

#define NEARLY_STRING_(x) #x
#define NEARLY_STRING(x) NEARLY_STRING_(x)
extern const Table table;
const Table table = {
    NEARLY_STRING(NEARLY_TARGET),
    {float_rows<L2, float>, float_rows<L2, Half>, float_rows<L2, Brain>, float_rows<L2, int8_t>,
     float_rows<L2, uint8_t>},
    {float_rows<Dot, float>, float_rows<Dot, Half>, float_rows<Dot, Brain>, float_rows<Dot, int8_t>,
     float_rows<Dot, uint8_t>},
    {float_rows<Cosine, float>, float_rows<Cosine, Half>, float_rows<Cosine, Brain>, float_rows<Cosine, int8_t>,
     float_rows<Cosine, uint8_t>},
    {float_rows<L1, float>, float_rows<L1, Half>, float_rows<L1, Brain>, float_rows<L1, int8_t>,
     float_rows<L1, uint8_t>},
    integer_rows<IntegerL2, uint8_t>,
    integer_rows<IntegerDot, uint8_t>,
    integer_rows<IntegerL2, int8_t>,
    integer_rows<IntegerDot, int8_t>,
    hamming_rows,
    jaccard_rows,
    code_dots<8>,
    code_dots<4>,
    code_distances<8>,
    code_distances<4>,
    code_panel,
    halve,
    {packed_dots<1>, packed_dots<2>, packed_dots<3>, packed_dots<4>, packed_dots<5>, packed_dots<6>, packed_dots<7>,
     packed_dots<8>},
    fastscan,
    interleave,
    scan_listed,
    lookups,
    byte_tables,
    rotate,
    sweep,
    fine_steps,
    tries,
    clipped,
    unit_squares,
    magnitudes<int32_t>,
    magnitudes<float>,
    cut,
    panel_products,
    kPanel,
    {widen_row<float>, widen_row<Half>, widen_row<Brain>, widen_row<int8_t>, widen_row<uint8_t>},
    center_row,
    round_row,
    whole_products,
    kTileRows,
    kTileProducts,
    reaching,
    nearest,
    project_queries,
    quantize<int16_t>,
    quantize<int8_t>,
    largest_magnitude,
    whole_bytes,
    unseen,
    unseen_passing,
    within,
    merge,
    {first_nonfinite<uint32_t, 0x7f800000u>, first_nonfinite<uint16_t, 0x7c00u>, first_nonfinite<uint16_t, 0x7f80u>},
    {in_spans<int8_t, WholeSpan<int8_t>, int64_t>, in_spans<int16_t, WholeSpan<int16_t>, int64_t>,
     in_spans<int32_t, WholeSpan<int32_t>, int64_t>, in_spans<int64_t, WholeSpan<int64_t>, int64_t>},
    in_spans<double, FloatSpan, double>,
};

}  // namespace nearly::kernels::NEARLY_TARGET
