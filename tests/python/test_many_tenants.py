"""Many tenants at once by the asyncio client: shared launches must mix work and never answers."""
import asyncio

import numpy as np
import tritonclient.http.aio as aio
from conftest import CASES, infer_inputs, relative_l2

TENANTS = [name for name in CASES if name.startswith(("mlp-", "lstm-", "block_", "bert_tiny-"))]
ROUNDS = 12


async def ask(client, tenant, arrays):
    result = await client.infer(tenant, infer_inputs(aio, arrays))
    return result.as_numpy("output")


async def alone_then_together(url):
    questions = [(name, at) for name in TENANTS for at in range(len(CASES[name].sets))]
    async with aio.InferenceServerClient(url, conn_limit=64, conn_timeout=120) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert all([await client.is_model_ready(name) for name in TENANTS])
        alone = {q: await ask(client, q[0], CASES[q[0]].sets[q[1]][0]) for q in questions}
        order = [questions[i % len(questions)] for i in np.random.default_rng(7).permutation(len(questions) * ROUNDS)]
        together = await asyncio.gather(*(ask(client, name, CASES[name].sets[at][0]) for name, at in order))
    return alone, list(zip(order, together))


def test_each_answer_is_its_own_tenants_and_bitwise_the_same_alone_and_among_others(server):
    alone, together = asyncio.run(alone_then_together(server.url))
    for (name, at), answer in alone.items():
        assert relative_l2(answer, CASES[name].sets[at][1]["output"]) < 1e-5
    for question, answer in together:
        np.testing.assert_array_equal(answer, alone[question], strict=True, err_msg=str(question))


def test_tenants_of_one_class_asked_the_same_question_answer_differently(server):
    async def same_question():
        async with aio.InferenceServerClient(server.url) as client:
            asked = CASES["mlp-0"].sets[0][0]
            return await asyncio.gather(*(ask(client, f"mlp-{i}", asked) for i in range(4)))

    answers = asyncio.run(same_question())
    assert relative_l2(answers[0], CASES["mlp-0"].sets[0][1]["output"]) < 1e-5
    for at, answer in enumerate(answers[1:], 1):
        assert relative_l2(answer, answers[0]) > 1e-2, f"mlp-{at} answers as mlp-0 does: weights are mixed up"
