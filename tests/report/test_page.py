import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects headings, text, tags; fails on a tag that closes what is not open."""

    def __init__(self, source):
        super().__init__()
        self.open, self.headings, self.seen, self.words, self.links = [], [], [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_whole_report(make_run):
    folder = make_run(seeds=5, games=("Pong",), effect={"rmr": -0.02})
    path, _ = write_report(folder)
    assert path == folder / "report.html"
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert page.headings == [
        "What the numbers say",
        "Probes over training",
        "Training curves",
        "Frames and their RAM",
        "Natural pipeline",
        "Paired tests",
        "Checkpoints and probes",
        "Abstract pipeline",
        "How to read this",
        "What was run",
    ]
    assert [link for link in page.links if link[0] == "#"] == [f"#s{n}" for n in range(10)]
    assert re.findall(r'<section id="(s\d+)">', source) == [f"s{n}" for n in range(10)]
    words = " ".join(page.words)
    assert "▼ worse" in words
    assert "rmr-gym compare --games Pong Freeway --preset smoke" in words
    assert "ab12" * 16 in words
    assert "5 min 00 s" in words
    assert "Linux <x86_64> & more" in words
    saved = sorted(file.name for file in (folder / "figures").iterdir())
    assert len(saved) == page.seen.count("img") == 8
    assert {"abstract_loss.svg", "f1_and_rank_ridge.svg", "frames_Pong.png"} <= set(saved)
    assert (folder / "natural_summary.csv").is_file()


def test_a_report_opens_with_its_headline_and_first_figure(make_run):
    source = write_report(make_run(seeds=5, games=("Pong",)))[0].read_text(encoding="utf-8")
    opening, _, rest = source.partition("<nav>")
    assert '<p class="headline"><b>RMR (frozen P) against C-SWM (P trained):</b>' in opening
    assert opening.count("<figure>") == 1
    (caption,) = re.findall("<figcaption>(.*)</figcaption>", opening)
    assert caption.startswith("Bit F1 of each arm minus C-SWM")
    assert caption not in rest
    assert rest.rindex("<figure>") < rest.index("<table>")


def test_charts_hold_the_values_that_they_show(make_run):
    source = write_report(make_run(seeds=2, games=("Pong",)))[0].read_text(encoding="utf-8")
    points = [json.loads(unescape(text)) for text in re.findall('data-points="([^"]*)"', source)]
    assert all(0 <= x <= 1 and 0 <= y <= 1 for figure in points for x, y, _ in figure)
    assert any(words.startswith("RMR (frozen P): ") for _, _, words in points[0])


def test_the_page_needs_no_network_and_repeats_byte_for_byte(make_run, tmp_path):
    folder = make_run(seeds=1, games=("Pong",))
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    first = write_report(folder)[0].read_text(encoding="utf-8")
    page = Page(first)
    assert all(link.startswith(("data:image/", "#s")) for link in page.links)
    assert page.seen.count("script") == 1
    assert not re.search(r"@import|url\(", first)
    assert (
        write_report(other, tmp_path / "out" / "page.html")[0].read_text(encoding="utf-8") == first
    )
    assert (tmp_path / "out" / "figures" / "abstract_loss.svg").is_file()


def test_what_comes_from_files_is_escaped(make_run):
    evil = "<script>alert('x')</script>"
    folder = make_run(
        seeds=1,
        games=(evil,),
        drop=("abstract_curves.csv", "natural_curves.csv", "frames.npz"),
        info={"command": evil, "versions": {evil: evil}, "datasets": {evil: {evil: evil}}},
    )
    table = pd.read_csv(folder / "natural.csv")
    table[table["arm"].isin(["rmr", "cswm"])].assign(
        objective=evil, probe=table["probe"].replace("ridge", evil)
    ).replace({"arm": {"rmr": evil}}).to_csv(folder / "natural.csv", index=False)
    page = Page(write_report(folder)[0].read_text(encoding="utf-8"))
    assert page.seen.count("script") == 1
    assert any(evil in words for words in page.words)
    assert all(re.fullmatch(r"[\w.-]+", file.name) for file in (folder / "figures").iterdir())


@pytest.mark.parametrize(
    "kept", [("run.json",), ("abstract.csv",), ("natural.csv",), ("timings.csv", "run.json")]
)
def test_partial_runs_still_have_a_report(make_run, kept):
    folder = make_run(seeds=1, games=("Pong",))
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()
    page = Page(write_report(folder)[0].read_text(encoding="utf-8"))
    assert ("Unfinished" in page.headings) == ("natural.csv" not in kept)
    assert ("Natural pipeline" in page.headings) == ("natural.csv" in kept)
    assert ("Abstract pipeline" in page.headings) == ("abstract.csv" in kept)
    assert ("What was run" in page.headings) == bool({"run.json", "timings.csv"} & set(kept))


def test_no_run_no_page(tmp_path):
    with pytest.raises(RMRError, match="is not a run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_abstract_models_alone(make_run):
    drop = ("natural.csv", "natural_curves.csv", "frames.npz")
    folder = make_run(seeds=2, drop=drop, info={"kind": "table2"})
    path, short = write_report(folder)
    headings = Page(path.read_text(encoding="utf-8")).headings
    assert headings == [
        "What the numbers say",
        "Table 2: abstract models beside the paper",
        "Abstract pipeline",
        "Training curves",
        "What was run",
    ]
    assert "above the copy baseline's" in short


def test_an_unknown_kind_lists_those_there_are(make_run):
    folder = make_run(seeds=1, info={"kind": "tranfser"})
    with pytest.raises(RMRError, match=r"choose one of .*compare"):
        write_report(folder)
