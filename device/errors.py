# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a caller and the card, as exceptions.

A CardError carries a numbered fault of device/abi/faults.h. ModelError and InputError concern what
the caller brought, not the card.
"""


class CardError(Exception):
    """The card, its bus or a program on it failed.

    Attributes: `code` is the fault number, `fault` its name (for example "DEADLINE"), `info` the
    fault's detail word, `remedy` what to do about it, `fatal` whether the card needs a reset (which
    the driver may have given it: then what was loaded is gone).
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        fault: str,
        info: int = 0,
        remedy: str = "",
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.fault = fault
        self.info = info
        self.remedy = remedy
        self.fatal = fatal


class CardGone(CardError):
    """The card left the bus: surprise removal, power loss, or never there."""


class CardTimeout(CardError):
    """A command was not completed within its deadline."""


class CardFull(CardError):
    """Card memory has no room for the program or its scratch."""


class ProgramRejected(CardError):
    """The card's checks refused a program."""


class CardFault(CardError):
    """Any other numbered fault."""


class ModelError(ValueError):
    """The model cannot be read or run; the message names the model and the way out."""


class InputError(ValueError):
    """A feed has the wrong name, type or shape; the message names it with expected and got."""
