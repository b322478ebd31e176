#!/bin/sh
# Build, check and time everything on a machine with a CUDA GPU: sh benchmarks/gpu_check.sh
# It needs python (PYTHON=...) with torch, triton, numpy and pytest; a network only to build the C++ core.
# It writes build/gpu/ and benchmarks/results/<gpu>.json.
# With the table of launches as well: sh benchmarks/gpu_check.sh --table
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
package=build/gpu

# The package as it installs. Where pip can build nothing, the same without the C++ core: kernels/ inside genfast/.
rm -rf "$package"
mkdir -p "$package"
if ! "$python" -m pip install --quiet --no-deps --target "$package" .; then
    rm -rf "$package"/*
    cp -r genfast "$package/genfast"
    cp -r kernels "$package/genfast/kernels"
fi
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
if "$python" -c 'import genfast._C, hypothesis'; then
    (cd tests && GENFAST_REQUIRE=triton "$python" -m pytest -q -p no:cacheprovider -k triton test_every_op.py \
        test_every_op_reproducible.py test_every_sampler.py test_every_measure.py)
fi
"$python" benchmarks/gpu.py
if [ "${1:-}" = --table ]; then "$python" benchmarks/triton_launch_table.py; fi
