#!/bin/sh
# Build the package on a machine with a CUDA GPU, check its kernels and time them: sh benchmarks/gpu_check.sh
# It needs python (PYTHON=...) with torch, triton, numpy and pytest; a network only to build the C++ core.
# It writes build/gpu/ and benchmarks/results/<gpu>.json; its options are those of gpu.py.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
package=build/gpu

# The package as it installs. Where pip can build nothing, the same without the C++ core: kernels/ and benchmarks/ inside genfast/.
rm -rf "$package"
mkdir -p "$package"
if ! "$python" -m pip install --quiet --no-deps --target "$package" .; then
    rm -rf "$package"/*
    cp -r genfast "$package/genfast"
    cp -r kernels "$package/genfast/kernels"
    cp -r benchmarks "$package/genfast/benchmarks"
fi
PYTHONPATH="$PWD/$package"
export PYTHONPATH

"$python" - <<'CHECK'
import torch, triton, genfast
assert torch.cuda.is_available(), "expected a CUDA device; torch sees none"
print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
print(*genfast.backends().values(), sep="\n")
CHECK
exec "$python" benchmarks/gpu.py "$@"
