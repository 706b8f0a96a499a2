"""Replays the cases on Azure, in a resource group of its own, and writes down what differs."""

from __future__ import annotations

import datetime
import json
import secrets
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Sequence, Tuple

from ..failure import Failure
from ..interrupts import uninterrupted
from .azure import AzureTarget, Tokens
from .case import Case
from .replay import Replay, skipped, writes
from .scrub import Scrubber, identifying, leaks
from .signing import claims_of

GROUP_VERSION = "2021-04-01"
REMOVAL_SECONDS = 15 * 60.0
REMOVAL_PAUSE_SECONDS = 5.0
TAG = "ensign-azure-cases"
NOT_CONFIRMED_STATUS = 2
# The servers of Microsoft's clouds; the name of any other one tells whose it is.
PUBLIC_HOSTS = (
    "management.azure.com", "login.microsoftonline.com",
    "management.usgovcloudapi.net", "login.microsoftonline.us",
    "management.chinacloudapi.cn", "login.chinacloudapi.cn", "login.partner.microsoftonline.cn",
)

Say = Callable[[str], None]


def say_now(text: str) -> None:
    """Prints at once, also if the output is not a terminal."""
    print(text, flush=True)


class Settings:
    """Where and how to record."""

    def __init__(
        self, *, arm: str, authority: str, subscription: str, location: str, folder: Path, include: Collection[str],
        pace_seconds: float, settle_seconds: float,
    ) -> None:
        self.arm = arm
        self.authority = authority
        self.subscription = subscription
        self.location = location
        self.folder = folder
        self.include = include
        self.pace_seconds = pace_seconds
        self.settle_seconds = settle_seconds
        today = datetime.datetime.now(datetime.timezone.utc)
        self.group = f"ensign-cases-{today:%Y%m%d}-{secrets.token_hex(4)}"


def record(cases: Sequence[Case], settings: Settings, tokens: Tokens, is_confirmed: bool, say: Say = say_now) -> int:
    """Replays cases; returns the exit status."""
    reasons = {case.id: skipped(case, settings.include) for case in cases}
    replayed = [case for case in cases if reasons[case.id] is None]
    _announce(settings, replayed, {name: reason for name, reason in reasons.items() if reason}, say)
    if not replayed:
        raise Failure("no case is left to replay")
    if not is_confirmed:
        say("\nNothing was made. Pass --yes to go on.")
        return NOT_CONFIRMED_STATUS
    if settings.folder.exists() and any(settings.folder.iterdir()):
        raise Failure(f"{settings.folder} is not empty; choose another folder with --to")
    target = AzureTarget(
        settings.arm, settings.authority, settings.subscription, settings.location, settings.group, tokens,
        settings.pace_seconds,
    )
    target.require_provider()
    with ResourceGroup(target, settings.group, say):
        outcome = [_replay(case, target, settings, say) for case in replayed]
    counts = {word: outcome.count(word) for word in dict.fromkeys(outcome)}
    say(f"\n{len(replayed)} cases replayed: {', '.join(f'{count} {word}' for word, count in counts.items())}")
    if WRITTEN in counts:
        say(f"the differences are in {settings.folder}; read them before you publish them")
    return 0 if set(counts) <= {SAME, WRITTEN} else 1


SAME, WRITTEN, FAILED, REFUSED = "as expected", "different", "not asked to the end", "refused"


def _announce(settings: Settings, cases: Sequence[Case], reasons: Dict[str, str], say: Say) -> None:
    say(f"In subscription {settings.subscription} at {settings.arm}, this makes")
    say(f"  the resource group {settings.group} in {settings.location}, tagged {TAG}")
    say("  and in it, for each case:")
    for case in cases:
        made = writes(case)
        if made:
            say(f"    {case.id}")
            for write in made:
                say(f"      {write}")
    say("  Nobody can sign in as these identities: the issuers that they trust do not exist.")
    say("At the end, it removes all of that.")
    say(f"It replays {len(cases)} cases, and writes those that differ to {settings.folder}.")
    if reasons:
        say(f"It skips {len(reasons)}:")
        for name, reason in reasons.items():
            say(f"  {name}: {reason}")


