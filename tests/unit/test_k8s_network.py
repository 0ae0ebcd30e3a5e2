# SPDX-License-Identifier: GPL-3.0-or-later
"""Network policies, evaluated as a cluster would: who may talk to whom, and nobody else."""

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from k8s_overlays import OVERLAYS, RUNNERS, SERVICES, Pod, of_kind, pods

CLIENT = Pod("a client", {"granulo.io/client": "true"}, {})
STRANGER = Pod("a stranger", {"app": "stranger"}, {})
SEGMENTS = ("segmenter", "segmenter-inline")
PORTS = (8080, 8081, 8500, 8501, 8333, 4317, 6379, 8265, 10001)

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def has_peer(rule: dict[str, Any], side: str, other: Pod, port: int) -> bool:
    ports = [item["port"] for item in rule.get("ports", [])]
    if ports and port not in ports:
        return False
    # A peer with a namespace's selector means pods of other namespaces here.
    return any(
        "namespaceSelector" not in peer
        and "podSelector" in peer
        and selects(peer["podSelector"], other.labels)
        for peer in rule[side]
    )


def allows(overlay: str, source: Pod, target: Pod, port: int) -> bool:
    """Whether both ends let a connection within the namespace through."""
    ends = (
        ("Egress", "egress", "to", source, target),
        ("Ingress", "ingress", "from", target, source),
    )
    for kind, rules, side, own, other in ends:
        policies = [
            item["spec"]
            for item in of_kind(overlay, "NetworkPolicy").values()
            if kind in item["spec"]["policyTypes"]
            and selects(item["spec"]["podSelector"], own.labels)
        ]
        assert policies, f"nothing denies {own.owner} its {kind}"
        if own is source and source in (CLIENT, STRANGER):
            continue  # what leaves the pods of others is for others to say
        if not any(
            has_peer(rule, side, other, port) for item in policies for rule in item.get(rules, [])
        ):
            return False
    return True


@each_overlay
def test_each_workload_has_a_policy_of_its_own(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    everybody = policies["deny-all"]["spec"]
    assert everybody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in of_kind(overlay, "Deployment"):
        selector = policies[name]["spec"]["podSelector"]
        assert selector == {"matchLabels": {"app.kubernetes.io/name": name}}


@each_overlay
def test_within_the_namespace_exactly_these_connections_are_possible(overlay: str) -> None:
    found = {item.owner.removeprefix("Deployment/"): item for item in pods(overlay)}
    ray = {name for name in found if name.startswith("RayCluster/")}
    assert len(ray) == (4 if overlay == "production" else 0)
    needed = {(CLIENT.owner, service, 8080) for service in SERVICES}
    needed |= {(segmenter, "tf-serving", 8500) for segmenter in SEGMENTS}
    needed |= {("analyzer", "segmenter-inline", 8080)}
    if overlay == "kind":
        needed |= {(name, "dev-s3", 8333) for name in (*SERVICES, "tf-serving")}
    if overlay == "production":
        senders = {*SERVICES, "tf-serving", *ray}
        needed |= {(name, "otel-collector", 4317) for name in senders}
        needed |= {("RayCluster/granulo-ray/cpu", "tf-serving", 8500)}
        needed |= set(product(RUNNERS, ray, (6379, 8265, 10001)))
        needed |= set(product(ray, ray, PORTS))
    everybody = {**found, CLIENT.owner: CLIENT, STRANGER.owner: STRANGER}
    possible = {
        (source, target, port)
        for source, target, port in product(everybody, found, PORTS)
        if allows(overlay, everybody[source], found[target], port)
    }
    assert possible == needed


@each_overlay
def test_no_pod_reaches_the_nodes_metadata_service(overlay: str) -> None:
    for name, item in of_kind(overlay, "NetworkPolicy").items():
        for rule in item["spec"].get("egress", []):
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    assert peer["ipBlock"]["except"] == ["169.254.0.0/16"], name
                    assert rule["ports"], name
