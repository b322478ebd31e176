// The scans over the grid: lstm/grid_scan.h. Vector code: core/vector.h.
#include "ops/diagonal_lstm.h"

#include "lstm/grid_batch.h"

namespace genfast {
namespace GENFAST_ISA {

int diagonal_lstm_forward(const DiagonalLstmForward& a) { return scan_forward<DiagonalWalk>(a); }
int diagonal_lstm_backward(const DiagonalLstmBackward& a) { return scan_backward<DiagonalWalk>(a); }

}  // namespace GENFAST_ISA
}  // namespace genfast
