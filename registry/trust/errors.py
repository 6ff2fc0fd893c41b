# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with keys and metadata. Each class is one attack or one fault by name, and
carries what to do about it (TUF specification 1.0, section 1.5.2 names the attacks)."""

from registry import errors


class TrustError(errors.RegistryError):
    """The base of them all. `advice` is the remedy where the raiser gives none."""

    advice = ""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy or self.advice)


class Rollback(TrustError):
    """Older than what this node has already seen."""

    advice = "the source is stale or replays old metadata; use another, or publish anew"


class Freeze(TrustError):
    """The timestamp has expired: the source shows nothing newer."""

    advice = (
        "run `tepi registry refresh` where the registry is kept, or use a source that is up to "
        "date; check this machine's clock too; models go on serving meanwhile"
    )


class Expired(TrustError):
    """Metadata of a role other than the timestamp has expired."""

    advice = (
        "sign it anew where the registry is kept (`tepi registry refresh`; for root and targets "
        "`tepi registry rotate` or `sign` with the offline keys); models go on serving meanwhile"
    )


class MixAndMatch(TrustError):
    """Parts that were never current together."""

    advice = "the source mixes states of different age; use another, or copy it anew as a whole"


class UnknownKey(TrustError):
    """Signed only by keys that the role does not have."""

    advice = (
        "the signer's key was revoked or was never this registry's; check that the node was given "
        "this registry's root"
    )


class BelowThreshold(TrustError):
    """Signed by fewer keys than the role asks for."""

    advice = "let the other key holders sign it: `tepi registry sign --pending`"


class WrongDigest(TrustError, errors.WrongDigest):
    """Not the bytes that signed metadata names."""

    advice = "the source is damaged or lies; use another, or copy it anew"


class Oversize(TrustError):
    """More bytes than may come (endless data)."""

    advice = "the source is damaged or lies; use another"


class SlowDrip(TrustError):
    """The bytes come too slowly to be of use (slow retrieval)."""

    advice = "the source or the link is overloaded, or holds this node up; use another source"


class BadMetadata(TrustError):
    """Bytes that are no metadata at all, or say what they must not."""

    advice = "the source is damaged or lies; use another, or copy it anew"


class ClockSetBack(TrustError):
    """This machine's clock is behind a time that has certainly passed."""

    advice = "set the clock of this machine"


class SourceDown(TrustError):
    """A source of metadata did not answer."""

    advice = "check its address and the link to it"


class NoSource(TrustError):
    """No source of metadata answered."""

    advice = "check their addresses and the link; models go on serving meanwhile"


class NotVouched(TrustError):
    """The targets role does not vouch for this package."""

    advice = "vouch for it first: `tepi registry sign`"


class NotDesired(TrustError):
    """Nothing is said for this ring."""

    advice = "say what it is to run: `tepi registry desire`"


class BadRoot(TrustError):
    """The root that the node was given is of no use."""

    advice = "give the node the root.json that `tepi registry init` wrote"


class NotARegistry(TrustError):
    """The folder holds no metadata, or damaged metadata."""

    advice = "make it with `tepi registry init`"


class AlreadyARegistry(TrustError):
    """The folder holds metadata already."""

    advice = "use another folder, or change this one with `tepi registry rotate`"


class Busy(TrustError):
    """Another process is publishing in the same folder."""

    advice = "wait until it has ended"


class KeyMissing(TrustError):
    """A private key that is needed is not at hand."""

    advice = "name the folder that holds it with --keys (offline keys) or --online-keys"


class BadKey(TrustError):
    """A key file that cannot be read, or its passphrase is wrong."""

    advice = "check the file, and the passphrase"


class BadRequest(TrustError):
    """A change that would leave the registry of no use, or that does not apply to it."""
