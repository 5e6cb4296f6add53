"""What a caller hears who asks wrongly; and that nobody else is disturbed."""
import asyncio

import numpy as np
import pytest
import tritonclient.http as http
import tritonclient.http.aio as aio
from conftest import CASES, infer_inputs, relative_l2
from tritonclient.utils import InferenceServerException

GOOD = CASES["mlp-0"].sets[0][0]["x"]


@pytest.fixture(autouse=True)
def the_server_answers_rightly_afterwards(client):
    yield
    assert client.is_server_live()
    answer = client.infer("mlp-0", infer_inputs(http, {"x": GOOD})).as_numpy("output")
    assert relative_l2(answer, CASES["mlp-0"].sets[0][1]["output"]) < 1e-5


def refused(client, status, tenant, inputs, *words, **more):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(tenant, inputs, **more)
    assert caught.value.status() == str(status), caught.value.message()
    for word in words:
        assert word in caught.value.message()


def test_an_unknown_tenant_is_named(client):
    refused(client, 404, "nobody", infer_inputs(http, {"x": GOOD}), "nobody")


def test_an_unknown_version_is_named(client):
    refused(client, 404, "two-versions", infer_inputs(http, {"x": GOOD}), "two-versions", "3", model_version="3")


def test_an_unknown_tenants_metadata_is_an_error_that_names_it(client):
    with pytest.raises(InferenceServerException, match="nobody") as caught:
        client.get_model_metadata("nobody")
    assert caught.value.status() == "404"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3, 63), (3, 64, 1), (64,), (3, 0)])
def test_a_wrong_shape_is_refused_with_the_input_and_what_was_expected(client, shape, binary):
    wrong = {"x": np.ones(shape, np.float32)}
    refused(client, 400, "mlp-0", infer_inputs(http, wrong, binary), "x", "64")


def test_a_wrong_datatype_is_refused_with_both(client):
    refused(client, 400, "mlp-0", infer_inputs(http, {"x": np.ones((3, 64), np.int64)}), "x", "INT64", "FP32")


def test_a_wrong_input_name_is_named(client):
    refused(client, 400, "mlp-0", infer_inputs(http, {"pixels": GOOD}), "pixels")


def test_a_missing_input_is_named(client):
    ids = CASES["bert_tiny-0"].sets[0][0]["input_ids"]
    refused(client, 400, "bert_tiny-0", infer_inputs(http, {"input_ids": ids}), "attention_mask")


def test_inputs_that_disagree_on_a_free_dimension_are_refused(client):
    asked = CASES["bert_tiny-0"].sets[0][0]
    short = {"input_ids": asked["input_ids"], "attention_mask": asked["attention_mask"][:, :-1]}
    refused(client, 400, "bert_tiny-0", infer_inputs(http, short), "attention_mask")


def test_an_unknown_output_is_named(client):
    wanted = [http.InferRequestedOutput("nothing")]
    refused(client, 400, "mlp-0", infer_inputs(http, {"x": GOOD}), "nothing", outputs=wanted)


@pytest.mark.parametrize("token", [-1001, 10**6, np.iinfo(np.int64).min])
def test_a_token_out_of_range_is_an_error_for_that_request(client, token):
    asked = CASES["bert_tiny-0"].sets[0][0]
    ids = asked["input_ids"].copy()
    ids[1, 3] = token
    refused(client, 400, "bert_tiny-0", infer_inputs(http, asked | {"input_ids": ids}), str(token))


@pytest.mark.parametrize("binary", [True, False])
def test_fewer_values_than_the_shape_says_are_refused(client, binary):
    short = http.InferInput("x", [3, 64], "FP32")
    short.set_data_from_numpy(GOOD, binary_data=binary)
    short.set_shape([4, 64])
    refused(client, 400, "mlp-0", [short], "x")


@pytest.mark.parametrize("shape", [[-3, 64], [2**62, 64]])
def test_a_negative_or_overflowing_dimension_is_refused(client, shape):
    tensor = http.InferInput("x", [3, 64], "FP32")
    tensor.set_data_from_numpy(GOOD)
    tensor.set_shape(shape)
    refused(client, 400, "mlp-0", [tensor], "x")


def test_a_bad_request_among_good_ones_spoils_only_itself(server):
    async def mixed():
        async with aio.InferenceServerClient(server.url, conn_timeout=120) as client:
            asks = [client.infer("mlp-0", infer_inputs(aio, {"x": GOOD if i % 3 else GOOD[:, :60]})) for i in range(60)]
            return await asyncio.gather(*asks, return_exceptions=True)

    for at, result in enumerate(asyncio.run(mixed())):
        if at % 3:
            assert relative_l2(result.as_numpy("output"), CASES["mlp-0"].sets[0][1]["output"]) < 1e-5
        else:
            assert isinstance(result, InferenceServerException)
            assert result.status() == "400"
