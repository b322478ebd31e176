#include "row_lstm.h"

#include "grid_scan.h"

namespace genfast {
namespace GENFAST_LEVEL {

int row_lstm_forward(const RowLstmForward& a) { return scan_forward<RowWalk>(a); }
int row_lstm_backward(const RowLstmBackward& a) { return scan_backward<RowWalk>(a); }

}  // namespace GENFAST_LEVEL
}  // namespace genfast
