# SPDX-License-Identifier: Apache-2.0
"""The exported model against its formula, the int8 one against it, and the search end to end."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from device.quantize.quantize import Report
from device.session import Session
from examples.search.build import CHOSEN, SETTINGS, build, ready, served
from examples.search.corpus import passages, questions
from examples.search.embedder import embedded
from examples.search.export import HEADS, LAYERNORM_EPSILON, LAYERS, WIDTH
from examples.search.minilm import TOKENS_MAX, Feed, Tokens, missing, weights
from examples.search.ranking import Embeddings, agreement, best, place

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "How do I stop a running program?",
    "Kill a process that does not end by itself.",
    "The cat sat on the mat, and it was grey.",
]

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"not installed: {', '.join(missing())}; ./bootstrap does it"
)


class Quiet:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int) -> None: ...

    def step(self) -> None: ...


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("search")
    return folder, build(Quiet(), folder)


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    return Tokens()


def runner(session: Session) -> Any:
    def run(feed: Feed) -> Embeddings:
        return np.asarray(session.run(None, feed)[0], np.float32)

    return run


def formula(feed: Feed) -> NDArray[np.float64]:
    """The original's forward pass in float64, from its weights."""
    w = {name: tensor.astype("f8") for name, tensor in weights().items() if "ids" not in name}

    def linear(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    def normalized(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = x - x.mean(-1, keepdims=True)
        root = np.sqrt(np.square(apart).mean(-1, keepdims=True) + LAYERNORM_EPSILON)
        return np.asarray(apart / root * w[f"{name}.weight"] + w[f"{name}.bias"])

    ids, mask = feed["input_ids"], feed["attention_mask"]
    batch, length = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.token_type_embeddings.weight"][feed["token_type_ids"]]
    x = normalized("embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][:length])
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        query, key, value = (
            linear(f"{layer}.attention.self.{kind}", x)
            .reshape(batch, length, HEADS, WIDTH // HEADS)
            .swapaxes(1, 2)
            for kind in ("query", "key", "value")
        )
        score = query @ key.swapaxes(2, 3) / math.sqrt(WIDTH // HEADS)
        score[~np.broadcast_to(mask[:, None, None].astype(bool), score.shape)] = -np.inf
        share = np.exp(score - score.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ value).swapaxes(1, 2).reshape(batch, length, WIDTH)
        attended = linear(f"{layer}.attention.output.dense", mixed)
        x = normalized(f"{layer}.attention.output.LayerNorm", attended + x)
        wide = linear(f"{layer}.intermediate.dense", x)
        wide = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
        x = normalized(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", wide) + x)
    mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def test_tokens_are_the_original_s(tokens: Tokens) -> None:
    feed = tokens.feed(["Hello, world! naïve Tokenization"])
    ids = [101, 7592, 1010, 2088, 999, 15743, 19204, 3989, 102]  # [CLS] hello , world ! naive …
    assert feed["input_ids"][0].tolist() == ids + [0] * (32 - len(ids))
    assert feed["attention_mask"].sum() == len(ids)
    assert not feed["token_type_ids"].any()
    assert tokens.count("word " * 400) == tokens.feed(["word " * 400])["input_ids"].shape[1]
    assert tokens.count("word " * 400) == TOKENS_MAX


def test_export_computes_the_formula(built: tuple[Path, Report], tokens: Tokens) -> None:
    feed = tokens.feed(TEXTS)
    with Session(built[0] / "fp32.onnx", "none") as session:
        (got,) = session.run(None, feed)
        # Padding and company change nothing but the order of sums.
        (alone,) = session.run(None, tokens.feed(TEXTS[:1], 64))
    wanted = formula(feed)
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    np.testing.assert_allclose(alone[0], wanted[0], atol=2e-6)
    cosines = wanted @ wanted.T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]


def test_the_int8_model_is_small_and_ranks_as_fp32(
    built: tuple[Path, Report], tokens: Tokens
) -> None:
    folder, report = built
    assert ready(folder)
    assert report.bytes_after == served(folder).stat().st_size < 0.27 * report.bytes_before
    operations = [node.op_type for node in onnx.load(served(folder)).graph.node]
    assert operations.count("QuantizeLinear") >= 4 * LAYERS
    asked = [question.question for question in questions()]
    whole = [passage.whole for passage in passages()]
    found = []
    for model in (served(folder), folder / "fp32.onnx"):
        with Session(model, "none", threads=2) as session:
            run = runner(session)
            found.append((embedded(asked, tokens, run, 1), embedded(whole, tokens, run)))
    close = agreement(*found)
    assert close.cosine_mean > 0.995
    assert close.cosine_least > 0.985
    assert close.top1 >= 0.85
    assert close.top5 >= 0.9
    assert close.score_error < 0.06
    titles = [passage.title for passage in passages()]
    for scored in (found[0][0] @ found[0][1].T, found[1][0] @ found[1][1].T):
        places = [
            place(score, titles.index(question.passage))
            for score, question in zip(scored, questions(), strict=True)
        ]
        assert sum(p == 1 for p in places) >= 20
        assert sum(p <= 5 for p in places) >= 25


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.search.demo", f"--folder={folder}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_search_end_to_end(built: tuple[Path, Report]) -> None:
    done = demo(built[0], "--ask", "malware that pretends to be useful", "--top", "3", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (answer,) = told["answers"]
    assert answer["passages"][0]["title"] == "Trojan horse"
    scores = [row["score"] for row in answer["passages"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert told["agreement_with_fp32"]["cosine_mean"] > 0.995
    assert sum(told["devices"].values()) > told["passages"] / 8


def test_questions_name_passages() -> None:
    titles = [passage.title for passage in passages()]
    assert len(titles) == len(set(titles)) >= 150
    assert len(questions()) >= 20
    assert {question.passage for question in questions()} <= set(titles)
    assert not any(re.search(r"[{}]", passage.text) for passage in passages())


def test_ranking() -> None:
    score = np.array([0.1, 0.9, 0.5], "f4")
    assert best(score, 2) == [1, 2]
    assert [place(score, i) for i in range(3)] == [3, 1, 2]
    ours = (np.eye(2, 3, dtype="f4"), np.eye(3, dtype="f4"))
    turned = (np.eye(2, 3, dtype="f4")[::-1], np.eye(3, dtype="f4"))
    assert agreement(ours, ours).top1 == agreement(ours, ours).cosine_least == 1
    assert agreement(turned, ours).top1 == 0
    assert agreement(turned, ours).score_error == 1


def test_the_chosen_setting_is_one_of_them() -> None:
    assert CHOSEN in SETTINGS
