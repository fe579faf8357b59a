"""The commands `server`, `quickstart`, `yank`, `delete` and `restore_name` in real processes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import tomli

from private_pypi.index.local import LocalIndex
from private_pypi.testing.distributions import encode_multipart, form_for, make_sdist, make_wheel
from tests.commands.running import Ended, Run
from tests.mirror.upstream import running

# -- servers -------------------------------------------------------------------------------------


@dataclass
class Server:
    """A server process, and what it printed until it was ready."""

    process: subprocess.Popen[str]
    out: str
    url: str

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def serving_process(
    *argv: str | Path, environ: Mapping[str, str] | None = None, until: str = "private_pypi serves"
) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "private_pypi", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
    )
    watchdog = threading.Timer(600, process.kill)  # so long may a whole test take
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        out = ""
        while until not in out:
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the server ended: {out}{process.stderr.read()}")
            out += line
        url = re.search(r"serves (http://\S+)", out)
        assert url is not None
        yield Server(process, out, url[1].rstrip("/"))
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


CONFIG = '[mine]\ntype = "file_system"\nread_secret = "r"\nwrite_secret = "w"\n'
LOOPBACK = ("--host", "127.0.0.1", "--port", "0")


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.needs("time")
def test_a_server_serves_and_ends_cleanly(tmp_path: Path, with_signal: int) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    with serving_process("server", tmp_path / "root", "--config", config, *LOOPBACK) as server:
        page = requests.get(f"{server.url}/r/mine/simple/", auth=("mine", "r"), timeout=30)
        assert page.status_code == 200
        assert server.stop(with_signal) == 0


@pytest.mark.needs("time")
def test_a_server_started_by_variables_takes_texts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    prefix = "PYWHARF_COMMAND"
    environ = {
        prefix: "server",
        f"{prefix}_ROOT": str(root),
        f"{prefix}_HOST": "127.0.0.1",
        f"{prefix}_PORT": "0",
        f"{prefix}_CONFIG": CONFIG,
        f"{prefix}_ADMIN_SECRET": '[mine]\ntype = "file_system"\nraw = "w"\n',
        f"{prefix}_CONFIG_OR_ADMIN_SECRET_CAN_BE_TEXT": "",
        f"{prefix}_EXTRA_INDEX_URL": "",
        f"{prefix}_THREADS": "2",
    }
    with serving_process(environ=environ) as server:
        unknown = f"{server.url}/r/mine/simple/unknown/"
        page = requests.get(unknown, auth=("mine", "r"), timeout=30, allow_redirects=False)
        assert page.status_code == 404
        assert server.stop() == 0
    assert (root / "config.toml").read_text() == CONFIG
    for name in ("config.toml", "admin_secret.toml"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600


def test_a_wrong_option_of_waitress_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("server", tmp_path, *LOOPBACK, "--threads", "many")
    assert (ended.code, ended.out) == (1, "")
    (line,) = [each for each in ended.err.splitlines() if each.startswith("error:")]
    assert "--threads" in line
    assert "many" in line


@pytest.mark.needs("time")
def test_quickstart_makes_a_repository_once_and_serves_it_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ("quickstart", root, "--port", "0", "--name", "acme")
    with serving_process(*words, until="no second index") as first:
        table = tomli.loads((root / "config.toml").read_text())["acme"]
        read, write = table["read_secret"], table["write_secret"]
        assert re.fullmatch("[A-Za-z0-9]{32}", read)
        assert re.fullmatch("[A-Za-z0-9]{32}", write)
        assert read != write
        assert stat.S_IMODE((root / "config.toml").stat().st_mode) == 0o600
        assert stat.S_IMODE(root.stat().st_mode) == 0o700  # it contains private files
        index = first.url
        start = index.removesuffix("r/acme/simple")
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/r/acme/simple", index)
        readable = index.replace("//", f"//acme:{read}@")
        upload = f"--username acme --password {write} dist/*"
        published = index.removesuffix("simple")
        for line in (
            f"twine upload --repository-url {published} {upload}",
            f"uv publish --publish-url {published} {upload}",
            f"pip install --index-url {readable}/ PACKAGE",
            f"uv pip install --default-index {readable}/ PACKAGE",
            f"export UV_INDEX_ACME_USERNAME=acme UV_INDEX_ACME_PASSWORD={read}",
            f"uv add --default-index acme={index}/ PACKAGE",
            f"uv auth login {index}/ --username acme --password {read}",
            f"poetry config repositories.acme {published}",
            f"poetry source add --priority=primary acme {index}/",
            f"poetry config http-basic.acme acme {write}",
            f"{start} in a browser; sign in with acme and a password from above",
        ):
            assert f"\n    {line}\n" in first.out
        assert requests.get(f"{index}/", auth=("acme", read), timeout=30).status_code == 200
        assert first.stop(signal.SIGINT) == 0
    with serving_process("quickstart", root, "--port", "0", until="no second index") as second:
        assert second.out.replace(urlsplit(second.url).netloc, urlsplit(index).netloc) == first.out


@pytest.mark.needs("time")
def test_quickstart_with_public_shows_one_address_for_all_packages(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ours, public, hidden = make_wheel("demo", "1.0"), make_wheel("left", "1.0"), make_wheel("demo")
    with running() as upstream:
        upstream.add(*public)
        upstream.add("demo-9.0-py3-none-any.whl", hidden[1])
        words = ("quickstart", root, "--port", "0", "--with_public")
        words = (*words, "--index_url", upstream.index_url)
        with serving_process(*words, until="no second index") as server:
            tables = tomli.loads((root / "config.toml").read_text())
            assert list(tables) == ["mine", "pypi", "all"]
            # Nobody may read the mirror but through the group.
            assert tables["pypi"] == {
                "type": "mirror",
                "index_url": upstream.index_url,
                "cooldown": "3 days",
            }
            assert tables["all"] == {
                "type": "group",
                "members": ["mine", "pypi"],
                "publish_to": "mine",
            }
            read, write = tables["mine"]["read_secret"], tables["mine"]["write_secret"]
            index = server.url
            assert index.endswith("/r/all/simple")
            base = index.removesuffix("simple")
            readable = index.replace("//", f"//all:{read}@")
            for line in (
                f"twine upload --repository-url {base} --username all --password {write} dist/*",
                f"pip install --index-url {readable}/ PACKAGE",
                f"uv add --default-index all={index}/ PACKAGE",
                f"poetry source add --priority=primary all {index}/",
            ):
                assert f"\n    {line}\n" in server.out
            assert "/r/mine/" not in server.out
            content_type, body = encode_multipart(form_for(*ours), *ours)
            published = requests.post(
                base,
                data=body,
                headers={"Content-Type": content_type},
                auth=("all", write),
                timeout=30,
            )
            assert published.status_code == 200, published.text
            for project, filename in (("demo", ours[0]), ("left", public[0])):
                page = requests.get(f"{index}/{project}/", auth=("all", read), timeout=30)
                assert re.findall(r">([^<]+\.whl)</a>", page.text) == [filename]
    with serving_process("quickstart", root, "--port", "0", until="no second index") as again:
        assert again.out.replace(urlsplit(again.url).netloc, urlsplit(index).netloc) == server.out


@pytest.mark.needs("time")
def test_releases_are_yanked_unyanked_and_deleted(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    wheel, sdist = make_wheel(), make_sdist()
    project = tmp_path / "root" / "cache" / "mine" / "storage" / "demo"
    project.mkdir(parents=True)
    for filename, content in (wheel, sdist):
        (project / filename).write_bytes(content)
    with serving_process("server", tmp_path / "root", "--config", config, *LOOPBACK) as server:
        index = f"{server.url}/r/mine/simple/"

        def listed() -> dict[str, object]:
            accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
            page = requests.get(f"{index}demo/", auth=("mine", "r"), headers=accept, timeout=30)
            return {each["filename"]: each.get("yanked", False) for each in page.json()["files"]}

        environ = {"PRIVATE_PYPI_USERNAME": "mine", "PRIVATE_PYPI_PASSWORD": "w"}
        both = sorted([wheel[0], sdist[0]])

        yanked = run("yank", index, "Demo", "1.0", "--reason", "it burns", environ=environ)
        assert (yanked.code, yanked.err) == (0, "")
        assert sorted(yanked.out.splitlines()) == [f"yanked {name}" for name in both]
        assert listed() == dict.fromkeys(both, "it burns")

        again = run("unyank", index, "demo", "1.0", sdist[0], environ=environ)
        assert again == Ended(0, f"un-yanked {sdist[0]}\n", "")
        assert listed() == {wheel[0]: "it burns", sdist[0]: False}

        credentials = index.replace("//", "//mine:w@")
        deleted = run("delete", credentials, "demo", "1.0", wheel[0])
        assert deleted == Ended(0, f"deleted {wheel[0]}\n", "")
        assert listed() == {sdist[0]: False}

        refused = run("delete", index.replace("//", "//mine:hush@"), "demo", "1.0")
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith("error: the server answered 401: ")
        assert "hush" not in refused.err
        gone = run("delete", credentials, "demo", "9")
        assert (gone.code, gone.out) == (1, "")
        assert gone.err.startswith("error: the server answered 404: ")


@pytest.mark.needs("time")
def test_the_name_of_a_deleted_file_can_be_restored(run: Run, tmp_path: Path) -> None:
    """It works while the server is running, and the error of an upload mentions it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "config.toml").write_text(CONFIG)
    filename, content = make_wheel()
    other = make_wheel(files={"other.py": b"other"})[1]
    words = ("restore_name", root, "mine")
    with serving_process("server", root, *LOOPBACK) as server:
        credentials = f"{server.url}/r/mine/simple/".replace("//", "//mine:w@")

        def publish(content: bytes) -> requests.Response:
            content_type, body = encode_multipart(form_for(filename, content), filename, content)
            headers = {"Content-Type": content_type}
            url = f"{server.url}/r/mine/"
            auth = ("mine", "w")
            return requests.post(url, data=body, headers=headers, auth=auth, timeout=30)

        never = run(*words, filename)
        assert never == Ended(0, f"mine: no file named {filename} was deleted; nothing to do\n", "")
        assert publish(content).status_code == 200
        assert run(*words, filename) == never  # the file is published, not deleted
        assert run("delete", credentials, "demo", "1.0").code == 0
        refused = publish(other)
        assert (refused.status_code, "restore_name" in refused.text) == (400, True)

        # In any spelling, and while the server is running.
        spelled = filename.replace("demo-1.0", "Demo-1.0.0")
        assert run(*words, spelled) == Ended(
            0, f"mine: the name {filename} can be used again\n", ""
        )
        assert run(*words, filename) == never
        assert publish(other).status_code == 200
        shown = requests.get(f"{credentials}demo/{filename}", timeout=30)
        assert shown.content == other
    audit = [json.loads(line) for line in (root / "log/audit.jsonl").read_text().splitlines()]
    (restored,) = [line for line in audit if line["action"] == "restore_name"]
    assert restored["files"] == [{"filename": filename}]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("gone", "mine", "demo-1.0.zip"), 1, "ROOT: there is no folder 'gone'"),
        (("", "mine", "demo-1.0.zip"), 1, "ROOT: there is no folder ''"),
        (("root", "mine", "demo"), 1, "invalid distribution filename 'demo'"),
        (
            ("empty", "mine", "demo-1.0.zip"),
            2,
            "there is no file 'empty/config.toml': give --config",
        ),
        (
            ("root", "mien", "demo-1.0.zip"),
            1,
            "root/config.toml: there is no repository 'mien'; did you me",
        ),
        (
            ("root", "mine", "demo-1.0.zip", "--user=x"),
            1,
            "--user: repository 'mine' does not serve the user 'x'",
        ),
        (("bare", "mine", "demo-1.0.zip"), 1, "ROOT: 'bare' does not contain a repository 'mine'"),
    ],
)
def test_restore_name_tells_what_is_wrong(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("root", "bare", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("root", "bare"):
        (tmp_path / folder / "config.toml").write_text(CONFIG)
    (tmp_path / "root" / "cache" / "mine").mkdir(parents=True)
    (tmp_path / "root" / "cache" / "mine" / "storage_id").write_text("")
    ended = run("restore_name", *words)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.replace(f"{tmp_path}/", "").startswith(f"error: {sentence}")


def test_restore_name_leaves_the_index_of_another_configuration_or_user_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running server would lose its index, or could no longer write to it."""
    (tmp_path / "config.toml").write_text(CONFIG)
    path = tmp_path / "index" / "mine" / "index.sqlite"
    LocalIndex(path, identity="another").ready()
    before = path.read_bytes()
    words = ("restore_name", tmp_path, "mine", "demo-1.0.zip")
    ended = run(*words)
    assert ended.err.startswith(f"error: {path} is of another configuration of this repository")
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert run(*words).err.endswith("run this as the user of the server\n")
    assert path.read_bytes() == before
    assert not path.with_name("index.sqlite.old").exists()


def test_what_a_server_says_cannot_command_the_terminal(run: Run) -> None:
    class Hostile(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            is_done = self.path.endswith("/1.0/yank")
            said = {"files": ["\x1b[2Ja"]} if is_done else {"message": "red \x1b[31m\x9b\x00"}
            body = json.dumps(said).encode()
            self.send_response(200 if is_done else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = f"http://mine:w@127.0.0.1:{server.server_port}/simple/"
        assert run("yank", index, "demo", "2.0") == Ended(
            1, "", "error: the server answered 400: red \ufffd[31m\ufffd\ufffd\n"
        )
        assert run("yank", index, "demo", "1.0") == Ended(0, "yanked \ufffd[2Ja\n", "")
        server.shutdown()
