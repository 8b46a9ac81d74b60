"""Every answer that a real API server was recorded giving, given again: what it means to the launcher, and what the schemas make of it."""

import json
import re

import pytest

from components.launcher.api import ConflictError, DeniedError, NoSuchPathError, NotFoundError, RefusedError, UnavailableError
from components.launcher.kinds import PYTORCHJOB
from components.launcher.shapes import job_object
from tests.components.launcher.api_server import Answer

CASES = {
    "nprocPerNode as integer": RefusedError,
    "container not named pytorch": RefusedError,
    "name with capitals and underscore": RefusedError,
    "name that starts with a digit": RefusedError,
    "name of 64 characters": RefusedError,
    "two masters": RefusedError,
    "unknown replica type": RefusedError,
    "no containers": RefusedError,
    "ttl outside runPolicy, default field validation": None,
    "ttl outside runPolicy, fieldValidation=Strict": RefusedError,
    "bad quantity": RefusedError,
    "elastic policy without workers": RefusedError,
    "unknown cleanPodPolicy": None,
    "create that already exists": ConflictError,
    "delete with another uid as precondition": ConflictError,
    "delete": None,
    "get of an absent job": NotFoundError,
    "api group that does not exist": NoSuchPathError,
    "CRD not installed (TrainJob)": NoSuchPathError,
    "SelfSubjectAccessReview that is denied": None,
    "create without permission": DeniedError,
}
WATCH = "watch from a resourceVersion that is too old"


@pytest.fixture(scope="module")
def recorded(recordings):
    return {entry["case"]: entry for entry in json.loads((recordings / "pytorchjob" / "responses.json").read_text())}


def test_every_recorded_answer_has_a_case(recorded):
    assert set(recorded) == {*CASES, WATCH}


@pytest.mark.parametrize("case", CASES)
def test_an_answer_means_what_it_says(case, recorded, cluster, api):
    entry, error = recorded[case], CASES[case]
    response = entry["response"]
    cluster.answers.append(Answer(entry["status"], response.get("text") or json.dumps(response)))
    if error is None:
        assert api.find("/anything") == response
        return
    with pytest.raises(error) as raised:
        api.find("/anything")
    assert type(raised.value) is error
    assert response.get("message", "404") in str(raised.value)


def test_an_event_that_says_gone_is_no_end_of_anything(recorded, cluster, api):
    """Only a watch is told so, and the launcher watches nothing; a list that is told 410 asks again."""
    said = json.loads(recorded[WATCH]["first_line"])["object"]
    cluster.answers.append(Answer(said["code"], json.dumps(said)))
    with pytest.raises(UnavailableError, match="too old resource version"):
        api.jobs(PYTORCHJOB, {})


@pytest.mark.parametrize("case", ["nprocPerNode as integer", "bad quantity", "ttl outside runPolicy, fieldValidation=Strict"])
def test_what_the_real_schema_refused_ours_refuses(case, recorded, closed):
    assert closed.wrong(recorded[case]["request"])


def test_what_the_webhook_asks_for_every_job_has(recorded, make_request, surroundings, platform):
    for nodes in (1, 3):
        body = job_object(make_request(nodes=nodes), surroundings, platform)
        replicas = body["spec"]["pytorchReplicaSpecs"]
        assert set(replicas) <= {"Master", "Worker"}
        assert replicas.get("Master", {}).get("replicas", 1) == 1
        assert all(replica["template"]["spec"]["containers"][0]["name"] == "pytorch" for replica in replicas.values())
        assert ("elasticPolicy" in body["spec"]) <= ("Worker" in replicas)
        assert body["spec"]["runPolicy"]["cleanPodPolicy"] in ("All", "Running", "None")
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", body["metadata"]["name"])
