#!/bin/sh
# Build, check and time everything on a machine with a CUDA GPU: sh benchmarks/gpu_check.sh
# It needs python (PYTHON=...) with torch, triton, numpy and pytest, and no network. It writes build/gpu/ and
# benchmarks/results/<gpu>.json. With the table of launches as well: sh benchmarks/gpu_check.sh --table
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
package=build/gpu

# The package as it installs, but for the C++ core: kernels/ inside genfast/.
rm -rf "$package"
mkdir -p "$package"
cp -r genfast "$package/genfast"
cp -r kernels "$package/genfast/kernels"
PYTHONPATH="$PWD/$package"
export PYTHONPATH

"$python" - <<'CHECK'
import torch, triton, genfast
assert torch.cuda.is_available(), "expected a CUDA device; torch sees none"
print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
print(*genfast.backends().values(), sep="\n")
CHECK

# From tests/, so that the copy above is imported and not the checkout.
(cd tests && GENFAST_REQUIRE=triton "$python" -m pytest -q -p no:cacheprovider test_triton.py)
(cd tests && GENFAST_REQUIRE=triton "$python" -m pytest -q -p no:cacheprovider -k triton test_every_op.py)
"$python" benchmarks/gpu.py
if [ "${1:-}" = --table ]; then "$python" benchmarks/triton_launch_table.py; fi
