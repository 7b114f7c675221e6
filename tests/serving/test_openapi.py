from onsight.serving.app import routes
from onsight.serving.bodies import Bodies
from onsight.serving.metrics import Metrics
from onsight.serving.models import Models
from onsight.serving.openapi import ENDPOINTS, STATUSES, description


def test_every_address_is_described_and_every_description_has_an_address(runs):
    models = Models([str(runs / "toy")], False, print)
    found = {
        (method.lower(), route.path)
        for route in routes(models, Bodies(), Metrics())
        for method in route.methods - {"HEAD"}
        if "{version}" not in route.path and not route.path.startswith("/page.") and route.path != "/"
    }
    assert found == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


def test_references_resolve_and_answers_fit_the_schema(server, red):
    content = server("GET", "/openapi.json")[2]
    assert content == description()
    schemas = content["components"]["schemas"]

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    named = {*references(content)}
    assert named
    assert {name.removeprefix("#/components/schemas/") for name in named} <= {*schemas}
    assert {*server.predict(red)[2]} == {*schemas["Answer"]["properties"]}
    assert {*server.predict(b"x")[2]["error"]} == {*schemas["Problem"]["properties"]}


def test_the_documentation_names_every_address_and_status(server):
    text = server("GET", "/docs")[2].decode()
    for endpoint in ENDPOINTS:
        assert f"{endpoint.method.upper()} {endpoint.path}" in text
    assert all(f"<code>{code}</code>" in text for code in STATUSES)
    assert "http://" not in text.replace("http://127.0.0.1", "")
