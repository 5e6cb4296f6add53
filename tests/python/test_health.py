"""Is it alive, is it ready: for clients that read the status and for clients that read the body."""
import json

import pytest


def test_the_server_is_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()


def test_a_tenant_is_ready_by_name_and_by_version(client):
    assert client.is_model_ready("mlp-0")
    assert client.is_model_ready("two-versions", "1")
    assert client.is_model_ready("two-versions", "2")


def test_an_unknown_tenant_or_version_is_not_ready(client):
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("two-versions", "3")


@pytest.mark.parametrize("path, key", [
    ("/v2/health/live", "live"),
    ("/v2/health/ready", "ready"),
    ("/v2/models/mlp-0/ready", "ready"),
])
def test_a_health_body_is_json_as_kserves_client_reads_it(server, path, key):
    status, body = server.get(path)
    assert status == 200
    assert json.loads(body)[key] is True
