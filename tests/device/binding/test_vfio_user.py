# SPDX-License-Identifier: Apache-2.0
"""The card in another process: the same answers, and nothing left of clients that end."""

import errno
import mmap
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device.binding import Card, CardServer
from device.errors import CardError, CardGone, CardTimeout
from device.session import Session
from tests.device.binding.card_process import CardProcess, card_process
from tests.device.binding.images import copy_program

DIGITS = Path(__file__).resolve().parents[3] / "examples/digits/model_repository/digits/1"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[CardProcess]:
    with card_process(tmp_path / "card.sock", "--memory=64") as process:
        yield process


def await_true(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll: what is waited for happens in another process."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_session_equals_inproc(served: CardProcess) -> None:
    model = DIGITS / "model.onnx"
    with Card.open(served.name) as card, Card.open("inproc") as here:
        assert card.info["memory"] == 64 << 20
        assert card.info["isa"] == here.info["isa"]
        with Session(model, card) as far, Session(model, here) as near:
            for seed in range(8):
                shape = [1 + seed if not isinstance(d, int) else d for d in near.inputs[0].shape]
                x = np.random.default_rng(seed).random(shape, np.float32)
                for a, b in zip(
                    far.run(None, {near.inputs[0].name: x}),
                    near.run(None, {near.inputs[0].name: x}),
                    strict=True,
                ):
                    assert a.tobytes() == b.tobytes()


async def test_event_loop_and_batches(served: CardProcess) -> None:
    with Card.open(served.name) as card, card.load_program(copy_program(96)) as program:
        for batch in (1, 3, 64):
            x = np.random.default_rng(batch).integers(0, 256, (batch, 96), np.uint8)
            out = np.zeros_like(x)
            await program.run_async([x], batch, [out])
            assert np.array_equal(out, x)


def test_program_in_a_file_is_copied(served: CardProcess) -> None:
    """A mapped file cannot be sealed; the card gets its bytes through DMA memory."""
    image = copy_program(32)
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        mapped = mmap.mmap(file.fileno(), len(image), access=mmap.ACCESS_READ)
        with Card.open(served.name) as card, card.load_program(mapped) as program:
            x = np.arange(32, dtype=np.uint8)[None]
            out = np.zeros_like(x)
            program.run([x], 1, [out])
            assert np.array_equal(out, x)


def test_two_clients_and_one_that_is_killed(served: CardProcess) -> None:
    before = served.descriptors
    code = (
        "import sys; from device.binding import Card; from device.session import Session\n"
        "card = Card.open(sys.argv[1]); session = Session(sys.argv[2], card)\n"
        "print('up', flush=True)\n"
        "while True: card.ping()"
    )
    with Card.open(served.name) as card:
        alone = served.shared_mappings
        free = card.info["memory_free"]
        with subprocess.Popen(
            [sys.executable, "-c", code, served.name, str(DIGITS / "model.onnx")],
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None and other.stdout.readline() == "up\n"
            for _ in range(200):
                card.ping()
            assert served.shared_mappings > alone
            assert int(card.info["memory_free"]) < int(free)
            other.kill()
        await_true(lambda: served.shared_mappings == alone and card.info["memory_free"] == free)
        for _ in range(200):
            card.ping()
    await_true(lambda: served.descriptors == before)
    assert served.shared_mappings == 0


def test_kill_9_under_load_and_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "card.sock"
    errors: list[CardError] = []
    with card_process(path) as first:
        card = Card.open(first.name)
        program = card.load_program(copy_program(4096))

        def load() -> None:
            x = np.zeros((1, 4096), np.uint8)
            try:
                while True:
                    program.run([x], 1, [np.empty_like(x)])
            except CardError as error:
                errors.append(error)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        first.kill()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert len(errors) == 3 and all(isinstance(error, CardGone) for error in errors)
    assert not card.alive
    with pytest.raises(CardGone):
        card.reset()
    with card_process(path):  # in place of the socket that the first left behind
        card.attach()
        assert card.alive and card.generation == 2
        card.ping()
        program.reload()
        x = np.arange(4096, dtype=np.uint16).astype(np.uint8)[None]
        out = np.zeros_like(x)
        program.run([x], 1, [out])
        assert np.array_equal(out, x)
        program.close()
        card.close()


def test_process_that_is_stopped_is_gone_and_returns(served: CardProcess) -> None:
    with Card.open(served.name) as card:
        card.ping()
        served.process.send_signal(signal.SIGSTOP)
        try:
            await_true(lambda: not card.alive)  # its threads stop one by one
            with pytest.raises(CardError):
                card.ping()
            with pytest.raises(CardTimeout, match="does not answer"):
                Card.open(served.name)
        finally:
            served.process.send_signal(signal.SIGCONT)
        card.attach()
        card.ping()


def test_detach_leaves_the_card_to_others(served: CardProcess) -> None:
    with Card.open(served.name) as one, Card.open(served.name) as two:
        one.detach()
        assert not one.alive
        two.ping()
        one.attach()
        one.ping()
        with pytest.raises(ValueError, match="software card of this process alone"):
            one.inject("HANG")


def test_names_that_open_no_card(tmp_path: Path) -> None:
    with pytest.raises(CardGone, match=r"there is no socket at .*tepi card serve --socket"):
        Card.open(f"vfio-user:{tmp_path}/none.sock")
    with pytest.raises(ValueError, match="unknown kind of card 'vfio-user:'"):
        Card.open("vfio-user:")
    with pytest.raises(ValueError, match="too long"):
        Card.open("vfio-user:" + "x" * 200)
    with pytest.raises(ValueError, match="give it to the `tepi card serve --isa`"):
        Card.open("vfio-user:card.sock", isa="scalar")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other.sock"))
        with pytest.raises(CardGone, match="nobody listens"):
            Card.open(f"vfio-user:{tmp_path}/other.sock")
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"220 mail.example ESMTP ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(CardGone, match="is no vfio-user server") as caught:
            Card.open(f"vfio-user:{tmp_path}/other.sock")
        thread.join()
        assert caught.value.fault == "NOT_A_CARD"


def test_server_in_this_process(tmp_path: Path) -> None:
    socket_file = tmp_path / "card.sock"
    path = str(socket_file)
    with CardServer(path, threads=2, memory=8 << 20) as server:
        assert socket_file.stat().st_mode & 0o777 == 0o660
        with Card.open(f"vfio-user:{path}") as card:
            assert server.clients == 1
            card.ping()
            with pytest.raises(OSError, match="another server listens there"):
                CardServer(path, threads=1, memory=1 << 20)
        await_true(lambda: server.clients == 0)
    assert not socket_file.exists()
    with pytest.raises(OSError, match="the folder does not exist") as caught:
        CardServer(str(tmp_path / "none" / "card.sock"), threads=1, memory=1 << 20)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="threads must be 1 to"):
        CardServer(path, threads=0, memory=1 << 20)


def test_interrupt_stops_it_with_0(tmp_path: Path) -> None:
    with card_process(tmp_path / "card.sock") as served, Card.open(served.name) as card:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        assert not card.alive


def test_registers_behind_the_doorbell_page_are_the_cards(tmp_path: Path) -> None:
    path = tmp_path / "card.sock"
    with card_process(path), Card.open(f"vfio-user:{path}") as card:
        for _ in range(300):
            assert len(card.busy_ns) == int(card.info["workers"])
