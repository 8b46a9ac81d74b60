import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.entry import StepFailedError
from lavin_dit.errors import InputError
from pipelines import connection, kfp_settings
from pipelines.connection import ServerError, all_pages, connect, named
from pipelines.following import wait
from pipelines.kfp_settings import find_settings
from pipelines.release import upload
from pipelines.schedule import schedule
from pipelines.submit import submit

SECRET = "eyJhbGciOi.very.secret"  # noqa: S105
MakeKfp = Callable[..., Any]


def refusal(*arguments: Any) -> str:
    """The one sentence of a user's mistake."""
    with pytest.raises(InputError) as caught:
        connect(*arguments or (None, None, None))
    return one_line(caught.value)


def failure() -> str:
    """The one sentence of a server's failure."""
    with pytest.raises(ServerError) as caught:
        connect(None, None, None)
    return one_line(caught.value)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    assert SECRET not in str(error)
    return str(error)


def write_context(home: Path, **settings: str) -> None:
    (home / ".config" / "kfp" / "context.json").write_text(json.dumps(settings))


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod finds: its namespace and its token."""
    (tmp_path / "namespace").write_text("of-pod\n")
    (tmp_path / "token").write_text("of-pod\n")
    monkeypatch.setattr(kfp_settings, "POD_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(kfp_settings, "POD_TOKEN", tmp_path / "token")
    return tmp_path


def test_a_host_is_looked_for_in_the_option_then_both_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set KFP_ENDPOINT" in refusal()
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://kfps-own/")
    assert find_settings(None, None, None).host == "http://kfps-own"
    monkeypatch.setenv("KFP_ENDPOINT", "http://variable/pipeline/")
    assert find_settings(None, None, None).host == "http://variable/pipeline"
    assert find_settings("https://option", None, None).host == "https://option"


@pytest.mark.parametrize("host", ["kfp.example.com", "ftp://kfp", "http://", "http://me:password@kfp", "http://a b"])
def test_a_host_that_is_no_plain_url_is_refused(home: Path, host: str) -> None:
    assert "must be a URL such as https://" in refusal(host, None, None)


def test_in_a_pod_host_namespace_and_token_are_found_without_being_given(home: Path, pod: Path) -> None:
    settings = find_settings(None, None, None)
    assert (settings.host, settings.namespace, settings.token()) == (kfp_settings.POD_HOST, "of-pod", "of-pod")


def test_a_namespace_is_looked_for_in_the_option_the_variable_and_kfps_settings(
    home: Path, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_context(home, namespace="of-kfp")
    assert find_settings(None, None, None).namespace == "of-kfp"
    monkeypatch.setenv("KFP_NAMESPACE", "of-variable")
    assert find_settings(None, None, None).namespace == "of-variable"
    assert find_settings(None, "of-option", None).namespace == "of-option"


def test_a_token_is_looked_for_in_the_option_the_variable_and_the_pods_files(
    home: Path, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("named", "option"):
        (pod / name).write_text(f"of-{name}\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(pod / "named"))
    assert find_settings(None, None, None).token() == "of-named"
    monkeypatch.setenv("KFP_TOKEN", "of-variable")
    assert find_settings(None, None, None).token() == "of-variable"
    assert find_settings(None, None, pod / "option").token() == "of-option"


def test_the_token_goes_with_every_request_and_is_read_anew(make_kfp: MakeKfp, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    kfp = make_kfp(token="first")  # noqa: S106
    reached = connect(kfp.host, None, file)
    file.write_text("second\n")
    kfp.token = "second"  # noqa: S105
    assert reached.experiments.experiment_service_list_experiments().experiments is None
    assert [request.headers["authorization"] for request in kfp.requests] == ["Bearer first", "Bearer second"]


def test_a_cookie_and_a_header_of_kfps_settings_go_along(kfp: Any, home: Path) -> None:
    write_context(
        home, client_authentication_cookie="session=1", client_authentication_header_name="X-Who", client_authentication_header_value="me"
    )
    connect(None, None, None)
    (request,) = kfp.requests
    assert (request.headers["cookie"], request.headers["x-who"]) == ("session=1", "me")


@pytest.mark.parametrize("text", ["", f"{SECRET}\n{SECRET}", f"{SECRET}é"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(kfp: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    assert "must be one line of plain characters" in refusal(None, None, tmp_path / "token")
    assert kfp.requests == []


def test_a_token_file_that_is_absent_is_refused(kfp: Any, tmp_path: Path) -> None:
    assert "must be a readable file with a token" in refusal(None, None, tmp_path / "absent")


def test_broken_settings_of_kfp_are_refused_by_the_files_name(kfp: Any, home: Path) -> None:
    (home / ".config" / "kfp" / "context.json").write_text("{")
    assert "context.json: must hold kfp's settings as JSON" in refusal()


def test_settings_do_not_show_their_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", SECRET)
    write_context(home, client_authentication_cookie=SECRET)
    assert SECRET not in repr(find_settings("http://kfp", None, None))


def test_a_server_of_one_user_is_never_told_a_namespace(kfp: Any) -> None:
    assert connect(None, "mine", None).scope() == {}


def test_a_server_of_several_users_needs_a_namespace(make_kfp: MakeKfp) -> None:
    host = make_kfp(multi_user=True).host
    assert connect(host, "mine", None).scope() == {"namespace": "mine"}
    assert "--namespace: " in refusal(host, None, None)


def test_links_lead_to_the_ui(kfp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(None, None, None).link("runs/details/1") == f"{kfp.host}/#/runs/details/1"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui.example/")
    assert connect(None, None, None).link("runs") == "https://ui.example/#/runs"


def test_all_pages_of_a_list_are_read_and_a_name_is_found(kfp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAGE_SIZE", 2)
    api = connect(None, None, None).experiments
    for name in "abcde":
        api.experiment_service_create_experiment({"display_name": name})
    found = all_pages(api.experiment_service_list_experiments, "experiments")
    assert [item.display_name for item in found] == list("abcde")
    (only,) = all_pages(api.experiment_service_list_experiments, "experiments", filter=named("c"))
    assert only.display_name == "c"


def test_a_server_that_is_down_is_one_line(kfp: Any) -> None:
    kfp.stop()
    assert "cannot be reached: Connection refused" in failure()


def test_a_host_that_nobody_knows_is_one_line(home: Path) -> None:
    assert "nobody knows a host of this name" in refusal("http://no-such-host.invalid", None, None)


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """Something that speaks TLS with a certificate that nobody trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is absent: it makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", *options, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                    context.wrap_socket(plain, server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_certificate_that_nobody_trusts_is_one_line(home: Path, tls_port: int) -> None:
    told = refusal(f"https://localhost:{tls_port}", None, None)
    assert "no TLS connection (certificate verify failed: self-signed certificate" in told
    assert "SSL_CERT_FILE" in told


