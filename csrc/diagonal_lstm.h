// The diagonal LSTM scan.
#pragma once

#include "grid_arguments.h"

namespace genfast {

using DiagonalLstmForward = ScanForward;
using DiagonalLstmBackward = ScanBackward;

}  // namespace genfast
