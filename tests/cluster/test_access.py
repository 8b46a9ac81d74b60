"""What the service accounts may and may not, asked of the API server itself."""

import pytest

from components.launcher.preflight import RIGHTS

pytestmark = pytest.mark.cluster

DENIED = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "secrets"),
    ("list", "configmaps"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "pods/exec"),
    ("create", "deployments.apps"),
    ("create", "jobs.batch"),
    ("patch", "pytorchjobs.kubeflow.org"),
    ("delete", "persistentvolumeclaims"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("escalate", "roles.rbac.authorization.k8s.io"),
    ("create", "serviceaccounts/token"),
    ("create", "inferenceservices.serving.kserve.io"),
]
DEPLOYMENT = ("create", "deployment", "intruder", "--image=none")


@pytest.fixture
def may(kubectl):
    """Asks for a service account of ours."""

    def ask(account, verb, resource, *, namespace=None):
        user = f"system:serviceaccount:{kubectl.namespace}:{account}"
        place = ["--namespace", namespace] if namespace else []
        subresource = resource.partition("/")[2]
        options = [f"--subresource={subresource}"] if subresource else []
        answer = kubectl.run("auth", "can-i", verb, resource.partition("/")[0], f"--as={user}", *options, *place).stdout
        return answer.strip().splitlines()[-1] == "yes"

    return ask


def test_the_pipeline_may_all_that_the_launcher_asks_for(may):
    for right in RIGHTS:
        name, slash, subresource = right.resource.partition("/")
        resource = f"{name}.{right.group}" if right.group else name
        for verb in right.verbs:
            assert may("lavin-pipeline", verb, f"{resource}{slash}{subresource}"), right


def test_the_pipeline_may_what_kfp_and_argo_need(may):
    for verb in ("create", "patch"):
        assert may("lavin-pipeline", verb, "workflowtaskresults.argoproj.io")


@pytest.mark.parametrize(("verb", "resource"), DENIED)
def test_the_pipeline_may_not(may, verb, resource):
    assert not may("lavin-pipeline", verb, resource)


def test_the_pipeline_may_nothing_in_other_namespaces(may):
    for verb, resource in (("get", "pods"), ("list", "events"), ("create", "pytorchjobs.kubeflow.org"), ("get", "secrets")):
        assert not may("lavin-pipeline", verb, resource, namespace="kube-system")


def test_ranks_may_nothing(may):
    for verb, resource in (("get", "pods"), ("get", "pytorchjobs.kubeflow.org"), ("get", "configmaps"), *DENIED):
        assert not may("lavin-training", verb, resource)


@pytest.mark.parametrize("command", [("get", "secrets"), DEPLOYMENT, ("get", "pods", "--namespace=kube-system")])
def test_the_api_server_refuses_the_call_itself(kubectl, command):
    done = kubectl.run(*command, f"--as=system:serviceaccount:{kubectl.namespace}:lavin-pipeline")
    assert done.returncode != 0
    assert "orbidden" in done.stderr


def test_the_pipeline_reads_its_own_pods(kubectl):
    kubectl("get", "pods", f"--as=system:serviceaccount:{kubectl.namespace}:lavin-pipeline")
