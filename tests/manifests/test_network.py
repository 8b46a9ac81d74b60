"""Who may speak with whom: nobody, but for what is listed; and every rule is about pods that exist."""

import pytest

PART_OF = {"app.kubernetes.io/part-of": "lavin"}
PODS = {
    "rank": PART_OF | {"lavin.dev/role": "rank"},
    "step": PART_OF | {"lavin.dev/role": "step", "workflows.argoproj.io/workflow": "lavin-dit-abc"},
    "setup": PART_OF | {"lavin.dev/role": "setup"},
    "driver": {"workflows.argoproj.io/workflow": "lavin-dit-abc"},
    "stranger": {"app": "ml-pipeline"},
}
KFP = {8887, 8888, 8080, 9000, 8333}
API_SERVER = {443, 6443, 8443}
EGRESS = {
    "rank": {("rank", None), ("kube-system", 53)},
    "setup": {("kube-system", 53)},
    "driver": {("kube-system", 53)} | {("kubeflow", port) for port in KFP} | {("anywhere", port) for port in API_SERVER},
    "step": {("kube-system", 53), ("monitoring", 9091)}
    | {("kubeflow", port) for port in KFP}
    | {("anywhere", port) for port in API_SERVER | {22, 9000}}
    | {("any namespace", 443), ("any namespace", 9000)},
}
INGRESS = {"rank": {("rank", None), ("monitoring", 9400)}, "setup": set(), "driver": set(), "step": set()}


def selects(policy, labels):
    """Whether a policy is about pods with these labels."""
    selector = policy["spec"]["podSelector"]
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(term["operator"] == "Exists" and term["key"] in labels for term in selector.get("matchExpressions", []))


def peer_name(peer):
    """A peer in one word."""
    if "ipBlock" in peer:
        return {"0.0.0.0/0": "anywhere", "::/0": "anywhere", "169.254.20.10/32": "kube-system"}[peer["ipBlock"]["cidr"]]
    if "namespaceSelector" in peer:
        assert "podSelector" not in peer
        return peer["namespaceSelector"].get("matchLabels", {}).get("kubernetes.io/metadata.name", "any namespace")
    return peer["podSelector"]["matchLabels"]["lavin.dev/role"]


def allowed(overlay, pod, direction):
    """(peer, port) pairs that some policy allows; none where every port is."""
    key, peers = direction.lower(), {"Egress": "to", "Ingress": "from"}[direction]
    policies = [policy["spec"] for policy in overlay.of("NetworkPolicy").values() if selects(policy, PODS[pod])]
    rules = [rule for policy in policies if direction in policy["policyTypes"] for rule in policy.get(key, [])]
    assert all(rule[peers] for rule in rules), "a rule without peers allows all of them"
    return {(peer_name(peer), port["port"]) for rule in rules for peer in rule[peers] for port in rule.get("ports", [{"port": None}])}


def denied_by_default(overlay, pod):
    policies = [policy["spec"] for policy in overlay.of("NetworkPolicy").values() if selects(policy, PODS[pod])]
    return {direction for policy in policies for direction in policy["policyTypes"]} == {"Ingress", "Egress"}


@pytest.mark.parametrize("pod", ["rank", "step", "setup"])
def test_a_pod_of_ours_speaks_with_these_and_no_others(overlay, pod):
    assert denied_by_default(overlay, pod)
    assert allowed(overlay, pod, "Egress") == EGRESS[pod]
    assert allowed(overlay, pod, "Ingress") == INGRESS[pod]


def test_kfps_own_pods_are_confined_in_our_namespace_and_left_alone_in_kfps(overlay):
    if overlay.name == "standalone":
        assert not any(selects(policy, PODS[pod]) for policy in overlay.of("NetworkPolicy").values() for pod in ("driver", "stranger"))
        return
    assert denied_by_default(overlay, "stranger")
    assert allowed(overlay, "driver", "Egress") == EGRESS["driver"]


def test_the_default_denies_both_directions_to_all(overlay):
    deny = overlay.of("NetworkPolicy")["default-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & deny.keys()
    assert deny["podSelector"] == ({"matchLabels": PART_OF} if overlay.name == "standalone" else {})


def test_every_policy_is_about_pods_that_exist(overlay):
    for name, policy in overlay.of("NetworkPolicy").items():
        about = [pod for pod, labels in PODS.items() if pod != "stranger" and selects(policy, labels)]
        assert about, name


def test_no_cloud_credentials_are_in_reach(overlay):
    blocks = [
        peer["ipBlock"]
        for policy in overlay.of("NetworkPolicy").values()
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if peer.get("ipBlock", {}).get("cidr") in {"0.0.0.0/0", "::/0"}
    ]
    assert blocks
    assert {tuple(block["except"]) for block in blocks} == {("169.254.0.0/16",), ("fe80::/10",)}
