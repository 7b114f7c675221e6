import jinja2
import pytest

from onsight.display import page


@pytest.fixture
def _page(tmp_path, monkeypatch):
    (tmp_path / "page.j2").write_text("<p>{{ name }} {{ count | words }}</p>")
    monkeypatch.setattr(page, "TEMPLATES", tmp_path)


@pytest.mark.usefixtures("_page")
def test_values_and_filter_results_are_escaped():
    filters = {"words": lambda count: f"<{count}>"}
    assert page.fill("page.j2", filters, name="<b>", count=3) == "<p>&lt;b&gt; &lt;3&gt;</p>"


@pytest.mark.usefixtures("_page")
def test_a_missing_value_raises():
    with pytest.raises(jinja2.UndefinedError):
        page.fill("page.j2", {"words": str}, count=3)


def test_commands_break_at_spaces_and_after_slashes_only():
    text = "onsight train 'a/<b>' --epochs 3"
    found = page.whole_words(text)
    assert found.striptags() == text
    assert (
        '<span class="whole"><span class="whole">&#39;a/</span><span class="whole">&lt;b&gt;&#39;</span></span>'
        in found
    )
    assert '<span class="whole">--epochs</span> 3' in found


def test_a_template_is_compiled_once(monkeypatch):
    first = page.fill("label.html.j2", {})
    monkeypatch.setattr(jinja2.Environment, "compile", lambda *_, **__: pytest.fail("compiled again"))
    assert page.fill("label.html.j2", {}) == first
