// The diagonal LSTM scan.
#pragma once

#include "lstm/grid_arguments.h"

namespace genfast {

using DiagonalLstmForward = ScanForward;
using DiagonalLstmBackward = ScanBackward;

}  // namespace genfast
