"""Who may do what: exactly this, and all that the launcher asks for."""

from components.launcher.preflight import RIGHTS

RUN = {"create", "delete", "get", "list"}
LAUNCHER = {
    ("kubeflow.org", "pytorchjobs"): RUN,
    ("trainer.kubeflow.org", "trainjobs"): RUN,
    ("", "pods"): {"get", "list"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"list"},
    ("kueue.x-k8s.io", "localqueues"): {"get"},
    ("argoproj.io", "workflows"): {"get"},
}
CLUSTER = {("trainer.kubeflow.org", "clustertrainingruntimes"): {"get"}}
KFP_STEPS = {
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
    ("", "configmaps"): {"get"},
    ("", "secrets"): {"get"},
}
NAMED = {("", "configmaps"): ["kfp-launcher"], ("", "secrets"): ["mlpipeline-minio-artifact"]}
"""Rights to single objects."""


def granted(role):
    """Verbs by API group and resource."""
    verbs = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs.setdefault((group, resource), set()).update(rule["verbs"])
    return verbs


def test_rights_are_exactly_these(overlay):
    assert {name: granted(role) for name, role in overlay.of("Role").items()} == {"lavin-launcher": LAUNCHER, "lavin-kfp-steps": KFP_STEPS}
    assert {name: granted(role) for name, role in overlay.of("ClusterRole").items()} == {"lavin-launcher": CLUSTER}


def test_nothing_is_granted_wholesale(overlay):
    rules = [rule for kind in ("Role", "ClusterRole") for role in overlay.of(kind).values() for rule in role["rules"]]
    for rule in rules:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert "nonResourceURLs" not in rule
        for group, resource in [(group, resource) for group in rule["apiGroups"] for resource in rule["resources"]]:
            assert rule.get("resourceNames") == NAMED.get((group, resource)), resource


def test_rights_go_to_the_pipeline_alone_and_ranks_have_none(overlay):
    bindings = [*overlay.of("RoleBinding").values(), *overlay.of("ClusterRoleBinding").values()]
    assert len(bindings) == 3
    pipeline = {"kind": "ServiceAccount", "name": "lavin-pipeline", "namespace": overlay.namespace}
    kfp = {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}
    for binding in bindings:
        role = binding["roleRef"]
        assert role["name"] in overlay.of(role["kind"])
        runs_as_kfp = overlay.name == "standalone" and role["name"] == "lavin-launcher"
        assert binding["subjects"] == [pipeline] + [kfp] * runs_as_kfp


def test_only_steps_get_a_token(overlay):
    accounts = overlay.of("ServiceAccount")
    assert accounts["lavin-training"]["automountServiceAccountToken"] is False
    # Argo's executor and KFP's driver run as this account and find their token nowhere else.
    assert accounts["lavin-pipeline"]["automountServiceAccountToken"] is True


def test_the_launcher_is_granted_what_it_asks_for_and_nothing_else(overlay):
    asked = {(right.group, right.resource): set(right.verbs) for right in RIGHTS}
    assert granted(overlay.of("Role")["lavin-launcher"]) | granted(overlay.of("ClusterRole")["lavin-launcher"]) == asked
