#!/bin/sh
# Installs the embedding model for the interpreter given (or .venv's): the weights inside the package wordllama, and the
# tokenizer. Without their declared dependencies: the extension reads the files itself and imports nothing else of them.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-${PYTHON:-$here/.venv/bin/python}}
wordllama=0.4.0.post1
tokenizers=0.23.3

check() {
    "$python" - <<'PY'
import hashlib, importlib.util, sys
want = {
    "weights/l2_supercat_256.safetensors": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    "tokenizers/l2_supercat_tokenizer_config.json": "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
found = importlib.util.find_spec("wordllama")
if found is None or importlib.util.find_spec("tokenizers") is None:
    sys.exit(3)
for name, digest in want.items():
    try:
        with open(f"{found.submodule_search_locations[0]}/{name}", "rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        sys.exit(f"fetch_model: {error}")
    if got != digest:
        sys.exit(f"fetch_model: {name} is not the file expected: sha256 {got}")
PY
}

if check 2>/dev/null; then
    echo "fetch_model: the model is there" >&2
    exit 0
fi
"$python" -m pip install --quiet --no-deps --only-binary :all: "wordllama==$wordllama" "tokenizers==$tokenizers"
check
echo "fetch_model: installed wordllama $wordllama and tokenizers $tokenizers" >&2
