#!/usr/bin/python3 -IS
# SPDX-License-Identifier: MIT
"""Prints how long each step of the last run took, from systemd's own record
in the journal: `starting` and `started` of each unit."""
import json
import subprocess

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
STARTED = "39f53479d3a045ac8e11786248231fbf"
TARGET = "nvidia-reload.target"


def journal():
    command = [
        "journalctl", "--boot", "--output=json", "--output-fields=MESSAGE_ID,UNIT,INVOCATION_ID",
        f"MESSAGE_ID={STARTING}", f"MESSAGE_ID={STARTED}",
    ]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        entry = json.loads(line)
        unit = entry.get("UNIT", "")
        if unit.startswith("nvidia-reload"):
            yield unit, entry["MESSAGE_ID"], int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6


def steps():
    """The steps of the last run, in order: name, begin, end."""
    begun, run = {}, []
    for unit, message, at in journal():
        if message == STARTING:
            if unit == "nvidia-reload-preflight.service":
                run = []
            begun[unit] = at
        elif unit in begun:
            run.append((unit, begun.pop(unit), at))
    return [(unit, begin, end) for unit, begin, end in run if unit != TARGET]


def main():
    run = steps()
    if not run:
        raise SystemExit("steps: the journal has no run")
    first, last = run[0][1], run[-1][2]
    total = last - first
    width = 40
    for unit, begin, end in run:
        name = unit.removeprefix("nvidia-reload-").removesuffix(".service")
        at = round((begin - first) / total * width)
        length = max(1, round((end - begin) / total * width))
        bar = (" " * at + "█" * length)[:width].ljust(width)
        print(f"  {name:<18} {end - begin:6.2f} s  {bar}")
    print(f"  {'in all':<18} {total:6.2f} s")


if __name__ == "__main__":
    main()
