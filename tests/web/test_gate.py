"""Every way in: what a stranger, a rebound name, another's secret and a program may have of the app."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.errors import StudioError
from studio.jobs.queue import Queue, State
from studio.recipes.load import load
from studio.web.app import build
from studio.web.clients import MOST_BODY_BYTES, RateLimit, read_passwords
from studio.web.forms import OWN
from studio.web.options import Options

ADA = {"x-studio-client": "ada" * 10}
EVE = {"x-studio-client": "eve" * 10}
SECRET = "correct horse"  # noqa: S105  (of nobody)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(tmp_path_factory.mktemp("served") / "workspace", most_waiting=10)


@pytest.fixture(scope="module")
def app(options: Options) -> Iterator[TestClient]:
    """The app on this machine's own address; nothing works at its jobs."""
    with TestClient(build(options), "http://127.0.0.1") as client:
        yield client


def called(app: TestClient, name: str, *values: Any, headers: dict[str, str] = ADA) -> Any:
    """What a named endpoint answers; its refusal as a ``StudioError``."""
    begun = app.post(f"/gradio_api/call/{name}", json={"data": list(values)}, headers=headers)
    assert begun.status_code == 200, begun.text
    told = app.get(f"/gradio_api/call/{name}/{begun.json()['event_id']}", headers=headers).text
    event, data = (line.partition(": ")[2] for line in told.strip().splitlines()[-2:])
    if event == "error":
        raise StudioError(str(json.loads(data)))
    assert event == "complete", told
    return json.loads(data)[0]


def submitted(app: TestClient, headers: dict[str, str] = ADA) -> Any:
    return called(app, "submit", "a red cube", "", "draft", OWN, OWN, OWN, 0, 0, headers=headers)


@pytest.fixture
def job(app: TestClient, options: Options) -> Iterator[int]:
    """One of Ada's, finished, with a mesh."""
    queue = Queue(options.workspace)
    number = int(submitted(app)["id"])
    queue.end(number, State.FINISHED, "")
    assets = queue.job(number).folder / "assets"
    assets.mkdir(parents=True)
    (assets / "asset.glb").write_bytes(b"glTF of Ada")
    yield number
    queue.delete(number)


# -------------------------------------------------------------------------------------------- who may come in


def test_other_machines_want_passwords(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):  # noqa: S104  (they are refused)
        with pytest.raises(StudioError, match="--auth"):
            build(Options(tmp_path, host))
    assert Options().host == "127.0.0.1"


def test_a_rebound_name_is_turned_away(app: TestClient) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example"):
        assert app.get("/", headers={"host": name}).status_code == 421


def test_passwords(tmp_path: Path) -> None:
    served = build(Options(tmp_path, "0.0.0.0", passwords={"ada": SECRET}))  # noqa: S104  (it has passwords)
    client = TestClient(served, "http://studio.example")

    def asked(words: str, path: str = "/jobs/1/recipe") -> int:
        encoded = base64.b64encode(words.encode()).decode()
        return client.get(path, headers={"authorization": f"Basic {encoded}"}).status_code

    assert client.get("/").status_code == 401
    assert client.get("/gradio_api/info").status_code == 401
    assert client.get("/jobs/1/recipe", headers=ADA).status_code == 401
    for wrong in ("ada:", "ada:wrong", ":", "bob:", f"bob:{SECRET}", f"ada:{SECRET}\0", "é:é"):
        assert asked(wrong) == 401
    assert client.get("/", headers={"authorization": "Basic ?"}).status_code == 401
    assert asked(f"ada:{SECRET}") == 404