def _replay(case: Case, target: AzureTarget, settings: Settings, say: Say) -> str:
    """Replays one case, and writes it down if it differs; returns what came of it."""
    replay = Replay(case, target, settings.settle_seconds)
    found = replay.run()
    hidden = _hidden(target, settings)
    scrubber = Scrubber(replay.bindings, hidden, case.document)
    if replay.failure is not None:
        say(f"{case.id}: {FAILED}\n    {scrubber.text(replay.failure)}")
        return FAILED
    if not found:
        say(f"{case.id}: {SAME}")
        return SAME
    say("\n".join([f"{case.id}: {WRITTEN}", *(f"    {scrubber.text(str(one))}" for one in found)]))
    document = replay.recorded(scrubber, _source(settings.arm))
    problems = replay.problems_of(document)
    if problems:
        say("\n".join([f"    {REFUSED}: it can't be written as a case", *map(scrubber.text, problems)]))
        return REFUSED
    told = write(settings.folder / f"{case.id}.json", document, hidden, case.document)
    if told:
        say(f"    {REFUSED}: what would be written contains {', '.join(told)}")
        return REFUSED
    return WRITTEN


def write(file: Path, document: Any, hidden: Dict[str, str], original: Any) -> List[str]:
    """Writes a case, and reads it again: it is not kept if it says whose it is. Returns what it said."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    told = leaks(file.read_text(encoding="utf-8"), hidden, original)
    if told:
        file.unlink()
    return told


def _hidden(target: AzureTarget, settings: Settings) -> Dict[str, str]:
    """What must not be in any file, by what it is."""
    hidden = {
        "the tenant": target.tenant, "the subscription": target.subscription, "the resource group": settings.group,
    }
    for number, token in enumerate(sorted(target.tokens.used), 1):
        hidden[f"token {number}"] = token
        hidden.update({f"{what} of token {number}": text for what, text in identifying(claims_of(token)).items()})
    for url in (settings.arm, settings.authority):
        host = urllib.parse.urlsplit(url).hostname or ""
        if host not in PUBLIC_HOSTS:
            hidden[f"the server of {'ARM' if url == settings.arm else 'Entra'}"] = host
    return hidden


def _source(arm: str) -> str:
    host = urllib.parse.urlsplit(arm).hostname or ""
    return f"recorded from {host if host in PUBLIC_HOSTS else 'a cloud of its own'} with dev/azure_cases.py"


class ResourceGroup:
    """A resource group that exists inside a `with` block, and is removed in any case."""

    def __init__(self, target: AzureTarget, name: str, say: Say, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = f"/subscriptions/{target.subscription}/resourcegroups/{name}"
        self._target = target
        self._name = name
        self._say = say
        self._sleep = sleep

    def __enter__(self) -> "ResourceGroup":
        answer = self._target.request("GET", self.path, GROUP_VERSION)
        if answer.status != 404:
            raise Failure(f"the resource group {self._name} is there already, or can't be asked for: {answer.status}")
        body = {"location": self._target.location, "tags": {TAG: "recording"}}
        try:
            answer = self._target.request("PUT", self.path, GROUP_VERSION, body)
        except BaseException:
            # It may have been made nevertheless.
            self._remove()
            raise
        if answer.status not in (200, 201):
            raise Failure(f"the resource group {self._name} can't be made: {answer.status} {answer.text()}")
        return self

    def __exit__(self, *_: Any) -> None:
        self._remove()

    def _remove(self) -> None:
        self._say(f"removing the resource group {self._name}, which takes a while ...")
        with uninterrupted():
            left = self._target.remove_made()
            gone, why = self._deleted()
        for path in left:
            self._say(f"not removed: {path}; remove it with\n    az resource delete --ids '{path}'")
        if not gone:
            self._say(
                f"the resource group {self._name} was not removed ({why}); remove it with\n"
                f"    az group delete --yes --name {self._name} --subscription {self._target.subscription}"
            )
        if left or not gone:
            raise Failure("not everything was removed; see above")
        self._say(f"removed the resource group {self._name}")

    def _deleted(self) -> Tuple[bool, str]:
        """Deletes the group and waits until it is gone; returns why it is not, otherwise."""
        deadline = time.monotonic() + REMOVAL_SECONDS
        why = "no time was left"
        while time.monotonic() < deadline:
            try:
                answer = self._target.request("DELETE", self.path, GROUP_VERSION)
                if answer.status == 202:
                    return self._awaited(deadline)
                if answer.status in (200, 204, 404):
                    return True, ""
                why = f"{answer.status} {answer.text()}"
                if answer.status not in (409, 429):
                    break
            except Failure as failure:
                why = str(failure)
            self._sleep(REMOVAL_PAUSE_SECONDS)
        return False, why

    def _awaited(self, deadline: float) -> Tuple[bool, str]:
        why = "it is still being removed"
        while time.monotonic() < deadline:
            try:
                if self._target.request("GET", self.path, GROUP_VERSION).status == 404:
                    return True, ""
            except Failure as failure:
                why = str(failure)
            self._sleep(REMOVAL_PAUSE_SECONDS)
        return False, why
