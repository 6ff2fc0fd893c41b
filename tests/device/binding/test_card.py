# SPDX-License-Identifier: Apache-2.0
"""The card as an object: opening, state, faults, removal and return, lifetimes."""

import gc
import threading

import pytest

from device.binding import FAULTS, Card
from device.errors import CardFault, CardFull, CardGone, ProgramRejected
from tests.device.binding.images import copy_program


def test_info_says_what_the_card_is() -> None:
    with Card.open("inproc", threads=3, memory=8 << 20, isa="scalar") as card:
        info = card.info
        assert info["isa"] == "scalar"
        assert info["memory"] == info["memory_free"] == 8 << 20
        assert info["workers"] == 3
        assert info["abi_min"] == info["abi_max"] == 1
        assert info["fault_count"] == 0
        assert card.alive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "vfio"}, "unknown kind of card 'vfio'"),
        ({"kind": "vfio:1:2.3"}, "1:2.3 is no PCI address; write it as lspci -D does"),
        ({"threads": 0}, "threads must be 1 to 256, got 0"),
        ({"threads": 257}, "threads must be"),
        ({"memory": 0}, "memory must be a positive"),
        ({"isa": "mmx"}, "unknown isa 'mmx'; one of auto, scalar"),
    ],
)
def test_impossible_cards_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Card.open(**arguments)  # type: ignore[arg-type]


def test_vfio_card_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(CardGone, match=r"there is no PCI device ffff:ff:1f\.7; look") as caught:
        Card.open("vfio:ffff:ff:1f.7")
    assert caught.value.fault == "GONE" and "lspci -D" in caught.value.remedy


def test_faults_have_meaning_and_remedy() -> None:
    assert FAULTS[0].name == "OK"
    assert FAULTS[64].name == "GONE"
    assert FAULTS[9].grpc == "RESOURCE_EXHAUSTED"
    for code, fault in FAULTS.items():
        assert code == fault.code
        assert fault.meaning and fault.remedy
        assert fault.severity in {"NONE", "REQUEST", "QUEUE", "WARNING", "FATAL", "GONE"}


def test_refused_program_names_its_fault(card: Card) -> None:
    image = bytearray(copy_program(64))
    image[-1] ^= 1
    with pytest.raises(ProgramRejected, match=r"\(fault 19 PROGRAM_CRC") as caught:
        card.load_program(bytes(image))
    assert caught.value.code == 19
    assert caught.value.fault == "PROGRAM_CRC"
    assert "compile the model again" in caught.value.remedy
    with pytest.raises(ProgramRejected, match="PROGRAM_TRUNCATED"):
        card.load_program(b"")
    log = card.faults()
    assert [entry.fault for entry in log] == ["PROGRAM_CRC"]
    assert log[0].sequence == 1 and log[0].generation == card.info["generation"]


def test_full_card_memory_is_its_own_error() -> None:
    with Card.open("inproc", memory=8192) as card:
        programs = []
        with pytest.raises(CardFull, match="unload a model") as caught:
            for _ in range(100):
                programs.append(card.load_program(copy_program(64)))
        assert caught.value.info > 0
        for program in programs:
            program.close()
        assert card.info["memory_free"] == 8192
        card.load_program(copy_program(64))


def test_ping_goes_to_the_card_and_back(card: Card) -> None:
    for _ in range(1000):
        card.ping()


def test_surprise_removal_and_return(card: Card) -> None:
    card.detach()
    assert not card.alive
    for attempt in (card.ping, card.reset, lambda: card.info):
        with pytest.raises(CardGone) as caught:
            attempt()
        assert caught.value.code == 64
    assert card.faults() == []
    generation = card.generation
    card.attach()
    assert card.alive
    assert card.generation == generation + 1
    card.ping()
    card.attach()
    assert card.generation == generation + 1, "attaching a live card does nothing"


def test_reset_brings_a_new_generation(card: Card) -> None:
    generation = card.generation
    card.reset()
    assert card.generation == generation + 1
    assert card.alive


@pytest.mark.parametrize("fault", ["HANG", "MEMORY_ECC", "FIRMWARE_ASSERT"])
def test_fatal_fault_is_reported_once_and_the_card_is_reset(card: Card, fault: str) -> None:
    card.inject(fault, 5)
    assert not card.alive
    with pytest.raises(CardFault, match=fault):
        card.ping()
    assert card.alive, "the driver has reset it"
    card.ping()
    assert [(entry.fault, entry.info) for entry in card.faults()] == [(fault, 5)]


def test_only_fatal_faults_are_injected(card: Card) -> None:
    with pytest.raises(ValueError, match="cannot inject 'DEADLINE'; one of HANG"):
        card.inject("DEADLINE")


def test_use_after_close_says_so(card: Card) -> None:
    program = card.load_program(copy_program(64))
    card.close()
    card.close()
    assert not card.alive
    for attempt in (card.ping, card.detach, card.attach, card.faults):
        with pytest.raises(ValueError, match=r"the card is closed; open it again"):
            attempt()
    with pytest.raises(CardGone):
        program.reload()
    program.close()


def test_objects_may_die_in_any_order() -> None:
    card = Card.open("inproc", memory=8 << 20)
    programs = [card.load_program(copy_program(64)) for _ in range(3)]
    del card
    gc.collect()
    programs[0].close()
    del programs
    gc.collect()


def test_threads_open_and_close_cards_at_once() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with Card.open("inproc", memory=8 << 20) as card:
                    card.load_program(copy_program(64)).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