def test_a_list_of_passwords(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text(f"ada:{SECRET}\n\nbob:a:b\n")
    assert read_passwords(path) == {"ada": SECRET, "bob": "a:b"}
    for wrong in ("", "ada", "ada:", ":x"):
        path.write_text(wrong)
        with pytest.raises(StudioError, match="expected lines such as"):
            read_passwords(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StudioError, match="Cannot read"):
        read_passwords(path)


def test_a_cookie_is_a_secret_of_its_own(app: TestClient) -> None:
    one, two = (TestClient(app.app, "http://127.0.0.1") for _ in range(2))
    cookies = [client.get("/").headers["set-cookie"] for client in (one, two)]
    assert cookies[0].split(";")[0] != cookies[1].split(";")[0]
    assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert "set-cookie" not in one.get("/").headers


def test_the_page_may_ask_no_other_machine(app: TestClient) -> None:
    headers = app.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


# --------------------------------------------------------------------------------------------- others' jobs


def test_others_jobs_look_like_none(app: TestClient, job: int) -> None:
    assert app.get(f"/jobs/{job}/glb", headers=ADA).content == b"glTF of Ada"
    for headers in (EVE, {}, {"x-studio-client": "short"}, {"cookie": "studio_client=" + "a" * 32}):
        stranger = TestClient(app.app, "http://127.0.0.1", headers=headers)
        assert stranger.get(f"/jobs/{job}/glb").status_code == 404
        assert stranger.get(f"/jobs/{job}/recipe").status_code == 404
    assert called(app, "jobs", "", 50, 0, headers=EVE) == []
    for name in ("job", "export"):
        with pytest.raises(StudioError, match=f"no job {job}"):
            called(app, name, job, *(["obj"] if name == "export" else []), headers=EVE)
    for action in ("cancel", "pause", "resume", "retry"):
        with pytest.raises(StudioError, match=f"no job {job}"):
            called(app, "act", action, job, headers=EVE)


def test_watching(app: TestClient, options: Options) -> None:
    number = submitted(app)["id"]
    first = app.get(f"/watched?job={number}", headers=ADA)
    assert "a red cube" in first.json()["parts"]["status"]
    assert first.json()["actions"] == ["pause", "cancel"]
    etag = {"if-none-match": first.headers["etag"]}
    assert app.get(f"/watched?job={number}", headers={**ADA, **etag}).status_code == 304
    Queue(options.workspace).pause(number)
    assert app.get(f"/watched?job={number}", headers={**ADA, **etag}).json()["actions"] == [
        "resume",
        "cancel",
    ]
    assert app.get(f"/watched?job={number}", headers=EVE).status_code == 404
    assert app.get("/watched", headers=EVE).json()["actions"] == []


def test_a_shared_queue_is_looked_at_and_not_touched(tmp_path: Path) -> None:
    options = Options(tmp_path / "shared", shared_queue=True)
    queue = Queue(options.workspace)
    (job,) = queue.submit([load("draft", "a red cube")], "ada")
    with TestClient(build(options), "http://127.0.0.1") as app:
        assert called(app, "job", job.id, headers=EVE)["prompt"] == "a red cube"
        with pytest.raises(StudioError, match="only be looked at"):
            called(app, "act", "cancel", job.id, headers=EVE)
    assert queue.job(job.id).state is State.QUEUED


def test_two_tabs_cancel_one_job(app: TestClient, options: Options) -> None:
    number = submitted(app)["id"]
    assert called(app, "act", "cancel", number)["state"] == "cancelled"
    assert called(app, "act", "cancel", number)["state"] == "cancelled"
    assert Queue(options.workspace).job(number).attempts == 0


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/queue.sqlite",
        "glb/../../../queue.sqlite",
        "/etc/passwd",
        "glb%00",
        "asset.glb",
        "recipe.toml",
        "state",
    ],
)
def test_a_path_is_no_kind_of_file(app: TestClient, job: int, path: str) -> None:
    answer = app.get(f"/jobs/{job}/{path}", headers=ADA)
    assert b"root:" not in answer.content and b"SQLite" not in answer.content
    assert answer.status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "1e3", "..", "999999999999999999999", "1;DROP TABLE jobs"])
def test_no_such_number(app: TestClient, number: str) -> None:
    assert app.get(f"/jobs/{number}/glb", headers=ADA).status_code in (404, 422)


