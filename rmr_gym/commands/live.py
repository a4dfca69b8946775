"""`rmr-gym status --serve`: a page about a run at work, which renews itself."""

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd

from rmr_gym.commands.console import say
from rmr_gym.commands.experiments import estimate_lines, how_far
from rmr_gym.core.errors import RMRError
from rmr_gym.report.charts import CYCLE, Line, Panel, figure_bytes, lines
from rmr_gym.report.page import embedded, rendered
from rmr_gym.runs.status import FAILED, Planned, kinds
from rmr_gym.runs.store import RECORD

AXES: Any = {"across": "gradient step", "up": "loss", "log": 20.0}


def serve(folder: Path, port: int) -> None:
    """Serve the page of a run on this machine until Ctrl-C.

    Raises:
        RMRError: The folder holds no run, or the port cannot be had.
    """
    live_page(folder)
    drawing = Lock()  # matplotlib draws one figure at a time

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404, explain="the page of the run is at /, all else is nowhere")
                return
            with drawing:
                content = live_page(folder).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a browser asks every few seconds."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise RMRError(f"port {port} cannot be had ({error}): choose another --port") from error
    with server:
        say(f"{folder} is shown at http://127.0.0.1:{server.server_port}/ until Ctrl-C")
        server.serve_forever()


def live_page(folder: Path) -> str:
    """Return the page of a run as it is now.

    Raises:
        RMRError: The folder holds no run.
    """
    plan, states, known = how_far(folder)
    jobs = pd.DataFrame(states).assign(log=[str(job.log) for job in plan])
    values = {"folder": folder, "jobs": jobs, "failed": jobs[jobs.state == FAILED]}
    values |= {"kinds": kinds(states), "estimate": estimate_lines(known)}
    values |= {"figures": losses(plan), "headings": [], "opener": []}
    return rendered(serve, "live.html.j2", values)


def losses(plan: list[Planned]) -> dict[str, Any]:
    """Return the losses of the trainings that wrote last, a colour each, as one figure."""
    found: list[tuple[float, str, Line]] = []
    for job in plan:
        for path in (job.result / RECORD, job.result.with_name(f"{job.result.name}.part") / RECORD):
            with suppress(OSError, ValueError, KeyError, TypeError):
                curve = json.loads(path.read_bytes())["curve"]
                steps, heights = zip(*((row["step"], row["loss"]) for row in curve), strict=True)
                kind, line = job.title.split(" ")[0], Line(job.title, steps, heights)
                found.append((path.stat().st_mtime, kind, line))
    panels: dict[str, list[Line]] = {}
    found.sort(key=lambda part: part[0], reverse=True)
    for colour, (_, kind, line) in zip(CYCLE, found, strict=False):
        panels.setdefault(kind, []).append(line)
        line.style["color"] = colour
    if not panels:
        return {}
    figure = lines([Panel(kind, own, **AXES) for kind, own in panels.items()])
    return {"losses": embedded(figure, figure_bytes(figure, "svg"))}
