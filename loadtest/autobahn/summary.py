#!/usr/bin/env python3
"""Judges a report of the Autobahn TestSuite: summary.py [--quick] report/index.json

Prints the counts by section and behaviour and every case that is not OK. Exits with 1 if a case behaved
worse than its section allows, or if cases are missing: what did not run has not passed.
"""

import argparse
import collections
import json
import sys

# Cases of the suite 25.10.1 by section: 301 without compression, 216 with.
CASES = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
COMPRESSION = {12, 13}
LIMITS = 9


def section(case):
    return int(case.split(".")[0])


def order(case):
    return [int(part) for part in case.split(".")]


def allowed(case):
    """The behaviours, on messages and on closing, that a conforming server may show in a case."""
    if section(case) in COMPRESSION:
        return {"OK", "UNIMPLEMENTED"}
    # Both record how a server deals with what the RFC leaves open.
    if case == "7.1.6" or case.startswith("7.13."):
        return {"OK", "INFORMATIONAL"}
    return {"OK"}


def judge(cases, expected):
    """The reasons why a report does not pass; none if it does."""
    reasons = []
    counts = collections.Counter(section(case) for case in cases)
    for number in sorted(set(expected) | set(counts)):
        if counts[number] != expected.get(number, 0):
            reasons.append(f"section {number}: {counts[number]} cases ran, {expected.get(number, 0)} expected")
    for case in sorted(cases, key=order):
        behaviours = (cases[case]["behavior"], cases[case]["behaviorClose"])
        if not allowed(case).issuperset(behaviours):
            reasons.append(f"{case}: {behaviours[0]}, closing {behaviours[1]}")
    return reasons


def print_table(cases):
    columns = collections.defaultdict(collections.Counter)
    for case, result in cases.items():
        columns[result["behavior"]][section(case)] += 1
        if result["behaviorClose"] != result["behavior"]:
            columns[f"closing {result['behaviorClose']}"][section(case)] += 1
    names = sorted(columns, key=lambda name: (name != "OK", name.startswith("closing"), name))
    print("  ".join(["section"] + [name.rjust(4) for name in names]))
    sections = sorted({section(case) for case in cases})
    for label, numbers in [(str(number), [number]) for number in sections] + [("all", sections)]:
        cells = [str(sum(columns[name][number] for number in numbers)).rjust(max(4, len(name))) for name in names]
        print("  ".join([label.rjust(7)] + cells))


def print_allowed(cases):
    for case in sorted(cases, key=order):
        behaviours = (cases[case]["behavior"], cases[case]["behaviorClose"])
        if allowed(case).issuperset(behaviours) and not {"OK", "UNIMPLEMENTED"}.issuperset(behaviours):
            print(f"allowed         {case}: {behaviours[0]}, closing {behaviours[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="section 9 was left out")
    parser.add_argument("index")
    arguments = parser.parse_args()
    with open(arguments.index, encoding="utf-8") as file:
        agents = json.load(file)
    if not agents:
        sys.exit("autobahn: no case ran; is the server there?")
    if len(agents) != 1:
        sys.exit(f"autobahn: {len(agents)} servers in the report, 1 expected")
    (cases,) = agents.values()
    expected = {number: count for number, count in CASES.items() if not (arguments.quick and number == LIMITS)}

    print_table(cases)
    print_allowed(cases)
    reasons = judge(cases, expected)
    for reason in reasons:
        print(f"NOT CONFORMING  {reason}")
    if reasons:
        sys.exit(1)
    compressed = sum(1 for case in cases if section(case) in COMPRESSION and cases[case]["behavior"] == "OK")
    print(f"conforming: {len(cases)} cases, {compressed} of them with compression")


if __name__ == "__main__":
    main()
