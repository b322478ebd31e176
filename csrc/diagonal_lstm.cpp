#include "diagonal_lstm.h"

#include "grid_scan.h"

namespace genfast {
namespace GENFAST_LEVEL {

int diagonal_lstm_forward(const DiagonalLstmForward& a) { return scan_forward<DiagonalWalk>(a); }
int diagonal_lstm_backward(const DiagonalLstmBackward& a) { return scan_backward<DiagonalWalk>(a); }

}  // namespace GENFAST_LEVEL
}  // namespace genfast
