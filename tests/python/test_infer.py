"""Answers over HTTP, by the synchronous client, against PyTorch's.

1e-5 relative L2: onnxruntime stands within 5e-7 of the same answers, and another order of summation may cost a digit.
"""
import json

import numpy as np
import pytest
import tritonclient.http as http
from conftest import CASES, MINILM, infer_inputs, relative_l2

TOLERANCE = 1e-5
SETS = [(name, at) for name, case in CASES.items() for at in range(len(case.sets))]


def ask(client, tenant, arrays, binary_in=True, binary_out=True, outputs=("output",), **more):
    wanted = [http.InferRequestedOutput(name, binary_data=binary_out) for name in outputs]
    return client.infer(tenant, infer_inputs(http, arrays, binary_in), outputs=wanted, **more)


@pytest.mark.parametrize("name, at", SETS)
def test_every_case_answers_as_pytorch_does_in_binary_and_json(client, name, at):
    asked, expected = CASES[name].sets[at]
    binary = ask(client, name, asked, outputs=expected)
    for output, array in expected.items():
        answer = binary.as_numpy(output)
        assert answer.shape == array.shape
        assert relative_l2(answer, array) < TOLERANCE
    # One decimal spelling must bring back the same float: what travels as JSON is the same to the bit.
    for binary_in, binary_out in ((True, False), (False, True), (False, False)):
        result = ask(client, name, asked, binary_in, binary_out, outputs=expected)
        for output in expected:
            np.testing.assert_array_equal(result.as_numpy(output), binary.as_numpy(output), strict=True)


@pytest.mark.parametrize("name", CASES)
def test_one_item_answers_the_same_bits_as_within_several(client, name):
    asked, expected = CASES[name].sets[0]
    together = ask(client, name, asked, outputs=expected)
    for item in range(len(next(iter(asked.values())))):
        alone = ask(client, name, {k: v[item:item + 1] for k, v in asked.items()}, outputs=expected)
        for output in expected:
            np.testing.assert_array_equal(alone.as_numpy(output)[0], together.as_numpy(output)[item])


def test_with_no_outputs_asked_for_all_come_back(client):
    asked, expected = CASES["mlp-0"].sets[0]
    result = client.infer("mlp-0", infer_inputs(http, asked))
    assert [output["name"] for output in result.get_response()["outputs"]] == list(expected)
    assert relative_l2(result.as_numpy("output"), expected["output"]) < TOLERANCE


def test_the_request_id_comes_back(client):
    asked, _ = CASES["mlp-0"].sets[0]
    response = ask(client, "mlp-0", asked, request_id="seven").get_response()
    assert response["id"] == "seven"
    assert response["model_name"] == "mlp-0"


def test_a_version_is_served_by_its_number_and_the_newest_by_default(client):
    asked, _ = CASES["mlp-0"].sets[0]
    first, second = CASES["mlp-0"].sets[0][1]["output"], CASES["mlp-1"].sets[0][1]["output"]
    # Both tenants were asked different questions by PyTorch: only mlp-0's answer to this one is known.
    assert relative_l2(ask(client, "two-versions", asked, model_version="1").as_numpy("output"), first) < TOLERANCE
    other, _ = CASES["mlp-1"].sets[0]
    assert relative_l2(ask(client, "two-versions", other, model_version="2").as_numpy("output"), second) < TOLERANCE
    assert relative_l2(ask(client, "two-versions", other).as_numpy("output"), second) < TOLERANCE


def test_the_callback_style_client_gets_its_own_answers(client, server):
    with http.InferenceServerClient(server.url, concurrency=4, network_timeout=120) as pooled:
        pending = [(name, pooled.async_infer(name, infer_inputs(http, CASES[name].sets[0][0])))
                   for name in ("mlp-0", "mlp-1", "lstm-0", "lstm-1") * 4]
        for name, request in pending:
            answer = request.get_result().as_numpy("output")
            assert relative_l2(answer, CASES[name].sets[0][1]["output"]) < TOLERANCE


@pytest.mark.skipif(not (MINILM / "model.safetensors").is_file(), reason="MiniLM's weights are absent: scripts/fetch-minilm")
def test_minilm_tells_which_sentences_mean_the_same(client):
    reference = dict(np.load(MINILM / "reference.npz"))
    asked = {k.removeprefix("in."): v for k, v in reference.items() if k.startswith("in.")}
    embedding = ask(client, "minilm", asked, outputs=("embedding",)).as_numpy("embedding")
    assert relative_l2(embedding, reference["out.embedding"]) < TOLERANCE
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    expected = json.loads((MINILM / "reference.json").read_text())["cosine"]
    np.testing.assert_allclose(unit @ unit.T, expected, atol=1e-5)
