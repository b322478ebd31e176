// The row LSTM scan.
#pragma once

#include "lstm/grid_arguments.h"

namespace genfast {

using RowLstmForward = ScanForward;
using RowLstmBackward = ScanBackward;

}  // namespace genfast
