#!/usr/bin/env python3
"""Compare the Azure emulator with what Azure is known to answer: the cases of tests/azure-cases.

The exit status is 0 only if nothing differs but what the list of known differences says. `record` replays the cases on
Azure itself; see its own --help.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import re
from pathlib import Path

from ensign_dev import main, paths
from ensign_dev.azure_cases import azure, case, emulator, known, record, replay, report, suite
from ensign_dev.azure_cases.values import GUID
from ensign_dev.failure import Failure

RECORD = """Replay the cases on Azure, and write those that Azure answers differently as cases.

Everything happens in a resource group that is made for it and removed at the end. What will be made is shown first; nothing
is made without --yes. The files have no IDs, tokens, names or times; read them before you publish them."""


def azure_cases() -> int:
    if any("eyJ" in argument for argument in sys.argv):
        raise Failure("a token does not belong on the command line, where others can see it")
    options = parser().parse_args()
    cases = case.load(options.cases)
    chosen = case.chosen(cases, options.only)
    if options.command == "record":
        return recorded(chosen, options)
    differences = known.load(options.cases, cases)
    if options.list:
        width = max(len(one.id) for one in chosen)
        for one in chosen:
            print(f"{one.id:{width}}  {one.area:17}  {one.evidence}")
        return 0
    results = suite.run(chosen, differences, emulator.binary(options.emulator))
    print(report.machine_readable(results) if options.output == "json" else report.text(results))
    return 0 if report.all_good(results) else 1


def parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    add_choice(whole, paths.AZURE_CASES, [])
    whole.add_argument("--list", action="store_true", help="list the cases")
    whole.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how results are printed [text]")
    whole.add_argument(
        "--emulator", metavar="FILE",
        help=f"the emulator's program [{emulator.BINARY_VARIABLE}, or target/debug/{emulator.NAME}]",
    )
    commands = whole.add_subparsers(dest="command", metavar="record", help="replay the cases on Azure")
    recorder = commands.add_parser("record", description=RECORD, formatter_class=plain)
    # Without defaults, which would replace what was given before `record`.
    add_choice(recorder, argparse.SUPPRESS, argparse.SUPPRESS)
    recorder.add_argument("--subscription", metavar="ID", required=True, help="the subscription to use")
    recorder.add_argument("--location", metavar="REGION", required=True, help="the region of the resource group")
    recorder.add_argument(
        "--to", metavar="DIR", type=Path, default=paths.target_dir() / "azure-recordings",
        help="the folder for the cases, which has to be empty [target/azure-recordings]",
    )
    recorder.add_argument(
        "--token-command", metavar="COMMAND", default="az account get-access-token --output json",
        help=f"prints a token for ARM, unless {azure.TOKEN_VARIABLE} has one [%(default)s]",
    )
    recorder.add_argument("--arm", metavar="URL", default="https://management.azure.com", help="ARM [%(default)s]")
    recorder.add_argument(
        "--authority", metavar="URL", default="https://login.microsoftonline.com", help="Entra [%(default)s]"
    )
    recorder.add_argument(
        "--include", metavar="NAME", action="append", default=[], choices=replay.INCLUDABLE,
        help=f"also replay cases with {' or '.join(replay.INCLUDABLE)}; can be repeated",
    )
    recorder.add_argument(
        "--pace", metavar="SECONDS", type=float, default=1.0, help="shortest time between two requests [%(default)s]"
    )
    recorder.add_argument(
        "--settle", metavar="SECONDS", type=float, default=60.0,
        help="how long to ask again before an answer counts as different [%(default)s]",
    )
    recorder.add_argument("--yes", action="store_true", help="make what is shown")
    return whole


def add_choice(to: argparse.ArgumentParser, folder: object, only: object) -> None:
    to.add_argument("--cases", metavar="DIR", type=Path, default=folder, help="the folder of the cases [tests/azure-cases]")
    to.add_argument("--only", metavar="ID", action="append", default=only, help="only this case; can be repeated")


def recorded(cases: "list[case.Case]", options: argparse.Namespace) -> int:
    if not re.fullmatch(GUID, options.subscription):
        raise Failure(f"{options.subscription!r} is not the ID of a subscription")
    settings = record.Settings(
        arm=options.arm, authority=options.authority, subscription=options.subscription, location=options.location,
        folder=options.to, include=options.include, pace_seconds=options.pace, settle_seconds=options.settle,
    )
    return record.record(cases, settings, azure.Tokens(options.token_command), options.yes)


if __name__ == "__main__":
    main.run(azure_cases)
