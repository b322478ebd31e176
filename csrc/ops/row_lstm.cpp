// The scans over the grid: lstm/grid_scan.h. Vector code: core/vector.h.
#include "ops/row_lstm.h"

#include "lstm/grid_batch.h"

namespace genfast {
namespace GENFAST_ISA {

int row_lstm_forward(const RowLstmForward& a) { return scan_forward<RowWalk>(a); }
int row_lstm_backward(const RowLstmBackward& a) { return scan_backward<RowWalk>(a); }

}  // namespace GENFAST_ISA
}  // namespace genfast
