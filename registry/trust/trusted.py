# SPDX-License-Identifier: Apache-2.0
"""What a node trusts: packages that are vouched for, and what its ring is to run. Rules only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.digest import check_digest
from registry.errors import BadDigest
from registry.trust.desired import Desired, parse_desired
from registry.trust.errors import BadMetadata, MixAndMatch, NotDesired, NotVouched, TrustError
from registry.trust.explain import expired
from registry.trust.names import DESIRED, ROLES, model_target
from registry.trust.verify import Walk


@dataclass(frozen=True, slots=True)
class Trusted:
    """A verified state. Whether it is still fresh depends on when it is asked: see `stale`."""

    source: str  # where it came from; '' where it was kept from before
    versions: Mapping[str, int]  # by role
    expires: Mapping[str, float]  # by role, in seconds since 1970
    packages: Mapping[str, tuple[str, int]]  # by target: digest, bytes
    rings: Mapping[str, Desired] = field(default_factory=dict)
    changed: bool = False  # against what was kept before

    def desired(self, ring: str) -> Desired:
        """What the ring is to run; it agrees with what is vouched for. Raises NotDesired."""
        if ring not in self.rings:
            raise NotDesired(f"nothing is said of what ring {ring} is to run")
        return self.rings[ring]

    def vouched(self, name: str, tag: str) -> tuple[str, int]:
        """Digest and size in bytes of a package's index or manifest. Raises NotVouched."""
        found = self.packages.get(model_target(name, tag))
        if found is None:
            raise NotVouched(f"nobody vouches for {name}:{tag}")
        return found

    def stale(self, now: float) -> TrustError | None:
        """Why nothing new may be installed at `now`, None where it may. What runs goes on."""
        for role in ROLES:
            if now >= self.expires[role]:
                return expired(role, self.expires[role], self.source or "what was kept")
        return None


def trusted(source: str, found: Walk, rings: Mapping[str, Desired]) -> Trusted:
    """The state that a good walk led to."""
    return Trusted(
        source,
        {role: found.signed[role].version for role in ROLES},
        {role: found.signed[role].expires.timestamp() for role in ROLES},
        _packages(found),
        rings,
    )


def agreed(found: Walk, documents: Mapping[str, bytes]) -> dict[str, Desired]:
    """The desired state of each ring, if the targets role vouches for all of it: the one who says
    what runs where (online) and the one who vouches for packages (offline) must agree, as Uptane's
    director and image repositories (Uptane 5.4.4.2).

    Raises BadMetadata, NotVouched, MixAndMatch.
    """
    packages = _packages(found)
    expires = found.signed[DESIRED].expires.timestamp()
    rings = {}
    for ring, data in documents.items():
        rings[ring] = parse_desired(data, ring, expires)
        for model in rings[ring].models:
            which = f"{model.repository}:{model.tag}"
            held = packages.get(model_target(model.repository, model.tag))
            if held is None:
                raise NotVouched(f"ring {ring} is to run {which}, which nobody vouches for")
            if held != (model.digest, model.size):
                raise MixAndMatch(
                    f"ring {ring} is to run {which} as {model.digest} of {model.size} bytes; "
                    f"vouched for is {held[0]} of {held[1]} bytes"
                )
    return rings


def _packages(found: Walk) -> dict[str, tuple[str, int]]:
    """Packages of the top targets role alone: no delegation vouches for a package."""
    packages = {}
    for path, target in found.targets.targets.items():
        try:
            digest = check_digest(f"sha256:{target.hashes.get('sha256', '')}")
        except BadDigest:
            continue  # a target of another kind of hash can never be asked for
        if not isinstance(target.length, int):
            raise BadMetadata(f"{path[:200]!r} has a length of {target.length!r} bytes")
        packages[path] = (digest, target.length)
    return packages
