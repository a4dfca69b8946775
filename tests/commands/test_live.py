"""The page of a run at work, as it is served."""

import json
import queue
import re
import subprocess
import threading
from http.server import ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from rmr_gym.commands import live
from rmr_gym.commands.experiments import status
from rmr_gym.core.errors import RMRError

CURVE = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]


@pytest.fixture
def at_work(tmp_path):
    """A run of which one job is done, one failed, one is at work and one waits."""
    for name in ("done.x", "failed.x", "going.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "done.x" / "record.json").write_text(json.dumps({"seconds": 5, "curve": CURVE}))
    (tmp_path / "going.part" / "record.json").write_text(json.dumps({"curve": CURVE[:2]}))
    (tmp_path / "failed.x.failed").write_text("Traceback ...\nRMRError: <broken> on purpose")
    (tmp_path / "failed.x.attempts").write_text("started\n")
    results = {"train Pong 0": "done.x", "train Pong 1": "failed.x", "train Pong 2": "going"}
    results["probe Pong"] = "later"
    jobs = [{"title": job, "result": str(tmp_path / name)} for job, name in results.items()]
    (tmp_path / "plan.json").write_text(json.dumps(jobs))
    return tmp_path


@pytest.fixture
def served(at_work, monkeypatch):
    """Serve the page; give its address."""
    started = queue.Queue()

    class Server(ThreadingHTTPServer):
        def serve_forever(self):
            started.put(self)
            super().serve_forever()

    monkeypatch.setattr(live, "ThreadingHTTPServer", Server)
    thread = threading.Thread(target=status, args=(at_work, True, 0))
    thread.start()
    server = started.get(timeout=60)
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(timeout=60)


def text_of(address):
    with urlopen(address, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        return answer.read().decode()


def test_progress_failures_time_and_curves_are_shown(served, at_work):
    page = text_of(served)
    assert "1 done, 1 failed, 2 waiting; spent 5.0 s of one core" in page
    assert '<progress max="4" value="1">' in page
    assert "RMRError: &lt;broken&gt; on purpose" in page
    assert "failed.x.log" in page
    assert 'http-equiv="refresh"' in page
    assert page.count("<figure>") == 1
    points = re.findall('data-points="([^"]*)"', page)[0]
    assert "Pong 0 3: 0.3333" in points
    assert "Pong 2 2: 0.5" in points
    assert "Pong 2 3" not in points
    (at_work / "later").mkdir()
    (at_work / "later" / "record.json").write_text('{"seconds": 1}')
    assert '<progress max="4" value="2">' in text_of(served)


def test_what_is_not_there_gets_a_sentence(served):
    with pytest.raises(HTTPError, match="404") as refused:
        urlopen(f"{served}secret.txt", timeout=60)
    assert "the page of the run is at /" in refused.value.read().decode()


def test_a_run_without_any_training_has_a_page(at_work):
    jobs = [{"title": "probe Pong", "result": str(at_work / "later")}]
    (at_work / "plan.json").write_text(json.dumps(jobs))
    assert "<figure>" not in live.live_page(at_work)


def test_a_folder_or_port_that_cannot_be_served_is_said(at_work, tmp_path_factory):
    with pytest.raises(RMRError, match="holds no run"):
        status(tmp_path_factory.mktemp("empty"), serve=True)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), None) as other,
        pytest.raises(RMRError, match=r"cannot be had \(.*in use\): choose another --port"),
    ):
        status(at_work, serve=True, port=other.server_port)
    with pytest.raises(RMRError, match="port 123456 cannot be had"):
        status(at_work, serve=True, port=123456)


def test_a_browser_shows_the_page_and_asks_for_nothing_else(served, tmp_path, browser):
    command = [*browser, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", served]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "1 done, 1 failed, 2 waiting" in done.stdout
    assert '<div id="tip" hidden=""></div>' in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