def test_a_link_in_a_run_leads_nowhere(app: TestClient, options: Options, job: int) -> None:
    (Queue(options.workspace).job(job).folder / "assets" / "asset.ply").symlink_to("/etc/passwd")
    assert app.get(f"/jobs/{job}/ply", headers=ADA).status_code == 404


@pytest.mark.parametrize("name", ["../default", "..%2fdefault", "/etc/passwd", "default.webp", "nothing"])
def test_pictures_of_presets_only(app: TestClient, name: str) -> None:
    assert app.get("/presets/default").headers["content-type"] == "image/webp"
    assert app.get(f"/presets/{name}").status_code == 404


@pytest.mark.parametrize(
    "kind", ["/gradio_api/file=", "/file=", "/gradio_api/static/", "/assets/", "/static/"]
)
def test_the_library_serves_no_file_of_the_machine(app: TestClient, options: Options, kind: str) -> None:
    secret = options.workspace / "queue.sqlite"
    for path in (
        "/etc/passwd",
        str(secret),
        str(Path(__file__)),
        f"../../../../../..{secret}",
        "..%2f..%2fetc%2fpasswd",
    ):
        answer = app.get(f"{kind}{path}", headers=ADA)
        assert answer.status_code in (403, 404), (kind, path)


def test_a_request_of_many_bytes(app: TestClient) -> None:
    long = b"x" * (MOST_BODY_BYTES + 1)
    assert app.post("/gradio_api/call/submit", content=long, headers=ADA).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * (MOST_BODY_BYTES // 20)

    answer = app.post("/gradio_api/call/submit", content=pieces(), headers=ADA)
    assert answer.status_code >= 400
    assert app.post("/gradio_api/upload", files={"files": b"PK"}, headers=ADA).status_code == 404


# ---------------------------------------------------------------------------------------------------- limits


def test_a_table_through_the_door(app: TestClient) -> None:
    sent = app.post("/batches?name=../t.csv", content=b"prompt\na bear\n", headers=ADA)
    assert sent.status_code == 200 and sent.text.startswith("batch-t-")
    assert app.get(f"/batches/{sent.text}", headers=ADA).content.startswith(b"PK")
    assert app.get(f"/batches/{sent.text}", headers=EVE).status_code == 404
    wrong = app.post("/batches?name=<b>", content=b"\x89PNG", headers=ADA)
    assert wrong.status_code == 400 and wrong.headers["content-type"].startswith("text/plain")
    stranger = TestClient(app.app, "http://127.0.0.1")
    assert stranger.post("/batches", content=b"prompt\na bear\n").status_code == 400


def test_jobs_that_wait_are_limited(app: TestClient, options: Options) -> None:
    crowd = {"x-studio-client": "crowd" * 6}
    for _ in range(options.most_waiting):
        submitted(app, crowd)
    with pytest.raises(StudioError, match="at most 10"):
        submitted(app, crowd)
    submitted(app, {"x-studio-client": "other" * 6})


def test_a_program_says_whose_it_is(app: TestClient) -> None:
    with pytest.raises(StudioError, match="X-Studio-Client"):
        submitted(TestClient(app.app, "http://127.0.0.1"), {})


def test_rates_are_limited() -> None:
    now = 100.0
    limit = RateLimit(3, 60.0, "submissions", lambda: now)
    for _ in range(3):
        limit.take("ada")
    limit.take("eve")
    with pytest.raises(StudioError, match=r"3 in 60 s are fine\. Wait 60 s"):
        limit.take("ada")
    now += 61.0
    limit.take("ada")


# --------------------------------------------------------------------------------------------------- secrets


def test_secrets_are_written_nowhere(app: TestClient, options: Options) -> None:
    token = "only-ada-knows-this-token"  # noqa: S105  (it guards nothing)
    submitted(app, {"x-studio-client": token})
    for path in options.workspace.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


def test_a_recipe_holds_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_hub")
    queue = Queue(tmp_path)
    queue.submit([replace(load("sd3", "a bear"), seed=1)])
    assert all(b"hf_secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
