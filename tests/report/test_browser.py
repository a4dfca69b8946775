"""The page in a real browser, without a window: sorted, filtered, pointed at, nothing fetched."""

import json
import re
import subprocess
from html import unescape

from rmr_gym.experiments import write_report

SCRIPT = """<script>
const table = document.querySelector(".scroll table"), [head] = table.tHead.rows;
const column = [...head.cells].findIndex(cell => cell.textContent.startsWith("bit F1"));
const seen = row => row.className !== "group" && !row.hidden;
const pair = row => [row.cells[0].textContent, parseFloat(row.cells[column].textContent)];
const shown = () => [...table.tBodies[0].rows].filter(seen).map(pair);
const before = shown();
head.cells[column].click();
const up = shown();
head.cells[column].click();
const down = shown();
const filter = table.parentElement.previousElementSibling;
filter.value = "random";
filter.dispatchEvent(new Event("input"));
const kept = shown().map(([name]) => name);
const told = [];
for (const picture of document.querySelectorAll("img")) {
  const points = JSON.parse(picture.dataset.points), box = picture.getBoundingClientRect();
  for (const [x, y] of points.slice(0, 1)) {
    picture.dispatchEvent(new MouseEvent("mousemove", {
      clientX: box.left + 7 + x * (box.width - 14), clientY: box.top + 7 + y * (box.height - 14)}));
    const near = points.filter(([a, b]) => Math.hypot(a - x, b - y) < 0.01).map(point => point[2]);
    told.push([near, tip.textContent, tip.hidden]);
  }
  picture.dispatchEvent(new MouseEvent("mousemove", {clientX: box.left - 500, clientY: -500}));
  told.push(tip.hidden);
}
const fetched = performance.getEntriesByType("resource").map(entry => entry.name);
const outside = fetched.filter(name => !name.startsWith("data:"));
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({before, up, down, kept, told, fetched: outside});
document.body.append(answer);
</script></body>"""


def answered(browser, page, profile):
    """Run the script in a page; return its answer and what the console said."""
    command = [*browser, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.S)
    assert answer, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(answer[1])), console


def test_tables_sort_and_filter_charts_tell_values_and_nothing_is_fetched(
    make_run, tmp_path, browser
):
    page, _ = write_report(make_run(seeds=2, games=("Pong",)))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", SCRIPT), encoding="utf-8")
    answer, console = answered(browser, page, tmp_path / "profile")
    assert console == []
    assert answer["fetched"] == []
    scores = [score for _, score in answer["up"]]
    assert scores == sorted(scores)
    assert [score for _, score in answer["down"]] == sorted(scores, reverse=True)
    assert sorted(answer["up"]) == sorted(answer["before"])
    assert answer["kept"] == ["frozen random P"]
    told = [words for words in answer["told"] if isinstance(words, list)]
    assert len(told) >= 4
    assert all(shown in near and not hidden for near, shown, hidden in told)
    assert all(hidden for hidden in answer["told"] if isinstance(hidden, bool))
