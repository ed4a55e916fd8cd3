#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""usage: check.py FLEET-FOLDER

Whether the manifests of fleet/kubernetes are what their engines read. plan.json and skyhook.json are the schemas of
system-upgrade-controller 0.20.1 and NodeWright 0.15.1 (both Apache-2.0), without descriptions, status and what is not
used here; a field that they do not know is an error. kured has none: its flags and the names that have to agree.
"""
import json
import os
import re
import sys

import jsonschema
import yaml

KURED_FLAGS = """
    alert-filter-match-only alert-filter-regexp alert-firing-only annotate-nodes blocking-pod-selector concurrency
    drain-delay drain-grace-period drain-pod-selector drain-timeout ds-name ds-namespace end-time force-reboot
    lock-annotation lock-release-delay lock-ttl log-format message-template-drain message-template-reboot
    message-template-uncordon metrics-host metrics-port node-id notify-url period post-reboot-node-labels
    pre-reboot-node-labels prefer-no-schedule-taint prometheus-url reboot-command reboot-days reboot-delay
    reboot-method reboot-sentinel reboot-sentinel-command reboot-signal skip-wait-for-delete-timeout start-time time-zone
""".split()
HERE = os.path.dirname(os.path.abspath(__file__))
INSTALLED = "/usr/share/nvidia-reload/fleet/"


def documents(path):
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def against_schema(path, schema):
    with open(os.path.join(HERE, schema)) as file:
        schema = json.load(file)
    found = documents(path)
    assert found, f"{path}: empty"
    for document in found:
        jsonschema.Draft7Validator(schema).validate(document)


def kured(path, fleet):
    by_kind = {document["kind"]: document for document in documents(path)}
    for kind in "ServiceAccount ClusterRole ClusterRoleBinding Role RoleBinding DaemonSet".split():
        assert kind in by_kind, f"no {kind}"
    names = {document["metadata"]["name"] for document in by_kind.values()}
    assert len(names) == 1 and names != {"kured"}, names
    name = names.pop()
    assert by_kind["Role"]["rules"][0]["resourceNames"] == [name], "kured may not take its lock"
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert by_kind[kind]["roleRef"]["name"] == name and by_kind[kind]["subjects"][0]["name"] == name, kind
    spec = by_kind["DaemonSet"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = spec["template"]["spec"]
    assert pod["serviceAccountName"] == name and pod["hostPID"] is True
    container = pod["containers"][0]
    assert container["securityContext"]["privileged"] is True
    flags = {}
    for word in container["command"][1:]:
        flag, value = re.fullmatch(r"--([a-z-]+)=(.*)", word).groups()
        assert flag in KURED_FLAGS, f"kured has no --{flag}"
        flags[flag] = value
    assert flags["ds-name"] == name and flags["ds-namespace"] == by_kind["DaemonSet"]["metadata"]["namespace"]
    assert flags["lock-annotation"] != "weave.works/kured-node-lock", "the lock of the other kured"
    assert int(flags["metrics-port"]) == container["ports"][0]["containerPort"] != 8080
    assert flags["concurrency"] == "1" and flags["lock-ttl"] == "0"
    for flag in ("reboot-command", "reboot-sentinel-command"):
        assert flags[flag].startswith(INSTALLED), flags[flag]
        assert os.access(os.path.join(fleet, flags[flag][len(INSTALLED):]), os.X_OK), flags[flag]


def main():
    fleet = sys.argv[1]
    folder = os.path.join(fleet, "kubernetes")
    against_schema(os.path.join(folder, "system-upgrade-controller.yaml"), "plan.json")
    against_schema(os.path.join(folder, "nodewright.yaml"), "skyhook.json")
    kured(os.path.join(folder, "kured.yaml"), fleet)


main()
