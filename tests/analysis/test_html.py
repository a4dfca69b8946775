import base64

from rmr_gym.analysis import html
from rmr_gym.analysis.html import Entry, Group


def test_tables_escape_every_cell_and_head_their_rows():
    found = html.table(("a<", "b"), [Group("g&"), ("x>", Entry("y<", "quiet"))], "c<")
    assert '<th scope="col">a&lt;</th><th scope="col">b</th>' in found
    assert '<tr class="group"><th colspan="2">g&amp;</th></tr>' in found
    assert '<th scope="row">x&gt;</th><td class="quiet">y&lt;</td>' in found
    assert "<caption>c&lt;</caption>" in found


def test_text_blocks_are_escaped():
    for made in (
        html.bullets(["<b>"]),
        html.definitions([("<b>", "<b>")]),
        html.paragraph("<b>"),
        html.heading("<b>"),
    ):
        assert "<b>" not in made
        assert "&lt;b&gt;" in made


def test_pictures_live_in_the_page_with_words_for_who_cannot_see_them():
    found = html.picture(b"abc", "png", 'a "picture"')
    assert f"data:image/png;base64,{base64.b64encode(b'abc').decode()}" in found
    assert 'alt="a &quot;picture&quot;"' in found
