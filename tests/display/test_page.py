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