def test_a_certificate_that_ssl_cert_file_names_is_trusted(
    home: Path, tls_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with pytest.raises(ServerError, match="broke the connection off"):
        connect(f"https://localhost:{tls_port}", None, None)


def test_https_to_a_server_that_speaks_http_is_one_line(kfp: Any) -> None:
    assert "no TLS connection" in refusal(kfp.host.replace("http:", "https:"), None, None)


@pytest.mark.parametrize(("status", "words"), [(401, "does not know you (401: out of order)"), (403, "does not let you do this (403")])
def test_a_refused_token_is_one_line_and_not_shown(kfp: Any, monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    monkeypatch.setenv("KFP_TOKEN", SECRET)
    kfp.break_down(status)
    assert words in (told := refusal())
    assert "--token-file" in told


def test_what_is_no_kfp_server_is_one_line(kfp: Any) -> None:
    kfp.break_down(404, times=1)
    assert "is no KFP server of version 2" in refusal()
    kfp.break_down("page", times=1)
    assert "is no KFP server: what it answers is no JSON" in refusal()


def test_a_redirect_is_not_followed_and_what_it_carries_not_shown(kfp: Any) -> None:
    kfp.break_down("login")
    assert "sends us on to https://login.example/auth, perhaps to log in" in (told := refusal())
    assert "secret" not in told
    assert len(kfp.requests) == 1


def test_a_refused_request_is_told_in_the_servers_words_without_its_stack(kfp: Any) -> None:
    kfp.break_down(400, message="InvalidInputError: no such thing\n\ngoroutine 1 [running]")
    assert refusal() == f"{kfp.host} refused the request (400: InvalidInputError: no such thing)"


def test_a_long_message_is_cut(kfp: Any) -> None:
    kfp.break_down(400, message="long " * 1000)
    assert len(refusal()) < connection.MESSAGE_LENGTH + 100


@pytest.mark.parametrize("kind", [500, 503, 429, "garbage", "reset"])
def test_a_failing_server_is_one_line_and_may_fare_better_later(kfp: Any, kind: int | str) -> None:
    kfp.break_down(kind)
    with pytest.raises(StepFailedError) as caught:
        connect(None, None, None)
    one_line(caught.value)
    assert isinstance(caught.value, ServerError)
    assert caught.value.is_passing
    assert len(kfp.requests) == 1


def test_a_slow_server_is_given_up(kfp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.2)
    kfp.break_down("slow")
    assert failure() == f"{kfp.host} did not answer within 0.2 s"


def test_a_lost_answer_to_a_change_says_that_it_may_have_been_made(kfp: Any) -> None:
    reached = connect(None, None, None)
    kfp.break_down("reset")
    with pytest.raises(ServerError, match="may have been done all the same"):
        reached.experiments.experiment_service_create_experiment({"display_name": "one"})


@pytest.mark.parametrize("command", [upload, submit, wait, schedule])
def test_the_help_says_what_comes_first(
    run_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: Callable[..., None]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(run_command(command, "--help").stdout.replace("│", " ").split())
    assert "Without it: KFP_ENDPOINT, else KF_PIPELINES_ENDPOINT, else, in a pod," in shown
    assert "Without it: KFP_NAMESPACE, else that in ~/.config/kfp/context.json, else the pod's." in shown
    assert "Without it: KFP_TOKEN, the token itself, else the file that KF_PIPELINES_SA_TOKEN_PATH names, else /var/run/" in shown


def test_nothing_is_printed(kfp: Any, capfd: pytest.CaptureFixture[str]) -> None:
    connect(None, None, None)
    kfp.break_down("reset")
    failure()
    assert capfd.readouterr() == ("", "")
